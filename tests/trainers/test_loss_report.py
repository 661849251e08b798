"""The loss history and its plot."""

import json
import math
import time
from types import SimpleNamespace

import pytest

from trainers import report


def test_history_keeps_training_steps_and_no_times():
    log = [
        {"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1, "grad_norm": math.inf, "train_runtime": 3.0},
        {"step": 2, "epoch": 1.0, "loss": 1.0, "learning_rate": 0.0, "grad_norm": 0.5},
        {"step": 2, "epoch": 1.0, "train_loss": 1.5, "train_runtime": 9.0},
    ]
    assert report.loss_history(log) == [
        {"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1, "grad_norm": None},
        {"step": 2, "epoch": 1.0, "loss": 1.0, "learning_rate": 0.0, "grad_norm": 0.5},
    ]


def test_smoothing_starts_at_the_first_value_and_keeps_a_constant():
    assert report.smoothed([3.0] * 5) == pytest.approx([3.0] * 5)
    assert report.smoothed([]) == []


def test_a_plot_of_one_step(tmp_path):
    entry = {"step": 1, "epoch": 1.0, "loss": 2.0, "learning_rate": 0.0, "grad_norm": 1.0}
    report.write_loss([entry], [], tmp_path, "one")
    assert (tmp_path / "loss.png").stat().st_size > 1000 and not (tmp_path / "eval.json").exists()


def test_evaluations_are_kept_apart_from_training_steps_and_drawn(tmp_path):
    entry = {"step": 1, "epoch": 1.0, "loss": 2.0, "learning_rate": 0.0, "grad_norm": 1.0}
    measured = {"step": 1, "epoch": 1.0, "eval_loss": math.nan, "eval_mean_token_accuracy": 0.5}
    log = [entry, measured | {"eval_runtime": 3.0}]
    assert report.loss_history(log) == [entry]
    assert (evaluations := report.eval_history(log)) == [measured | {"eval_loss": None}]
    report.write_loss([entry], [], tmp_path / "without", "one")
    report.write_loss([entry], [measured | {"eval_loss": 3.0}], tmp_path / "with", "one")
    assert json.loads((tmp_path / "with" / "eval.json").read_text())[0]["eval_loss"] == 3.0
    pictures = [(tmp_path / name / "loss.png").read_bytes() for name in ("without", "with")]
    assert pictures[0] != pictures[1] and evaluations


def test_the_time_of_capturing_graphs_is_training_s(tmp_path):
    state = SimpleNamespace(is_world_process_zero=True, num_input_tokens_seen=10)
    seconds = {}
    for capturing in (0.0, 60.0):
        path = tmp_path / f"{capturing}.json"
        meter = report.CostMeter(path, time.monotonic(), SimpleNamespace(type="cpu"))
        meter.capturing = capturing
        meter.on_train_begin(None, state, None)
        meter.on_save(SimpleNamespace(world_size=1), state, None)
        seconds[capturing] = json.loads(path.read_text())["train_seconds"]
    assert seconds[0.0] < 60 <= seconds[60.0]
