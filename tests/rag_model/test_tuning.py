"""Tuning: what is chosen by, what is chosen, and that a run with it does what the grid says."""

import json
import os

import numpy as np
import pytest
from lm_eval.api.instance import Instance
from rag_doubles import Recorder

from medtasks import benchmarks, contamination, mcq
from medtasks.errors import InputError
from rag_model import rag_command
from rag_model.answering import parse
from rag_model.lm import RAG
from rag_model.tuning import choice, dev
from rag_model.tuning.grid import Grid, Outcome, closed, outcome
from rag_model.tuning.scores import Base, Scores

PLAIN = Base("question", 1, False)
STAYS = {"search": "bm25", "order": "best_first"}
"""Arguments of `rag` that are not tuned here."""
GIVEN = {"flavour": "plain"} | STAYS


# By which items


def test_dev_items_are_of_splits_that_nothing_is_measured_on():
    data = dev.load(["medqa", "medmcqa", "mmlu_med", "pubmedqa_star"])
    assert {name: own.splits for name, own in data.items()} == {
        "medqa": ("validation",),
        "medmcqa": ("train",),
        "mmlu_med": ("validation",),
        "pubmedqa_star": ("train",),
    }
    for name, own in data.items():
        tests = {item["id"] for item in benchmarks.load(name, "test")}
        assert own.items and not tests & {item["id"] for item in own.items}
    several = dev.load(["mmlu_med", "medmcqa"], ["validation", "train"])
    assert several["mmlu_med"].splits == ("validation", "train") and several["medmcqa"].splits == ("train",)


def test_an_item_that_holds_a_test_item_is_left_out(monkeypatch):
    [leaked, *_] = dev.load(["medqa"])["medqa"].items
    whole = contamination.Overlap
    monkeypatch.setattr(contamination, "Overlap", lambda items: whole([*items, leaked]))
    own = dev.load(["medqa"])["medqa"]
    assert own.left_out == 1 and leaked["id"] not in own.record["ids"]


def test_a_limit_draws_the_same_items_every_time():
    one, two = (dev.load(["medmcqa"], limit=5)["medmcqa"] for _ in range(2))
    assert one.record == two.record and len(one.items) == one.record["items"] == 5
    assert one.items != dev.load(["medmcqa"])["medmcqa"].items[:5]


@pytest.mark.parametrize(
    ("names", "splits", "message"),
    [
        (["medqa"], ["test"], "test is for measuring, and nothing may be chosen by it"),
        (["medqa", "nonesuch"], [], "unknown benchmark 'nonesuch'"),
        (["medmcqa"], ["validation"], "medmcqa: no split validation; those to choose by are: train"),
    ],
)
def test_other_splits_are_refused(names, splits, message):
    with pytest.raises(InputError, match=message):
        dev.load(names, splits)


# What is chosen


def made(correct, base=PLAIN, mode="always", **settings):
    """A setting that answers the items of two tasks so."""
    found = {task: np.array(own, dtype=float) for task, own in zip("ab", correct, strict=True)}
    return Outcome(base, parse(mode, **settings), found, dict.fromkeys(found, 1.0))


TRIED = Grid(["question", "question+options"], [1, 3], gate_margin=[1.0], w=[0.5])


def simplicity(one):
    return TRIED.simplicity(one.base, one.mode)


def test_tasks_count_alike_and_errors_are_those_of_independent_samples():
    values = {"a": np.array([1.0, 0, 0, 0]), "b": np.array([1.0, 1])}
    accuracy, error = choice.mean(values)
    assert accuracy == pytest.approx((0.25 + 1) / 2)
    assert error == pytest.approx(np.hypot(0.5 / np.sqrt(4), 0) / 2)


def test_the_simplest_within_one_paired_standard_error_is_chosen():
    base = [1, 0] * 50
    plain, three = made([base, base]), made([base, base], Base("question", 3, False))
    lucky = made([[*base[:-1], 1], base], mode="mix", w=0.5)  # one item more
    sure = made([[1, 0, 1, 1] * 25, base], mode="mix", w=0.5)  # 25 more, none lost
    assert choice.best([plain, three, lucky], simplicity) is lucky
    assert choice.chosen([lucky, three, plain], simplicity) is plain
    assert choice.chosen([sure, three, plain], simplicity) is sure


def test_simplicity_counts_steps_then_passages_then_queries():
    order = [
        made([[1], [1]]),
        made([[1], [1]], Base("question+options", 1, False)),
        made([[1], [1]], Base("question", 3, False)),
        made([[1], [1]], mode="mix", w=0.5),
        made([[1], [1]], mode="gate+mix", w=0.5, gate_margin=1.0),
    ]
    assert sorted(reversed(order), key=simplicity) == order


