"""Metrics against their definitions: test doubles of known probabilities, analytic values, independent libraries."""

import math

import numpy as np
import pytest

from medtasks import metrics
from medtasks import multiple_choice as mc


def answered(probabilities, right):
    """One item's values, of a model that gives its options these probabilities."""
    return mc.process_results({"answer": right, "subject": ""}, [(math.log(p), False) for p in probabilities])


def column(values, name):
    return [value[name] for value in values]


def test_one_items_values_are_those_of_its_probabilities():
    values = answered([0.1, 0.2, 0.3, 0.4], right=2)
    assert values["acc"] == 0.0
    assert values["nll"] == pytest.approx(-math.log(0.3))
    assert values["brier"] == pytest.approx(0.1**2 + 0.2**2 + 0.7**2 + 0.4**2)
    assert values["ece"] == [pytest.approx(0.4), 0.0]
    assert values["macro_f1"] == [2, 3]


def test_log_likelihoods_are_normalized_over_the_options():
    shifted = mc.process_results({"answer": 1}, [(math.log(p) - 40, False) for p in (0.05, 0.15)])
    assert shifted["nll"] == pytest.approx(-math.log(0.75))
    assert shifted["brier"] == pytest.approx(2 * 0.25**2)


def test_ties_go_to_the_first_option_as_in_lm_eval():
    assert answered([0.25] * 4, right=0)["acc"] == 1.0
    assert answered([0.25] * 4, right=1)["acc"] == 0.0


@pytest.mark.parametrize(("confidence", "accuracy"), [(0.9, 0.9), (0.9, 0.6), (0.5, 0.75)])
def test_ece_of_one_confidence_is_its_distance_to_the_accuracy(confidence, accuracy):
    n = 200
    values = [answered([confidence, 1 - confidence], right=int(i >= accuracy * n)) for i in range(n)]
    assert metrics.ece(column(values, "ece")) == pytest.approx(abs(confidence - accuracy))


def test_ece_of_two_confidences_weighs_their_gaps():
    """Half of the items at .9 of which .7 are right, half at .6 of which .5 are: (.2 + .1) / 2, in whole bins."""
    values = [answered([0.9, 0.1], right=int(i >= 70)) for i in range(100)]
    values += [answered([0.6, 0.4], right=int(i >= 50)) for i in range(100)]
    assert metrics.ece(column(values, "ece")) == pytest.approx(0.15)


def test_a_perfectly_calibrated_model_has_a_small_ece_and_overconfidence_adds_to_it():
    draw = np.random.default_rng(1)
    p = draw.uniform(0.5, 0.98, 20_000)
    right = (draw.uniform(size=p.size) > p).astype(int)
    calibrated = [[c, 1.0 - r] for c, r in zip(p, right, strict=True)]
    assert metrics.ece(calibrated) < 0.015
    assert metrics.ece([[min(1.0, c + 0.1), k] for c, k in calibrated]) == pytest.approx(0.1, abs=0.02)


def test_bins_have_equal_mass():
    """10 items in ten bins: each is a bin of its own, however close their confidences lie."""
    confidences = [0.5, 0.501, 0.502, 0.503, 0.504, 0.505, 0.506, 0.507, 0.508, 0.99]
    correct = [1, 0, 1, 0, 1, 0, 1, 0, 1, 1]
    expected = np.mean([abs(c - k) for c, k in zip(confidences, correct, strict=True)])
    assert metrics.ece(list(zip(confidences, correct, strict=True))) == pytest.approx(expected)


def test_aurc_is_the_mean_risk_over_coverages():
    """Surest first: right, wrong, right, wrong. Risks 0, 1/2, 1/3, 1/2."""
    values = [[0.6, 0.0], [0.9, 1.0], [0.7, 1.0], [0.8, 0.0]]
    assert metrics.aurc(values) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_aurc_of_a_perfect_ranking_has_the_known_closed_form():
    """n items with k errors ranked last: (1/n) * sum over j = 1..k of j / (n - k + j)."""
    n, k = 50, 12
    values = [[1 - i / 100, float(i < n - k)] for i in range(n)]
    assert metrics.aurc(values) == pytest.approx(sum(j / (n - k + j) for j in range(1, k + 1)) / n)


def test_without_an_order_among_items_aurc_is_the_error_rate():
    values = [[0.7, float(i % 4 > 0)] for i in range(40)]
    assert metrics.aurc(values) == pytest.approx(0.25)
    assert metrics.acc_at_80(values) == pytest.approx(0.75)


def test_accuracy_at_eighty_percent_leaves_the_least_sure_fifth_out():
    values = [[0.9 - i / 100, float(i < 7)] for i in range(10)]
    assert metrics.acc_at_80(values) == pytest.approx(7 / 8)
    assert metrics.acc_at_80(values[:6]) == 1.0  # 4.8 items: five


