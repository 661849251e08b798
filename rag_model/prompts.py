"""Where passages go in a finished prompt: before the item that is asked, after few-shot examples and chat template."""

import json
import re
from collections.abc import Callable, Sequence

from medtasks import mcq
from medtasks.errors import InputError
from rag_model import examples
from rag_model.chunking import ITEM

QUESTION_FIELDS = ("question", "sent1", "QUESTION", "Question", "query", "input")
"""Where lm-eval's question-answering tasks keep the question, the likeliest first."""

LABEL = r"(?:[A-Za-z][A-Za-z ]{0,30}:\s*)"
"""What may stand directly before a question and belongs to it: ``Question:``, ``Q:``, ``Patient question:``."""

CONTENT_FREE = "N/A"
"""Stands for a question in a content-free prompt, as in Zhao et al. 2021 (arXiv:2102.09690)."""

BEST_LAST, BEST_FIRST = ORDERS = ("best_last", "best_first")
"""Where the best passage stands: nearest to the question, or farthest from it."""


def question_of(doc: dict, task: str) -> str:
    """The question of a task's document: what to look up.

    Raises:
        InputError: none of :data:`QUESTION_FIELDS` holds a text.
    """
    for field in QUESTION_FIELDS:
        if isinstance(value := doc.get(field), str) and value.strip():
            return value.strip()
    raise InputError(
        f"task {task}: no question to look up (its fields are {', '.join(doc)}; known are "
        f"{', '.join(QUESTION_FIELDS)}); run it without rag, or with k=0"
    )


def insert(prompt, doc: dict, task: str, passages: Sequence[dict]):
    """``prompt`` with ``passages`` before the item it asks about; everything else stays as it is.

    Args:
        prompt: text, or the JSON messages that lm-eval gives to chat completion servers (``JsonChatStr``).
        doc: the item; :func:`medtasks.mcq.render` may have made the prompt, or another task's template.
        passages: snippets, best first; solved questions become worked examples (:func:`rag_model.examples.block`).

    Raises:
        InputError: the prompt holds neither the rendered item nor its question.
    """
    if isinstance(prompt, str):
        place = find(prompt, doc, task)
        return prompt[:place] + examples.block(passages, doc) + prompt[place:]
    messages = json.loads(prompt.prompt)
    asked = next(message for message in reversed(messages) if message["role"] == "user")
    asked["content"] = insert(asked["content"], doc, task, passages)
    return type(prompt)(json.dumps(messages, ensure_ascii=False))


def find(prompt: str, doc: dict, task: str) -> int:
    """Where in ``prompt`` the item begins that is asked: the last occurrence of its rendering, else of its question.

    A question counts where it opens a line or follows a :data:`LABEL` (the label then belongs to it), so that an
    option that repeats its words is passed over; only if there is no such place, anywhere. An item's ``context``
    (PubMedQA's abstract) directly before the question belongs to the item.

    Raises:
        InputError: neither is in the prompt.
    """
    if isinstance(doc.get("question"), str) and isinstance(doc.get("options"), list):
        place = mcq.find_item(prompt, doc)
        if place >= 0:
            return place
    question, context = re.escape(question_of(doc, task)), doc.get("context")
    before = rf"(?:{LABEL}?{re.escape(context.strip())}\s*)?" if isinstance(context, str) and context.strip() else ""
    for pattern in (f"{before}{LABEL}{question}|^{before}{question}", question):
        if places := [match.start() for match in re.finditer(pattern, prompt, re.MULTILINE)]:
            return places[-1]
    raise InputError(
        f"task {task}: its prompt does not hold the question, so there is no place for passages: "
        f"'{question_of(doc, task)[:80]}'; run it without rag, or with k=0"
    )


def without_question(prompt: str, doc: dict, task: str) -> str:
    """``prompt`` with :data:`CONTENT_FREE` for the question of the item that is asked; everything else stays.

    Raises:
        InputError: the prompt holds neither the rendered item nor its question.
    """
    question, context = question_of(doc, task), doc.get("context")
    place = find(prompt, doc, task)
    if isinstance(context, str) and context.strip() and (there := prompt.find(context.strip(), place)) >= 0:
        place = there + len(context.strip())
    place = prompt.index(question, place)
    return prompt[:place] + CONTENT_FREE + prompt[place + len(question) :]


def arranged(passages: Sequence[dict], order: str, cite: bool) -> list[dict]:
    """``passages``, best first, as :func:`insert` is to get them: in the ``order`` wanted, numbered where ``cite``.

    A number is the rank: ``[1]`` is the best passage, wherever it stands.

    Args:
        order: of :data:`ORDERS`.
    """
    named = [_numbered(passage, rank) for rank, passage in enumerate(passages, 1)] if cite else list(passages)
    return named if order == BEST_LAST else named[::-1]


def _numbered(passage: dict, rank: int) -> dict:
    if ITEM in passage:  # an example is no source
        return passage
    field = "title" if passage.get("title") else "text"
    return passage | {field: f"[{rank}] {passage[field]}"}


def citations(text: str, n: int) -> list[int]:
    """The ranks, 1 to ``n``, that a text cites as ``[2]`` or ``[1, 3]``, each once, in the order of their mention."""
    groups = re.findall(r"\[(\d+(?:\s*,\s*\d+)*)\]", text)
    ranks = dict.fromkeys(int(number) for group in groups for number in group.split(","))
    return [rank for rank in ranks if 1 <= rank <= n]


def fit(passages: Sequence[dict], fits: Callable[[Sequence[dict]], bool]) -> list[dict]:
    """The passages, best first, that can be shown: the worst are dropped, the last one left is cut.

    Args:
        fits: whether so many passages are short enough.

    Returns:
        the first of ``passages``; a single one may have lost its end; none, if not one word of it fits.
    """
    for n in range(len(passages), 0, -1):
        if fits(passages[:n]):
            return list(passages[:n])
    if not passages:
        return []
    best, words = passages[0], re.findall(r"\S+\s*", passages[0]["text"])
    few, many = 0, len(words)  # `few` words fit, `many` do not
    while many - few > 1:
        middle = (few + many) // 2
        shortened = best | {"text": "".join(words[:middle]).rstrip()}
        few, many = (middle, many) if fits([shortened]) else (few, middle)
    return [best | {"text": "".join(words[:few]).rstrip()}] if few else []
