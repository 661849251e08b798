"""Modes as formulas: each against a hand-made case, and what must hold of all of them."""

import numpy as np
import pytest

from medtasks.errors import InputError
from rag_model import answering
from rag_model.answering import Mode, parse

CLOSED = np.log([0.5, 0.3, 0.2])
OPENED = np.log([[0.1, 0.7, 0.2]])
NEUTRAL = np.log([[0.2, 0.6, 0.2]])
ONE = np.zeros(1)


def probabilities(logs):
    return np.exp(logs - np.logaddexp.reduce(logs, axis=-1))


def normalized(logs):
    return logs - np.logaddexp.reduce(logs, axis=-1, keepdims=True)


def test_always_is_the_open_book_to_the_last_bit():
    mode = parse("always")
    assert mode == Mode() and mode.name == "always" and mode.settings == {}
    assert not mode.needs_closed and not mode.needs_neutral and not mode.per_passage
    assert (mode.answer(None, OPENED, None, ONE) == OPENED[0]).all()


def test_the_margin_is_the_first_less_the_second():
    assert answering.margin(CLOSED) == pytest.approx(np.log(0.5 / 0.3))
    assert answering.margin(np.stack([CLOSED, CLOSED[::-1]])) == pytest.approx([np.log(0.5 / 0.3)] * 2)
    assert answering.margin(np.array([-3.0])) == np.inf


@pytest.mark.parametrize(("margin", "is_opened"), [(0.0, False), (0.51, False), (0.52, True), (9.0, True)])
def test_a_gate_opens_below_its_margin(margin, is_opened):
    assert parse("gate", gate_margin=margin).opens(CLOSED) == is_opened


def test_mix_pools_logarithms_between_closed_and_open():
    mode = parse("mix", w=0.25)
    expected = CLOSED**1 * 0.75 + OPENED[0] * 0.25
    assert mode.answer(CLOSED, OPENED, None, ONE) == pytest.approx(expected)
    assert (parse("mix", w=0).answer(CLOSED, OPENED, None, ONE) == CLOSED).all()
    assert (parse("mix", w=1).answer(CLOSED, OPENED, None, ONE) == OPENED[0]).all()


def test_calibration_takes_off_what_the_options_get_without_a_question():
    whole = parse("calibrate").answer(None, OPENED, NEUTRAL, ONE)
    assert probabilities(whole) == pytest.approx(probabilities(np.log([0.1 / 0.2, 0.7 / 0.6, 0.2 / 0.2])))
    assert int(np.argmax(whole)) == 1 and parse("calibrate").calibration == 1
    half = parse("calibrate", calibration=0.5).answer(None, OPENED, NEUTRAL, ONE)
    assert half == pytest.approx(OPENED[0] - NEUTRAL[0] / 2)


def test_passages_apart_vote_by_their_scores():
    opened = np.log([[0.9, 0.1], [0.2, 0.8]])
    scores = np.log([3.0, 1.0])  # a softmax of 3/4 and 1/4
    answer = parse("per_passage").answer(None, opened, None, scores)
    assert probabilities(answer) == pytest.approx([0.75 * 0.9 + 0.25 * 0.2, 0.75 * 0.1 + 0.25 * 0.8])


def test_a_passage_that_makes_all_options_likelier_counts_no_more():
    opened = np.log([[0.9, 0.1], [0.2, 0.8]])
    louder = opened + np.array([[0.0], [5.0]])
    mode = parse("per_passage")
    assert probabilities(mode.answer(None, louder, None, ONE.repeat(2))) == pytest.approx(
        probabilities(mode.answer(None, opened, None, ONE.repeat(2)))
    )


def test_a_prompt_that_an_item_lacks_weighs_nothing():
    opened = np.concatenate([OPENED, np.zeros((1, 3))])
    answer = parse("per_passage").answer(None, opened, None, np.array([0.4, -np.inf]))
    assert answer == pytest.approx(OPENED[0])


@pytest.mark.parametrize("name", ["always", "mix", "calibrate", "per_passage", "per_passage+calibrate+mix"])
def test_scores_normalized_over_the_options_first_give_the_same_probabilities(name):
    rng = np.random.default_rng(1)
    closed, opened, neutral = rng.normal(size=4), rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    if "per_passage" not in name:
        opened, neutral = opened[:1], neutral[:1]
    scores = rng.normal(size=len(opened))
    mode = parse(name, w=0.3 if "mix" in name else None)
    raw = mode.answer(closed, opened, neutral if mode.needs_neutral else None, scores)
    arms = (normalized(closed), normalized(opened), normalized(neutral) if mode.needs_neutral else None)
    assert probabilities(raw) == pytest.approx(probabilities(mode.answer(*arms, scores)))


def test_many_items_at_once_are_answered_as_one_by_one():
    rng = np.random.default_rng(2)
    closed, opened, neutral = rng.normal(size=(5, 4)), rng.normal(size=(5, 3, 4)), rng.normal(size=(5, 3, 4))
    scores = rng.normal(size=(5, 3))
    mode = parse("gate+per_passage+calibrate+mix", gate_margin=1.0, w=0.6)
    together = mode.answer(closed, opened, neutral, scores)
    for i in range(5):
        assert mode.answer(closed[i], opened[i], neutral[i], scores[i]) == pytest.approx(together[i])
        assert mode.opens(closed)[i] == mode.opens(closed[i])


YES, NO = np.array([True, False]), np.array([False, True])


def test_an_option_is_greedy_where_every_arm_that_counts_says_so():
    answer = np.array([-1.0, -2.0])
    assert parse("always").is_greedy(None, YES[None], answer).tolist() == [True, False]
    assert parse("mix", w=0.5).is_greedy(YES, YES[None], answer).tolist() == [True, False]
    assert parse("mix", w=0.5).is_greedy(NO, YES[None], answer).tolist() == [False, False]
    assert parse("mix", w=1).is_greedy(NO, YES[None], answer).tolist() == [True, False]
    assert parse("mix", w=0).is_greedy(NO, YES[None], answer).tolist() == [False, True]
    assert parse("per_passage").is_greedy(None, np.stack([YES, NO]), answer).tolist() == [False, False]
    assert parse("calibrate").is_greedy(None, NO[None], answer).tolist() == [False, False]
    assert parse("calibrate").is_greedy(None, YES[None], answer).tolist() == [True, False]


def test_the_order_of_steps_in_a_name_means_nothing():
    assert parse("mix+gate", gate_margin=1, w=0.5) == parse("gate+mix", gate_margin=1, w=0.5)
    assert parse("mix+gate", gate_margin=1, w=0.5).name == "gate+mix"
    assert parse("mix+gate", gate_margin=1, w=0.5).settings == {"gate_margin": 1.0, "w": 0.5}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sometimes", {}, "mode=sometimes: no 'sometimes'; give always, or"),
        ("gate+never", {"gate_margin": 1}, "no 'never'"),
        ("gate", {}, "mode=gate needs gate_margin=.*medadapt rag tune"),
        ("mix", {}, "mode=mix needs w="),
        ("mix", {"w": 1.5}, "w=1.5: must be a number, 0 to 1"),
        ("mix", {"w": "half"}, "w=half"),
        ("gate", {"gate_margin": -1}, "gate_margin=-1: must be a number, 0 or more"),
        ("calibrate", {"calibration": True}, "calibration=True"),
        ("always", {"w": 0.5}, "w=0.5 is for mode=mix, not for mode=always"),
    ],
)
def test_bad_modes_are_refused(name, settings, message):
    with pytest.raises(InputError, match=message):
        parse(name, **settings)
