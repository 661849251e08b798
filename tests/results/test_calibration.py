"""The vectorized ECE is the one that tasks report, in every bootstrap sample; the rest against plain formulas."""

import numpy as np
import pytest

from medtasks import metrics, multiple_choice
from results import calibration
from results.calibration import Answers


def row(loglikelihoods, gold=0, correct=1):
    return {"loglikelihoods": loglikelihoods, "gold": gold, "correct": correct}


def answers(n, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.25, 1, n)
    if ties:
        confidence = confidence.round(1)
    return Answers(confidence, (rng.random(n) < confidence).astype(int), rng.uniform(0, 2, n))


def test_confidence_and_brier_are_those_that_tasks_report():
    rows = [row([-1.0, -2.0, -0.5], 2), row([-3.0, -1.0], 0, 0), row([-500.0, -900.0, -2000.0, -501.0], 0)]
    found = Answers.of(rows)
    expected = [
        multiple_choice.process_results({"answer": r["gold"]}, [(log, False) for log in r["loglikelihoods"]])
        for r in rows
    ]
    assert found.confidence == pytest.approx([value["ece"][0] for value in expected])
    assert found.brier == pytest.approx([value["brier"] for value in expected])


def test_what_is_not_known_is_none():
    assert Answers.of([row([-1.0, -2.0]), row([])]) is None
    unknown = Answers.of([row([-1.0, -2.0], None)])
    assert calibration.brier(unknown) is None and calibration.ece(unknown) is not None
    assert calibration.bootstrap([unknown], [np.array([0])])["brier"] is None


@pytest.mark.parametrize(("n", "ties"), [(3, False), (10, True), (57, False), (203, True), (500, False)])
def test_ece_is_that_of_the_metric_in_every_sample(n, ties):
    asked = answers(n, ties=ties)
    times = np.random.default_rng(1).integers(0, 4, size=(20, n)).astype(float)
    times[:, 0] += 1
    for sample, found in zip(times.astype(int), calibration.ece(asked, times), strict=True):
        values = np.stack([asked.confidence, asked.correct], axis=1)
        assert found == pytest.approx(metrics.ece(np.repeat(values, sample, axis=0)))
    assert calibration.ece(asked)[0] == pytest.approx(metrics.ece(np.stack([asked.confidence, asked.correct], axis=1)))


def test_runs_of_the_same_items_share_their_samples():
    asked, clusters = answers(100), np.arange(100)
    shifted = Answers(asked.confidence, asked.correct, asked.brier + 0.25)
    one, other = calibration.bootstrap([asked], [clusters]), calibration.bootstrap([shifted], [clusters])
    assert other["brier"] - one["brier"] == pytest.approx(0.25)
    assert len(one["ece"]) == calibration.DRAWS
    low, high = calibration.interval(0.25, other["brier"] - one["brier"])
    assert (low, high) == pytest.approx((0.25, 0.25))


def test_the_error_of_a_mean_is_the_bootstraps():
    asked = answers(400)
    drawn = calibration.bootstrap([asked], [np.arange(400)])["brier"]
    low, high = calibration.interval(0.0, drawn)
    assert high == -low == pytest.approx(1.96 * asked.brier.std() / 20, rel=0.1)


def test_clusters_are_drawn_whole():
    once = answers(100)
    fourfold = Answers(*(np.repeat(values, 4) for values in (once.confidence, once.correct, once.brier)))
    clusters = np.repeat(np.arange(100), 4)
    for name, drawn in calibration.bootstrap([fourfold], [clusters]).items():
        assert drawn.std() == pytest.approx(calibration.bootstrap([once], [np.arange(100)])[name].std(), rel=0.15)


def test_tasks_are_drawn_apart():
    one, other = answers(50), Answers(np.full(30, 0.5), np.ones(30), np.full(30, 2.0))
    drawn = calibration.bootstrap([one, other], [np.arange(50), np.arange(30)])["brier"]
    alone = calibration.bootstrap([one], [np.arange(50)])["brier"]
    assert drawn.mean() == pytest.approx((50 * alone.mean() + 60) / 80, abs=0.01)
    assert drawn.std() == pytest.approx(50 / 80 * alone.std(), rel=0.15)
