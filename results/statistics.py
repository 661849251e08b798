"""Statistics of paired runs: is the difference between two models on the same items more than luck?

All take per-item correctness as sequences of 0/1 in the same item order. Interfaces to statsmodels and scipy, with
the choice of method stated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medtasks.errors import InputError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A proportion, or a difference of two, with its interval; all between -1 and 1."""

    value: float
    low: float
    high: float


def accuracy(correct: Sequence[int]) -> Estimate:
    """Share of right answers with Wilson's score interval (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Unlike the normal interval it keeps its coverage on small samples and near 0 and 1.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(sum(correct), len(correct), alpha=1 - CONFIDENCE, method="wilson")
    return Estimate(sum(correct) / len(correct), float(low), float(high))


def macro_accuracy(tasks: Sequence[Sequence[int]]) -> Estimate:
    """Mean of the tasks' accuracies, each task weighing the same; normal interval from their binomial variances."""
    shares = [sum(correct) / len(correct) for correct in tasks]
    variance = sum(p * (1 - p) / len(correct) for p, correct in zip(shares, tasks, strict=True)) / len(tasks) ** 2
    return _normal(sum(shares) / len(tasks), variance)


def mcnemar(base: Sequence[int], other: Sequence[int]) -> float:
    """Two-sided p-value of McNemar's exact test (1947, doi:10.1007/BF02295996) that both are right equally often.

    Only the items that one of them alone answers count: a binomial test of fixed against broken.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    _same_length(base, other)
    fixed = sum(o > b for b, o in zip(base, other, strict=True))
    broken = sum(o < b for b, o in zip(base, other, strict=True))
    return float(test([[0, fixed], [broken, 0]], exact=True).pvalue)


def macro_difference(base: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> tuple[Estimate, float]:
    """Mean over tasks of (other - base), its interval, and the two-sided p-value that it is 0.

    Paired standard error: the variance of the per-item differences within each task (Miller 2024, arXiv:2411.00640,
    eq. 8), tasks weighing the same; normal approximation.
    """
    from scipy.stats import norm

    means, variance = [], 0.0
    for b, o in zip(base, other, strict=True):
        _same_length(b, o)
        differences = [x - y for x, y in zip(o, b, strict=True)]
        n, mean = len(differences), sum(differences) / len(differences)
        means.append(mean)
        if n > 1:
            variance += sum((d - mean) ** 2 for d in differences) / (n - 1) / n
    variance /= len(means) ** 2
    estimate = _normal(sum(means) / len(means), variance)
    if variance == 0:
        return estimate, 1.0 if estimate.value == 0 else 0.0
    return estimate, float(2 * norm.sf(abs(estimate.value) / math.sqrt(variance)))


def _normal(value: float, variance: float) -> Estimate:
    from scipy.stats import norm

    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)


def _same_length(base: Sequence[int], other: Sequence[int]) -> None:
    if len(base) != len(other):
        raise InputError(f"the runs hold {len(base)} and {len(other)} items: only runs of the same items can be paired")
