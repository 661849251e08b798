"""When memory is full: train on with smaller micro-batches, and more of them to a step."""

import gc
from collections.abc import Callable

from medtasks.errors import InputError


def smaller_split(micro_batch: int, accumulation: int) -> tuple[int, int] | None:
    """The next smaller micro-batch, and the accumulation that keeps rows a step; None where it is one row already.

    Halves where that is a whole number; else the largest divisor, so that the product stays the same exactly.
    """
    for smaller in range(micro_batch // 2, 0, -1):
        if micro_batch % smaller == 0:
            return smaller, accumulation * (micro_batch // smaller)
    return None


def until_it_fits(training, attempt: Callable[[], None], next_knob: Callable[[], str], processes: int = 1) -> None:
    """Call ``attempt`` until it does not run out of memory, each time with smaller micro-batches in ``training``.

    A step then sees the same rows, and TRL divides its loss by the labelled tokens of all of them, so gradients are the
    same up to rounding. ``attempt`` builds its trainer anew and goes on from the last checkpoint. Several processes are
    not tried again: those with memory left would wait for the one without.

    Args:
        training: has ``per_device_train_batch_size`` and ``gradient_accumulation_steps``, which are changed.
        next_knob: tells what to change where the micro-batch can get no smaller.

    Raises:
        InputError: a micro-batch of one row does not fit either.
    """
    import torch

    while True:
        try:
            return attempt()
        except torch.OutOfMemoryError:
            before = training.per_device_train_batch_size
            split = smaller_split(before, training.gradient_accumulation_steps) if processes == 1 else None
        if split is None:
            raise InputError(f"the accelerator's memory is full with micro-batches of {before}; {next_knob()}")
        _release()  # only now: the error, and the trainer that it came through, are gone
        training.per_device_train_batch_size, training.gradient_accumulation_steps = split
        print(
            f"memory is full with micro-batches of {before}: going on with per_device_train_batch_size {split[0]} "
            f"and gradient_accumulation_steps {split[1]}, the same rows a step"
        )


def _release() -> None:
    """Give back what a trainer that is no more held on the accelerator."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
