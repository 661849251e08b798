"""What is searched for: queries from an item's fields, or written by a model."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from medtasks.errors import InputError
from rag_model import prompts

HOW = ("question", "question+options", "per_option", "hyde", "decompose")
WRITTEN = ("hyde", "decompose")
"""Those that a model writes."""

HYDE = (
    "Write a short paragraph, as it could stand in a medical textbook, that holds the facts needed to answer this "
    "question. Do not mention the question.\n\nQuestion: {question}\n\nParagraph:"
)
"""Asks for the passage that a search should find; it is searched for in place of the question (Gao et al. 2022,
arXiv:2212.10496). Its facts may be wrong: what counts is that right passages are near."""

DECOMPOSE = (
    "A medical question is given. Write up to {most} short questions to look up in a textbook before answering it, one "
    "a line, each to be understood alone.\n\nQuestion: {question}\n\nShort questions:\n"
)
"""Asks for the questions behind a question (Press et al. 2022, arXiv:2210.03350); they are searched for beside it."""
MOST_PARTS = 3

EMPTY = re.compile(r"yes|no|maybe|true|false|(all|none|any|both|neither) (of )?(the )?(above|these|following|options?)")
"""Options that name nothing to look up."""
LIST_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s*")


class Query(NamedTuple):
    """One text to search for."""

    text: str
    """What is searched for."""
    asked: str
    """What a cross-encoder compares passages with: the question, where ``text`` is a passage that a model wrote."""


def queries(items: Sequence[dict], how: str, write: Callable[[list[str]], list[str]] | None) -> list[list[Query]]:
    """The queries of each item; their results share its ``k`` passages.

    Args:
        items: dicts with a question (:func:`rag_model.prompts.question_of`) and, where there are any, ``options``.
        how: one of :data:`HOW`.
            ``question``: the question alone.
            ``question+options``: the question and its options, a line each.
            ``per_option``: for each option the question with it. Options that name nothing (``yes``, ``none of the
            above``) are passed over; where none is left, the question alone.
            ``hyde``: what the model writes to :data:`HYDE`.
            ``decompose``: the question, and what the model writes to :data:`DECOMPOSE`, at most :data:`MOST_PARTS`.
        write: prompts -> texts, for the last two. Where a text is empty, the question alone is searched for.

    Raises:
        InputError: no such ``how``, no ``write`` where one is needed, or an item without a question.
    """
    if how not in HOW:
        raise InputError(f"unknown query '{how}'; there are {', '.join(HOW)}")
    questions = [prompts.question_of(item, str(item.get("id", ""))) for item in items]
    if how in WRITTEN:
        if write is None:
            raise InputError(f"query={how} needs a model that writes; use it with --model rag, or take another query")
        form = HYDE if how == "hyde" else DECOMPOSE
        texts = write([form.format(question=question, most=MOST_PARTS) for question in questions])
        of_text = _hypothetical if how == "hyde" else _parts
        return [of_text(question, text) for question, text in zip(questions, texts, strict=True)]
    options = [_options(item) for item in items]
    if how == "question+options":
        texts = ["\n".join([question, *own]) for question, own in zip(questions, options, strict=True)]
        return [[Query(text, text)] for text in texts]
    if how == "per_option":
        pairs = [[f"{question}\n{option}" for option in own] for question, own in zip(questions, options, strict=True)]
        return [
            [Query(text, text) for text in texts or [question]]
            for question, texts in zip(questions, pairs, strict=True)
        ]
    return [[Query(question, question)] for question in questions]


def _options(item: dict) -> list[str]:
    """The options of an item that name something."""
    from medtasks.ngrams import normalize

    return [option for option in item.get("options") or [] if option.strip() and not EMPTY.fullmatch(normalize(option))]


def _hypothetical(question: str, text: str) -> list[Query]:
    return [Query(text.strip() or question, question)]


def _parts(question: str, text: str) -> list[Query]:
    from medtasks.ngrams import normalize

    lines = (LIST_MARK.sub("", line).strip() for line in text.splitlines())
    parts = [line for line in dict.fromkeys(lines) if normalize(line)][:MOST_PARTS]
    return [Query(part, part) for part in dict.fromkeys([question, *parts])]
