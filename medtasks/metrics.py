"""Metrics beside accuracy, as lm-eval aggregations with standard errors.

A task's ``process_results`` gives one value per item and metric; an aggregation of this module turns all of them into
one number. lm-eval 0.4.13 estimates standard errors of its own aggregations alone, so those here carry theirs, as the
attribute ``stderr``, and :func:`install` lets lm-eval ask for it. Task files name them as
``aggregation: !function medtasks.metrics.ece``, which imports this module and installs it.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

DRAWS, SEED = 1_000, 0
"""Bootstrap samples, and the seed that draws them."""

Statistic = Callable[[Sequence], float]


def with_stderr(stderr: Statistic) -> Callable[[Statistic], Statistic]:
    """Decorator of an aggregation: ``stderr(values)`` is its standard error."""

    def decorate(aggregation: Statistic) -> Statistic:
        aggregation.stderr = stderr
        return aggregation

    return decorate


def bootstrapped(aggregation: Statistic) -> Statistic:
    """Decorator of an aggregation: its standard error is the bootstrap's over items (Efron 1979)."""
    aggregation.stderr = functools.partial(bootstrap, aggregation)
    return aggregation


def bootstrap(statistic: Statistic, values: Sequence, key: Callable[[object], object] | None = None) -> float:
    """Standard deviation of ``statistic`` over :data:`DRAWS` samples of ``values`` drawn with replacement; NaN of one.

    Args:
        key: whole groups of values with an equal key are drawn together (versions of one item, say). If None, every
            value is drawn by itself, and ``statistic`` gets an array with a row for each.
    """
    draw = np.random.default_rng(SEED).integers
    if key is None:
        rows = np.asarray(values)
        found = [statistic(rows[draw(len(rows), size=len(rows))]) for _ in range(DRAWS)] if len(rows) > 1 else []
    else:
        groups: dict = {}
        for value in values:
            groups.setdefault(key(value), []).append(value)
        groups = list(groups.values())
        n = len(groups) if len(groups) > 1 else 0
        found = [statistic([value for i in draw(n, size=n) for value in groups[i]]) for _ in range(DRAWS if n else 0)]
    known = [value for value in found if not math.isnan(value)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else math.nan


def install() -> None:
    """Let lm-eval ask an aggregation for its own standard error. Done once, when this module is imported."""
    from lm_eval import evaluator_utils

    theirs = evaluator_utils.stderr_for_metric
    if hasattr(theirs, "asks_ours"):
        return

    @functools.wraps(theirs)
    def stderr_for_metric(metric: Statistic, bootstrap_iters: int) -> Callable[[Sequence], float | str] | None:
        own = getattr(metric, "stderr", None)
        if own is None or bootstrap_iters <= 0:
            return theirs(metric, bootstrap_iters)
        return lambda values: "N/A" if math.isnan(error := own(values)) else error  # as lm-eval says it

    stderr_for_metric.asks_ours = True
    evaluator_utils.stderr_for_metric = stderr_for_metric


# Of values [confidence, correct]: the probability of the chosen option among the options; whether it is right (0, 1).

BINS = 10


def reliability(values: Sequence[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of items of each of :data:`BINS` bins of equal mass, the surest first.

    Bins hold as many items, to within one; fewer items than bins make a bin each.
    """
    confidence, correct = _by_confidence(values)
    bins = min(BINS, len(confidence))
    pairs = zip(np.array_split(confidence, bins), np.array_split(correct, bins), strict=True)
    return [(float(c.mean()), float(k.mean()), len(c)) for c, k in pairs]


@bootstrapped
def ece(values: Sequence[tuple[float, float]]) -> float:
    """Expected calibration error over the bins of :func:`reliability`.

    The mean over bins, weighted by their items, of |mean confidence - accuracy|. Naeini et al. 2015 (AAAI) with bins of
    equal mass instead of equal width, which estimate it with less bias: Nixon et al. 2019, arXiv:1904.01685.
    """
    return sum(abs(confidence - accuracy) * n for confidence, accuracy, n in reliability(values)) / len(values)


def risk_coverage(values: Sequence[tuple[float, float]]) -> np.ndarray:
    """Error rate among the n most confident answers, for n from 1 to all: shape ``(len(values),)``."""
    _, correct = _by_confidence(values)
    return np.cumsum(1 - correct) / np.arange(1, len(correct) + 1)


@bootstrapped
def aurc(values: Sequence[tuple[float, float]]) -> float:
    """Area under the risk-coverage curve: the mean of :func:`risk_coverage`.

    Geifman et al. 2019, arXiv:1805.08206. The lower the better; a model that ranks at random has its error rate.
    """
    return float(np.mean(risk_coverage(values)))


COVERAGE = 0.8


@bootstrapped
def acc_at_80(values: Sequence[tuple[float, float]]) -> float:
    """Accuracy on the :data:`COVERAGE` share of items that the model is surest of (rounded up to whole items)."""
    _, correct = _by_confidence(values)
    return float(correct[: math.ceil(COVERAGE * len(correct))].mean())


def _by_confidence(values: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and correctness, the surest first.

    Items of equal confidence have no order among them, so each gets their mean correctness: what follows is then the
    expectation over all their orders.
    """
    confidence, correct = np.asarray(values, dtype=float).T
    distinct, group = np.unique(-confidence, return_inverse=True)  # ascending, so the surest is first
    counts = np.bincount(group)
    means = np.bincount(group, weights=correct) / counts
    return np.repeat(-distinct, counts), np.repeat(means, counts)


# Of values [right class, chosen class]


@bootstrapped
def macro_f1(values: Sequence[tuple[int, int]]) -> float:
    """F1 of each class that is right or chosen somewhere, averaged over these classes: rare ones weigh the same.

    Equal to scikit-learn's ``f1_score(average="macro", zero_division=0)``, which is too slow to be bootstrapped.
    """
    right, chosen = np.asarray(values).T
    classes = int(max(right.max(), chosen.max())) + 1
    is_right, is_chosen = np.bincount(right, minlength=classes), np.bincount(chosen, minlength=classes)
    is_both = np.bincount(right[right == chosen], minlength=classes)
    seen = is_right + is_chosen > 0
    return float(np.mean(2 * is_both[seen] / (is_right + is_chosen)[seen]))


# Of right answers


def _stderr_of_constant(values: Sequence[int]) -> float:
    share = acc_constant(values)
    return math.sqrt(share * (1 - share) / (len(values) - 1))


@with_stderr(_stderr_of_constant)
def acc_constant(values: Sequence[int]) -> float:
    """Accuracy of always giving the answer that is right most often in these very items: what knowing nothing earns."""
    return float(np.bincount(values).max() / len(values))


# Of numbers, None where an item has none


def _stderr_of_present(values: Sequence[float | None]) -> float:
    present = [value for value in values if value is not None]
    return float(np.std(present, ddof=1) / math.sqrt(len(present))) if len(present) > 1 else math.nan


@with_stderr(_stderr_of_present)
def mean_of_present(values: Sequence[float | None]) -> float:
    """Mean of the values that are not None; NaN of none."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else math.nan


install()