def test_of_equals_the_better_and_then_the_simpler_is_best():
    plain, three = made([[1, 0], [1, 0]]), made([[1, 0], [1, 0]], Base("question", 3, False))
    assert choice.best([three, plain], simplicity) is plain


def test_the_grid_holds_every_step_and_leaving_it_out():
    tried = Grid(["question"], [1, 3], [0.5, 1.0], [1.0], [0.25, 0.75], per_passage=True)
    assert tried.bases == [Base("question", 1, False), Base("question", 3, False), Base("question", 3, True)]
    modes = list(tried.modes(tried.bases[-1]))
    assert len(modes) == len(set(modes)) == 3 * 2 * 3 and all(mode.per_passage for mode in modes)
    assert next(iter(tried.modes(PLAIN))) == parse("always")


def test_an_outcome_gates_each_item():
    scores = Scores(
        closed=np.array([[-1.0, -5.0], [-1.0, -1.5]]),
        opened=np.array([[[-5.0, -1.0]], [[-5.0, -1.0]]]),
        neutral=np.zeros((2, 1, 2)),
        weights=np.zeros((2, 1)),
        gold=np.array([0, 1]),
    )
    found = outcome(PLAIN, parse("gate", gate_margin=1.0), {"t": scores})
    assert found.correct["t"].tolist() == [1, 1] and found.opened == {"t": 0.5}
    assert closed({"t": scores}).correct["t"].tolist() == [1, 0]
    assert outcome(PLAIN, parse("always"), {"t": scores}).correct["t"].tolist() == [0, 1]


# The command


@pytest.fixture(scope="module")
def tuned(little_index, tmp_path_factory):
    """The file of `medadapt rag tune` over the sample's dev items, with a model that answers at random."""
    file = tmp_path_factory.mktemp("tuned") / "tuned.json"
    run_tune(little_index, file)
    return file


def run_tune(index, file, *more):
    arguments = [
        "tune",
        "--index",
        str(index),
        "--inner",
        "recorder",
        "--model_args",
        ",".join(f"{name}={value}" for name, value in GIVEN.items()),
    ]
    arguments += ["--tasks", "medqa,pubmedqa", "--k", "1", "3", "--query", "question", "--gate_margin", "200", "500"]
    arguments += ["--w", "0.5", "--calibration", "1", "--per_passage", "--out", str(file), *more]
    assert rag_command.rag(arguments) == 0


def answered_right(settings, index, benchmark):
    """Accuracy of `rag` with these settings on a benchmark's dev items."""
    items = dev.load([benchmark])[benchmark].items
    requests = [
        Instance("loglikelihood", item, (mcq.render(item), f" {letter}"), j, metadata=(benchmark, i, 1))
        for i, item in enumerate(items)
        for j, letter in enumerate(mcq.choices(item))
    ]
    answers = iter(RAG(str(index), "recorder", **settings).loglikelihood(requests))
    right = [mcq.likeliest([next(answers)[0] for _ in item["options"]]) == item["answer"] for item in items]
    return np.mean(right)


