"""A row of any multiple-choice data set -> an item (:data:`medtasks.mcq.FIELDS`)."""

import ast
import re

from medtasks import mcq

OPTIONS = ("options", "choices")
NO_OPTION = ("", "nan")
"""What fills up the columns of items with fewer options than others (CasiMedicos)."""


ANSWERS = ("answer_idx", "cop", "answer")
OPTION_KEYS, OPTION_TEXTS = ("key", "label", "letter", "id"), ("value", "text", "content", "option")
"""What options that are mappings may call their letter, and their text (BigBio's MedQA: ``key`` and ``value``)."""
SHOWN = 4
"""Characters of an answer that a message repeats."""
LETTERED = re.compile(r"\(?(?P<letter>[A-Za-z])[.):]\s+(?=\S)")
"""A letter before an option's text, as in ``A. heart`` or ``(b) lung``."""


class Faulty(ValueError):
    """A row that cannot be used; the message says why."""


class CountsOtherwise(Faulty):
    """A row by which its source counts answers otherwise than they are read: then the others' answers are wrong, and
    none can be used."""


def options_of(row: dict):
    """The options of a multiple-choice row as they stand there, or None."""
    for name in OPTIONS:
        if row.get(name) is not None:
            return row[name]
    if "opa" in row:  # MedMCQA
        return [row.get(f"op{letter}") for letter in "abcd"]
    return None


def item(row: dict, options, place: str) -> dict:
    """An item from a multiple-choice row.

    Args:
        options: a list of texts, or of mappings with a key and a text each; a mapping by letter or number, or of
            ``text`` and ``label`` lists (ARC's); or any of these as text. Letters that they carry themselves
            (``A. heart``) are taken off.
        place: becomes the item's id where the row has none.

    Raises:
        Faulty: no question, no options, or an answer that is none of them, or can be read as two of them.
    """
    are_numbers = isinstance(options, list) and any(type(option) in (int, float) for option in options)
    keys, options = keys_and_texts(options)
    if not isinstance(row.get("question"), str):
        raise Faulty("no question")
    if not row["question"].strip():
        raise Faulty("the question is empty")
    index = _answer(row, keys, options, are_numbers=are_numbers)
    if options[index].strip() in NO_OPTION:
        raise Faulty("the right choice is empty")
    while len(options) > max(index + 1, 2) and options[-1] in NO_OPTION:
        options.pop()
    return {
        "id": place if row.get("id") in (None, "") else str(row["id"]),
        "question": row["question"],
        "options": _without_letters(options),
        "answer": index,
        "context": _text(row.get("context")),
        "subject": _text(row.get("subject") or row.get("subject_name")),
        "rationale": _text(row.get("rationale") or row.get("explanation") or row.get("exp")),
    }


def keys_and_texts(options) -> tuple[list[str] | None, list[str]]:
    """What names the options in the row itself, if anything does, and the options.

    Raises:
        Faulty: they are not 2 to 10 texts.
    """
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise Faulty("the choices are a text that is not a list") from error
    keys = None
    if isinstance(options, dict) and {"text", "label"} <= options.keys() and isinstance(options["text"], list):
        if not isinstance(options["label"], list):
            raise Faulty("the choices' label is no list, as their text is one")
        keys, options = list(options["label"]), options["text"]
    elif isinstance(options, dict):
        are_numbers = all(_is_number(str(key)) for key in options)
        keys = sorted(options, key=lambda key: int(key) if are_numbers else str(key))
        options = [options[key] for key in keys]
    elif isinstance(options, list) and options and all(isinstance(option, dict) for option in options):
        names = [
            next((name for name in named if all(name in option for option in options)), None)
            for named in (OPTION_KEYS, OPTION_TEXTS)
        ]
        if None in names:
            raise Faulty(f"the choices are mappings without {' or '.join(OPTION_KEYS)}, or {' or '.join(OPTION_TEXTS)}")
        keys, options = ([option[name] for option in options] for name in names)
    if not isinstance(options, list) or not 1 < len(options) <= len(mcq.LETTERS):
        raise Faulty(f"an item needs a list of 2 to {len(mcq.LETTERS)} choices")
    if keys is not None and len(keys) != len(options):
        raise Faulty(f"{len(keys)} labels for {len(options)} choices")
    if any(isinstance(option, list | dict) for option in options):
        raise Faulty("a choice is a list or a mapping; it must be a text")
    texts = ["" if option is None else str(option) for option in options]
    return None if keys is None else [str(key).strip() for key in keys], texts


