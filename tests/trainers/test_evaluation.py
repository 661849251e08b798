"""Loss on held-out data along the way: a mean over tokens, the same after a kill, and no harm to NF4's gradients."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medtasks.errors import InputError
from trainers import adapter, data, sft, stage

PREPARE = """
import sys
from trainers import data, sft, stage
def prepared(path):
    found = sft.prepare(["--config", path, "--eval_strategy", "no"])
    held_out = data.sft_examples(data.SFTDataArguments(sources=[sys.argv[2]], decontaminate=False), seed=0)
    found.dev, found.training.eval_strategy = held_out, type(found.training.eval_strategy)("steps")
    return found
"""


@pytest.fixture
def held_out(write_jsonl, make_item):
    """A file of ten items that are not learned, with answers of unequal length."""
    rows = [make_item(number) for number in range(20, 30)]
    pairs = [
        {"prompt": row["question"], "completion": " " + " ".join(row["options"][: 1 + i % 4])}
        for i, row in enumerate(rows)
    ]
    return write_jsonl(pairs, "held_out.jsonl")


def prepared(path, held_out):
    found = sft.prepare(["--config", path, "--eval_strategy", "no"])
    found.dev = data.sft_examples(data.SFTDataArguments(sources=[held_out], decontaminate=False), seed=0)
    found.training.eval_strategy = type(found.training.eval_strategy)("steps")
    return found


def read_json(path):
    return json.loads(path.read_text())


def test_without_held_out_data_there_is_nothing_to_evaluate(recipe_file):
    with pytest.raises(InputError, match="eval_strategy: nothing is held out"):
        sft.prepare(["--config", recipe_file(eval_strategy="steps", eval_steps=2)])


@pytest.mark.parametrize("steps", [2, 5])
def test_the_last_step_is_evaluated_once_wherever_in_an_epoch_it_lies(recipe_file, held_out, tmp_path, steps):
    found = prepared(recipe_file(max_steps=steps), held_out)
    found.training.eval_strategy = type(found.training.eval_strategy)("epoch")
    stage.train(found)
    evaluated = [entry["step"] for entry in read_json(tmp_path / "out" / "eval.json")]
    assert evaluated[-1] == steps and len(set(evaluated)) == len(evaluated)


def test_held_out_loss_is_a_mean_over_tokens(recipe_file, held_out, tmp_path):
    path = recipe_file(max_steps=5, save_steps=5, eval_steps=2, eval_on_start=True, per_device_eval_batch_size=4)
    stage.train(prepared(path, held_out))
    out = tmp_path / "out"
    evaluations = read_json(out / "eval.json")
    assert [entry["step"] for entry in evaluations] == [0, 2, 4, 5]
    assert len({entry["eval_loss"] for entry in evaluations}) == 4
    assert all(set(entry) == {"step", "epoch", "eval_loss", "eval_mean_token_accuracy"} for entry in evaluations)
    assert [entry["step"] for entry in read_json(out / "loss.json")] == [1, 2, 3, 4, 5]
    done = read_json(out / "training.json")
    assert (
        done["final_eval_loss"] == evaluations[-1]["eval_loss"]
        and done["first_eval_loss"] == evaluations[0]["eval_loss"]
    )
    # by hand, one example after the other
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = read_json(tmp_path / "sft.yaml")["model_name_or_path"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / "adapter").eval()
    losses, right = [], []
    for row in map(json.loads, Path(held_out).read_text().splitlines()):
        start = len(tokenizer(row["prompt"])["input_ids"])
        tokens = tokenizer(row["prompt"] + row["completion"] + "<|endoftext|>", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(tokens).logits[0, start - 1 : -1]
        losses += torch.nn.functional.cross_entropy(logits, tokens[0, start:], reduction="none").tolist()
        right += (logits.argmax(-1) == tokens[0, start:]).tolist()
    assert evaluations[-1]["eval_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert evaluations[-1]["eval_mean_token_accuracy"] == pytest.approx(sum(right) / len(right))


def test_a_killed_run_leaves_the_same_curves(recipe_file, held_out, tmp_path):
    settings = {"max_steps": 18, "save_steps": 5, "eval_steps": 3, "logging_steps": 3, "eval_on_start": True}
    stage.train(prepared(recipe_file("whole.yaml", output_dir=str(tmp_path / "whole"), **settings), held_out))
    path, out = recipe_file("killed.yaml", output_dir=str(tmp_path / "killed"), **settings), tmp_path / "killed"
    program = PREPARE + "import time\nfrom trainers import report\n"
    program += "report.LogAtCheckpoint.on_step_begin = lambda *a, **k: time.sleep(0.2)\n"
    program += "stage.train(prepared(sys.argv[1]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, path, held_out], env=os.environ, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "checkpoint-10" / "trainer_state.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stage.train(prepared(path, held_out))
    for name in ("eval.json", "loss.json", "loss.png", "adapter/adapter_model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert [entry["step"] for entry in read_json(out / "eval.json")] == [0, 3, 6, 9, 12, 15, 18]


def test_other_held_out_data_is_another_run(recipe_file, held_out, write_jsonl):
    path = recipe_file(max_steps=2, eval_steps=2)
    stage.train(prepared(path, held_out))
    other = write_jsonl([{"prompt": "The heart", "completion": " beats"}], "other.jsonl")
    with pytest.raises(InputError, match="dev_fingerprint was"):
        stage.train(prepared(path, other))


def test_nf4_gradients_are_right_after_an_evaluation(recipe_file, build_base, held_out):
    pytest.importorskip("bitsandbytes")
    from peft import LoraConfig, get_peft_model

    base = build_base(64, spread=0.1)
    settings = {"load_in_4bit": True, "use_bnb_nested_quant": True, "lora_dropout": 0.0, "eval_steps": 1}
    trainer = stage._build(prepared(recipe_file(model_name_or_path=base, **settings), held_out))
    model = trainer.model
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05)
    batch = {"input_ids": torch.arange(5, 45).view(2, 20), "labels": torch.arange(5, 45).view(2, 20)}

    def gradient(model):
        model.train()
        model.zero_grad()
        model(**batch).loss.backward()
        return torch.cat([p.grad.flatten() for name, p in sorted(model.named_parameters()) if "lora" in name])

    before = gradient(model)
    measured = trainer.evaluate()
    after = gradient(model)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    # the same adapter on the dequantized weights, in plain linear layers
    plain = adapter.load_base(prepared(recipe_file(model_name_or_path=base, **settings), held_out).model).dequantize()
    reference = get_peft_model(plain.to(torch.float32), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    reference.load_state_dict({k: v for k, v in model.state_dict().items() if "lora" in k}, strict=False)
    assert not any("4bit" in type(module).__name__ for module in reference.modules())
    torch.testing.assert_close(after, gradient(reference), rtol=1e-3, atol=1e-5)
    assert after.abs().max() > 1e-3 and 0 < measured["eval_loss"] < 20
