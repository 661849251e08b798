"""How many tokens examples have, and which have too many."""

from dataclasses import replace

from medtasks.errors import InputError
from trainers import batches
from trainers.data.examples import Examples

BATCH = 1_000
"""Rows that are tokenized together."""


NEAR = 0.9
"""Of ``max_length``, from where an example is measured in other epochs too: another order of its lines changes tokens
only where they meet."""


def drop_too_long(examples: Examples, tokenizer, max_length: int | None, epochs: int = 1) -> Examples:
    """Leave out the SFT rows of more than ``max_length`` tokens in one of the first ``epochs`` epochs, and such rows of
    ``dev``: TRL would cut off their end, which is the answer.

    Raises:
        InputError: nothing is left.
    """
    if max_length is None:
        return examples
    try:
        counts = token_counts(examples.rows, tokenizer)
    except batches.Unrenderable as error:
        raise InputError(f"{examples.place(error.number)}: {error}") from error
    too_long = {i for i, count in enumerate(counts) if sum(count) > max_length}
    near = [i for i, count in enumerate(counts) if NEAR * max_length <= sum(count) <= max_length]
    moving = [i for i in near if examples.drafts and examples.drafts[i].moves]
    for epoch in range(1, epochs):
        rows = [examples.drafts[i].at(epoch) for i in moving]
        too_long |= {i for i, n in zip(moving, token_counts(rows, tokenizer), strict=True) if sum(n) > max_length}
    if len(too_long) == len(examples.rows):
        raise InputError(f"every example is longer than max_length {max_length}; raise it")
    dev = examples.dev and drop_too_long(examples.dev, tokenizer, max_length)
    return replace(examples, lengths=counts, dev=dev).without(sorted(too_long), "too_long")


def count_tokens(row: dict, tokenizer) -> int:
    """Tokens of one SFT row: prompt, completion and, outside a chat, the end-of-sequence token that TRL appends."""
    return sum(token_counts([row], tokenizer)[0])


def token_counts(rows: list[dict], tokenizer) -> list[tuple[int, int]]:
    """(tokens before what is learned, and learned ones) of each row, as :func:`trainers.batches.encode` makes them.

    Raises:
        batches.Unrenderable: a chat that the model's template cannot put.
    """
    counts = []
    for start in range(0, len(rows), BATCH):
        try:
            encoded = batches.encode(rows[start : start + BATCH], tokenizer)
        except batches.Unrenderable as error:
            raise batches.Unrenderable(start + error.number, error.reason) from error
        counts += [(n := row["labels"].count(batches.IGNORED), len(row["labels"]) - n) for row in encoded]
    return counts