def test_macro_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(0)
    for classes in (2, 3, 5):
        right, chosen = draw.integers(classes, size=90), draw.integers(classes, size=90)
        expected = f1_score(right, chosen, average="macro", zero_division=0)
        assert metrics.macro_f1(list(zip(right, chosen, strict=True))) == pytest.approx(expected)


def test_macro_f1_of_a_constant_answer_over_skewed_classes():
    """Always yes where 6 of 10 are yes: F1 .75 of yes, 0 of the two others."""
    values = [[right, 0] for right in [0] * 6 + [1] * 3 + [2]]
    assert metrics.macro_f1(values) == pytest.approx(0.75 / 3)


def test_constant_answer_and_its_standard_error():
    values = [0] * 6 + [1] * 3 + [3]
    assert metrics.acc_constant(values) == 0.6
    assert metrics.acc_constant.stderr(values) == pytest.approx(math.sqrt(0.6 * 0.4 / 9))


def test_mean_of_present_ignores_the_others():
    values = [None, 1.0, 0.0, None, 1.0]
    assert metrics.mean_of_present(values) == pytest.approx(2 / 3)
    assert metrics.mean_of_present.stderr(values) == pytest.approx(np.std([1, 0, 1], ddof=1) / math.sqrt(3))
    assert math.isnan(metrics.mean_of_present([None]))


def test_bootstrap_agrees_with_the_closed_form_of_a_mean():
    values = np.random.default_rng(3).uniform(size=400)
    expected = values.std(ddof=1) / math.sqrt(values.size)
    assert metrics.bootstrap(np.mean, values) == pytest.approx(expected, rel=0.08)
    assert metrics.bootstrap(np.mean, values) == metrics.bootstrap(np.mean, values)


def test_groups_are_drawn_whole():
    """Each value four times: drawn alone the error is half of what it is."""
    once = np.random.default_rng(4).uniform(size=200)
    values = [(i, value) for i, value in enumerate(once) for _ in range(4)]

    def mean(rows):
        return float(np.mean([value for _, value in rows]))

    grouped = metrics.bootstrap(mean, values, key=lambda value: value[0])
    assert grouped == pytest.approx(once.std(ddof=1) / math.sqrt(once.size), rel=0.1)
    assert math.isnan(metrics.bootstrap(mean, values[:4], key=lambda value: value[0]))


def test_subjects_have_an_accuracy_each_and_every_item_the_same_keys():
    one = mc.medqa({"answer": 0, "subject": "step1"}, [(-1.0, True), (-2.0, False)])
    other = mc.medqa({"answer": 0, "subject": "step2&3"}, [(-1.0, True), (-2.0, False)])
    assert (one["acc_step1"], one["acc_step2_3"]) == (1.0, None)
    assert (other["acc_step1"], other["acc_step2_3"]) == (None, 1.0)
    assert one.keys() == other.keys()
    assert mc.metric_of("Gynaecology & Obstetrics") == "acc_gynaecology_obstetrics"


def test_lm_eval_reports_every_metric_with_its_standard_error():
    """A double of known probabilities through lm-eval itself: .7 on the right option of every second item."""
    import lm_eval
    from lm_eval.api.model import LM

    from medtasks import catalogue

    class Known(LM):
        def loglikelihood(self, requests):
            def one(request):
                prompt, letter = request.args
                is_sure = request.doc_id % 2 == 0
                chosen = request.doc["answer"] if is_sure else (request.doc["answer"] + 1) % len(request.doc["options"])
                n = len(request.doc["options"])
                return math.log(0.7 if "ABCD".index(letter.strip()) == chosen else 0.3 / (n - 1)), False

            return [one(request) for request in requests]

        def loglikelihood_rolling(self, requests):
            raise NotImplementedError

        def generate_until(self, requests):
            raise NotImplementedError

    found = lm_eval.simple_evaluate(
        Known(), tasks=["medqa", "pubmedqa"], limit=30, task_manager=catalogue.our_tasks(), log_samples=False
    )["results"]
    medqa, pubmedqa = found["medqa"], found["pubmedqa"]
    assert medqa["acc,none"] == 0.5
    assert medqa["nll,none"] == pytest.approx(-(math.log(0.7) + math.log(0.1)) / 2)
    assert medqa["brier,none"] == pytest.approx(((0.3**2 + 3 * 0.1**2) + (0.9**2 + 0.7**2 + 2 * 0.1**2)) / 2)
    assert medqa["ece,none"] == pytest.approx(0.2)
    assert medqa["aurc,none"] == pytest.approx(0.5)
    assert medqa["acc_at_80,none"] == pytest.approx(0.5)
    assert pubmedqa["nll,none"] == pytest.approx(-(math.log(0.7) + math.log(0.15)) / 2)
    for task in (medqa, pubmedqa):
        names = {key.partition(",")[0] for key in task if key.endswith(",none")}
        plain = {name for name in names if not name.endswith("_stderr")}
        assert {"acc", "nll", "brier", "ece", "aurc", "acc_at_80", "macro_f1", "acc_constant"} <= plain
        assert all(isinstance(task[f"{name}_stderr,none"], float) for name in plain), task
