"""What names an option is looked for where the row itself names it, and nothing is learned by a wrong reading."""

import re

import pytest

from medtasks.item_rows import Faulty, item, options_of

TEN = {str(n): f"option {n}" for n in range(1, 11)}
PLAIN = ["x", "y", "z"]


def read(**row):
    made = item({"question": "Which?"} | row, options_of(row), "place")
    return made["options"], made["options"][made["answer"]]


@pytest.mark.parametrize(
    ("options", "answer", "expected"),
    [
        (TEN, "3", "option 3"),
        (TEN, "10", "option 10"),
        ({str(n): f"option {n}" for n in range(4)}, "2", "option 2"),
        ({"A": "x", "C": "y", "D": "z"}, "C", "y"),
        ({"A": "x", "C": "y", "D": "z"}, "d", "z"),
        ({"A": "x", "B": "y"}, 1, "y"),
        (PLAIN, "2", "y"),
        (PLAIN, 2, "z"),
        (PLAIN, "c", "z"),
        (PLAIN, "y", "y"),
        (["A", "B", "AB", "O"], "O", "O"),
        ([{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "B", "y"),
        ({"text": PLAIN, "label": ["A", "B", "C"]}, "B", "y"),
        ({"text": PLAIN, "label": ["1", "2", "3"]}, "3", "z"),
        (str(PLAIN), "A", "x"),
    ],
)
def test_the_answer_is_found_as_the_row_names_it(options, answer, expected):
    assert read(choices=options, answer=answer)[1] == expected


def test_numbered_choices_keep_their_order():
    assert read(options=TEN, answer="1")[0] == list(TEN.values())


def test_letters_that_choices_carry_are_taken_off():
    assert read(options=["A. heart", "B. lung"], answer="B") == (["heart", "lung"], "lung")
    assert read(options=["(a) heart", "(b) lung"], answer="(b) lung") == (["heart", "lung"], "lung")
    species = ["A. fumigatus", "C. albicans"]
    assert read(options=species, answer="A") == (species, "A. fumigatus")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"options": ["2", "3", "5"], "answer": "3"}, "the 2. choice, and as a letter or number it names the 3."),
        ({"options": ["D", "C", "A"], "answer": "C"}, "the 2. choice, and as a letter or number it names the 3."),
        ({"options": ["x", "y"], "answer_idx": "A", "answer": "y"}, "the 2. choice, and answer_idx names the 1."),
        ({"options": ["x", "y"], "answer": "\u00b2"}, "names none of the 2 choices"),
        ({"options": ["x", "y"], "answer": True}, "names none of the 2 choices"),
        ({"options": "{[]: 1}", "answer": "A"}, "a text that is not a list"),
        ({"options": [["x"], ["y"]], "answer": "A"}, "a choice is a list or a mapping"),
        ({"options": [{"a": "x"}, {"a": "y"}], "answer": "A"}, "mappings without key or"),
        ({"choices": {"text": ["x", "y"], "label": ["A"]}, "answer": "A"}, "1 labels for 2 choices"),
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_faulty(row, reason):
    with pytest.raises(Faulty, match=re.escape(reason)):
        read(**row)


def test_a_message_does_not_repeat_what_a_row_says():
    with pytest.raises(Faulty) as raised:
        read(options=["x", "y"], answer="John Smith, 12 Elm street")
    assert "John" not in str(raised.value)


def test_reasons_may_be_lists_and_nothing_is_no_text():
    row = {"question": "Which?", "answer": 0, "rationale": ["step 1", "step 2"], "context": float("nan")}
    made = item(row, PLAIN, "place")
    assert (made["rationale"], made["context"], made["subject"]) == ("step 1\nstep 2", "", "")
