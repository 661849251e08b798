"""CPT, then SFT: on the same adapter, on the merged model, or on the model that CPT made; never on another base."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from medtasks import models
from medtasks.errors import InputError
from trainers import msft, run_folder, stage


@pytest.fixture
def msft_recipe(recipe_file, write_jsonl, make_item, tmp_path):
    """A function that writes an MSFT recipe over two small stages and returns its path."""

    def write(**changes) -> str:
        corpus = [{"id": n, "title": "", "text": make_item(n)["question"] * 3} for n in range(8)]
        recipe_file("cpt.yaml", corpus=[write_jsonl(corpus, "corpus.jsonl")], output_dir=None)
        recipe_file("sft.yaml", output_dir=None)
        recipe = {"cpt": "cpt.yaml", "sft": "sft.yaml", "output_dir": str(tmp_path / "out"), "lora_dropout": 0.0}
        (tmp_path / "msft.yaml").write_text(json.dumps(recipe | changes))
        return str(tmp_path / "msft.yaml")

    return write


def test_msft_goes_on_with_the_adapter_of_cpt(msft_recipe, tmp_path, monkeypatch):
    built = []
    build = stage._build

    def watch(what):
        trainer = build(what)
        built.append({name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad})
        return trainer

    monkeypatch.setattr(stage, "_build", watch)
    assert msft.main(["--config", msft_recipe(), "--max_steps", "4"]) == 0
    out = tmp_path / "out"
    after_cpt = load_file(out / "cpt" / "adapter" / "adapter_model.safetensors")
    after_sft = load_file(out / "adapter" / "adapter_model.safetensors")
    assert after_cpt.keys() == after_sft.keys() and len(built[1]) == len(after_cpt)
    for name, value in built[1].items():
        assert torch.equal(value, after_cpt[name.replace(".default", "")]), name
        assert not torch.equal(after_sft[name.replace(".default", "")], value), name
    cards = [json.loads((folder / "medadapt.json").read_text()) for folder in (out / "cpt/adapter", out / "adapter")]
    assert [card["stage"] for card in cards] == ["cpt", "sft"] and cards[1]["continues"]
    assert cards[0]["config"]["max_steps"] == cards[1]["config"]["max_steps"] == 4

    # killed in the second stage: the first is not repeated
    for path in (out / name for name in run_folder.OURS):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    built.clear()
    assert msft.main(["--config", msft_recipe(), "--max_steps", "4"]) == 0
    assert len(built) == 1


def test_an_output_dir_of_another_run_is_refused_before_cpt(msft_recipe, tmp_path, monkeypatch):
    recipe, out = msft_recipe(max_steps=2), tmp_path / "out"
    assert msft.main(["--config", recipe]) == 0
    shutil.rmtree(out / "cpt")
    with pytest.raises(InputError, match="out: belongs to another run .max_steps was 2, now 3"):
        msft.main(["--config", recipe, "--max_steps", "3"])
    assert not (out / "cpt").exists()

    train, held = stage.train, []

    def watch(which, **keywords):
        with pytest.raises(InputError, match="another process is training into it"), run_folder.claim(out, {}, False):
            pass
        held.append(which.name)
        train(which, **keywords)

    monkeypatch.setattr(stage, "train", watch)
    assert msft.main(["--config", recipe, "--max_steps", "3", "--overwrite"]) == 0
    assert held == ["cpt", "sft"] and json.loads((out / "training.json").read_text())["steps"] == 3


def test_cpt_reads_nothing_that_sft_holds_out(msft_recipe, recipe_file, write_jsonl, make_item):
    path = msft_recipe()
    first, second, _ = msft.prepare(["--config", path])
    assert len(first.examples.rows) == 8 and second.dev is None
    dev = write_jsonl([make_item(n) for n in (2, 5)], "dev.jsonl")
    recipe_file("sft.yaml", output_dir=None, dev_sources=[dev])
    first, second, _ = msft.prepare(["--config", path])
    assert second.dev.counts["used"] == 2 and first.examples.counts["held_out"] == 2
    kept = " ".join(row["text"] for row in first.examples.rows)
    assert [make_item(n)["question"] in kept for n in (2, 4, 5)] == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sft": "nowhere.yaml"}, "nowhere.yaml: no such recipe"),
        ({"cpt": None}, "has no cpt"),
        ({"lerning_rate": 1}, "'lerning_rate' is no key of .*cpt.yaml"),
        ({"adapter": "somewhere"}, "adapter"),
    ],
)
def test_msft_checks_both_stages_before_the_first(msft_recipe, tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        msft.main(["--config", msft_recipe(**changes)])
    assert not (tmp_path / "out").exists()


def test_msft_stages_must_agree_on_the_adapter(msft_recipe, recipe_file, tmp_path):
    path = msft_recipe()
    recipe_file("sft.yaml", output_dir=None, lora_r=8)
    with pytest.raises(InputError, match="lora_r is 4 in cpt and 8 in sft"):
        msft.main(["--config", path])


def trainable(monkeypatch) -> list[tuple[str, set[str]]]:
    """Watch the trainers that are built: (base, names of what learns), in their order."""
    built, build = [], stage._build

    def watch(what):
        trainer = build(what)
        names = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
        built.append((what.model.model_name_or_path, names))
        return trainer

    monkeypatch.setattr(stage, "_build", watch)
    return built


def test_msft_by_merging_trains_a_new_adapter_on_the_merged_model(msft_recipe, base, tmp_path, monkeypatch):
    built, out = trainable(monkeypatch), tmp_path / "out"
    recipe = msft_recipe(join="merge", max_steps=2, save_steps=2)
    (tmp_path / "sft.yaml").write_text((tmp_path / "sft.yaml").read_text().replace('"lora_r": 4', '"lora_r": 2'))
    killed = stage.train
    monkeypatch.setattr(stage, "train", lambda which, **_: killed(which) if which.name == "cpt" else exit(137))
    with pytest.raises(SystemExit):  # between the stages
        msft.main(["--config", recipe])
    assert (out / "cpt" / "merged" / "merge.json").is_file() and not (out / "run.json").exists()
    monkeypatch.setattr(stage, "train", killed)
    assert msft.main(["--config", recipe]) == 0
    merged = str(out / "cpt" / "merged")
    assert [where for where, _ in built] == [base, merged]
    card = json.loads((out / "adapter" / models.ADAPTER_CARD).read_text())
    assert card["base"] == merged and card["base_fingerprint"] == models.fingerprint(merged) and not card["continues"]
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == merged
    models.check_adapter(out / "adapter", merged)
    with pytest.raises(InputError, match="was trained on .*cpt/merged .* give that base"):
        models.check_adapter(out / "adapter", base)
    ranks = [load_file(out / which / "adapter_model.safetensors") for which in ("cpt/adapter", "adapter")]
    assert [min(weight.shape[0] for weight in rank.values()) for rank in ranks] == [4, 2]


def test_after_a_full_cpt_the_second_stage_goes_on_with_its_model(msft_recipe, base, tmp_path, monkeypatch):
    built, out = trainable(monkeypatch), tmp_path / "out"
    full = {"full_finetuning": True, "use_peft": False}
    assert msft.main(["--config", msft_recipe(max_steps=2, save_steps=2, **full)]) == 0
    assert [where for where, _ in built] == [base, str(out / "cpt" / "model")]
    assert all("model.embed_tokens.weight" in names for _, names in built)
    assert (out / "model" / "model.safetensors").is_file()


def test_what_cannot_be_joined_is_refused(msft_recipe, tmp_path):
    with pytest.raises(InputError, match="join: 'glue' is none of continue, merge"):
        msft.main(["--config", msft_recipe(join="glue")])
    path = msft_recipe()
    sft_recipe = json.loads((tmp_path / "sft.yaml").read_text()) | {"use_peft": False, "full_finetuning": True}
    (tmp_path / "sft.yaml").write_text(json.dumps(sft_recipe))
    with pytest.raises(InputError, match="sft trains all weights and cpt an adapter; say 'join: merge'"):
        msft.main(["--config", path])
    assert not (tmp_path / "out").exists()