def test_the_grid_says_what_a_run_does(tuned, little_index):
    found = json.loads(tuned.read_text())
    assert len(found["grid"]) == 3 * (3 * 2 * 2)
    for row in found["grid"][:: len(found["grid"]) // 9]:
        for benchmark, measured in row["tasks"].items():
            again = answered_right(row["settings"] | STAYS, little_index, benchmark)
            assert measured["acc"] == pytest.approx(again, abs=1e-6), row["settings"]
    for benchmark, measured in found["closed"]["tasks"].items():
        assert measured["acc"] == pytest.approx(answered_right({"k": 0}, little_index, benchmark), abs=1e-6)


def test_what_is_written_is_the_choice_and_all_it_was_chosen_by(tuned):
    found = json.loads(tuned.read_text())
    assert found["chosen"]["settings"].items() >= STAYS.items()
    best = max(row["acc"] for row in found["grid"])
    assert found["best"]["acc"] == best >= found["chosen"]["acc"]
    assert {row["settings"]["k"] for row in found["grid"]} == {1, 3}
    for row in found["grid"]:
        assert row["difference"] == pytest.approx(row["acc"] - found["closed"]["acc"], abs=2e-6)
    assert found["data"]["medqa"]["splits"] == ["validation"] and found["data"]["pubmedqa"]["splits"] == ["train"]
    assert all(len(own["ids"]) == own["items"] > 0 for own in found["data"].values())
    assert found["model"] == {"inner": "recorder", "flavour": "plain"} and "one standard error" in found["rule"]


def test_tuning_again_gives_the_same_file_and_a_cache_asks_nothing(little_index, tuned, tmp_path, capsys):
    cache = ("--use_cache", str(tmp_path / "answers.db"))
    run_tune(little_index, tmp_path / "one.json", *cache)
    assert (tmp_path / "answers.db").stat().st_size > 0
    Recorder.asked = []
    run_tune(little_index, tmp_path / "two.json", *cache)
    assert Recorder.asked == []
    assert tuned.read_bytes() == (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    shown = capsys.readouterr().out
    assert "| closed book |" in shown and "| chosen: query=question, k=" in shown and "tuned=" in shown


def test_each_arm_of_a_base_is_scored_once(little_index, tmp_path, monkeypatch):
    asked, answer = [], Recorder.loglikelihood

    def spy(self, requests):
        asked.extend(request.args for request in requests)
        return answer(self, requests)

    monkeypatch.setattr(Recorder, "loglikelihood", spy)
    run_tune(little_index, tmp_path / "tuned.json", "--limit", "4")
    assert len(asked) == len(set(asked))


def test_without_calibration_no_content_free_question_is_asked(little_index, tmp_path):
    Recorder.asked = []
    run_tune(little_index, tmp_path / "tuned.json", "--limit", "4", "--calibration")
    assert Recorder.asked and not any("Question: N/A" in prompt for prompt, _ in Recorder.asked)
    run_tune(little_index, tmp_path / "tuned.json", "--limit", "4")
    assert any("Question: N/A" in prompt for prompt, _ in Recorder.asked)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--splits", "test"], "test is for measuring"),
        (["--model_args", "k=3"], "--model_args k: is tuned, or has an option of its own, --k"),
        (["--query"], "--k and --query: give at least one value each"),
        (["--query", "guess"], "unknown query 'guess'"),
        (["--model_args", "neighbors=1"], "neighbors=1: neither rag nor its inner model recorder takes this argument"),
        (["--out", __file__ + "/tuned.json"], "test_tuning.py: is not a folder, so nothing can be written into it"),
        (["--use_cache", os.path.dirname(__file__)], "rag_model: is a folder; give a file to write"),
        (["--use_cache", __file__], "--use_cache .*: file is not a database; give another file, or remove this one"),
    ],
)
def test_bad_arguments_of_the_command_are_refused(little_index, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        run_tune(little_index, tmp_path / "tuned.json", *more)
    assert not (tmp_path / "tuned.json").exists()


# A run with it


def test_a_run_takes_the_tuned_settings_and_records_them(tuned, little_index):
    found = json.loads(tuned.read_text())
    model = RAG(str(little_index), "recorder", tuned=str(tuned))
    info = model.get_model_info()
    for name, value in found["chosen"]["settings"].items():
        assert info[f"rag_{name}"] == value
    assert info["rag_tuned"]["index"] == found["index"] and len(info["rag_tuned"]["sha256"]) == 16
    mine = RAG(str(little_index), "recorder", tuned=str(tuned), k=2, mode="mix", w=0.1)
    assert (mine.k, mine.mode.name, mine.mode.w) == (2, "mix", 0.1)
    assert len({model.fingerprint, mine.fingerprint}) == 2


def test_a_mode_of_ones_own_gets_no_setting_of_another(tmp_path, tuned, little_index):
    found = json.loads(tuned.read_text())
    found["chosen"]["settings"] |= {"mode": "gate+mix", "gate_margin": 2.0, "w": 0.5}
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps(found))
    for mode, settings in (("always", {}), ("gate", {"gate_margin": 2.0}), (None, {"gate_margin": 2.0, "w": 0.5})):
        assert RAG(str(little_index), "recorder", tuned=str(file), mode=mode).mode.settings == settings


def test_items_that_were_chosen_by_cannot_be_measured_on(tuned, little_index):
    [item, *_] = dev.load(["medqa"])["medqa"].items
    request = Instance("loglikelihood", item, (mcq.render(item), " A"), 0, metadata=("medqa_sub", 0, 1))
    with pytest.raises(
        InputError, match=f"task medqa_sub: the settings in 'tuned' were chosen on its item {item['id']}"
    ):
        RAG(str(little_index), "recorder", tuned=str(tuned)).loglikelihood([request])


def test_another_index_is_told(tuned, little_index, tmp_path, caplog):
    found = json.loads(tuned.read_text()) | {"index": "another"}
    (tmp_path / "tuned.json").write_text(json.dumps(found))
    RAG(str(little_index), "recorder", tuned=str(tmp_path / "tuned.json"))
    assert "was fitted with another index (another)" in caplog.text


@pytest.mark.parametrize("content", [None, "[]", "{}", "no JSON", '{"index": 1, "model": {}, "data": {}, "chosen": 3}'])
def test_a_file_that_is_not_of_tune_is_refused(little_index, tmp_path, content):
    if content is not None:
        (tmp_path / "tuned.json").write_text(content)
    with pytest.raises(InputError, match="tuned=.*: (no such file|not what medadapt rag tune writes)"):
        RAG(str(little_index), "recorder", tuned=str(tmp_path / "tuned.json"))
