"""Where a run is reported while it goes (`report_to`): TensorBoard, Trackio, Weights & Biases; nowhere by default."""

import importlib.util
from pathlib import Path

from medtasks.errors import InputError

FOLDER = "tensorboard"
"""In the run's folder: what TensorBoard shows. Trackio and Weights & Biases keep runs where they always do."""
MODULES = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
"""Tracker -> the packages of which one must be there. transformers knows more trackers; they are passed on to it."""


def settle(training, out: Path) -> None:
    """See that the trackers of ``training.report_to`` are there; the run is called as its folder if it has no name.

    Trackio and Weights & Biases go on with a run of the same name, so a resumed run stays one curve.

    Raises:
        InputError: one is not installed.
    """
    for name in training.report_to:
        if not any(map(importlib.util.find_spec, MODULES.get(name, ("sys",)))):
            raise InputError(f"report_to: {name} is not installed; `pip install {name}`, or take it out")
    training.run_name = training.run_name or out.name


def keep(trainer, out: Path) -> None:
    """Have TensorBoard's files written into the run's folder; they would lie among the checkpoints and go with them."""
    from transformers.integrations import TensorBoardCallback

    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(out / FOLDER)
