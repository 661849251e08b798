"""Compare runs of the same items: every run's accuracy, and every difference with its interval and p-value."""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

import numpy as np

from results import calibration, statistics
from results.calibration import Answers
from results.pairing import PairedTask, pair
from results.runs import Run
from results.statistics import Differences, Estimate

MEAN, POOLED = "mean", "pooled"
"""Names that stand for all tasks: as their mean, in which tasks weigh alike, and as one, in which items do."""

SIGNIFICANT = 0.05

CALIBRATION = ("ece", "brier")

DIGITS = 10


def compare(runs: Sequence[Run], base: str, all_pairs: bool = False, allow: Collection[str] = ()) -> dict:
    """Every run with its accuracy, and its differences to ``base`` (or of all pairs) on the same items.

    Accuracy and differences count every row, as published; tests count each independent item once
    (:class:`results.pairing.PairedTask`). ``n_distinct`` is how many of these there are; ``fixed`` and ``broken``, how
    many of them the variant answers better and worse than the base.

    Args:
        base: name of the run that the others are compared with.
        all_pairs: compare every two runs; the earlier of two that are not ``base`` is the base of the other.
        allow: differences to let pass, of :data:`results.pairing.ALLOWED`.

    Returns:
        ``base``; ``estimates``, dicts of ``variant, task, n, n_distinct, accuracy, low, high, ece, brier``;
        ``comparisons``, dicts of ``variant, base, task, n, n_distinct, difference, low, high, p, p_holm, fixed, broken,
        detectable, agreement`` and, for ece and brier, ``_difference, _low, _high``; ``left_out``, task -> why. Shares
        are between 0 and 1, None what is not known. Several tasks are followed by :data:`MEAN` and :data:`POOLED`.

    Raises:
        InputError: the runs cannot be compared (:func:`results.pairing.pair`).
    """
    tasks, left_out = pair(runs, base, allow)
    names = [base, *(run.name for run in runs if run.name != base)]
    samples = {name: _Calibration(name, tasks) for name in names}
    pairs = combinations(names, 2) if all_pairs else ((base, name) for name in names[1:])
    comparisons = [
        row | samples[other].minus(samples[reference], row["task"])
        for reference, other in pairs
        for row in _comparisons(tasks, reference, other)
    ]
    for row, p in zip(comparisons, statistics.holm([row["p"] for row in comparisons]), strict=True):
        row["p_holm"] = p
    order = [run.name for run in runs]
    estimates = [row | samples[name].values(row["task"]) for name in order for row in _estimates(tasks, name)]
    rows = {"estimates": list(map(_rounded, estimates)), "comparisons": list(map(_rounded, comparisons))}
    return {"base": base, **rows, "left_out": left_out}


def _rounded(row: dict) -> dict:
    """With :data:`DIGITS` of every number, so that another machine's last bits do not show."""
    return {name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for name, value in row.items()}


def is_significant(row: dict) -> bool:
    """Whether a difference is unlikely to be luck: p below :data:`SIGNIFICANT` after correction for all comparisons."""
    return row["p_holm"] < SIGNIFICANT


def _scopes(tasks: dict[str, PairedTask]) -> Iterator[tuple[str, list[str], list[float]]]:
    """What rows are about: its name, its tasks and their weights."""
    for task in tasks:
        yield task, [task], [1.0]
    if len(tasks) > 1:
        yield MEAN, list(tasks), [1 / len(tasks)] * len(tasks)
        total = sum(task.n for task in tasks.values())
        yield POOLED, list(tasks), [task.n / total for task in tasks.values()]


def _sizes(tasks: list[PairedTask]) -> dict[str, int]:
    return {"n": sum(task.n for task in tasks), "n_distinct": sum(task.n_distinct for task in tasks)}


def _estimates(tasks: dict[str, PairedTask], run: str) -> Iterator[dict]:
    """Accuracies of one run."""
    shares = {name: statistics.accuracy(task.correct[run], task.clusters) for name, task in tasks.items()}
    for scope, members, _ in _scopes(tasks):
        inside = [tasks[name] for name in members]
        if scope == MEAN:
            share = statistics.mean_accuracy(list(shares.values()))
        elif scope == POOLED:
            share = _pooled_accuracy(inside, run)
        else:
            share = shares[scope]
        accuracy = {"accuracy": share.value, "low": share.low, "high": share.high}
        yield {"variant": run, "task": scope, **_sizes(inside), **accuracy}


