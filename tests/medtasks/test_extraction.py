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


WORDING = {
    "cue": (
        "{} C.",
        "The answer is|The correct option is|The right choice is|The best one is|The final statement is"
        "|The chosen response is|The selected letter is|The preferred option is|The most appropriate choice is"
        "|The most likely option is|The most suitable option is|The most accurate statement is|My choice is"
        "|Our option is|The answer choice is|The answer option is|The answer letter is|The answer key is|Ans:"
        "|The answer to all this is|The answer for him is|The answer here is|The answer among these is"
        "|The answer of the two is|The answer was|The answer remains|The answer would most likely be"
        "|The answer must be|The answer should be|The answer will be|The answer has to be|The answer, therefore, is"
        "|The answer thus is|The answer, then, is|The answer hence is|I choose|We select|I'd pick|I'll go with"
        "|I'm going with|I would select|We will choose|I am going with|I therefore choose|I must choose"
        "|The answer is not A but|The answer is not A, rather|The answer is not A but rather|The answer not A, but"
        "|The answer isn't A, it's|The answer isn't A; it is|Answer: not A, instead",
    ),
    "declared": (
        "The answer is {} C.",
        "option|the choice|letter|number|most likely|probably|clearly|definitely|therefore|thus,|hence,|indeed|actually"
        "|the best one:|the correct statement,|the final answer:|my choice,|that of option|the right one,"
        "|that would be",
    ),
    "explained": (
        "Answer: C {} so.",
        "because it is|since it is|as it is|due to age, and|given this|based on this|which is|according to most"
        "|the INR says|this is|it is|explanation: it is|rationale: it is|reason: it is|reasoning: it is|and this is"
        "|rather than D, and|over D, and|instead of D, and|not D, and|but only|here and|for now, and|in short, and"
        "|from now on, and|by exclusion, and|and not D,|and the INR says|and it is|and we say|and he is|and she says"
        "|and they say|is|was|are",
    ),
    "denied": (
        "Answer: C {} as it seems.",
        "is not|was never|is incorrect|is wrong|is false|is ruled out|is unlikely|is excluded",
    ),
    "left open": (
        "{} the answer is C.",
        "if|whether|unless|I do not think|I don't believe that|Never say|We cannot conclude that|I can't be certain"
        "|We don't know whether"
        "|It is not clear that|I am not sure that|This does not mean that|It is unlikely that|tempting to say that"
        "|not",
    ),
    "another answer": (
        "{} answer is C.",
        "The wrong|The incorrect|A false|The worst|The second|The next|The second best|If our|Whether this|If my"
        "|Unless the right|If the best|Whether the final|If an",
    ),
    "taken back": (
        "Answer: C\n\nNo, I was wrong: the answer is {}.",
        "none|neither|none of the above|all of the above|both of them|two of these|more than one option"
        "|both A and B|either A or B",
    ),
    "joined": (
        "Answer: D\n\nNo, I was wrong. Answer: C {} B",
        "and|or|and/or|as well as|or option|and choice|and answer|&|/|, or|, and|+",
    ),
    "claimed": (
        "It is given by mouth. {}.",
        "Option C is the answer|Choice C is the best option|Statement C is my final choice|C must be the right answer"
        "|So C is the answer|Therefore C is clearly the correct answer|It was said that C is the answer"
        "|C was the best choice|Hence C is correct|Thus C is thus correct|C is surely correct|C is right"
        "|C must be right|Letter C is the answer|Answer C is the right choice|C is thus the most suitable option",
    ),
    "not claimed": (
        "It is given by mouth. Option C is {}.",
        "the wrong answer|the incorrect choice|the worst option|the least likely answer|the only other answer"
        "|the second best option|the next best choice|the not so good answer|correct if he bleeds|correct when oral"
        "|correct only in part|correct in part|correct about that|right ventricular failure|the other option",
    ),
}


@pytest.mark.parametrize(
    ("kind", "output"),
    [(kind, sentence.format(word)) for kind, (sentence, words) in WORDING.items() for word in words.split("|")],
)
def test_wording(kind, output):
    assert extraction.extract(output, DRUGS) == (2 if kind in ("cue", "declared", "explained", "claimed") else None)


@pytest.mark.parametrize("label", ["The final answer ", "The correct option ", "Best choice ", "- ", "> ", "Option "])
def test_a_line_with_nothing_else_may_be_labelled(label):
    assert extraction.extract(f"It is a glycosaminoglycan.\n\n{label}B", DRUGS) == 1


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
