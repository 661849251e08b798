"""Texts with exercises: what each rule asks, what it leaves alone, and that the answers stand in the text."""

import random

import pytest

from trainers import data
from trainers.data import CPTDataArguments, comprehension
from trainers.data.comprehension import claims, cloze, reasons, topics
from trainers.data.comprehension.sentences import Reading, lower_first, split, stands_alone

HEART = {
    "title": "Anatomy > The Heart > Pericardium",
    "text": "The membrane that surrounds the heart is called the pericardium. Pericarditis is an inflammation of the "
    "pericardium and its fluid. Many patients with pericarditis sit up because the pericardium hurts less in that "
    "position. Dr. Smith found, in 1990, that the pericardium is not a muscle of the chest. In humans the adult heart "
    "has 4 chambers. The pericardium is supplied with blood by small branches of the internal thoracic arteries. It "
    "is thin. See Figure 2 for its layers.",
}


def asked(rule, text: str, title: str = "", seed: int = 0):
    return rule(Reading(title, text), random.Random(seed))


def wordings(rule, text: str, title: str = "") -> set:
    return {asked(rule, text, title, seed) for seed in range(30)}


def test_sentences_end_where_they_end():
    text = "Dr. A. Smith came, e.g. Monday. “He left.” Then (U.S. law) it rained\nA heading\nNew line."
    assert split(text) == ["Dr. A. Smith came, e.g. Monday.", "“He left.", "New line."]


@pytest.mark.parametrize(
    ("sentence", "alone"),
    [
        ("The pericardium is a thin membrane around the heart.", True),
        ("It is a thin membrane around the whole heart.", False),
        ("However, the pericardium is a thin membrane.", False),
        ("The pericardium is shown as a thin membrane in Figure 2.", False),
        ("A fluorescence image of HeLa cells in a culture.", False),
        ("An ultrasound, a procedure in which a probe is inserted.", False),
        ("Too short it is.", False),
    ],
)
def test_sentences_that_stand_alone(sentence, alone):
    assert stands_alone(sentence) is alone


def test_first_words_that_may_be_names_stay_large():
    text = "The cells divide. Freud believed. Treating cells helps."
    assert [lower_first(s, text) for s in ("Cells divide", "Freud believed", "Treating cells", "DNA is")] == [
        "cells divide",
        "Freud believed",
        "treating cells",
        "DNA is",
    ]


def test_the_topic_is_the_last_part_of_the_title():
    assert {answer.strip(".") for _, answer in wordings(topics.topic, HEART["text"], HEART["title"])} == {"Pericardium"}
    for title in ("Anatomy > Chapter Review", "Anatomy > The Kidney", "Glossary: heart", ""):
        assert asked(topics.topic, HEART["text"], title) is None


def test_terms_are_defined_and_named():
    assert len(wordings(topics.definition, "Apnea is a pause in breathing during sleep or at rest.")) == 3
    assert {a for _, a in wordings(topics.definition, "Apnea refers to a pause in breathing during deep sleep.")} == {
        "A pause in breathing during deep sleep."
    }
    called = wordings(topics.definition, "The membrane around the beating heart is called the pericardium.")
    assert ("What is the membrane around the beating heart called?", "The pericardium.") in called
    glossary = asked(topics.definition, "apnea: pause in breathing during sleep", "Sleep > Glossary: apnea")
    assert glossary[1] == "Pause in breathing during sleep."
    for sentence in (
        "The system is a loop of signals that ends in the brain.",
        "Most of them are called the small ones.",
    ):
        assert asked(topics.definition, sentence) is None


def test_reasons_follow_because_and_therefore():
    because = wordings(reasons.cause, "The bone heals slowly because blood supply to the cartilage is poor.")
    assert {answer for _, answer in because} == {"Because blood supply to the cartilage is poor."}
    assert any("reason that the bone heals slowly?" in question for question, _ in because)
    follows = asked(
        reasons.cause, "Cartilage has no vessels of its own at all. Therefore, the cartilage heals very slowly."
    )
    assert follows[1] == "The cartilage heals very slowly."
    for text in (
        "The bone heals slowly not because blood supply to the cartilage is poor.",
        "It heals slowly because blood supply to the cartilage is poor.",
        "It has none. Therefore, the cartilage heals very slowly.",
    ):
        assert asked(reasons.cause, text) is None


def test_missing_words_are_terms_of_the_text():
    found = wordings(cloze.missing_term, HEART["text"], HEART["title"])
    assert {answer for _, answer in found} == {"Pericardium"}
    assert all(question.count("____") == 1 and "pericardium" not in question.lower() for question, _ in found)
    assert asked(cloze.missing_term, "The patient received another treatment for the common condition.") is None


def test_sentences_are_cut_where_they_go_on():
    sentence = "The pericardium is supplied with blood by small branches of the arteries."
    for question, answer in wordings(cloze.next_words, sentence):
        assert "The pericardium is supplied with blood by ..." in question
        assert answer.strip("“”. ") == "small branches of the arteries"


def test_a_changed_number_or_negation_is_false_and_the_sentence_itself_true():
    numbers = wordings(claims.claim, "In humans the adult heart has 4 chambers in all.")
    true = {question for question, answer in numbers if answer in ("True.", "Yes.")}
    assert true and all("has 4 chambers" in question for question in true)
    false = {(q, a) for q, a in numbers if a.startswith(("False.", "No."))}
    assert false and all("has 4 chambers" not in q and "It says: “In humans" in a for q, a in false)
    negated = wordings(claims.claim, "The pericardium is not a muscle of the human chest.")
    assert any("pericardium is a muscle" in question and answer[0] in "FN" for question, answer in negated)


@pytest.mark.parametrize(
    "sentence",
    [
        "The adult human heart has about 4 chambers in all.",
        "The heart has between 3 and 4 chambers in animals.",
        "In 1990 the heart was found to have chambers.",
        "The pericardium is not only a membrane of the chest.",
        "The heart has cells that are not found in the chest.",
        "Sometimes the pericardium is not a membrane of the chest.",
    ],
)
def test_what_may_be_right_both_ways_is_not_asked(sentence):
    assert asked(claims.claim, sentence) is None


def test_a_text_comes_first_and_then_one_to_four_exercises():
    texts = {comprehension.text(HEART, seed) for seed in range(20)}
    assert len(texts) > 10
    for text in texts:
        assert text.startswith(comprehension.plain(HEART) + "\n\n")
        assert 1 <= text.count("Question: ") == text.count("Answer: ") <= comprehension.MOST
    assert comprehension.text(HEART, 3) == comprehension.text(HEART, 3)
    bare = {"title": "", "text": "Nothing here to ask about"}
    assert comprehension.text(bare, 1) == comprehension.plain(bare)


@pytest.mark.parametrize(("style", "least", "most"), [("raw", 0, 0), ("comprehension", 40, 40), ("mixed", 4, 20)])
def test_a_share_of_the_passages_gets_exercises(write_jsonl, style, least, most):
    passages = [{"id": n, "title": "Pericardium", "text": f"Case {n}. {HEART['text']}"} for n in range(40)]
    path = write_jsonl(passages, "corpus.jsonl")
    args = CPTDataArguments([path], text_style=style, comprehension_share=0.25, decontaminate=False)
    examples = data.cpt_examples(args, seed=1)
    exercised = sum("Question: " in row["text"] for row in examples.rows)
    assert least <= exercised <= most and examples.notes.get("with_exercises", 0) == exercised
    assert examples.rows == data.cpt_examples(args, seed=1).rows
