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
    """Standard deviation of ``statistic`` over :data:`DRAWS` samples of ``values`` drawn with replacement.

    Args:
        key: whole groups of values with an equal key are drawn together (versions of one item, say); every value is a
            group of its own if None.
    """
    groups: dict = {}
    for number, value in enumerate(values):
        groups.setdefault(number if key is None else key(value), []).append(value)
    groups = list(groups.values())
    drawn = np.random.default_rng(SEED).integers(len(groups), size=(DRAWS, len(groups)))
    found = [statistic([value for i in row for value in groups[i]]) for row in drawn]
    return float(np.nanstd(found, ddof=1))


def install() -> None:
    """Let lm-eval ask an aggregation for its own standard error. Done once, when this module is imported."""
    from lm_eval import evaluator_utils

    theirs = evaluator_utils.stderr_for_metric
    if hasattr(theirs, "asks_ours"):
        return

    @functools.wraps(theirs)
    def stderr_for_metric(metric, bootstrap_iters):
        own = getattr(metric, "stderr", None)
        return own if own is not None and bootstrap_iters > 0 else theirs(metric, bootstrap_iters)

    stderr_for_metric.asks_ours = True
    evaluator_utils.stderr_for_metric = stderr_for_metric


def mean_of_present(values: Sequence[float | None]) -> float:
    """Mean of the values that are not None; NaN of none."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else math.nan


def _stderr_of_present(values: Sequence[float | None]) -> float:
    present = [value for value in values if value is not None]
    return float(np.std(present, ddof=1) / math.sqrt(len(present))) if len(present) > 1 else math.nan


mean_of_present.stderr = _stderr_of_present

install()
