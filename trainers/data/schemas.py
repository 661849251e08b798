"""A row of any known shape -> one of four kinds of example:

item       :data:`medtasks.mcq.FIELDS`
question   ``question, reply``: an open question
pair       ``prompt, completion``: taken as they are
chat       ``messages`` (``role, content`` each) and the ``reply`` to them
"""

from itertools import chain

from medtasks import contamination, files, item_rows, items
from medtasks.item_rows import Faulty

OPEN_QUESTIONS = (
    (("Question",), ("Complex_CoT", "Response")),  # FreedomIntelligence/medical-o1-reasoning-SFT
    (("Prompt",), ("Completion",)),  # BI55/MedText
    (("instruction", "input"), ("output",)),  # lavita/medical-qa-datasets
    (("instruction",), ("output",)),
    (("question",), ("answer",)),  # MedQuAD
)
"""(question columns, answer columns) of the open question-and-answer data sets that are read as they are."""

CHATS = {"messages": ("role", "content"), "conversations": ("from", "value")}
"""Column of a chat's turns -> the names of speaker and text in a turn (OpenAI's and ShareGPT's)."""

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""A speaker's name in a data set -> the role in a chat template."""


PUBMEDQA = ("pubid", "question", "context", "final_decision")
"""Columns of PubMedQA's parts, the artificial one among them."""

SHOWN = 12
"""Characters of a value that a message repeats."""

ITEM = ("id", "question", *item_rows.OPTIONS, "opa", "opb", "opc", "opd", *item_rows.ANSWERS)
"""Columns that ask and answer a multiple-choice question (:mod:`medtasks.item_rows`)."""
BESIDE = ("context", "subject", "subject_name", "rationale", "explanation", "exp", "long_answer")
"""Columns that an item may have besides."""
PAIR = ("prompt", "completion")
SAME = (
    item_rows.ANSWERS,
    (*item_rows.OPTIONS, "opa", "opb", "opc", "opd"),
    ("rationale", "explanation", "exp"),
    ("subject", "subject_name"),
)
"""Columns that say the same thing: what ``columns`` names one of is not read from another."""
BESIDE_A_TEXT = ("context", "input", "system", "system_prompt", "history", "tools")
"""What a question, pair or chat may have besides that would have to be shown with it."""

KNOWN = tuple(dict.fromkeys((*ITEM, *BESIDE, *PUBMEDQA, *PAIR, *CHATS, *chain.from_iterable(chain(*OPEN_QUESTIONS)))))
"""Every column that a row is read by."""


def example(row, place: str, columns: dict[str, str] | None = None) -> dict:
    """The example in ``row``; ``columns`` (known name -> the row's own) renames first. ``place`` becomes an item's id
    where it has none.

    Raises:
        Faulty: no known shape, or something missing in it, or a text that is none.
    """
    return _encodable(_shaped(row, place, columns))


def _encodable(row: dict) -> dict:
    """``row``, if its texts can be tokenized, and written to files."""
    if not all(map(files.is_unicode, contamination.texts(row))):
        raise Faulty("a text holds half of a character (a lone surrogate); was an emoji cut in two?")
    return row


def _shaped(row, place: str, columns: dict[str, str] | None) -> dict:
    if not isinstance(row, dict):
        raise Faulty("not a JSON object; each line must be one")
    if columns:
        row = _renamed(row, columns)

    def is_read_by(*names) -> bool:
        return set(columns or ()) <= set(names)

    if is_read_by(*ITEM, *BESIDE) and (options := item_rows.options_of(row)) is not None:
        return item_rows.item(row, options, place)
    if is_read_by(*PUBMEDQA, *BESIDE) and all(key in row for key in PUBMEDQA):
        return _pubmedqa(row)
    for column, names in CHATS.items():
        if is_read_by(column) and row.get(column) is not None:
            return _chat(_with_system(row, column, names, columns), column, *names)
    if is_read_by(*PAIR) and all(row.get(name) is not None for name in PAIR):
        _demand_all_is_read(row, PAIR, columns)
        return _pair(row)
    for question, answer in OPEN_QUESTIONS:
        if is_read_by(*question, *answer) and _has_texts(row, (*question, *answer)):
            _demand_all_is_read(row, question, columns)
            return _question(_joined(row, question), _joined(row, answer))
    shapes = ["question, options or choices, answer", ", ".join(PAIR), ", ".join(PUBMEDQA), *CHATS]
    shapes += [", ".join(question + answer) for question, answer in OPEN_QUESTIONS]
    named = f" (of which one must read all that is named: {', '.join(columns)})" if columns else ""
    raise Faulty(f"has {', '.join(map(str, row))}; a row needs the columns {'; or '.join(shapes)}{named}")


