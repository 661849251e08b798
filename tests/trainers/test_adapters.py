"""Adapters: learned on, merged, quantized, and never on the wrong base."""

import json
from pathlib import Path

import pytest
import torch

from medtasks.errors import InputError
from trainers import adapter, merge, sft, stage


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


def test_each_map_that_a_recipe_names_must_be_there(recipe_file, tmp_path):
    with pytest.raises(InputError, match="the model has no map 'foo_proj' beside q_proj; mend or leave it out"):
        stage.train(sft.prepare(["--config", recipe_file(lora_target_modules=["q_proj", "foo_proj"])]))
    assert not (tmp_path / "out" / "adapter").exists()
    assert sft.main(["--config", recipe_file(lora_target_modules=["self_attn.q_proj", "v_proj"], max_steps=1)]) == 0


def test_maps_that_are_no_linear_layers_learn_on_too(recipe_file, of_kind, tmp_path):
    """GPT-2's are transformers' Conv1D, which `all-linear` means as well."""
    settings = {"model_name_or_path": of_kind("GPT2"), "lora_target_modules": "all-linear", "max_steps": 1}
    assert sft.main(["--config", recipe_file(**settings)]) == 0
    more = settings | {"adapter": str(tmp_path / "out" / "adapter"), "output_dir": str(tmp_path / "more")}
    assert sft.main(["--config", recipe_file("more.yaml", **more)]) == 0


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


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lora_target_modules": ["q_proj"]}, "lora_target_modules: .* and the recipe differ in "),
        ({"lora_target_modules": ".*up_proj"}, "lora_target_modules: .* and the recipe differ in "),
        ({"lora_modules_to_save": ["lm_head"]}, "lora_modules_to_save: .* and the recipe differ in lm_head"),
    ],
)
def test_an_adapter_that_learns_on_keeps_its_maps(trained, recipe_file, tmp_path, changes, complaint):
    _, out = trained
    other = recipe_file("other.yaml", output_dir=str(tmp_path / "other"), **changes)
    with pytest.raises(InputError, match=complaint):
        sft.main(["--config", other, "--adapter", str(out / "adapter")])
    assert not (tmp_path / "other" / "adapter").exists()


def test_all_linear_learns_on_by_any_of_its_names(trained, recipe_file, tmp_path):
    _, out = trained
    for name, targets in (("all", "all-linear"), ("pattern", r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj")):
        other = recipe_file(f"{name}.yaml", output_dir=str(tmp_path / name), lora_target_modules=targets, max_steps=1)
        assert sft.main(["--config", other, "--adapter", str(out / "adapter")]) == 0


def test_embeddings_that_are_the_head_too_get_no_lora(recipe_file, build_base, tmp_path):
    tied = Path(build_base())
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    path = recipe_file(model_name_or_path=str(tied), lora_target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(InputError, match="lora_target_modules: .*embed_tokens shares its weights"):
        sft.main(["--config", path])
    assert not (tmp_path / "out" / "adapter").exists()


def test_a_tokenizer_without_an_end_is_told(recipe_file, build_base):
    base = Path(build_base())
    config = json.loads((base / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="its tokenizer has no eos_token"):
        sft.main(["--config", recipe_file(model_name_or_path=str(base))])


def test_an_adapter_is_merged_with_the_base_that_its_upload_names(trained, base, tmp_path):
    _, out = trained
    card = json.loads((out / "adapter" / "medadapt.json").read_text())
    (out / "adapter" / "medadapt.json").write_text(json.dumps(card | {"base": "gone"}))
    report = merge.merge(out / "adapter", tmp_path / "merged")
    assert report["base"] == base and (tmp_path / "merged" / "model.safetensors").is_file()
