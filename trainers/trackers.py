"""Where a run is reported while it goes (`report_to`): TensorBoard, Trackio, Weights & Biases; nowhere by default."""

import importlib
import importlib.util
import os
import uuid
from contextlib import contextmanager
from pathlib import Path

from medtasks import files
from medtasks.errors import InputError

WANDB_ID = "wandb_run_id"
"""Among the checkpoints, and gone with them: under what id Weights & Biases goes on with a run."""
FOLDER = "tensorboard"
"""In the run's folder: what TensorBoard shows. Trackio and Weights & Biases keep runs where they always do."""
MODULES = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
"""Tracker -> the packages of which one must be there. transformers knows more trackers; they are passed on to it."""


def settle(training, out: Path) -> None:
    """See that the trackers of ``training.report_to`` are there; the run is called as its folder if it has no name.

    Trackio goes on with a run of the same name, so a resumed run stays one curve; so it does in Weights & Biases by
    :func:`one_curve`.

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


@contextmanager
def one_curve(report_to: list[str], checkpoints: Path):
    """While it trains, let Weights & Biases go on with the run whose ``checkpoints`` these are, and end it then.

    It takes every start for a new run, unless it is told the id of one, and every training of a process for one run,
    unless it is ended. A user's own ``WANDB_RUN_ID`` or ``wandb.init`` is left alone.
    """
    from accelerate import PartialState

    wandb = "wandb" in report_to and PartialState().is_main_process and importlib.import_module("wandb")
    if not wandb or wandb.run is not None or "WANDB_RUN_ID" in os.environ:
        yield
        return
    file = checkpoints / WANDB_ID
    if not file.is_file():
        files.write_text(file, uuid.uuid4().hex[:8])
    os.environ["WANDB_RUN_ID"] = file.read_text(encoding="utf-8")
    os.environ.setdefault("WANDB_RESUME", "allow")
    failed = True
    try:
        yield
        failed = False
    finally:
        del os.environ["WANDB_RUN_ID"]
        if wandb.run is not None:
            wandb.finish(exit_code=int(failed))
