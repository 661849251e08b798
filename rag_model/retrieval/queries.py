"""What is searched for: queries from an item's fields, or written by a model."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from medtasks.errors import InputError
from rag_model import prompts
from rag_model.options import names_nothing

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
        items: dicts with a question (:func:`rag_model.prompts.question_of`) and, where there are any, ``options`` (or
            ``choices``): a list, or a dict by letter.
        how: one of :data:`HOW`.
            ``question``: the question alone.
            ``question+options``: the question and its options, a line each.
            ``per_option``: for each option, it and the question; the option first, since an embedder cuts off the end
            of a long text. Options that name nothing (``yes``, ``none of the above``) are passed over; where none is
            left, the question alone.
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
        form, of_text = (HYDE, _hypothetical) if how == "hyde" else (DECOMPOSE, _parts)
        texts = write([form.format(question=question, most=MOST_PARTS) for question in questions])
        return [of_text(question, text) for question, text in zip(questions, texts, strict=True)]
    of_fields = {"question": _alone, "question+options": _with_options, "per_option": _per_option}[how]
    return [of_fields(question, _options(item)) for question, item in zip(questions, items, strict=True)]


def _alone(question: str, options: list[str]) -> list[Query]:
    return [Query(question, question)]


def _with_options(question: str, options: list[str]) -> list[Query]:
    text = "\n".join([question, *options])
    return [Query(text, text)]


def _per_option(question: str, options: list[str]) -> list[Query]:
    texts = dict.fromkeys(f"{option}\n{question}" for option in options)
    return [Query(text, text) for text in texts] or _alone(question, options)


def _options(item: dict) -> list[str]:
    """The options of an item that name something."""
    options = item.get("options", item.get("choices")) or []
    texts = [str(option).strip() for option in (options.values() if isinstance(options, dict) else options)]
    return [text for text in texts if text and not names_nothing(text)]


def _hypothetical(question: str, text: str) -> list[Query]:
    return [Query(text.strip() or question, question)]


def _parts(question: str, text: str) -> list[Query]:
    from medtasks.ngrams import normalize

    lines = (LIST_MARK.sub("", line).strip() for line in text.splitlines())
    parts = [line for line in dict.fromkeys(lines) if normalize(line)][:MOST_PARTS]
    return [Query(part, part) for part in dict.fromkeys([question, *parts])]
