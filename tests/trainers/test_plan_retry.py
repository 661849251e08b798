"""Out of memory: smaller micro-batches, the same rows a step, the same gradients."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from medtasks.errors import InputError
from trainers import sft, stage
from trainers.planning import knobs, retry


@pytest.mark.parametrize(
    ("split", "smaller"), [((8, 1), (4, 2)), ((6, 2), (3, 4)), ((9, 1), (3, 3)), ((7, 3), (1, 21)), ((1, 8), None)]
)
def test_the_next_smaller_split_has_the_same_product(split, smaller):
    assert retry.smaller_split(*split) == smaller
    assert smaller is None or smaller[0] * smaller[1] == split[0] * split[1]


class Full:
    """An attempt that runs out of memory ``times`` times, and notes the splits it was called with."""

    def __init__(self, training, times):
        self.training, self.times, self.splits = training, times, []

    def __call__(self):
        import torch

        self.splits.append((self.training.per_device_train_batch_size, self.training.gradient_accumulation_steps))
        if len(self.splits) <= self.times:
            raise torch.OutOfMemoryError("full")


def test_it_is_tried_again_until_it_fits(capsys):
    training = SimpleNamespace(per_device_train_batch_size=8, gradient_accumulation_steps=1)
    attempt = Full(training, times=2)
    retry.until_it_fits(training, attempt, lambda: "")
    assert attempt.splits == [(8, 1), (4, 2), (2, 4)]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "per_device_train_batch_size 2 and gradient_accumulation_steps 4" in said[1]


@pytest.mark.parametrize(("rows", "processes", "tried"), [(4, 1, 3), (4, 2, 1)])
def test_with_no_smaller_split_the_next_knob_is_named(rows, processes, tried):
    """Of several processes one alone may be out of memory, so none tries again."""
    training = SimpleNamespace(per_device_train_batch_size=rows, gradient_accumulation_steps=1)
    attempt = Full(training, times=9)
    with pytest.raises(InputError, match="memory is full with micro-batches of .; set gradient_checkpointing"):
        retry.until_it_fits(training, attempt, lambda: "set gradient_checkpointing", processes)
    assert len(attempt.splits) == tried


@pytest.fixture
def out_of_memory_at(monkeypatch):
    """A function that makes forward passes of more than ``rows`` rows run out of memory from step ``step`` on."""
    import torch

    from trainers.trainer import Trainer

    honest = Trainer.compute_loss

    def arrange(rows: int, step: int):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if len(inputs["examples"]) > rows and self.state.global_step >= step:
                raise torch.OutOfMemoryError("full")
            return honest(self, model, inputs, *args, **kwargs)

        monkeypatch.setattr(Trainer, "compute_loss", compute_loss)

    return arrange


def test_a_run_goes_on_from_its_checkpoint_and_learns_the_same(recipe_file, out_of_memory_at, tmp_path, capsys):
    from safetensors.torch import load_file

    def train(name):
        out = tmp_path / name
        settings = {"lora_dropout": 0.0, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
        sft.main(["--config", recipe_file(f"{name}.yaml", output_dir=str(out), **settings)])
        done = json.loads((out / "training.json").read_text())
        losses = [entry["loss"] for entry in json.loads((out / "loss.json").read_text())]
        return done, losses, load_file(out / "adapter" / "adapter_model.safetensors")

    whole, losses, weights = train("whole")
    out_of_memory_at(rows=1, step=3)
    split, losses_split, weights_split = train("split")
    assert (whole["per_device_train_batch_size"], whole["gradient_accumulation_steps"]) == (4, 1)
    assert (split["per_device_train_batch_size"], split["gradient_accumulation_steps"]) == (1, 4)
    assert capsys.readouterr().out.count("memory is full") == 2
    assert losses_split == pytest.approx(losses, rel=1e-3)
    for name, weight in weights.items():
        assert (weights_split[name] - weight).abs().max() < 2e-4, name


def test_the_knob_that_a_full_memory_is_told_is_the_planner_s(recipe_file, out_of_memory_at, tmp_path):
    out_of_memory_at(rows=0, step=0)
    with pytest.raises(InputError, match="micro-batches of 1; set gradient_checkpointing: true .saves about"):
        sft.main(["--config", recipe_file()])
    assert not Path(tmp_path / "out" / "training.json").exists()
    assert stage.run_folder.last_checkpoint(tmp_path / "out") == (None, {})


def test_the_knob_is_told_by_what_was_decided(recipe_file, monkeypatch):
    told = []
    monkeypatch.setattr(knobs, "advice", lambda settings, **about: told.append((settings, about)) or "")
    prepared = sft.prepare(["--config", recipe_file()])
    stage._next_knob(prepared)
    assert told[0][0]["compile_layers"] is None and told[0][0]["activation_checkpointing"] is None
    assert told[0][1] == {"gpus": 1, "sharded": False, "on_cpu": True, "by_letter": True}
    prepared = sft.prepare(["--config", recipe_file(answer_style="rationale", activation_checkpointing=False)])
    stage._build(prepared)
    stage._next_knob(prepared)
    assert told[1][0]["compile_layers"] is False and told[1][0]["activation_checkpointing"] is False
    assert told[1][1]["by_letter"] is False
