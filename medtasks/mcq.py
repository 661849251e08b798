"""The one rendering of a multiple-choice item, used by tasks, trainers and retrieval alike.

An item is a dict with the keys of :data:`FIELDS`. What is trained is what is asked: every prompt in
this project is made by :func:`render`, and every answer by :func:`target`.
"""

from collections.abc import Sequence

FIELDS = ("id", "question", "options", "answer", "context", "subject", "rationale")
"""``id`` str; ``question`` str; ``options`` list of str; ``answer`` index into options;
``context`` str, what the question is about (PubMedQA's abstract) or ""; ``subject`` str or "";
``rationale`` str, a written explanation (train splits) or ""."""

LETTERS = "ABCDEFGHIJ"
DELIMITER = " "
"""Stands between the prompt and the answer (lm-eval's ``target_delimiter``)."""


def render(item: dict, passages: Sequence[dict] = ()) -> str:
    """The prompt of one item: passages if any, context if any, question, lettered options, ``Answer:``.

    ``passages`` are dicts with ``title`` and ``text``, best first; the best is printed last, nearest to the question.
    """
    lines = [f"Abstract: {item['context']}"] if item.get("context") else []
    lines.append(f"Question: {item['question']}")
    lines += option_lines(item)
    lines.append("Answer:")
    return passage_block(passages) + "\n".join(lines)


def option_lines(item: dict) -> list[str]:
    """``A. <option>`` and so on, one an option."""
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, item["options"], strict=False)]


def passage_block(passages: Sequence[dict]) -> str:
    """The text that stands before an item when passages are given; "" for none."""
    if not passages:
        return ""
    texts = [f"{p['title']}: {p['text']}" if p.get("title") else p["text"] for p in reversed(passages)]
    return "Reference passages:\n\n" + "\n\n".join(texts) + "\n\n"


def choices(item: dict) -> list[str]:
    """The letters to score, one an option."""
    return list(LETTERS[: len(item["options"])])


def target(item: dict) -> str:
    """The letter of the right option."""
    return LETTERS[item["answer"]]


def likeliest(loglikelihoods: Sequence[float]) -> int:
    """Index of the option that is chosen: the most likely one, the first of equals (as lm-eval's ``acc``)."""
    return max(range(len(loglikelihoods)), key=loglikelihoods.__getitem__)


def find_item(prompt: str, item: dict) -> int:
    """Where the rendering of ``item`` begins in a whole prompt (few-shot block, chat template and all).

    Looks for the last occurrence, so few-shot examples are passed over. Returns -1 where the prompt was not
    made by :func:`render` (another task's own prompt, say).
    """
    return prompt.rfind(render(item))
