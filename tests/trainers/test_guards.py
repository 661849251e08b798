"""A run stops before bad numbers reach the weights, and says at which step and which examples were in it."""

import json
from pathlib import Path

import pytest
import torch

from medtasks.errors import InputError
from trainers import guards, run_folder, sft


@pytest.fixture
def guard(tmp_path):
    """A function that makes a guard over examples called ``row <id>``."""

    def make(**keywords):
        return guards.Guard(tmp_path, lambda number: f"row {number}", **keywords)

    return make


def step(guard, norm, number, losses=(1.0,), ids=((1, 2),)):
    for loss, of_batch in zip(losses, ids, strict=True):
        guard.add(list(of_batch), torch.tensor(loss))
    guard.check(norm, number)


NAN = float("nan")


@pytest.mark.parametrize(
    ("norm", "losses", "ids", "message", "examples"),
    [
        (NAN, (1.0, NAN), ((3, 4), (9, 7)), "the loss is not finite at step 2 .learning from row 7, row 9.;", [7, 9]),
        (NAN, (1.0, 2.0), ((3, 4), (9, 7)), "the gradient is not finite at step 2 .learning from row 3,", [3, 4, 7, 9]),
        (float("inf"), (1.0,), ((),), "the gradient is not finite at step 2; lower learning_rate", []),
        (1.0, (NAN,), (range(20),), "the loss is not finite at step 2 .* row 7 and 12 more.; ", list(range(20))),
    ],
)
def test_numbers_that_are_not_finite_stop_the_run(guard, tmp_path, norm, losses, ids, message, examples):
    watched = guard()
    step(watched, 1.0, 1)
    step(watched, norm, 2, losses, ids)
    with pytest.raises(InputError, match=message):
        watched.settle()
    about = json.loads((tmp_path / guards.DIVERGED).read_text())
    assert about["step"] == 2 and about["example_ids"] == examples
    assert about["examples"] == [f"row {number}" for number in examples]
    assert message.startswith(about["problem"])


def test_a_step_is_judged_at_the_next_one_with_its_own_examples_and_once(guard, tmp_path):
    watched = guard()
    watched.settle()  # before the first step there is nothing to judge
    step(watched, 1.0, 1, ids=((5,),))
    step(watched, 1.0, 2, (NAN,), ids=((6,),))
    with pytest.raises(InputError, match="the loss is not finite at step 2 .learning from row 6.;"):
        step(watched, 1.0, 3, ids=((7,),))
    watched.settle()  # nothing is left of it


def test_an_infinite_norm_is_how_loss_scaling_works_but_an_infinite_loss_is_not(guard):
    watched = guard(fp16=True)
    step(watched, float("inf"), 1)
    step(watched, 2.0, 2)
    step(watched, 2.0, 3, (NAN,))
    with pytest.raises(InputError, match="the loss is not finite at step 3"):
        watched.settle()


def test_a_spike_is_a_multiple_of_the_running_median(guard):
    watched, lenient = guard(max_grad_spike=5.0), guard()
    for number in range(1, 12):
        norm = 40.0 if number == 5 else 1.0 + number / 100  # too early to judge, and no mean
        step(watched, norm, number)
        step(lenient, norm, number)
    step(watched, 5.0, 12)
    step(lenient, 500.0, 12)
    lenient.settle()
    step(watched, 5.5, 13)
    with pytest.raises(InputError, match=r"the gradient's norm is 5.5, usually 1.08 .max_grad_spike 5. at step 13"):
        watched.settle()


def test_a_first_gradient_of_zero_is_no_training(guard):
    watched = guard()
    step(watched, 0.0, 1)
    with pytest.raises(InputError, match="the gradient is zero at step 1 .* no token of these examples is learned"):
        watched.settle()
    watched = guard()
    step(watched, None, 1)  # DeepSpeed does not know it before its first step
    step(watched, 1.0, 2)
    step(watched, 0.0, 3)
    watched.settle()


@pytest.fixture
def poisoned(build_base, make_item, write_jsonl):
    """(base, source): a token with an infinite embedding, and data of which line 12 alone holds it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = build_base()
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    rows = [make_item(number) for number in range(16)]
    rows[11]["question"] += " ~"
    [token] = tokenizer("~")["input_ids"]
    assert sum(token in tokenizer(json.dumps(row))["input_ids"] for row in rows) == 1
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("inf")
    model.save_pretrained(base)
    return base, write_jsonl(rows, "poisoned.jsonl")


def test_the_example_that_breaks_a_run_is_named(recipe_file, poisoned, tmp_path):
    base, source = poisoned
    settings = {
        "model_name_or_path": base,
        "sources": [source],
        "max_steps": 8,
        "logging_steps": 100,
        "save_steps": 100,
    }
    batch = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "lora_dropout": 0.0}
    path = recipe_file(**settings, **batch)
    with pytest.raises(InputError, match=r"the loss is not finite at step \d .learning from .*poisoned.jsonl:12.;"):
        sft.main(["--config", path])
    about = json.loads((tmp_path / "out" / guards.DIVERGED).read_text())
    assert about["example_ids"] == [11] and about["examples"] == [f"{source}:12"] and 1 <= about["step"] <= 4
    # mended and begun anew, it leaves no such file
    rows = [json.loads(line) for line in Path(source).read_text().splitlines()]
    Path(source).write_text("".join(json.dumps(row) + "\n" for row in rows if "~" not in row["question"]))
    sft.main(["--config", path, "--overwrite"])
    assert not (tmp_path / "out" / guards.DIVERGED).exists() and (tmp_path / "out" / "training.json").exists()


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_a_last_step_that_is_not_finite_leaves_no_checkpoint(recipe_file, monkeypatch, tmp_path, strategy):
    from trainers.trainer import Trainer

    honest = Trainer.compute_loss

    def explode(self, *args, **kwargs):
        loss = honest(self, *args, **kwargs)
        return loss * NAN if self.state.global_step == 3 else loss

    monkeypatch.setattr(Trainer, "compute_loss", explode)
    path = recipe_file(max_steps=None, num_train_epochs=1, save_strategy=strategy, save_steps=100, logging_steps=100)
    with pytest.raises(InputError, match="the loss is not finite at step 4 "):
        sft.main(["--config", path])
    out = tmp_path / "out"
    assert json.loads((out / guards.DIVERGED).read_text())["step"] == 4
    assert run_folder.last_checkpoint(out) == (None, {}) and not (out / "training.json").exists()
