"""Against scipy and statsmodels on fixed cases, and against what the formulas must give by hand."""

import pytest
from scipy.stats import binomtest, ttest_1samp

from medtasks.errors import InputError
from results import statistics

BASE = [1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0]
OTHER = [1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1, 1]


def test_accuracy_interval_is_wilsons():
    estimate = statistics.accuracy([1] * 61 + [0] * 139)
    reference = binomtest(61, 200).proportion_ci(0.95, method="wilson")
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.305, reference.low, reference.high))
    assert statistics.accuracy([0, 0]).low == 0


def test_mcnemar_is_a_binomial_test_of_fixed_against_broken():
    fixed, broken = 5, 1
    assert statistics.mcnemar(BASE, OTHER) == pytest.approx(binomtest(broken, fixed + broken).pvalue)
    assert statistics.mcnemar(BASE, BASE) == 1


def test_macro_difference_of_one_task_is_the_paired_z_test():
    estimate, p = statistics.macro_difference([BASE * 40], [OTHER * 40])
    reference = ttest_1samp([o - b for b, o in zip(BASE * 40, OTHER * 40, strict=True)], 0)
    assert estimate.value == pytest.approx(4 / 12)
    assert p == pytest.approx(reference.pvalue, rel=0.1, abs=1e-12)
    low, high = reference.confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-3)


def test_macro_weighs_tasks_alike_whatever_their_size():
    tasks = [[1] * 10, [0] * 990]
    assert statistics.macro_accuracy(tasks).value == 0.5
    estimate, p = statistics.macro_difference(tasks, [[0] * 10, [0] * 990])
    assert estimate.value == -0.5
    assert p == 0  # every item of the first task broke: no variance


def test_no_difference_has_p_1():
    assert statistics.macro_difference([BASE], [BASE]) == (statistics.Estimate(0, 0, 0), 1.0)


def test_runs_of_different_length_are_not_paired():
    with pytest.raises(InputError, match="12 and 11 items"):
        statistics.mcnemar(BASE, OTHER[:-1])
