"""Reading a declared option out of what a model wrote. The hard cases are in cot_outputs.py."""

import re

import pytest
from cot_outputs import DECLARED, DRUGS, OUTPUTS

from medtasks import benchmarks, extraction, plain_text
from medtasks.mcq import LETTERS

LONG = 20_000
FAMILIES = ("medqa", "medmcqa", "pubmedqa", "mmlu_med")


@pytest.mark.parametrize(("output", "options", "letter"), OUTPUTS)
def test_the_declared_option_and_no_other(output, options, letter):
    found = extraction.extract(output, options)
    assert ("" if found is None else LETTERS[found]) == letter


@pytest.mark.parametrize(("output", "options", "letter"), DECLARED)
def test_what_was_thought_before_changes_nothing(output, options, letter):
    other = "B" if letter == "A" else "A"
    for thoughts in (f"<think>Answer: {other}</think>\n\n", f"The answer is {other}.</think>"):
        assert extraction.extract(thoughts + output, options) == LETTERS.index(letter)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_option_of_the_sample_is_read_by_letter_and_by_text(family):
    for item in benchmarks.load(family, "test"):
        for index, option in enumerate(item["options"]):
            letter = LETTERS[index]
            for output in (
                f"Answer: {letter}",
                f"Answer: {letter}. {option}",
                f"**Answer: {letter}** because it is so",
                f"Answer: {option}",
                f"The correct answer is {option}.",
                f"{letter}) {option}",
                f"All things considered,\n\n({letter})",
            ):
                assert extraction.extract(output, item["options"]) == index, (output, item["options"])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_question_of_the_sample_declares_an_option(family):
    for item in benchmarks.load(family, "test"):
        assert extraction.extract(item["question"], item["options"]) is None
        assert extraction.extract(item["context"], item["options"]) is None


def patterns():
    names = extraction._Names(["Aspirin", "a 2.5 mg dose", "", "C + D*"])
    found = [*vars(extraction).values(), *vars(plain_text).values(), *extraction._CUES, *vars(names).values()]
    return [pattern for pattern in (*found, *names.own_text) if isinstance(pattern, re.Pattern)]


def test_no_pattern_repeats_without_bound():
    assert len(patterns()) > 20
    for pattern in patterns():
        outside_classes = re.sub(r"\[(?:\\.|[^\]\\])+\]", "", re.sub(r"\\[\\*+\[\]]", "", pattern.pattern))
        assert not re.search(r"[*+]|\{\d*,\}", outside_classes), pattern.pattern
        assert all(int(most) <= 80 for most in re.findall(r"\{\d+,(\d+)\}", outside_classes)), pattern.pattern


@pytest.mark.parametrize(
    "piece",
    ["Answer: ", "answer is not A ", "A, ", "A\nB\n", "(", "\\boxed{", "<think>", "I would ", " ", "\n", "Ａ："],
)
def test_long_outputs_are_read_to_their_end(piece):
    filled = piece * (LONG // len(piece))
    assert extraction.extract(filled, DRUGS) is None
    if piece != "<think>":
        assert extraction.extract(f"{filled}\n\nSo the answer is C.", DRUGS) == 2


def test_an_item_without_options_has_none_to_declare():
    assert extraction.extract("Answer: A", []) is None


def test_thoughts_are_not_spoken():
    assert plain_text.spoken("a<think>b</think>c") == "ac"
    assert plain_text.spoken("a</think>b") == "b"
    assert plain_text.spoken("a<think>b") == "a"
    assert plain_text.spoken("<think>a<think>b</think>c</think>d") == "d"


def test_plain_text_has_words_and_line_breaks_only():
    marked = "## **Final** _Answer_：\n\n\n  $\\boxed{\\text{C}}$ — <b>“Warfarin”</b> <C>\t\n"
    assert plain_text.plain(marked) == "Final Answer :\nanswer: {{C}} - Warfarin <C>"
