"""Adapters: learned on, merged, quantized, and never on the wrong base."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from medtasks.errors import InputError
from trainers import adapter, msft, sft, stage


def logits(model, tokenizer, prompt="Question: which?\nAnswer:"):
    model.eval()
    with torch.no_grad():
        return model(**tokenizer(prompt, return_tensors="pt")).logits.float()


@pytest.fixture
def trained(recipe_file, tmp_path):
    """(recipe, output_dir) of a short run with a merged model."""
    path = recipe_file(merge=True)
    sft.main(["--config", path])
    return path, tmp_path / "out"


def test_the_merged_model_answers_as_base_and_adapter_do(trained, base):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, out = trained
    tokenizer = AutoTokenizer.from_pretrained(out / "merged")
    plain = AutoModelForCausalLM.from_pretrained(base)
    untrained = logits(plain, tokenizer)
    apart = logits(PeftModel.from_pretrained(plain, out / "adapter"), tokenizer)
    merged = logits(AutoModelForCausalLM.from_pretrained(out / "merged"), tokenizer)
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-5)
    assert (apart - untrained).abs().max() > 0.1


def test_a_finished_run_can_still_be_merged(recipe_file, tmp_path):
    sft.main(["--config", recipe_file()])
    assert not (tmp_path / "out" / "merged").exists()
    sft.main(["--config", recipe_file(), "--merge"])
    assert (tmp_path / "out" / "merged" / "model.safetensors").is_file()


def test_an_adapter_for_another_base_is_refused(trained, recipe_file, build_base, tmp_path):
    _, out = trained
    other = recipe_file("other.yaml", model_name_or_path=build_base(64), output_dir=str(tmp_path / "other"))
    with pytest.raises(InputError, match="was trained on .*, not on"):
        sft.main(["--config", other, "--adapter", str(out / "adapter")])
    assert not (tmp_path / "other").exists()


def test_an_adapter_of_another_shape_is_refused(trained, recipe_file, tmp_path):
    _, out = trained
    other = recipe_file("other.yaml", lora_r=8, output_dir=str(tmp_path / "other"))
    with pytest.raises(InputError, match="lora_r 4 and the recipe 8"):
        sft.main(["--config", other, "--adapter", str(out / "adapter")])


@pytest.mark.parametrize("content", [None, {}])
def test_a_folder_that_is_no_adapter_is_refused(recipe_file, tmp_path, content):
    folder = tmp_path / "adapter"
    folder.mkdir()
    if content is not None:
        (folder / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="adapter"):
        sft.main(["--config", recipe_file(), "--adapter", str(folder)])
    assert not (tmp_path / "out").exists()


def test_damaged_weights_are_named(recipe_file, build_base, tmp_path):
    broken = build_base()
    weights = Path(broken) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be loaded"):
        sft.main(["--config", recipe_file(model_name_or_path=broken)])
    assert not (tmp_path / "out").exists()


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
    from safetensors.torch import load_file

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
    (out / "training.json").unlink()
    (out / "run.json").unlink()
    for name in ("adapter", "loss.json", "loss.png", "cost.json", "data.json", "dropped.jsonl"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    built.clear()
    assert msft.main(["--config", msft_recipe(), "--max_steps", "4"]) == 0
    assert len(built) == 1


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


def test_nf4_gradients_are_right_after_a_forward_without_gradients(recipe_file, build_base):
    pytest.importorskip("bitsandbytes")
    settings = {"load_in_4bit": True, "use_bnb_nested_quant": True, "dtype": "bfloat16", "lora_dropout": 0.0}
    path = recipe_file(model_name_or_path=build_base(64), **settings)
    trainer = stage._build(sft.prepare(["--config", path]))
    model = trainer.model
    assert {str(p.dtype) for p in model.parameters() if p.requires_grad} == {"torch.float32"}
    batch = {"input_ids": torch.arange(5, 45).view(2, 20), "labels": torch.arange(5, 45).view(2, 20)}

    def gradient():
        model.train()
        model.zero_grad()
        model(**batch).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    before = gradient()
    model.eval()
    with torch.no_grad():
        model(**batch)
    assert before.abs().max() > 0
    torch.testing.assert_close(gradient(), before, rtol=0, atol=0)


def test_nf4_trains_and_merges_dequantized(recipe_file, build_base, tmp_path):
    pytest.importorskip("bitsandbytes")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = {"load_in_4bit": True, "use_bnb_nested_quant": True, "dtype": "bfloat16", "merge": True, "max_steps": 3}
    path = recipe_file(model_name_or_path=build_base(64), **settings)
    sft.main(["--config", path])
    out = tmp_path / "out"
    tokenizer = AutoTokenizer.from_pretrained(out / "merged")
    quantized = adapter.load_base(sft.prepare(["--config", path]).model)
    apart = logits(PeftModel.from_pretrained(quantized, out / "adapter"), tokenizer)
    merged = logits(AutoModelForCausalLM.from_pretrained(out / "merged"), tokenizer)
    assert (merged - apart).norm() / apart.norm() < 0.03
