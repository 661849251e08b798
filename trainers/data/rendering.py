"""An example -> the prompt that is asked in evaluation, and the completion that is scored there."""

import random
import re
from dataclasses import dataclass

from medtasks import items, mcq, option_text

NAMES_OTHER_OPTIONS = re.compile(
    r"(?:both|either|neither|only)?\s*\(?[a-j]\)?(?:\s*(?:,|&|and|or|nor)\s*\(?[a-j]\)?)+(?: only| both)?", re.I
)
SPEAKS_OF_LETTERS = re.compile(
    r"\b[A-J]\b\)?(?:\s*(?:,|/|&|\+|and|or|nor)\s*\(?\b[A-J]\b)+"
    r"|\b(?i:except|only|options?|choices?|answers?|same as)\s+\(?[A-J]\b|^\(?[A-J]\)?\s+only\b|^[a-j]\s*[+/&]\s*[a-j]$"
)
"""A part of an option that may name other options by letter; vitamins A and D do it as well, and stay in order too."""


@dataclass(frozen=True)
class Draft:
    """An example that is yet to be put into words, which may be others in every epoch."""

    row: dict
    """In a shape of :mod:`trainers.data.schemas`; an item may have ``passages`` (best first) and ``n_best``, how many
    of them stay nearest to the question (:mod:`trainers.data.raft`)."""
    style: str
    """One of :data:`trainers.data.arguments.STYLES`."""
    chat: bool
    seed: int
    shuffles: bool
    """Whether options may change places."""
    source: str
    place: str
    """Where it stands in its source."""
    times: int = 0
    """How often the same row was drawn before."""

    @property
    def moves(self) -> bool:
        """Whether it reads otherwise in another epoch."""
        return self._shuffles_options or self._n_loose > 1

    def at(self, epoch: int) -> dict:
        """``prompt`` and ``completion`` in epoch ``epoch`` (from 0): str, or messages for a chat."""
        row, turn = self.row, _turn(epoch, self.times)
        if self._shuffles_options:
            row = shuffled(row, self.seed, turn)
        if self._n_loose > 1:
            row = _passages_shuffled(row, self.seed, turn)
        return rendered(row, self.style, self.chat)

    @property
    def _shuffles_options(self) -> bool:
        return self.shuffles and "options" in self.row and may_shuffle(self.row, self.style)

    @property
    def _n_loose(self) -> int:
        return len(self.row.get("passages", ())) - self.row.get("n_best", 0)


def rendered(row: dict, style: str, chat: bool) -> dict:
    """``prompt`` and ``completion`` of an example in any shape.

    The completion begins with the delimiter, as lm-eval's continuation does; with ``chat``, the delimiter is the
    template's business, in lm-eval too.
    """
    if "messages" in row:
        return {"prompt": row["messages"], "completion": [{"role": "assistant", "content": row["reply"]}]}
    if "prompt" in row:
        prompt, completion = row["prompt"], row["completion"]
    elif "options" in row:
        prompt, completion = _asked(row, style), _answered(row, style)
    elif chat:
        prompt, completion = row["question"], row["reply"]
    else:
        prompt, completion = mcq.render({"question": row["question"], "options": []}), row["reply"]
    if chat:
        return {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": completion.strip()}],
        }
    return {"prompt": prompt, "completion": completion if "prompt" in row else mcq.DELIMITER + completion}


def _asked(item: dict, style: str) -> str:
    passages = item.get("passages", ())
    if style == "free":
        return mcq.passage_block(passages) + option_text.render(item)
    return mcq.render(item, passages)


def _answered(item: dict, style: str) -> str:
    if style == "free":
        return item["options"][item["answer"]].strip()
    letter = mcq.target(item)
    if style == "rationale" and item["rationale"]:
        return f"{item['rationale'].strip()}\nAnswer:{mcq.DELIMITER}{letter}"
    return letter


def may_shuffle(item: dict, answer_style: str) -> bool:
    """Whether an item's options may change places, and if that would change anything.

    Not those of a fixed set (yes/no/maybe), not where an option names others ("both A and C"), not where the rationale
    is learned too, since it may name letters, and not where options are not shown.
    """
    if item["options"] == items.PUBMEDQA_OPTIONS or (answer_style == "rationale" and item["rationale"]):
        return False
    if answer_style == "free":
        return False
    said = [option.strip(" .") for option in item["options"]]
    return not any(NAMES_OTHER_OPTIONS.fullmatch(option) or SPEAKS_OF_LETTERS.search(option) for option in said)


def shuffled(item: dict, seed: int, turn: str = "") -> dict:
    """The item with its options in an order that depends on ``seed``, ``turn`` and its question alone."""
    order = list(range(len(item["options"])))
    random.Random(f"{seed} {item['question']}{turn}").shuffle(order)
    options = [item["options"][i] for i in order]
    return item | {"options": options, "answer": order.index(item["answer"])}


def _passages_shuffled(item: dict, seed: int, turn: str) -> dict:
    best, others = item["passages"][: item["n_best"]], item["passages"][item["n_best"] :]
    random.Random(f"{seed} passages {item['question']}{turn}").shuffle(others)
    return item | {"passages": [*best, *others]}


def _turn(epoch: int, times: int) -> str:
    """What tells apart the showings of one row; "" for the first one."""
    return f" {epoch}.{times}" if epoch or times else ""
