"""How many tokens a recipe's training sees."""

import dataclasses

from medtasks.errors import InputError

CHARACTERS = 4
"""Of English text in a token, about."""


def tokens(stage: str, settings: dict, gpus: int = 1) -> int | None:
    """Tokens in all steps, ``stage`` being ``sft`` or ``cpt``; None where the data cannot be read.

    Full rows are counted where they are packed and the steps are given; else the data is read, and its characters are
    counted, without looking for test questions in it (which drops few).
    """
    rows = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * gpus
    steps = settings["max_steps"]
    if steps > 0 and settings["packing"] and settings["max_length"]:
        return steps * rows * settings["max_length"]
    try:
        examples = _examples(stage, settings)
    except (InputError, OSError):
        return None
    an_epoch = sum(_characters(row) for row in examples) / CHARACTERS
    epochs = settings["num_train_epochs"] if steps <= 0 else steps * rows / len(examples)
    return int(epochs * an_epoch)


def _examples(stage: str, settings: dict) -> list[dict]:
    """The rows that the stage learns from."""
    from trainers import data

    kind = data.SFTDataArguments if stage == "sft" else data.CPTDataArguments
    given = {field.name: settings[field.name] for field in dataclasses.fields(kind) if field.name in settings}
    arguments = kind(**given | {"decontaminate": False})
    found = data.sft_examples(arguments, settings["seed"]) if stage == "sft" else data.cpt_examples(arguments)
    return found.rows


def _characters(value) -> int:
    """Characters of all texts in a row, messages of a chat included."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_characters(each) for key, each in value.items() if key != "role")
    return sum(_characters(each) for each in value) if isinstance(value, list) else 0
