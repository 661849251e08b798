"""Statistics of paired runs: is the difference between two models on the same items more than luck?

Everything starts from :class:`Differences`: what changed, cluster by cluster. A cluster is one independent question:
mostly a single item, but the versions of an item (its options in another order, say) and its repetitions stand or fall
together, so they are one cluster. Several tasks are strata: items are never exchanged between them.

| question | method |
|---|---|
| how good is a run | Wilson's interval; with clusters, at the effective number of items |
| how large is a difference | paired bootstrap over clusters, stratified by task |
| could it be luck | McNemar's exact test; for clusters and for the mean over tasks, a sign-flip test |
| how many comparisons were made | Holm's correction |
| what could have been seen | Connor's formula at 80% power |

``benchmarks/paired_statistics.py`` measures coverage, false positives and power of all these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8
SEED = 0

DRAWS = 10_000
"""Bootstrap samples of a difference in accuracy."""

FLIPS = 99_999
"""Random sign flips for the mean over tasks; its p-value cannot be below 1 / (FLIPS + 1)."""

PSEUDO_COUNT = 0.15
"""Clusters added to each direction of change before resampling; see :func:`bootstrap`."""


@dataclass(frozen=True)
class Estimate:
    """A proportion, or a difference of two, with its interval; all between -1 and 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Differences:
    """What one run answers better or worse than another, in one task.

    Attributes:
        sums: a number for each cluster: its items that only the one run answers, less those that only the other does.
        sizes: items of each cluster.
    """

    sums: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, base: np.ndarray, other: np.ndarray, clusters: np.ndarray) -> "Differences":
        """``other`` minus ``base``, both 0/1 an item; ``clusters`` numbers the cluster of each item from 0."""
        sums = np.bincount(clusters, weights=np.asarray(other, float) - np.asarray(base, float))
        return cls(np.rint(sums).astype(int), np.bincount(clusters))

    @property
    def mean(self) -> float:
        """The difference in accuracy, each item weighing the same."""
        return float(self.sums.sum() / self.sizes.sum())


# How good is a run


def accuracy(correct: Sequence[int], clusters: Sequence[int] | None = None) -> Estimate:
    """Share of right answers with Wilson's score interval (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Unlike the normal interval it keeps its coverage on small samples and near 0 and 1. Items that come in clusters
    count for fewer: n is divided by the design effect (Korn and Graubard 1998, Survey Methodology 24:193).
    """
    from statsmodels.stats.proportion import proportion_confint

    correct = np.asarray(correct, float)
    n, share = len(correct), float(correct.mean())
    effective = n if clusters is None else n / _design_effect(correct, np.asarray(clusters))
    low, high = proportion_confint(share * effective, effective, alpha=1 - CONFIDENCE, method="wilson")
    return Estimate(share, float(low), float(high))


def _design_effect(correct: np.ndarray, clusters: np.ndarray) -> float:
    """Variance of the accuracy over clusters by what it would be over as many independent items; at least 1.

    At most what it is if the items of a cluster are always right or wrong together, which is assumed where all are
    right or all are wrong.
    """
    n, sizes = len(correct), np.bincount(clusters)
    most = float((sizes**2).sum() / n)
    share = correct.mean()
    if most == 1 or len(sizes) == 1 or share in (0, 1):
        return most
    residuals = np.bincount(clusters, weights=correct - share)
    variance = (residuals**2).sum() / n**2 * len(sizes) / (len(sizes) - 1)
    return float(np.clip(variance / (share * (1 - share) / n), 1, most))


def mean_accuracy(tasks: Sequence[Estimate]) -> Estimate:
    """Mean over tasks, each weighing the same, with an interval made of the tasks' intervals.

    The distances to the tasks' limits add up like standard errors (Zou et al. 2009, doi:10.1016/j.csda.2008.09.033), so
    that it, too, keeps its coverage near 0 and 1.
    """
    mean = math.fsum(task.value for task in tasks) / len(tasks)
    below = math.hypot(*(task.value - task.low for task in tasks)) / len(tasks)
    above = math.hypot(*(task.high - task.value for task in tasks)) / len(tasks)
    return Estimate(mean, mean - below, mean + above)


# How large is a difference


def bootstrap(tasks: Sequence[Differences], weights: Sequence[float]) -> Estimate:
    """The weighted sum of the tasks' differences with the percentile interval of a paired bootstrap within each task.

    A draw takes as many clusters as there are, with replacement (Efron 1979, doi:10.1214/aos/1176344552; Davison and
    Hinkley 1997, doi:10.1017/CBO9780511802843, sections 3.2 and 3.8). How often a cluster's kind (its sum and size) is
    drawn is exactly multinomial, so kinds are drawn instead of clusters.

    Resampling alone never shows a change that the sample happens not to hold: with few discordant items its interval is
    too short, and a point where there are none. So :data:`PSEUDO_COUNT` clusters that get better and as many that get
    worse are added before drawing, as Agresti and Min (2005, doi:10.1002/sim.1781) add to the cells of a table; the
    amount was chosen by coverage.

    Args:
        weights: of each task, summing to 1: equal ones for the mean over tasks, shares of the items to pool them.
    """
    draw = np.random.default_rng(SEED)
    drawn = sum(weight * _resampled(task, draw) for task, weight in zip(tasks, weights, strict=True))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = math.fsum(weight * task.mean for task, weight in zip(tasks, weights, strict=True))
    return Estimate(value, float(low), float(high))


