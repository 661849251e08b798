"""MedQA with "I don't know": formula scoring, by document and as a task."""

import math

import pytest
from choosing_double import evaluate

from medtasks import abstain, benchmarks, mcq, sources


@pytest.fixture(scope="module")
def docs():
    return list(abstain.docs(sources.load_rows(benchmarks.MEDQA, None, "test")))


def chosen(option: int, options: int = 5) -> list[tuple[float, bool]]:
    return [(-1.0 if number == option else -3.0, number == option) for number in range(options)]


def test_the_last_option_is_added_and_the_answer_stays(docs):
    for doc, item in zip(docs, benchmarks.load("medqa", "test"), strict=True):
        assert doc == item | {"options": [*item["options"], "I don't know"]}
        assert mcq.choices(doc) == ["A", "B", "C", "D", "E"]
        assert mcq.render(doc).endswith("\nE. I don't know\nAnswer:")


@pytest.mark.parametrize(
    ("option", "score", "acc", "abstains", "answered"),
    [(2, 1, 1, 0, 1), (0, -1 / 3, 0, 0, 0), (4, 0, 0, 1, None)],
)
def test_right_wrong_and_abstaining(option, score, acc, abstains, answered):
    found = abstain.scores({"answer": 2}, chosen(option))
    assert found == {"score": pytest.approx(score), "acc": acc, "abstain_rate": abstains, "acc_answered": answered}


@pytest.mark.parametrize("options", [3, 4, 5])
def test_guessing_among_the_options_has_expectation_zero(options):
    guesses = [abstain.scores({"answer": 1}, chosen(guess, options + 1))["score"] for guess in range(options)]
    assert sum(guesses) == pytest.approx(0)


def test_of_equally_likely_options_the_first_is_chosen():
    assert abstain.scores({"answer": 0}, [(-1.0, True)] * 5)["acc"] == 1


def test_task_of_a_model_that_knows_what_it_does_not_know(docs):
    number_of = {doc["id"]: number for number, doc in enumerate(docs)}

    def choose(doc):  # of five items right in two, wrong in one, silent in two
        fifth = number_of[doc["id"]] % 5
        return [doc["answer"], doc["answer"], (doc["answer"] + 1) % 4, 4, 4][fifth]

    prompts = []
    found = evaluate("medqa_abstain", choose, prompts=prompts)
    assert len(docs) == 35
    assert found["acc,none"] == pytest.approx(14 / 35)
    assert found["abstain_rate,none"] == pytest.approx(14 / 35)
    assert found["acc_answered,none"] == pytest.approx(14 / 21)
    assert found["acc_answered_stderr,none"] == pytest.approx(math.sqrt(14 / 21 * 7 / 21 / 20))
    assert found["score,none"] == pytest.approx((14 - 7 / 3) / 35)
    assert prompts[0].startswith("A right answer scores 1 point, a wrong answer loses 1/3 of a point, and")


def test_nothing_answered_has_no_accuracy_among_answered():
    found = evaluate("medqa_abstain", lambda doc: 4)
    assert found["score,none"] == found["acc,none"] == 0
    assert found["abstain_rate,none"] == 1
    assert math.isnan(found["acc_answered,none"])
    assert found["acc_answered_stderr,none"] == "N/A"
