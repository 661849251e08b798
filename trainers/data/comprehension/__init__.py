"""Passages as a reader's exercise: the text, then questions on it with answers.

Continued pretraining on raw texts costs a model some of its ability to answer when asked; on texts followed by such
exercises it does not (AdaptLLM, Cheng et al. 2024, arXiv:2309.09530, whose kinds these are; rules and templates
are ours).
A rule gives an exercise only where the answer stands in the text. It takes the passage and a random generator, which
chooses among sentences and templates, and gives (question, answer) or None.
"""

import random

from trainers.data.comprehension.claims import claim
from trainers.data.comprehension.cloze import missing_term, next_words
from trainers.data.comprehension.reasons import cause
from trainers.data.comprehension.sentences import Reading
from trainers.data.comprehension.topics import definition, topic

RULES = (topic, definition, cause, missing_term, next_words, claim)

MOST = 4
"""Exercises on one passage."""

LEADS = (
    "Questions on the text:",
    "Answer these questions about the passage.",
    "Read the text and answer.",
    "Exercises:",
)


def plain(passage: dict) -> str:
    """Title, blank line, text."""
    return "\n\n".join(filter(None, (passage["title"].strip(" >"), passage["text"])))


def text(passage: dict, seed: int) -> str:
    """The passage, and 1 to :data:`MOST` exercises where its sentences give any; the same for one ``seed``."""
    found = questions(passage, seed)
    if not found:
        return plain(passage)
    lead = random.Random(f"{seed} lead {passage['text']}").choice(LEADS)
    asked = [f"Question: {question}\nAnswer: {answer}" for question, answer in found]
    return "\n\n".join([plain(passage), lead, *asked])


def questions(passage: dict, seed: int) -> list[tuple[str, str]]:
    """(question, answer) of up to :data:`MOST` exercises on a passage, in a random order, one of a kind at most."""
    rng = random.Random(f"{seed} exercises {passage['text']}")
    rules = list(RULES)
    rng.shuffle(rules)
    reading = Reading(passage["title"], passage["text"])
    found = (rule(reading, rng) for rule in rules)
    return [exercise for exercise in found if exercise][:MOST]
