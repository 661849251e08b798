"""What a run leaves to look at: its losses, learned and held out, as JSON and plot, and its cost."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback

from medtasks import files
from medtasks.cost import peak_rss
from trainers.smoothing import smoothed

LOGGED = ("step", "epoch", "loss", "learning_rate", "grad_norm")
EVALUATED = ("step", "epoch", "eval_loss", "eval_mean_token_accuracy")


class AtEpochEnds(TrainerCallback):
    """Log, evaluate and save at the ends of epochs where the recipe says ``epoch``: to Trainer, all are one pass.

    Args:
        steps: the last step of each epoch but the last one, whose end is that of the pass.
    """

    def __init__(self, steps: set[int]):
        self.steps = steps

    def on_step_end(self, args, state, control, **_):
        if state.global_step in self.steps:
            control.should_log = control.should_log or args.logging_strategy == "epoch"
            control.should_evaluate = control.should_evaluate or args.eval_strategy == "epoch"
            control.should_save = control.should_save or args.save_strategy == "epoch"


class LogAtCheckpoint(TrainerCallback):
    """Log wherever a checkpoint is written: a resumed run counts its mean loss from there, so both log the same."""

    def on_step_end(self, args, state, control, **_):
        control.should_log = control.should_log or control.should_save

    on_epoch_end = on_step_end


class AtCheckpoint(TrainerCallback):
    """Call ``action`` in the first process after each checkpoint."""

    def __init__(self, action: Callable[[], None]):
        self.action = action

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            self.action()


class EvaluateAtEnd(TrainerCallback):
    """Evaluate at the last step too, wherever in an epoch or between ``eval_steps`` it lies: where the curve ends."""

    def on_step_end(self, args, state, control, **_):
        if args.eval_strategy != "no" and state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_epoch_end(self, args, state, control, **_):
        if state.global_step >= state.max_steps:
            control.should_evaluate = False  # the last step was


class CostMeter(TrainerCallback):
    """Keep ``cost.json`` up to date at every checkpoint, over all attempts of a run.

    ``wall_seconds`` from loading the model on, ``train_seconds`` in capturing graphs and in the training loop,
    ``peak_memory_bytes`` of the accelerator (of the process, on a CPU), ``tokens_seen`` in all epochs, ``device``,
    ``attempts`` that came as far as a checkpoint.

    Attributes:
        capturing: seconds before the training loop that are training's.
    """

    def __init__(self, path: Path, started: float, device):
        self.path, self.started, self.device = path, started, device
        self.before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.looped = None
        self.capturing = 0.0

    def on_train_begin(self, args, state, control, **_):
        self.looped = time.monotonic() - self.capturing

    def on_save(self, args, state, control, **_):
        if not state.is_world_process_zero:
            return
        now = time.monotonic()
        memory, name = peak_rss(), "cpu"
        if self.device.type == "cuda":
            import torch

            memory, name = torch.cuda.max_memory_allocated(self.device), torch.cuda.get_device_name(self.device)
        cost = {
            "wall_seconds": round(self.before.get("wall_seconds", 0) + now - self.started, 1),
            "train_seconds": round(self.before.get("train_seconds", 0) + now - self.looped, 1),
            "peak_memory_bytes": max(self.before.get("peak_memory_bytes", 0), memory),
            "tokens_seen": state.num_input_tokens_seen,
            "device": f"{args.world_size} x {name}",
            "attempts": self.before.get("attempts", 0) + 1,
        }
        files.write_json(self.path, cost)


def loss_history(log_history: list[dict]) -> list[dict]:
    """The logged training steps: ``step, epoch, loss, learning_rate, grad_norm`` (None where it was not finite).

    No times, so an interrupted run and an undisturbed one leave the same history.
    """

    return [_numbers(entry, LOGGED) for entry in log_history if "loss" in entry]


def eval_history(log_history: list[dict]) -> list[dict]:
    """The evaluations on held-out data: ``step, epoch, eval_loss, eval_mean_token_accuracy``, means over tokens."""
    return [_numbers(entry, EVALUATED) for entry in log_history if "eval_loss" in entry]


def _numbers(entry: dict, keys: tuple[str, ...]) -> dict:
    """The values of ``keys``; None for what is not there or not finite."""
    return {key: value if math.isfinite(value := entry.get(key, math.nan)) else None for key in keys}


def write_loss(history: list[dict], evaluations: list[dict], out: Path, title: str) -> None:
    """Write ``loss.json``, ``loss.png`` and, where there are evaluations, ``eval.json`` into ``out``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files.write_json(out / "loss.json", history)
    if evaluations:
        files.write_json(out / "eval.json", evaluations)
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel="step", ylabel="loss")
    steps, losses = [entry["step"] for entry in history], [entry["loss"] for entry in history]
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.plot(steps, losses, color="tab:blue", alpha=0.4, linewidth=1, label="training")
    axes.plot(steps, smoothed(losses), color="tab:blue", linewidth=2, label="training, smoothed")
    if evaluations:
        points = [entry["step"] for entry in evaluations], [entry["eval_loss"] for entry in evaluations]
        axes.plot(*points, color="tab:orange", linewidth=1.5, marker="o", markersize=4, label="held out")
    rate = axes.twinx()
    rate.plot(steps, [entry["learning_rate"] for entry in history], color="tab:gray", linewidth=1, linestyle=":")
    rate.set_ylabel("learning rate (dotted)")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    with files.atomic_write(out / "loss.png", "wb") as f:
        figure.savefig(f, format="png", dpi=120)
