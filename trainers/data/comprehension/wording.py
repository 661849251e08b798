"""How exercises are worded: several templates a kind, so that no wording is learned for the thing."""

from random import Random

Templates = tuple[tuple[str, str], ...]
"""(question, answer) each, with the names of their words in braces."""


def put(templates: Templates, rng: Random, **words: str) -> tuple[str, str]:
    """(question, answer) of one of the templates with ``words`` in it."""
    question, answer = rng.choice(templates)
    return question.format(**words), answer.format(**words)
