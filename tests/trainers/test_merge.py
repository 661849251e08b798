"""Merging and scaling: what is written answers as base and adapter do, and says how far it does not."""

import dataclasses
import functools
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medtasks import models
from medtasks.errors import InputError
from trainers import adapter, fidelity, merge, sft

NF4 = {"load_in_4bit": True, "use_bnb_nested_quant": True, "dtype": "bfloat16"}


def weights(folder) -> dict:
    name = adapter.WEIGHTS if (Path(folder) / adapter.WEIGHTS).is_file() else "model.safetensors"
    return load_file(Path(folder) / name)


@pytest.fixture
def trained(recipe_file, tmp_path):
    """A function that trains an adapter with changes to the recipe and returns its folder."""

    def train(**changes) -> Path:
        sft.main(["--config", recipe_file(**{"max_steps": 3, "save_steps": 3} | changes)])
        return tmp_path / "out" / "adapter"

    return train


@pytest.fixture
def few_prompts(monkeypatch):
    exam = fidelity._exam()[:: fidelity.ITEMS]
    monkeypatch.setattr(fidelity, "_exam", lambda: exam)


def test_what_was_trained_in_nf4_is_merged_into_the_weights_it_was_trained_on(trained, build_base, tmp_path):
    pytest.importorskip("bitsandbytes")
    base = build_base(64, spread=0.1)
    source = trained(model_name_or_path=base, **NF4)
    reports = {method: merge.merge(source, tmp_path / str(method), method=method) for method in (None, "original")}
    errors = {method: report["difference"]["relative_logit_error"] for method, report in reports.items()}
    assert reports[None]["method"] == "dequantize" and reports[None]["trained_on"] == "nf4"
    assert errors[None] <= 0.02 and 5 * errors[None] < errors["original"]
    # what the report says is what the written model does
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked, tokenizer = fidelity.prompts(), AutoTokenizer.from_pretrained(base)
    quantized = adapter.load_base(merge.trained_on(source))
    assert quantized.is_loaded_in_4bit
    linear = quantized.model.layers[0].self_attn.q_proj
    linear.forward = functools.partial(type(linear).forward, linear)  # as accelerate's hooks do
    forwards = {module: module.__dict__.get("forward") for module in quantized.modules()}
    apart = fidelity.last_logits(PeftModel.from_pretrained(quantized, source), tokenizer, asked)
    assert all(module.__dict__.get("forward") is forward for module, forward in forwards.items())
    for method in reports:
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / str(method))
        assert plain.dtype == torch.bfloat16 and not hasattr(plain.config, "quantization_config")
        found = fidelity.compare(apart, fidelity.last_logits(plain, tokenizer, asked), tokenizer, asked)
        assert found.relative_logit_error == pytest.approx(errors[method], rel=1e-3)
        report = json.loads((tmp_path / str(method) / merge.REPORT).read_text())
        assert report == reports[method] and report["difference"] == found.as_dict()


@pytest.mark.parametrize("quantization", [{}, NF4], ids=["plain", "nf4"])
def test_what_is_not_rounded_does_not_differ(trained, build_base, tmp_path, few_prompts, quantization):
    if quantization:
        pytest.importorskip("bitsandbytes")
    source = trained(model_name_or_path=build_base(64, spread=0.1), **{"dtype": "bfloat16"} | quantization)
    reports = {dtype: merge.merge(source, tmp_path / dtype, dtype=dtype) for dtype in merge.DTYPES}
    errors = {dtype: report["difference"]["relative_logit_error"] for dtype, report in reports.items()}
    assert errors["float32"] < 1e-5 < 4 * errors["float16"] < errors["bfloat16"] <= 0.02
    coarse = dict(reports["bfloat16"], difference=dict(reports["bfloat16"]["difference"], relative_logit_error=0.03))
    assert merge.describe(coarse).endswith("; --dtype float32 rounds nothing")
    assert "rounds nothing" not in merge.describe(reports["bfloat16"])


