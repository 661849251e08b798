"""Against scipy and statsmodels on fixed cases, and against what the formulas must give by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables, multitest

from results import statistics
from results.statistics import Differences, Estimate


def differences(sums, sizes=None):
    sums = np.asarray(sums)
    return Differences(sums, np.ones_like(sums) if sizes is None else np.asarray(sizes))


def changed(fixed, broken, n):
    return differences([1] * fixed + [-1] * broken + [0] * (n - fixed - broken))


def test_differences_are_summed_within_clusters():
    found = Differences.of(np.array([1, 0, 0, 1, 0]), np.array([0, 1, 1, 1, 1]), np.array([0, 1, 1, 2, 3]))
    assert found.sums.tolist() == [-1, 2, 0, 1] and found.sizes.tolist() == [1, 2, 1, 1]
    assert found.mean == pytest.approx(2 / 5)


def test_accuracy_interval_is_wilsons():
    estimate = statistics.accuracy([1] * 61 + [0] * 139)
    reference = stats.binomtest(61, 200).proportion_ci(0.95, method="wilson")
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.305, reference.low, reference.high))
    assert statistics.accuracy([0, 0]).low == 0
    assert statistics.accuracy([1, 0, 1], [0, 1, 2]) == statistics.accuracy([1, 0, 1])


def test_versions_that_are_right_together_count_as_one_item():
    once, clusters = np.array([1] * 30 + [0] * 20), np.repeat(np.arange(50), 4)
    together = statistics.accuracy(np.repeat(once, 4), clusters)
    alone = statistics.accuracy(once)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=2e-3)
    every = statistics.accuracy([1] * 200, clusters)
    assert (every.low, every.high) == pytest.approx((statistics.accuracy([1] * 50).low, 1))


def test_versions_that_differ_like_strangers_count_in_full():
    answers = [1, 1, 0, 0] * 50  # every cluster the same: as many as can be told apart
    assert statistics.accuracy(answers, np.repeat(np.arange(50), 4)) == statistics.accuracy(answers)


def test_mean_accuracy_weighs_tasks_alike_and_adds_their_errors():
    found = statistics.mean_accuracy([Estimate(0.5, 0.4, 0.7), Estimate(0.9, 0.6, 0.9)])
    assert (found.value, found.low, found.high) == pytest.approx((0.7, 0.7 - np.hypot(0.1, 0.3) / 2, 0.8))


def test_bootstrap_is_scipys_but_for_the_pseudo_counts(monkeypatch):
    monkeypatch.setattr(statistics, "PSEUDO_COUNT", 1e-9)
    task = changed(30, 12, 150)
    found = statistics.bootstrap([task], [1])
    theirs = stats.bootstrap((task.sums,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert found.value == pytest.approx(0.12)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.008)  # steps of 1/150


def test_bootstrap_of_clusters_is_scipys_of_whole_clusters(monkeypatch):
    monkeypatch.setattr(statistics, "PSEUDO_COUNT", 1e-9)
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 5, size=80)
    task = differences(rng.integers(-sizes, sizes + 1), sizes)
    theirs = stats.bootstrap(
        (task.sums, task.sizes),
        lambda sums, sizes, axis=-1: sums.sum(axis) / sizes.sum(axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    found = statistics.bootstrap([task], [1])
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_bootstrap_of_several_tasks_draws_within_each():
    one, other = changed(30, 10, 100), changed(50, 50, 1000)
    mean = statistics.bootstrap([one, other], [0.5, 0.5])
    error = np.sqrt(sum(np.var(task.sums) / len(task.sums) for task in (one, other))) / 2
    assert mean.value == pytest.approx(0.1)
    assert (mean.low, mean.high) == pytest.approx((0.1 - 1.96 * error, 0.1 + 1.96 * error), abs=0.004)
    pooled = statistics.bootstrap([one, other], [100 / 1100, 1000 / 1100])
    assert pooled.value == pytest.approx(20 / 1100)


def test_a_sample_without_changes_has_an_interval():
    found = statistics.bootstrap([changed(0, 0, 100)], [1])
    assert found.value == 0 and -0.03 < found.low < 0 < found.high < 0.03


@pytest.mark.parametrize(("fixed", "broken"), [(5, 1), (20, 31), (0, 0), (7, 7), (0, 12), (300, 240)])
def test_clusters_of_one_item_have_mcnemars_exact_p(fixed, broken):
    reference = contingency_tables.mcnemar([[0, fixed], [broken, 0]], exact=True).pvalue
    assert statistics.mcnemar(changed(fixed, broken, 1000).sums) == pytest.approx(reference)


def test_larger_clusters_have_the_exact_sign_flip_p():
    sums = np.array([3, -1, 2, 2, -4, 1, 0, 3, 1])
    flips = np.array(list(itertools.product((-1, 1), repeat=len(sums)))) @ sums
    expected = np.mean(np.abs(flips) >= abs(sums.sum()))
    theirs = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert statistics.mcnemar(sums) == pytest.approx(expected) == pytest.approx(theirs)


def test_the_p_of_the_mean_is_the_exact_one_of_all_flips():
    one, other = differences([1, 1, -1, 1, 1, 0, 0, 1]), differences([1, 1, 0, -1, 0, 1])
    both = np.concatenate([one.sums / 8, other.sums / 6])
    theirs = stats.permutation_test((both,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert statistics.mean_test([one, other]) == pytest.approx(theirs, abs=0.005)
    assert statistics.mean_test([one]) == pytest.approx(statistics.mcnemar(one.sums), abs=0.005)


def test_the_p_of_the_mean_is_never_0_and_1_without_changes():
    assert statistics.mean_test([changed(100, 0, 100), changed(90, 0, 100)]) == 1 / (statistics.FLIPS + 1)
    assert statistics.mean_test([changed(0, 0, 10), changed(0, 0, 20)]) == 1


def test_holm_is_statsmodels_and_empty_stays_empty():
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert statistics.holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])
    assert statistics.holm([]) == []


def test_detectable_solves_connors_formula():
    found = statistics.detectable([changed(30, 20, 200)], [1])
    a, b, q = stats.norm.ppf(0.975), stats.norm.ppf(0.8), 0.25
    assert (a * np.sqrt(q) + b * np.sqrt(q - found**2)) ** 2 / found**2 == pytest.approx(200)


def test_detectable_needs_at_least_as_much_change_as_it_says():
    found = statistics.detectable([changed(0, 0, 100)], [1])
    a, b = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
    assert (a * np.sqrt(found) + b * np.sqrt(found - found**2)) ** 2 / found**2 == pytest.approx(100)
    assert statistics.detectable([changed(1, 1, 3)], [1]) is None


def test_what_several_tasks_can_detect():
    tasks = [changed(30, 20, 200)] * 4
    alone = statistics.detectable(tasks[:1], [1])
    assert statistics.detectable(tasks, [0.25] * 4) == pytest.approx(
        statistics.detectable([changed(120, 80, 800)], [1])
    )
    assert statistics.detectable(tasks, [0.25] * 4) == pytest.approx(alone / 2, rel=0.02)


def test_whole_clusters_that_change_are_single_items():
    whole = differences([4] * 30 + [-4] * 20 + [0] * 150, [4] * 200)
    alone = changed(30, 20, 200)
    assert whole.mean == alone.mean
    assert statistics.mcnemar(whole.sums) == pytest.approx(statistics.mcnemar(alone.sums))
    assert statistics.detectable([whole], [1]) == pytest.approx(statistics.detectable([alone], [1]))
    assert statistics.bootstrap([whole], [1]) == statistics.bootstrap([alone], [1])
