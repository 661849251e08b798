"""How many tokens examples have, and which have too many."""

from dataclasses import replace

from medtasks.errors import InputError
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
    counts = token_counts(examples.rows, tokenizer)
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
    """(tokens of the prompt, of the rest) of each row, the end that TRL appends included; of a CPT row, (0, all)."""
    counts = []
    for start in range(0, len(rows), BATCH):
        counts += _batch_counts(rows[start : start + BATCH], tokenizer)
    return counts


def _batch_counts(rows: list[dict], tokenizer) -> list[tuple[int, int]]:
    """:func:`token_counts` of rows of one kind."""
    if "text" in rows[0]:
        return [(0, n + 1) for n in _lengths([row["text"] for row in rows], tokenizer)]
    is_chat = not isinstance(rows[0]["prompt"], str)
    if is_chat:
        prompts = tokenizer.apply_chat_template(
            [row["prompt"] for row in rows], tokenize=False, add_generation_prompt=True
        )
        wholes = tokenizer.apply_chat_template([row["prompt"] + row["completion"] for row in rows], tokenize=False)
    else:
        prompts, wholes = [row["prompt"] for row in rows], [row["prompt"] + row["completion"] for row in rows]
    before, all_of_it = (_lengths(texts, tokenizer, not is_chat) for texts in (prompts, wholes))
    return [(n, whole + (not is_chat) - n) for n, whole in zip(before, all_of_it, strict=True)]


def _lengths(texts: list[str], tokenizer, add_special_tokens: bool = True) -> list[int]:
    encoded = tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False)
    return [len(ids) for ids in encoded["input_ids"]]
