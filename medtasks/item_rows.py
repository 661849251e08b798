"""A row of any multiple-choice data set -> an item (:data:`medtasks.mcq.FIELDS`)."""

import ast

from medtasks import mcq

OPTIONS = ("options", "choices")
NO_OPTION = ("", "nan")
"""What fills up the columns of items with fewer options than others (CasiMedicos)."""


class Faulty(ValueError):
    """A row that cannot be used; the message says why."""


def options_of(row: dict):
    """The options of a multiple-choice row as they stand there, or None."""
    for name in OPTIONS:
        if row.get(name) is not None:
            return row[name]
    if "opa" in row:  # MedMCQA
        return [row.get(f"op{letter}") for letter in "abcd"]
    return None


def item(row: dict, options, place: str) -> dict:
    """An item from a multiple-choice row; ``options`` may be a list, a mapping by letter, or the text of either.

    Args:
        place: becomes the item's id where the row has none.

    Raises:
        Faulty: no question, no options, or an answer that is none of them.
    """
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError) as error:
            raise Faulty("the choices are a text that is not a list") from error
    if isinstance(options, dict):
        options = [options[letter] for letter in sorted(options)]
    if not isinstance(options, list) or not 1 < len(options) <= len(mcq.LETTERS):
        raise Faulty(f"an item needs a list of 2 to {len(mcq.LETTERS)} choices")
    if not isinstance(row.get("question"), str):
        raise Faulty("no question")
    if not row["question"].strip():
        raise Faulty("the question is empty")
    answer = next((row[name] for name in ("answer_idx", "cop", "answer") if row.get(name) is not None), None)
    options = ["" if option is None else str(option) for option in options]
    index = _answer(answer, options)
    while len(options) > max(index + 1, 2) and options[-1] in NO_OPTION:
        options.pop()
    return {
        "id": str(row.get("id") or place),
        "question": row["question"],
        "options": options,
        "answer": index,
        "context": str(row.get("context") or ""),
        "subject": str(row.get("subject") or row.get("subject_name") or ""),
        "rationale": str(row.get("rationale") or row.get("explanation") or row.get("exp") or ""),
    }


def _answer(answer, options: list[str]) -> int:
    """0-based index from an index (int, 0-based), a number as text (1-based, as HEAD-QA's), a letter, or an option."""
    index = -1
    if isinstance(answer, str) and answer.strip().isdigit():
        index = int(answer) - 1
    elif isinstance(answer, str) and len(answer.strip()) == 1:
        index = mcq.LETTERS.find(answer.strip().upper())
    elif isinstance(answer, str) and options.count(answer) == 1:
        index = options.index(answer)
    elif isinstance(answer, int) and not isinstance(answer, bool):
        index = answer
    if not 0 <= index < len(options):
        raise Faulty(
            f"the answer {answer!r} names none of the {len(options)} choices; give an index (0-based), "
            "a number as text (1-based), a letter or the choice's text"
        )
    return index
