"""The loss history and its plot."""

import math

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
    report.write_loss([entry], tmp_path, "one")
    assert (tmp_path / "loss.png").stat().st_size > 1000
