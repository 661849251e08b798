"""Training all weights: they learn in float32, come out as a plain model, and resume as adapters do."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from medtasks import models
from trainers import sft, stage

FULL = {"use_peft": False, "full_finetuning": True, "learning_rate": 1e-3, "lora_target_modules": None}


@pytest.fixture
def half(build_base):
    """A base that is stored in bfloat16."""
    from transformers import AutoModelForCausalLM

    base = build_base()
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    return base


def test_all_weights_learn_in_float32_and_are_kept_as_the_base_is(recipe_file, half, tmp_path):
    path = recipe_file(model_name_or_path=half, max_steps=30, save_steps=30, bf16=True, keep_checkpoints=True, **FULL)
    trainer = stage._build(sft.prepare(["--config", path]))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in trainer.model.parameters())
    assert sft.main(["--config", path]) == 0
    out = tmp_path / "out"
    assert not (out / "adapter").exists()
    before, after = load_file(half + "/model.safetensors"), load_file(out / "model" / "model.safetensors")
    learned = load_file(out / "checkpoints" / "checkpoint-30" / "model.safetensors")
    assert before.keys() == after.keys() == learned.keys()
    for name, weight in after.items():
        assert weight.dtype == torch.bfloat16 and learned[name].dtype == torch.float32
        assert torch.equal(weight, learned[name].to(torch.bfloat16)) and not torch.equal(weight, before[name]), name
    losses = [entry["loss"] for entry in json.loads((out / "loss.json").read_text())]
    assert losses[-1] < losses[0] / 2
    card = json.loads((out / "model" / models.ADAPTER_CARD).read_text())
    assert card["base_fingerprint"] == models.fingerprint(half) and card["config"]["full_finetuning"] is True
    assert models.fingerprint(out / "model") != card["base_fingerprint"]


def test_what_was_learned_can_count_for_a_part(recipe_file, half, tmp_path):
    settings = FULL | {"model_name_or_path": half, "max_steps": 4, "save_steps": 4, "keep_checkpoints": True}
    assert sft.main(["--config", recipe_file(adapter_scale=0.7, **settings)]) == 0
    before, after = load_file(half + "/model.safetensors"), load_file(tmp_path / "out" / "model" / "model.safetensors")
    learned = load_file(tmp_path / "out" / "checkpoints" / "checkpoint-4" / "model.safetensors")
    for name, weight in after.items():
        between = 0.3 * before[name].float() + 0.7 * learned[name]
        assert weight.dtype == torch.bfloat16 and torch.allclose(weight.float(), between, rtol=2**-7, atol=1e-6), name
        assert not torch.equal(weight, learned[name].to(torch.bfloat16)), name


def test_a_run_killed_before_its_model_was_written_needs_no_training(recipe_file, tmp_path, monkeypatch, capsys):
    path = recipe_file(max_steps=2, save_steps=2, keep_checkpoints=True, **FULL)
    sft.main(["--config", path])
    model = tmp_path / "out" / "model"
    assert f"model: {model}; loss" in capsys.readouterr().out
    before = (model / "model.safetensors").read_bytes()
    shutil.rmtree(model)
    (tmp_path / "out" / "training.json").unlink()
    monkeypatch.setattr(stage, "_build", lambda _: pytest.fail("trained again"))
    sft.main(["--config", path])
    assert (model / "model.safetensors").read_bytes() == before
