"""What several versions of the same items say about a model, as lm-eval aggregations with standard errors.

Every document gives one :class:`Cell` to each metric. An aggregation turns the cells of an item into a row of numbers,
and is a function of the mean of all rows. Its standard error is the bootstrap's over items (Efron 1979), each with all
of its versions, since the versions of one item are no independent questions. Where all versions of an item are needed,
items that lack some (a ``--limit`` that ends inside an item) are left out. No items give NaN.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from medtasks import metrics

OfMeanRow = Callable[[np.ndarray], float]
RowsOf = Callable[[Sequence], np.ndarray]


class Cell(NamedTuple):
    """One number of one version of an item; a list of the same four in sample logs."""

    item: str
    version: str | int
    """Names the version: a column of the table of items and versions."""
    versions: int
    """How many versions the item has."""
    number: float | None
    """None where the metric does not apply to the item."""


def of_mean_row(statistic: OfMeanRow) -> Callable[[RowsOf], metrics.Statistic]:
    """Decorator: makes of a function cells -> array (items, k) the aggregation ``statistic(mean of its rows)``.

    Its standard error is that of :data:`medtasks.metrics.DRAWS` bootstrap samples of the rows; NaN below two items.
    """

    def decorate(rows_of: RowsOf) -> metrics.Statistic:
        @functools.wraps(rows_of)
        def aggregation(values: Sequence) -> float:
            rows = rows_of(values)
            return float(statistic(rows.mean(axis=0))) if len(rows) else math.nan

        def stderr(values: Sequence) -> float:
            rows = rows_of(values)
            if len(rows) < 2:
                return math.nan
            drawn = np.random.default_rng(metrics.SEED).integers(len(rows), size=(metrics.DRAWS, len(rows)))
            return float(np.std([statistic(rows[sample].mean(axis=0)) for sample in drawn], ddof=1))

        return metrics.with_stderr(stderr)(aggregation)

    return decorate


def table(values: Sequence) -> np.ndarray:
    """(items, versions) array of the numbers of all complete items, items and versions sorted by name."""
    found: dict[tuple, dict] = {}
    for item, version, versions, number in values:
        found.setdefault((item, versions), {})[version] = number
    complete = [found[item, versions] for item, versions in sorted(found) if len(found[item, versions]) == versions]
    rows = [[numbers[version] for version in sorted(numbers)] for numbers in complete]
    return np.array(rows, dtype=float) if rows else np.empty((0, 0))


@of_mean_row(lambda row: row[0] / row[1])
def mean_by_item(values: Sequence) -> np.ndarray:
    """Mean of all numbers that are not None, of incomplete items too. Row: their sum and how many there are."""
    found: dict[str, list] = {}
    for item, _, _, number in values:
        if number is not None:
            found.setdefault(item, []).append(number)
    return np.array([[sum(found[item]), len(found[item])] for item in sorted(found)], dtype=float)


@of_mean_row(np.ptp)
def acc_spread(values: Sequence) -> np.ndarray:
    """Largest minus smallest accuracy of a version (Sclar et al. 2023, arXiv:2310.11324).

    Numbers: 1 for a right choice, 0 for a wrong one. Row: the item's numbers. Chance alone makes it positive, the more
    so the fewer items there are.
    """
    return table(values)


@of_mean_row(np.mean)
def consistency(values: Sequence) -> np.ndarray:
    """Share of items for which every version gets the same choice, right or wrong.

    Numbers: the chosen option, as its index in the item's own order. Row: 1 if all are equal, else 0.
    """
    choices = table(values)
    return (choices == choices[:, :1]).all(axis=1, keepdims=True).astype(float) if len(choices) else choices


@of_mean_row(lambda row: np.abs(row - 1 / len(row)).sum() / 2)
def position_bias(values: Sequence) -> np.ndarray:
    """Total variation distance between the shares of the positions that were chosen and equal shares.

    Numbers: the position chosen under each cyclic shift of n options. Row: the share of each position. Over all shifts
    every option stands once at every position, so who chooses by content chooses each equally often: 0. Who always
    chooses the same position gets (n - 1) / n. The converse does not hold: preferences that differ between items, and
    random answers, can even out to 0.
    """
    positions = table(values)
    versions = positions.shape[1]
    return (positions[:, :, None] == np.arange(versions)).sum(axis=1) / versions


@of_mean_row(np.std)
def recall_std(values: Sequence) -> np.ndarray:
    """RStd, the standard deviation of the positions' recalls (Zheng et al. 2024, arXiv:2309.03882), as a share.

    The recall of a position: how often it is chosen where the right option stands there. Numbers: 1 for a right
    choice, 0 for a wrong one; the version is the position of the right option. Row: the item's numbers.
    """
    return table(values)
