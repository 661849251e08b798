"""A model that mixes documents of one row is refused before anything is learned; others keep them apart to the bit."""

import shutil
from pathlib import Path

import pytest
import torch

from medtasks.errors import InputError
from trainers import isolation, sft, stage

LFM2 = {"intermediate_size": 64, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}
ALONE = {"per_device_train_batch_size": 1, "packing": False, "gradient_accumulation_steps": 1}


@pytest.mark.parametrize(("kind", "sizes"), [("Lfm2", LFM2), ("OPT", {"ffn_dim": 64, "word_embed_proj_dim": 32})])
def test_a_model_that_mixes_documents_is_refused_unless_they_stand_alone(recipe_file, of_kind, tmp_path, kind, sizes):
    model = of_kind(kind, **sizes)
    with pytest.raises(InputError, match="does not keep documents apart"):
        sft.main(["--config", recipe_file(model_name_or_path=model, per_device_train_batch_size=2, packing=False)])
    assert not Path(tmp_path, "out").exists()
    assert sft.main(["--config", recipe_file(model_name_or_path=model, max_steps=1, **ALONE)]) == 0


@pytest.mark.parametrize(
    "changes",
    [{}, {"bf16": True}, {"load_in_4bit": True}, {"dtype": "bfloat16"}, {"gradient_checkpointing": True}],
    ids=str,
)
def test_documents_apart_change_nothing_of_each_other(recipe_file, build_base, changes):
    model = build_base(64)
    what = sft.prepare(["--config", recipe_file(model_name_or_path=model, lora_dropout=0.3, **changes)])
    trainer = stage._build(what)
    trainer.model.train()
    assert isolation.leak(trainer)[0] == 0 and trainer.model.training


def test_documents_are_asked_about_in_the_precision_that_training_computes_in(recipe_file, build_base):
    """On GPUs attention takes numbers of 2 bytes alone, which float32 weights give it under autocast."""
    whole = {"use_peft": False, "full_finetuning": True, "dtype": "float32", "bf16": True}
    trainer = stage._build(sft.prepare(["--config", recipe_file(model_name_or_path=build_base(64), **whole)]))
    seen = []
    trainer.model.model.layers[0].self_attn.v_proj.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    _, size = isolation.leak(trainer)
    probed = set(seen)
    seen.clear()
    trainer.train()
    assert probed == set(seen) == {torch.bfloat16} and size == 2


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_model_whose_weights_are_no_numbers_is_named_before_anything_is_learned(recipe_file, base, tmp_path, broken):
    """The guard would blame the learning rate, or the examples of the first step."""
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(base, tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = broken
    model.save_pretrained(folder)
    with pytest.raises(InputError, match="logits are NaN; .*layers.1.mlp.up_proj.* is not finite: download"):
        sft.main(["--config", recipe_file(model_name_or_path=str(folder))])