def _answer(row: dict, keys: list[str] | None, options: list[str], *, are_numbers: bool) -> int:
    """0-based index from what names an option in the row itself, an index (int, 0-based), a number as text (1-based, as
    HEAD-QA's), a letter, or an option; the same by each of :data:`ANSWERS` that the row has.

    Args:
        are_numbers: whether the options are numbers, of which an answer may be one.
    """
    given = {name: row[name] for name in ANSWERS if row.get(name) is not None}
    first = next(iter(given), "answer")
    _demand_counting(first, given.get(first), keys, options)
    named = {name: _named(answer, keys, len(options)) for name, answer in given.items()}
    text = row.get("answer")
    is_text = isinstance(text, str) or (are_numbers and type(text) in (int, float))
    of_text = options.index(str(text)) if is_text and options.count(str(text)) == 1 else None
    index = of_text if named.get(first) is None and first == "answer" else named[first]
    if index is None:
        answer = given.get(first)
        shown = f" {answer!r}" if len(str(answer)) <= SHOWN else ""  # a longer one may tell what is nobody's business
        raise Faulty(
            f"the answer{shown} names none of the {len(options)} choices; give an index (0-based), "
            "a number as text (1-based), a letter or the choice's text"
        )
    if of_text is not None and of_text != index:
        how = "as a letter or number it names" if first == "answer" else f"{first} names"
        raise Faulty(
            f"the answer is the text of the {of_text + 1}. choice, and {how} the {index + 1}.; give answer_idx alone"
        )
    for name, other in named.items():
        if other is not None and other != index and not (name == "answer" and of_text is not None):
            raise Faulty(
                f"{first} names the {index + 1}. choice, and {name} the {other + 1}. (an int counts from 0, a number "
                "as text from 1); name the right one with 'columns'"
            )
    return index


def _demand_counting(name: str, answer, keys: list[str] | None, options: list[str]) -> None:
    """Raise CountsOtherwise where ``answer`` shows that its source counts answers otherwise than they are read."""
    numbered = keys is not None and all(map(_is_number, keys))
    if type(answer) is int and numbered and str(answer) not in keys:
        raise CountsOtherwise(f"{name} is {answer}, and the choices are called {', '.join(keys)}; give one of these")
    if type(answer) is int and not numbered and answer == len(options):
        raise CountsOtherwise(
            f"{name} is {answer} of {len(options)} choices: answers are counted from 0, and here from 1, it seems; "
            "count them from 0, or give letters"
        )
    if isinstance(answer, str) and answer.strip() == "0" and "0" not in (*options, *(keys or ())):
        raise CountsOtherwise(
            f"{name} is the text '0': numbers as text are counted from 1, and here from 0, it seems; give them as "
            "numbers, or letters"
        )


def _named(answer, keys: list[str] | None, n: int) -> int | None:
    """The index that ``answer`` names without being an option's text."""
    if isinstance(answer, bool) or not isinstance(answer, str | int):
        return None
    said, index = str(answer).strip(), -1
    if keys is not None and keys.count(said) == 1:
        return keys.index(said)
    if isinstance(answer, int):
        index = answer
    elif _is_number(said):
        index = int(said) - 1
    elif len(said) == 1:
        letters = mcq.LETTERS if keys is None else "".join(keys).upper() if all(len(k) == 1 for k in keys) else ""
        index = letters.find(said.upper())
    return index if 0 <= index < n else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _without_letters(options: list[str]) -> list[str]:
    """``options``, less the letters by which they are called, where each begins with its own."""
    found = [LETTERED.match(option) for option in options]
    if all(one and one["letter"].upper() == letter for one, letter in zip(found, mcq.LETTERS, strict=False)):
        return [option[one.end() :] for option, one in zip(options, found, strict=True)]
    return options


def _text(value) -> str:
    """``value`` as text: "" for nothing and for what stands for it (NaN); lines for a list of texts, and for PubMedQA's
    ``contexts``.

    Raises:
        Faulty: it is another list or mapping.
    """
    if isinstance(value, dict) and "contexts" in value:
        value = value["contexts"]
    if value is None or value == [] or value != value:
        return ""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if isinstance(value, list | dict):
        raise Faulty("context, subject or rationale is a list or a mapping; it must be a text")
    return str(value)
