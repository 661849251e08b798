"""The account of what is learned from: in a run's folder, and on the screen without training."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from trainers import data, sft
from trainers.data import SFTDataArguments, __main__, account


@pytest.fixture
def examples(write_jsonl, make_item):
    rows = [make_item(n) for n in range(30)]
    general = {"source": write_jsonl([{"question": "Why?", "answer": "So."}], "general.jsonl"), "replay": True}
    path = write_jsonl([*rows, rows[0], {"text": "x"}])
    args = SFTDataArguments([path, json.dumps(general)], decontaminate=False, skip_faulty=True)
    return data.sft_examples(args, 1)


def test_rows_are_told_by_source_and_reason(examples, base):
    about = data.summary(examples, AutoTokenizer.from_pretrained(base), max_length=80)
    items, general = about["sources"]
    assert (items["read"], items["usable"], items["drawn"]) == (32, 30, 30)
    assert items["dropped"] == {"duplicates": 1, "faulty": 1} and general["dropped"] == {}
    assert general["replay"] and about["notes"] == {"replay": 1}
    assert about["counts"] == examples.counts and about["fingerprint"] == examples.fingerprint
    assert json.loads(json.dumps(about)) == about


def test_tokens_are_those_that_are_learned(examples, base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokens = data.summary(examples, tokenizer, 80)["tokens"]
    lengths = [data.count_tokens(row, tokenizer) for row in examples.rows]
    assert tokens["whole"]["total"] == sum(lengths) == tokens["prompt"]["total"] + tokens["completion"]["total"]
    assert tokens["whole"]["quantiles"]["1.0"] == max(lengths)
    assert sum(tokens["whole"]["histogram"].values()) == 31
    for most, n in tokens["whole"]["histogram"].items():
        least = int(most) // 2 if int(most) > account.SMALLEST else 0
        assert n == sum(least < length <= int(most) for length in lengths)
    above = data.summary(examples, tokenizer, 80)["above_max_length"]
    assert above == pytest.approx(sum(length > 80 for length in lengths) / 31, abs=1e-6)


@pytest.mark.parametrize("chat", [False, True])
def test_counts_in_batches_are_those_one_by_one(write_jsonl, make_item, base, chat):
    tokenizer = AutoTokenizer.from_pretrained(base)
    path = write_jsonl([make_item(n) for n in range(5)])
    for row in data.sft_examples(SFTDataArguments([path], chat=chat, decontaminate=False), 1).rows:
        whole = row["prompt"] + row["completion"]
        if chat:
            expected = len(tokenizer.apply_chat_template(whole, return_dict=True)["input_ids"])
        else:
            expected = len(tokenizer(whole)["input_ids"]) + 1
        assert data.count_tokens(row, tokenizer) == expected


def test_a_run_keeps_the_account_and_what_was_dropped(recipe_file, write_jsonl, make_item):
    path = recipe_file(sources=[write_jsonl([make_item(0), make_item(1), make_item(0)], "twice.jsonl")])
    assert sft.main(["--config", path]) == 0
    out = Path(json.loads(Path(path).read_text())["output_dir"])
    about = json.loads((out / "data.json").read_text())
    assert about["counts"]["used"] == 2 and about["tokens"]["whole"]["total"] > 0
    [dropped] = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert dropped["reason"] == "duplicates" and dropped["place"].endswith("twice.jsonl:3")


def test_a_recipe_is_shown_without_training(recipe_file, capsys, tmp_path, write_jsonl, make_item):
    source = {"source": write_jsonl([make_item(n) for n in range(16)]), "replay": True}
    assert __main__.main(["--config", recipe_file(sources=[source]), "--show", "2"]) == 0
    said = capsys.readouterr().out
    assert "items.jsonl (replay)" in said and "used" in said and "tokens of prompt" in said
    assert said.count("-->") == 2 and "Question: Case 0" in said and "Question: Case 8" in said
    assert any("<=" in line and "#" in line for line in said.splitlines())
    assert not (tmp_path / "out").exists()


def test_what_is_held_out_is_in_the_account(recipe_file, capsys, write_jsonl, make_item):
    dev = write_jsonl([make_item(n) for n in (3, 4, 99)], "dev.jsonl")
    assert __main__.main(["--config", recipe_file(dev_sources=[dev])]) == 0
    said = capsys.readouterr().out
    assert "examples: 14 used" in said and "2 held out" in said and "held out: 3" in said


def test_the_account_as_json(recipe_file, capsys):
    assert __main__.main(["--config", recipe_file(), "--json", "--max_length", "128"]) == 0
    about = json.loads(capsys.readouterr().out)["sft"]
    assert about["max_length"] == 128 and about["counts"]["used"] == 16


def test_both_stages_of_msft_are_shown(recipe_file, tmp_path, capsys):
    cpt = recipe_file("cpt.yaml", corpus=["sample:5"])
    recipe = {"cpt": cpt, "sft": recipe_file("sft.yaml"), "output_dir": str(tmp_path / "both")}
    (tmp_path / "msft.yaml").write_text(json.dumps(recipe))
    assert __main__.main(["--config", str(tmp_path / "msft.yaml"), "--show", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("cpt\n") and "\nsft\n" in said and "sample:5" in said
