"""Say what a study would do, why, and what it would take, without doing it: ``medadapt study FILE --dry-run``.

Time and memory of a step are those of its own earlier record, or else of a like step's in the study's folder (the same
kind, with or without passages), if that was made on a device like this one, scaled to the tokens; else they are
estimated (:mod:`results.studies.estimate`).
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from medtasks import models
from results.studies import cost, estimate, runner, workload
from results.studies.steps import Step
from results.studies.study import Study

SAME = 0.3
"""How far the guessed tokens of a step may lie from those of a record that is taken as it is."""


@dataclass(frozen=True)
class Row:
    """One step: what would be done, and what it would take (None where nothing, or where it cannot be told)."""

    step: str
    what: str
    runs: bool
    cost: estimate.Estimate | None = None
    source: str = ""


def text(study: Study, steps: list[Step], out: Path) -> str:
    """The steps of ``study``, one a line, and the whole."""
    rows = _rows(study, steps, out)
    width = max(len(row.step) for row in rows)
    lines = [f"{study.name}: {len(rows)} steps in {out}, {sum(not row.runs for row in rows)} of them done", ""]
    for row in rows:
        taken = f"{_time(row.cost.seconds):>10}  {_memory(row.cost):<22}" if row.cost else " " * 34
        lines.append(f"{row.step:<{width}}{taken} {row.what}{f'; {row.source}' if row.source else ''}".rstrip())
    costs = [row.cost for row in rows if row.cost]
    if costs:
        known = [each.seconds for each in costs if each.seconds is not None]
        gpu = [each.gpu_bytes for each in costs if each.gpu_bytes is not None]
        peak = estimate.Estimate(None, max(each.rss_bytes for each in costs), max(gpu, default=None))
        least = "at least " if len(known) < len(costs) else "about "
        lines += ["", f"in all {least}{_time(sum(known))} on {cost.here()}, {_memory(peak)}"]
    return "\n".join(lines)


def _rows(study: Study, steps: list[Step], out: Path) -> list[Row]:
    predict = _Predictor(study, steps, out)
    rows: list[Row] = []
    undone: set[str] = set()
    for step in steps:
        why = runner.why(step, out)
        if step.problem is not None:
            undone.add(step.name)
            rows.append(Row(step.name, f"cannot run: {step.problem}", runs=True))
        elif why is None:
            rows.append(Row(step.name, "done", runs=False))
        else:
            waits = [need for need in step.needs if need in undone]
            undone.add(step.name)
            reason = "" if why == "runs" else f" ({why})"
            what = f"waits for {' and '.join(waits)}{reason}" if waits else f"would run{reason}"
            rows.append(Row(step.name, what, True, *predict.of(step)))
    return rows


class _Predictor:
    """Foretells the cost of steps from records in the study's folder or by estimate."""

    def __init__(self, study: Study, steps: list[Step], out: Path):
        self.study, self.steps, self.out = study, steps, out

    def of(self, step: Step) -> tuple[estimate.Estimate, str]:
        """A step's cost, and where it is known from."""
        for like in (step, *(other for other in self.steps if self._is_like(step, other))):
            record = runner.record(like.name, self.out) or {}
            if record.get("seconds") and str(record.get("device")).endswith(cost.here()):
                name = "its own earlier record" if like is step else f"from the record of {like.name}"
                return self._scaled(step, record), name
        return self._estimated(step), "estimated"

    def _is_like(self, step: Step, other: Step) -> bool:
        return other is not step and other.kind == step.kind and self._has_index(other) == self._has_index(step)

    def _has_index(self, step: Step) -> bool:
        return any(need.startswith("index-") for need in step.needs)

    def _scaled(self, step: Step, record: dict) -> estimate.Estimate:
        """A record's cost, its work scaled to the tokens of ``step``."""
        seconds, start = record["seconds"], estimate.START[step.kind]
        tokens = self._tokens(step)
        if tokens and record.get("tokens") and abs(tokens / record["tokens"] - 1) > SAME:
            seconds = start + max(0.0, seconds - start) * tokens / record["tokens"]
        return estimate.Estimate(seconds, record.get("peak_rss_bytes") or 0, record.get("peak_gpu_bytes"))

    def _tokens(self, step: Step) -> int | None:
        name = step.name.partition("-")[2]
        if step.kind == "evaluation":
            return workload.asked(self.study, self.study.variants[name]).tokens
        if step.kind == "training":
            tokens = [stage.tokens for stage in workload.trained(self.study, self.study.trainings[name])]
            return None if None in tokens else sum(tokens)
        return None

    def _estimated(self, step: Step) -> estimate.Estimate:
        name, here = step.name.partition("-")[2], _machine()
        if step.kind == "index":
            index = self.study.indexes[name]
            shape = estimate.Shape.of(models.folder(index.embedder))
            return estimate.index(shape, here, workload.embedded(index))
        folder = models.folder(self.study.base, self.study.model_args.get("revision"))
        shape = estimate.Shape.of(folder)
        if step.kind == "training":
            return estimate.training(shape, here, workload.trained(self.study, self.study.trainings[name]))
        variant = self.study.variants[name]
        work, has = workload.asked(self.study, variant), (variant.index is not None, variant.training is not None)
        return estimate.evaluation(shape, here, work, self._dtype(folder), *has)

    def _dtype(self, folder: Path) -> str:
        asked = str(self.study.model_args.get("dtype", "auto"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return asked if asked != "auto" else str(config.get("dtype") or config.get("torch_dtype") or "float32")


@functools.cache
def _machine() -> estimate.Machine:
    return estimate.machine()


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _memory(taken: estimate.Estimate) -> str:
    gpu = f", GPU {taken.gpu_bytes / 1e9:.1f} GB" if taken.gpu_bytes is not None else ""
    return f"{taken.rss_bytes / 1e9:.1f} GB{gpu}"
