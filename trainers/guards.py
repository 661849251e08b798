"""Stop a run whose numbers have gone wrong before they reach the weights, and name the examples that did it."""

import math
import statistics
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files
from medtasks.errors import InputError

if TYPE_CHECKING:
    import torch

DIVERGED = "diverged.json"
"""In the run's folder after such a stop: ``step``, ``problem``, ``example_ids`` and ``examples`` (their places)."""
WINDOW, LEAST = 100, 10
"""Steps whose gradient norms a spike is compared with, and how many there must be."""
NAMED = 8
"""Examples that the message names; the file names all."""


class Guard:
    """Looks at the losses and the gradient norm of every optimizer step before the optimizer does.

    Stops where a loss or the norm is not finite, where the first gradient is zero (nothing is learned), and, with
    ``max_grad_spike``, where the norm is that many times the median of the last :data:`WINDOW` steps, counted anew
    after a resume. Under fp16 an infinite norm is no fault: that is how loss scaling finds its scale, and the step is
    skipped.

    Args:
        out: the run's folder, for :data:`DIVERGED`.
        place: what to call the example of an id, e.g. ``medqa row 17``.
        fp16: whether losses are scaled.
        max_grad_spike: a multiple of the median norm, or 0 for no such limit.
    """

    def __init__(self, out: Path, place: Callable[[int], str], fp16: bool = False, max_grad_spike: float = 0.0):
        self.out, self.place, self.fp16, self.max_grad_spike = out, place, fp16, max_grad_spike
        self.seen: list[torch.Tensor | None] = []
        self.losses: list[torch.Tensor] = []
        self.norms: deque[float] = deque(maxlen=WINDOW)

    def add(self, example_ids: "torch.Tensor | None", loss: "torch.Tensor") -> None:
        """Note a micro-batch of the current step: its examples, (n,), where they are known, and its loss, ()."""
        self.seen.append(example_ids)
        self.losses.append(loss)

    def check(self, norm: float | None, step: int) -> None:
        """Pass the current step, whose gradient has this norm before clipping (None: not known yet), or stop.

        Raises:
            InputError: it must not be taken; the message names step, examples and mend.
        """
        problem = self._problem(norm)
        if problem is not None:
            self._stop(problem, step)
        self.seen, self.losses = [], []
        if norm is not None and math.isfinite(norm):
            self.norms.append(norm)

    def _problem(self, norm: float | None) -> str | None:
        if not self._all_losses_finite():
            return "the loss is not finite"
        if norm is None:
            return None
        if not math.isfinite(norm):
            return None if self.fp16 else "the gradient is not finite"
        if not self.norms:
            return None if norm else "the gradient is zero"
        usual = statistics.median(self.norms)
        if self.max_grad_spike and len(self.norms) >= LEAST and norm > self.max_grad_spike * usual:
            return f"the gradient's norm is {norm:.3g}, usually {usual:.3g} (max_grad_spike {self.max_grad_spike:g})"
        return None

    def _all_losses_finite(self) -> bool:
        """Of every process, so that all stop together."""
        import torch
        from accelerate.utils import gather

        return bool(gather(torch.stack(self.losses).isfinite().all().reshape(1)).all())

    def _stop(self, problem: str, step: int):
        from accelerate import PartialState

        ids = self._suspects()
        places = [self.place(number) for number in ids]
        if PartialState().is_main_process:
            about = {"step": step, "problem": problem, "example_ids": ids, "examples": places}
            files.write_json(self.out / DIVERGED, about)
        shown = ", ".join(places[:NAMED]) + (f" and {len(places) - NAMED} more" if len(places) > NAMED else "")
        mend = "lower learning_rate or max_grad_norm, train in bf16 or fp32 rather than fp16, or mend the example"
        if problem == "the gradient is zero":
            mend = "no token of these examples is learned, or all weights are frozen"
        raise InputError(
            f"{problem} at step {step}{f' (learning from {shown})' if shown else ''}; {mend}, and start again with "
            f"'overwrite: true'"
        )

    def _suspects(self) -> list[int]:
        """The examples of the micro-batches without a finite loss, or of the whole step; of all processes, sorted."""
        from accelerate.utils import gather_object

        bad = [not loss.isfinite().item() for loss in self.losses]
        mine = [ids for ids, is_bad in zip(self.seen, bad, strict=True) if ids is not None and is_bad]
        rest = [ids for ids in self.seen if ids is not None]
        found = gather_object([([n for ids in some for n in ids.tolist()]) for some in (mine, rest)])
        suspects, whole = ({n for part in found[which::2] for n in part} for which in (0, 1))
        return sorted(suspects or whole)
