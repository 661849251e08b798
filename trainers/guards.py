"""Stop a run whose numbers have gone wrong before they reach a checkpoint, and name the examples that did it."""

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
    """Looks at the losses and the gradient norm of every optimizer step, one step late (:meth:`check`).

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
        self.seen: list[list[int]] = []
        self.losses: list[torch.Tensor] = []
        self.pending: tuple | None = None
        self.norms: deque[float] = deque(maxlen=WINDOW)

    def add(self, examples: list[int], loss: "torch.Tensor") -> None:
        """Note a micro-batch of the current step: its examples and its loss, ()."""
        self.seen.append(examples)
        self.losses.append(loss)

    def check(self, norm: "torch.Tensor | float | None", step: int) -> None:
        """Pass the step before this one, or stop; ``norm`` is that of this one's gradient before clipping (None: not
        known yet).

        One step late, so that a GPU is not waited for. Between the two nothing is kept: :meth:`settle` comes first.

        Raises:
            InputError: the step must not be taken; the message names step, examples and mend.
        """
        self.settle()
        self.pending = (_Later(self.losses, norm), norm is not None, step, self.seen, self.losses)
        self.seen, self.losses = [], []

    def settle(self) -> None:
        """Pass the last step, or stop.

        Raises:
            InputError: as of :meth:`check`.
        """
        if self.pending is None:
            return
        (later, is_known, step, seen, losses), self.pending = self.pending, None
        all_finite, norm = later.read()
        norm = norm if is_known else None
        problem = self._problem(norm, bool(all_finite))
        if problem is not None:
            self._stop(problem, step, seen, losses)
        if norm is not None and math.isfinite(norm):
            self.norms.append(norm)

    def _problem(self, norm: float | None, all_finite: bool) -> str | None:
        if not all_finite:
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

    def _stop(self, problem: str, step: int, seen: list[list[int]], losses: list):
        from accelerate import PartialState

        ids = _suspects(seen, losses)
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


class _Later:
    """Whether all losses are finite, of every process, and the gradient's norm: computed now, read later.

    A number that is asked for at once makes the processor wait for all that it has given the GPU to do, and the GPU
    then for the processor. So it is copied meanwhile, and is there when it is asked for.
    """

    def __init__(self, losses: list, norm: "torch.Tensor | float | None"):
        import torch
        from accelerate.utils import gather

        finite = gather(torch.stack(losses).isfinite().all().reshape(1)).all()
        if hasattr(norm, "full_tensor"):  # sharded by FSDP2
            norm = norm.full_tensor()
        norm = torch.as_tensor(0.0 if norm is None else norm, device=finite.device, dtype=torch.float32)
        found = torch.stack([finite.float(), norm.detach()])
        self.copied = None
        self.here = found
        if found.is_cuda:
            self.here = torch.empty(2, pin_memory=True)
            self.here.copy_(found, non_blocking=True)
            self.copied = torch.cuda.Event()
            self.copied.record()

    def read(self) -> list[float]:
        """[1.0 where all losses are finite, the norm]."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.here.tolist()


def _suspects(seen: list[list[int]], losses: list) -> list[int]:
    """The examples of the micro-batches without a finite loss, or of the whole step; of all processes, sorted."""
    from accelerate.utils import gather_object

    bad = [not loss.isfinite().item() for loss in losses]
    mine = [number for numbers, is_bad in zip(seen, bad, strict=True) if is_bad for number in numbers]
    found = gather_object([mine, [number for numbers in seen for number in numbers]])
    suspects, whole = ({number for part in found[which::2] for number in part} for which in (0, 1))
    return sorted(suspects or whole)