@pytest.mark.parametrize("kind", ["Llama", "Mamba"])
def test_float32_is_computed_in_and_left_again(of_kind, kind):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, asked = of_kind(kind), [fidelity.Prompt("The heart"), fidelity.Prompt("Fever and cough")]
    tokenizer = AutoTokenizer.from_pretrained(path)
    narrow = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    wide = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).float()
    exact = fidelity.last_logits(narrow, tokenizer, asked)
    assert {weight.dtype for weight in narrow.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(exact, fidelity.last_logits(wide, tokenizer, asked, exactly=False))
    own = fidelity.last_logits(narrow, tokenizer, asked, exactly=False)
    assert not torch.allclose(own, exact, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError), fidelity.in_float32(narrow):
        narrow()  # neither tokens nor embeddings
    assert {weight.dtype for weight in narrow.parameters()} == {torch.bfloat16}
    assert torch.equal(own, fidelity.last_logits(narrow, tokenizer, asked, exactly=False))


def test_the_command_merges_and_says_how_well(trained, base, tmp_path, capsys, few_prompts, write_jsonl):
    source = trained()
    more = write_jsonl([{"prompt": "The heart"}, {"prompt": "Fever and"}], "prompts.jsonl")
    out = tmp_path / "merged"
    assert merge.main([str(source), "--out", str(out), "--prompts", more, "--dtype", "bfloat16"]) == 0
    said = capsys.readouterr().out
    assert (
        f"{out}: merged (original, bfloat16); it differs from base + adapter by" in said and "after 6 prompts" in said
    )
    report = json.loads((out / merge.REPORT).read_text())
    assert report["base_fingerprint"] == models.fingerprint(base) and report["difference"]["letters"] == 4
    assert 0 < report["difference"]["relative_logit_error"] < report["adapter_effect"]["relative_logit_error"] / 4
    assert {str(weight.dtype) for weight in weights(out).values()} == {"torch.bfloat16"}
    assert json.loads((out / models.ADAPTER_CARD).read_text())["stage"] == "sft"
    with pytest.raises(InputError, match="is there already"):
        merge.main([str(source), "--out", str(out)])


def test_an_adapter_is_merged_into_its_base_alone(trained, build_base, tmp_path):
    source, other = trained(), build_base(64)
    with pytest.raises(InputError, match="was trained on .*, not on"):
        merge.main([str(source), "--out", str(tmp_path / "merged"), "--base", other])
    with pytest.raises(InputError, match="not quantized"):
        merge.main([str(source), "--out", str(tmp_path / "merged"), "--method", "dequantize"])
    with pytest.raises(InputError, match="not an adapter folder"):
        merge.main([other, "--out", str(tmp_path / "merged")])
    assert not (tmp_path / "merged").exists()


def test_an_adapter_made_elsewhere_is_merged_too(trained, base, tmp_path, few_prompts):
    source = trained()
    (source / models.ADAPTER_CARD).unlink()
    report = merge.merge(source, tmp_path / "merged")
    assert report["base"] == base and report["difference"]["relative_logit_error"] < 1e-4
    assert not (tmp_path / "merged" / models.ADAPTER_CARD).exists()


@pytest.mark.parametrize(
    "damage, complaint",
    [
        (lambda folder: (folder / adapter.WEIGHTS).unlink(), "not an adapter folder .no adapter_model.safetensors"),
        (lambda folder: os.truncate(folder / adapter.WEIGHTS, 5000), "cannot be loaded"),
        (lambda folder: os.truncate(folder / adapter.WEIGHTS, 3), "cannot be loaded"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"r": 4'), "not JSON"),
        (lambda folder: changed(folder, peft_type="PROMPT_TUNING"), "PROMPT_TUNING learns tokens"),
        (lambda folder: changed(folder, base_model_name_or_path="gone/far/away"), "no such model folder; give --base"),
    ],
    ids=["no weights", "cut short", "no header", "no json", "prompt tuning", "no base"],
)
def test_a_damaged_adapter_is_one_line(trained, tmp_path, few_prompts, damage, complaint):
    source = trained(max_steps=1, save_steps=1)
    (source / models.ADAPTER_CARD).unlink()
    damage(source)
    with pytest.raises(InputError, match=complaint) as told:
        merge.main([str(source), "--out", str(tmp_path / "merged")])
    assert "\n" not in str(told.value) and not (tmp_path / "merged").exists()


def changed(folder: Path, **settings) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize("rows, complaint", [([{"prompt": " "}], "no 'prompt'"), ([], "holds no rows")])
def test_prompts_that_say_nothing_are_refused(write_jsonl, few_prompts, rows, complaint):
    with pytest.raises(InputError, match=complaint):
        fidelity.prompts(Path(write_jsonl(rows, "prompts.jsonl")))


def test_a_merge_that_fails_leaves_nothing(trained, tmp_path, monkeypatch, few_prompts):
    from transformers import PreTrainedTokenizerBase

    source = trained()
    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge.merge(source, tmp_path / "new" / "merged")
    assert not list((tmp_path / "new").iterdir())


def test_between_base_and_adapter_weights_are_interpolated(trained, base, tmp_path, few_prompts):
    source = trained()
    report = merge.merge(source, tmp_path / "whole")
    half = merge.merge(source, tmp_path / "half", scale=0.5)
    assert half["scale"] == 0.5 and half["difference"]["relative_logit_error"] < 1e-4
    assert 0 < half["adapter_effect"]["relative_logit_error"] < report["adapter_effect"]["relative_logit_error"]
    start, middle, end = (weights(folder) for folder in (base, tmp_path / "half", tmp_path / "whole"))
    moved = 0
    for name in end:
        torch.testing.assert_close(middle[name], (start[name] + end[name]) / 2)
        moved += not torch.equal(start[name], end[name])
    assert moved == 14  # seven linear layers in each of two blocks


def test_a_scaled_adapter_is_an_adapter(trained, base, tmp_path):
    source, out = trained(), tmp_path / "weak"
    assert merge.main([str(source), "--out", str(out), "--scale", "0.25", "--adapter_only"]) == 0
    models.check_adapter(out, base)
    assert json.loads((out / models.ADAPTER_CARD).read_text())["scale"] == 0.25
    before, after = weights(source), weights(out)
    for name in before:
        factor = 0.25 if "lora_B" in name else 1
        torch.testing.assert_close(after[name], before[name] * factor)
    with pytest.raises(InputError, match="--dtype is of a merged model"):
        merge.main([str(source), "--out", str(tmp_path / "other"), "--adapter_only", "--dtype", "float32"])
    with pytest.raises(InputError, match="lies in the adapter itself"):
        merge.main([str(source), "--out", str(source / "weak"), "--adapter_only", "--scale", "0.5"])
    assert sorted(path.name for path in source.parent.glob("**/*weak*")) == []
    twice = adapter.scale(out, tmp_path / "weaker", 0.5)
    assert json.loads((twice / models.ADAPTER_CARD).read_text())["scale"] == 0.125


def test_a_recipe_keeps_a_part_of_what_it_learned(recipe_file, tmp_path):
    kept = {}
    for factor in (1.0, 0.5):
        out = tmp_path / f"out{factor}"
        sft.main(["--config", recipe_file(adapter_scale=factor, output_dir=str(out))])
        kept[factor] = weights(out / "adapter")
        card = json.loads((out / "adapter" / "medadapt.json").read_text())
        assert card.get("scale", 1.0) == factor
    for name, weight in kept[1.0].items():
        torch.testing.assert_close(kept[0.5][name], weight * (0.5 if "lora_B" in name else 1.0))


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter_scale": 0},
        {"adapter_scale": 0.5, "use_dora": True},
        {"adapter_scale": 0.5, "lora_modules_to_save": ["lm_head"]},
    ],
)
def test_a_part_that_cannot_be_kept_is_refused_before_training(recipe_file, settings):
    with pytest.raises(InputError, match="adapter_scale"):
        sft.prepare(["--config", recipe_file(**settings)])


