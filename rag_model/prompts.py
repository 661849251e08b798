"""Where passages go in a finished prompt: before the item that is asked, after few-shot examples and chat template."""

import json
import re
from collections.abc import Callable, Sequence

from medtasks import mcq
from medtasks.errors import InputError

QUESTION_FIELDS = ("question", "sent1", "QUESTION", "Question", "query", "input")
"""Where lm-eval's question-answering tasks keep the question, the likeliest first."""

LABEL = r"(?:[A-Za-z][A-Za-z ]{0,30}:\s*)"
"""What may stand directly before a question and belongs to it: ``Question:``, ``Q:``, ``Patient question:``."""


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
        passages: dicts with ``title`` and ``text``, best first.

    Raises:
        InputError: the prompt holds neither the rendered item nor its question.
    """
    if isinstance(prompt, str):
        place = find(prompt, doc, task)
        return prompt[:place] + mcq.passage_block(passages) + prompt[place:]
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


def fit(
    passages: Sequence[dict], render: Callable[[Sequence[dict]], object], fits: Callable[[object], bool]
) -> list[dict]:
    """The passages, best first, that leave a prompt short enough: the worst are dropped, the last one left is cut.

    Args:
        render: passages -> prompt.
        fits: whether a prompt is short enough.

    Returns:
        the first of ``passages``; a single one may have lost its end; none, if not one word of it fits.
    """
    for n in range(len(passages), 0, -1):
        if fits(render(passages[:n])):
            return list(passages[:n])
    best, words = passages[0], re.findall(r"\S+\s*", passages[0]["text"])
    few, many = 0, len(words)  # `few` words fit, `many` do not
    while many - few > 1:
        middle = (few + many) // 2
        shortened = best | {"text": "".join(words[:middle]).rstrip()}
        few, many = (middle, many) if fits(render([shortened])) else (few, middle)
    return [best | {"text": "".join(words[:few]).rstrip()}] if few else []