def _resampled(task: Differences, draw: np.random.Generator) -> np.ndarray:
    """The task's difference in each of :data:`DRAWS` bootstrap samples."""
    changed = task.sums[task.sums != 0]
    change = math.sqrt(np.mean(changed**2)) if len(changed) else 1.0
    clusters = task.sums + 1j * task.sizes  # pairs in one number, because numpy finds distinct numbers fast
    added = np.array([change, -change]) + 1j * task.sizes.mean()
    kinds, kind = np.unique(np.append(clusters, added), return_inverse=True)
    counts = np.bincount(kind, weights=np.append(np.ones(len(clusters)), [PSEUDO_COUNT, PSEUDO_COUNT]))
    times = draw.multinomial(len(clusters), counts / counts.sum(), size=DRAWS)
    return (times @ kinds.real) / (times @ kinds.imag)


# Could it be luck


def mcnemar(sums: np.ndarray) -> float:
    """Two-sided p-value that a cluster is as likely to get better as to get worse by as much.

    With clusters of one item this is McNemar's exact test (1947, doi:10.1007/BF02295996), a binomial test of fixed
    against broken items. With larger ones it is the exact sign-flip test (Fisher 1935, The Design of Experiments), of
    which McNemar's is the special case: if the runs are alike, each cluster's sum could as well have had the other
    sign. The distribution over all flips is computed, not sampled.
    """
    gained = np.ones(1)  # probability of each sum over the clusters that get better
    for change, count in _changes(sums):
        steps = np.zeros(change * count + 1)
        steps[::change] = _coin(count)
        gained = np.convolve(gained, steps)
    flipped = 2 * np.arange(len(gained)) - (len(gained) - 1)
    return min(1.0, float(gained[np.abs(flipped) >= abs(int(sums.sum()))].sum()))


def mean_test(tasks: Sequence[Differences]) -> float:
    """Two-sided p-value that the mean of the tasks' differences, each weighing the same, is no more than luck.

    The sign-flip test of :func:`mcnemar` within every task at once. Tasks of unequal size have no common steps, so
    :data:`FLIPS` random flips stand for all (seeded; counted as Phipson and Smyth 2010, doi:10.2202/1544-6115.1585, so
    the false-positive rate is kept whatever their number).
    """
    draw = np.random.default_rng(SEED)
    flipped = np.zeros(FLIPS)
    for task in tasks:
        for change, count in _changes(task.sums):
            flipped += change * (2 * draw.binomial(count, 0.5, size=FLIPS) - count) / task.sizes.sum()
    observed = abs(math.fsum(task.mean for task in tasks))
    as_far = np.abs(flipped) >= observed - 1e-12
    return float((1 + as_far.sum()) / (1 + FLIPS))


def _changes(sums: np.ndarray) -> list[tuple[int, int]]:
    """How far clusters change (in items, whichever way), and how many change so far."""
    changes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    return list(zip(changes.tolist(), counts.tolist(), strict=True))


def _coin(n: int) -> np.ndarray:
    """Probability of 0 to ``n`` heads in ``n`` throws."""
    from scipy.stats import binom

    return binom.pmf(np.arange(n + 1), n, 0.5)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that one of them falsely passes .05 in at most 5% of tables (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


# What could have been seen


def detectable(tasks: Sequence[Differences], weights: Sequence[float]) -> float | None:
    """Smallest true difference that McNemar's test at .05 would find in 80% of such samples; None if there is none.

    Connor (1987, doi:10.2307/2531961), after Miettinen (1968, Biometrics 24:339): with discordance q, n items and
    normal quantiles a and b of the error and the power, it solves ``a sqrt(q/n) + b sqrt((q - d^2)/n) = d``. Here q is
    the mean square of a cluster's change (the share of discordant items where clusters are single items), or d where
    the sample holds less change than d needs. Several tasks' variances add up with the square of their weights, all
    moving by the same d. Holm's correction, which depends on the other p-values, is left out.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    a, b = norm.ppf((1 + CONFIDENCE) / 2), norm.ppf(POWER)
    n = np.array([len(task.sums) for task in tasks])
    squares = np.array([np.mean((task.sums / task.sizes.mean()) ** 2) for task in tasks])
    weights = np.asarray(weights) ** 2 / n

    def missing(d: float) -> float:
        q = np.maximum(squares, d)
        return float(a * np.sqrt(weights @ q) + b * np.sqrt(weights @ (q - d * d)) - d)

    return float(brentq(missing, 1e-9, 1)) if missing(1) < 0 else None