def _renamed(row: dict, columns: dict[str, str]) -> dict:
    if missing := [column for column in columns.values() if column not in row]:
        raise Faulty(f"no column '{missing[0]}' (it has {', '.join(map(str, row))})")
    known_else = {other for names in SAME for name in columns if name in names for other in names} - columns.keys()
    kept = {column: value for column, value in row.items() if column not in known_else}
    return kept | {name: row[column] for name, column in columns.items()}


def _demand_all_is_read(row: dict, read: tuple[str, ...], columns: dict[str, str] | None) -> None:
    """Raise Faulty where a row of texts has more to show than is read, unless ``columns`` say what it is."""
    more = [name for name in BESIDE_A_TEXT if name not in read and row.get(name) not in (None, "", [], {})]
    if more and not columns:
        raise Faulty(
            f"has {more[0]} besides, which would not be learned; put it into the text, or name with 'columns' what is "
            f"to be read ({', '.join(read)})"
        )


def _with_system(row: dict, column: str, names: tuple[str, str], columns: dict[str, str] | None):
    """A chat's turns, behind the system prompt that stands beside them (as in ShareGPT's)."""
    turns, system = row[column], row.get("system")
    if not system or not isinstance(system, str) or not isinstance(turns, list):
        _demand_all_is_read(row, (column,), columns)
        return turns
    _demand_all_is_read(row, (column, "system"), columns)
    speaker, text = names
    has_one = bool(turns) and isinstance(turns[0], dict) and turns[0].get(speaker) == "system"
    return turns if has_one else [{speaker: "system", text: system}, *turns]


def _has_texts(row: dict, names: tuple[str, ...]) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


def _joined(row: dict, names: tuple[str, ...]) -> str:
    return "\n\n".join(filter(None, (row[name].strip() for name in names)))


def _demand(text: str, what: str) -> None:
    if not text.strip():
        raise Faulty(f"the {what} is empty")


def _question(question: str, reply: str) -> dict:
    _demand(question, "question")
    _demand(reply, "answer")
    return {"question": question, "reply": reply}


# Chats


def _pair(row: dict) -> dict:
    if not _has_texts(row, PAIR):
        raise Faulty("prompt and completion must be texts; a chat goes into 'messages'")
    _demand(row["completion"], "completion")
    return {name: row[name] for name in PAIR}


def _chat(turns, column: str, speaker: str, text: str) -> dict:
    """The last reply of a chat and the turns before it; a question where that is one turn of the user."""
    if not isinstance(turns, list):
        raise Faulty(f"{column} must be a list of turns")
    messages = [_turn(turn, speaker, text) for turn in turns]
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not any(message["role"] == "user" for message in messages):
        raise Faulty("the chat has no turn of a user with a reply of an assistant after it")
    *before, last = messages
    if len(before) == 1:
        return _question(before[0]["content"].strip(), last["content"].strip())
    _demand(last["content"], "last reply")
    return {"messages": before, "reply": last["content"].strip()}


def _pubmedqa(row: dict) -> dict:
    context, decision = row["context"], row["final_decision"]
    if decision not in items.PUBMEDQA_OPTIONS:
        raise Faulty(f"final_decision is {_shown(decision)}, none of {', '.join(items.PUBMEDQA_OPTIONS)}")
    texts = context.get("contexts") if isinstance(context, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Faulty("the context needs 'contexts', a list of texts")
    if not isinstance(row["question"], str):
        raise Faulty("no question")
    if not isinstance(row.get("long_answer"), str | None):
        raise Faulty("long_answer is no text")
    _demand(row["question"], "question")
    return items.pubmedqa_item(row)


def _shown(value) -> str:
    """A value as a message repeats it; nothing of a longer one, which may tell what is nobody's business."""
    return repr(value) if len(str(value)) <= SHOWN else "a longer text"


def _turn(turn, speaker: str, text: str) -> dict:
    if not isinstance(turn, dict) or not isinstance(turn.get(text), str):
        raise Faulty(f"a turn of the chat needs '{speaker}' and '{text}'")
    if not isinstance(turn.get(speaker), str) or turn[speaker] not in ROLES:
        raise Faulty(f"a turn's '{speaker}' is {_shown(turn.get(speaker))}; known are {', '.join(ROLES)}")
    return {"role": ROLES[turn[speaker]], "content": turn[text]}
