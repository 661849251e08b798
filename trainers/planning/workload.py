"""What a recipe's training sees: how many tokens, in how many micro-batches, and how much of it has a label."""

import dataclasses
import math
from dataclasses import dataclass

from medtasks import benchmarks
from medtasks.errors import InputError

CHARACTERS = 4
"""Of English text in a token, about."""
LETTER = "letter"


@dataclass(frozen=True)
class Workload:
    """What is known of a training's data without a tokenizer.

    Attributes:
        tokens: in all steps; None where the data cannot be read.
        by_letter: whether a letter is all that is learned, in every row.
        examples: that are seen in all steps, each a row of its own; None where they are packed, or not known.
        grows_with_length: whether ``tokens`` are counted as steps of full rows.
    """

    tokens: int | None
    by_letter: bool
    examples: float | None = None
    grows_with_length: bool = False

    def fullness(self, length: int) -> float:
        """The share of rows of ``length`` tokens that examples fill, on average."""
        if not self.examples or not self.tokens:
            return 1.0
        return min(1.0, self.tokens / self.examples / length)


def of(stage: str, settings: dict, gpus: int = 1, tokens: int | None = None) -> Workload:
    """The workload of a stage, ``sft`` or ``cpt``.

    Full rows are counted where they are packed and the steps are given; else the data is read, and its characters are
    counted, without looking for test questions in it (which drops few).

    Args:
        tokens: in all steps, where they are known.

    Raises:
        InputError: more epochs than can be counted.
    """
    rows = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * gpus
    steps, packs = settings["max_steps"], bool(settings["packing"] and settings["max_length"])
    full = steps * rows * settings["max_length"] if steps > 0 and packs else None
    may_be_letters = stage == "sft" and settings["answer_style"] == LETTER
    named = may_be_letters and all(str(source) in benchmarks.BENCHMARKS for source in settings["sources"] or ())
    if (tokens or full) and (named or not may_be_letters) and packs:
        return Workload(tokens or full, named, grows_with_length=not tokens)
    try:
        found = _examples(stage, settings)
    except (InputError, OSError):
        return Workload(tokens or full, named, grows_with_length=bool(full and not tokens))
    by_letter = stage == "sft" and are_letters(found.drafts)
    passes = settings["num_train_epochs"] if steps <= 0 else steps * rows / len(found.rows)
    counted = passes * sum(_characters(row) for row in found.rows) / CHARACTERS
    if not math.isfinite(counted):
        raise InputError(f"num_train_epochs: {settings['num_train_epochs']} are more than can be counted; give fewer")
    return Workload(
        tokens or full or int(counted),
        by_letter,
        None if packs else passes * len(found.rows),
        grows_with_length=bool(full and not tokens),
    )


def _examples(stage: str, settings: dict):
    """The examples that the stage learns from (:class:`trainers.data.Examples`)."""
    from trainers import data

    kind = data.SFTDataArguments if stage == "sft" else data.CPTDataArguments
    given = {field.name: settings[field.name] for field in dataclasses.fields(kind) if field.name in settings}
    arguments = kind(**given | {"decontaminate": False})
    return data.sft_examples(arguments, settings["seed"]) if stage == "sft" else data.cpt_examples(arguments)


def are_letters(drafts) -> bool:
    """Whether a letter is all that is learned of each example (:class:`trainers.data.rendering.Draft`)."""
    return bool(drafts) and all("options" in draft.row and draft.style == LETTER for draft in drafts)


def _characters(value) -> int:
    """Characters of all texts in a row, messages of a chat included."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_characters(each) for key, each in value.items() if key != "role")
    return sum(_characters(each) for each in value) if isinstance(value, list) else 0