def test_a_strength_that_is_no_number_is_refused(tmp_path):
    for factor in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"a strength of {factor} leaves no numbers"):
            adapter.scale(tmp_path, tmp_path / "scaled", factor)
    assert not (tmp_path / "scaled").exists()


def test_what_cannot_be_scaled_is_refused(trained, tmp_path):
    source = trained(use_dora=True)
    with pytest.raises(InputError, match="magnitude.*none of LoRA's two matrices"):
        adapter.scale(source, tmp_path / "weak", 0.5)
    assert not (tmp_path / "weak").exists()


def test_a_changed_letter_is_counted(base):
    from transformers import AutoTokenizer

    tokenizer, asked = AutoTokenizer.from_pretrained(base), fidelity.prompts()
    letters = [tokenizer(" " + letter)["input_ids"][0] for letter in "ABCD"]
    logits = torch.zeros(len(asked), len(tokenizer))
    logits[:, letters[1]] = 1.0
    other = logits.clone()
    other[:3, letters[2]] = 2.0
    found = fidelity.compare(logits, other, tokenizer, asked)
    assert found == fidelity.Difference(24, pytest.approx((12 / 24) ** 0.5), 24, 3)
    assert dataclasses.astuple(fidelity.compare(logits, logits, tokenizer, asked)) == (24, 0.0, 24, 0)


def test_weights_that_do_not_fit_a_dtype_are_not_written(trained, build_base, few_prompts, tmp_path):
    from transformers import AutoModelForCausalLM

    base = build_base(64)
    source = trained(model_name_or_path=base)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.lm_head.weight.data[0, 0] = 1e5  # float16 ends at 65,504
    model.save_pretrained(base)
    card = source / "medadapt.json"
    card.unlink()  # else another base is refused
    with pytest.raises(InputError, match="not finite in torch.float16; say another --dtype"):
        merge.merge(source, tmp_path / "half", base=base, dtype="float16")
    assert not (tmp_path / "half").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        merge.main([str(source), "--out", str(tmp_path / "file" / "merged")])