def _pooled_accuracy(tasks: list[PairedTask], run: str) -> Estimate:
    before = np.cumsum([0, *(task.n_distinct for task in tasks)])
    clusters = np.concatenate([start + task.clusters for start, task in zip(before, tasks, strict=False)])
    return statistics.accuracy(np.concatenate([task.correct[run] for task in tasks]), clusters)


def _comparisons(tasks: dict[str, PairedTask], base: str, other: str) -> Iterator[dict]:
    """Differences in accuracy of one pair of runs, less what needs the other pairs or calibration."""
    asked, tested, same = {}, {}, {}
    for name, task in tasks.items():
        once = task.first
        asked[name] = Differences.of(task.correct[base], task.correct[other], task.clusters)
        tested[name] = Differences.of(task.correct[base][once], task.correct[other][once], task.clusters[once])
        same[name] = _agreement(task.rows[base], task.rows[other])
    for scope, members, weights in _scopes(tasks):
        counted = [tested[name] for name in members]
        sums = np.concatenate([task.sums for task in counted])
        difference = statistics.bootstrap([asked[name] for name in members], weights)
        yield {
            "variant": other,
            "base": base,
            "task": scope,
            **_sizes([tasks[name] for name in members]),
            "difference": difference.value,
            "low": difference.low,
            "high": difference.high,
            "p": statistics.mean_test(counted) if scope == MEAN else statistics.mcnemar(sums),
            "fixed": int((sums > 0).sum()),
            "broken": int((sums < 0).sum()),
            "detectable": statistics.detectable(counted, weights),
            "agreement": float(np.dot(weights, [same[name] for name in members])),
        }


def _agreement(ours: list[dict], theirs: list[dict]) -> float:
    """Share of items with the same choice; where nothing was chosen from options, with the same correctness."""
    field = "correct" if all(row["choice"] is None for row in (*ours, *theirs)) else "choice"
    return sum(a[field] == b[field] for a, b in zip(ours, theirs, strict=True)) / len(ours)


class _Calibration:
    """ECE and Brier score of one run in every scope, and their bootstrap samples, drawn when first asked for."""

    def __init__(self, run: str, tasks: dict[str, PairedTask]):
        self._tasks = tasks
        self._answers = {name: Answers.of(task.rows[run]) for name, task in tasks.items()}
        self._drawn: dict[str, dict] = {}

    def values(self, scope: str) -> dict[str, float | None]:
        """``ece`` and ``brier`` of the scope, each None where a task has none."""
        if scope == MEAN:
            values = [self.values(task) for task in self._tasks]
            return {name: _mean([value[name] for value in values]) for name in CALIBRATION}
        answers = self._of(scope)
        if any(task is None for task in answers):
            return dict.fromkeys(CALIBRATION)
        together = Answers.together(answers)
        found = {"ece": calibration.ece(together), "brier": calibration.brier(together)}
        return {name: None if value is None else float(value[0]) for name, value in found.items()}

    def samples(self, scope: str) -> dict[str, np.ndarray | None]:
        """Bootstrap samples of :meth:`values`."""
        if scope not in self._drawn:
            if scope == MEAN:
                drawn = [self.samples(task) for task in self._tasks]
                found = {name: _mean([sample[name] for sample in drawn]) for name in CALIBRATION}
            elif any(task is None for task in self._of(scope)):
                found = dict.fromkeys(CALIBRATION)
            else:
                clusters = [self._tasks[task].clusters for task in self._members(scope)]
                found = calibration.bootstrap(self._of(scope), clusters)
            self._drawn[scope] = found
        return self._drawn[scope]

    def minus(self, base: "_Calibration", scope: str) -> dict[str, float | None]:
        """Differences of :meth:`values` with their paired bootstrap intervals."""
        row: dict[str, float | None] = {}
        for name in CALIBRATION:
            ours, theirs = self.samples(scope)[name], base.samples(scope)[name]
            known = ours is not None and theirs is not None
            value = self.values(scope)[name] - base.values(scope)[name] if known else None
            low, high = calibration.interval(value, ours - theirs) if known else (None, None)
            row |= {f"{name}_difference": value, f"{name}_low": low, f"{name}_high": high}
        return row

    def _members(self, scope: str) -> list[str]:
        return list(self._tasks) if scope == POOLED else [scope]

    def _of(self, scope: str) -> list[Answers | None]:
        return [self._answers[task] for task in self._members(scope)]


def _mean(values: list):
    return None if any(value is None for value in values) else sum(values) / len(values)
