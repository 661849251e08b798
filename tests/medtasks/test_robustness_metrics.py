"""Standard errors of the robustness metrics, against the plain bootstrap and against formulas."""

import collections
import math
import random

import numpy as np
import pytest

from medtasks import metrics, robustness, robustness_metrics


@pytest.fixture(scope="module")
def cells():
    """metric -> cells of 60 items under 4 shifts, of a model that knows half of them, else guesses and likes A."""
    rng, found = random.Random(3), collections.defaultdict(list)
    for number in range(60):
        answer, known = rng.randrange(4), rng.random() < 0.5
        for shift in range(4):
            doc = {"original_id": f"{number:02d}", "version": str(shift), "options": [""] * 4}
            doc["answer"] = (answer - shift) % 4
            chosen = doc["answer"] if known else rng.choice([0, 0, 1, 2, 3])
            scores = [(-float(position != chosen), False) for position in range(4)]
            for metric, cell in robustness.order_results(doc, scores).items():
                found[metric].append(cell)
    return found


def versions_apart(cells):
    """version -> numbers, over cells that may hold an item more than once."""
    found = collections.defaultdict(list)
    for cell in cells:
        found[cell.version].append(cell.number)
    return found


def spread(cells):
    shares = [sum(numbers) / len(numbers) for numbers in versions_apart(cells).values()]
    return max(shares) - min(shares)


def recall_deviation(cells):
    return np.std([np.mean(numbers) for numbers in versions_apart(cells).values()])


def uneven(cells):
    counts = collections.Counter(cell.number for cell in cells)
    return sum(abs(counts[position] / len(cells) - 0.25) for position in range(4)) / 2


def all_equal(cells):
    return np.mean([len({cell.number for cell in cells[i : i + 4]}) == 1 for i in range(0, len(cells), 4)])


def mean(cells):
    return np.mean([cell.number for cell in cells])


AGGREGATIONS = {
    "acc": (robustness_metrics.mean_by_item, mean),
    "choice_A": (robustness_metrics.mean_by_item, mean),
    "acc_spread": (robustness_metrics.acc_spread, spread),
    "consistency": (robustness_metrics.consistency, all_equal),
    "position_bias": (robustness_metrics.position_bias, uneven),
    "recall_std": (robustness_metrics.recall_std, recall_deviation),
}


@pytest.mark.parametrize("metric", AGGREGATIONS)
def test_standard_errors_are_those_of_drawing_items_with_all_their_versions(cells, metric):
    aggregation, statistic = AGGREGATIONS[metric]
    assert aggregation(cells[metric]) == pytest.approx(statistic(cells[metric]))
    expected = metrics.bootstrap(statistic, cells[metric], key=lambda cell: cell.item)
    assert aggregation.stderr(cells[metric]) == pytest.approx(expected) != 0


@pytest.mark.parametrize("metric", AGGREGATIONS)
def test_the_order_of_the_values_does_not_matter(cells, metric):
    aggregation, _ = AGGREGATIONS[metric]
    shuffled = random.Random(4).sample(cells[metric], len(cells[metric]))
    assert aggregation(shuffled) == aggregation(cells[metric])
    assert aggregation.stderr(shuffled) == aggregation.stderr(cells[metric])


def test_standard_errors_agree_with_the_formulas_where_there_are_some(cells):
    shares = robustness_metrics.table(cells["acc"]).mean(axis=1)
    clustered = np.std(shares, ddof=1) / math.sqrt(len(shares))
    assert robustness_metrics.mean_by_item.stderr(cells["acc"]) == pytest.approx(clustered, rel=0.1)
    share = robustness_metrics.consistency(cells["consistency"])
    binomial = math.sqrt(share * (1 - share) / len(shares))
    assert robustness_metrics.consistency.stderr(cells["consistency"]) == pytest.approx(binomial, rel=0.1)
