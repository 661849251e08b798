"""Training rows as micro-batches without padding: documents stand side by side, and attention stays within each.

Every epoch is prepared on its own (its options are in an order of their own), packed, shuffled, and the epochs stand
one after the other; so what a step sees is known beforehand, and a resumed run sees the same. Padding would cost time,
and is not trusted: on an H100, torch 2.11 gives a padded batch to a cuDNN kernel whose results are far from those of
the other kernels (``benchmarks/nan_padding.py``).
"""

import math
import os.path
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from medtasks.errors import InputError

IGNORED = -100
"""Label of a token that is not learned (torch's ``ignore_index``)."""


PACKED_TOGETHER = 50_000
"""Examples among which the packing looks for what fits."""


@dataclass(frozen=True)
class Packed:
    """Rows in the order of training."""

    rows: list[dict]
    """``input_ids`` and ``labels`` (equally long lists), ``seq_lengths`` of the documents in it, ``examples``: the
    number of each document's example."""
    epochs: float
    """Epochs that they are."""
    ends: list[int] = field(default_factory=list)
    """Rows up to the end of each epoch, the last one included, though it may be a part."""

    @property
    def tokens(self) -> int:
        return sum(len(row["input_ids"]) for row in self.rows)

    def most_documents(self, rows_at_once: int) -> int:
        """The largest number of documents in ``rows_at_once`` consecutive rows."""
        counts = [len(row["seq_lengths"]) for row in self.rows]
        return max(sum(counts[i : i + rows_at_once]) for i in range(0, len(counts), rows_at_once))


class Unrenderable(InputError):
    """A chat that the model's template cannot put as it is asked; ``number``: its place among the rows."""

    def __init__(self, number: int, reason: str):
        super().__init__(f"chat: {reason}; leave it out, or give a model with another template")
        self.number, self.reason = number, reason


def encode(rows: Sequence[dict], tokenizer) -> list[dict]:
    """``input_ids`` and ``labels`` of prompt and completion, messages, or text; the completion alone is learned.

    The tokens are those of TRL's SFTTrainer: prompt and completion are tokenized as one text, which ends in the
    end-of-sequence token unless a chat template ends it.

    Raises:
        Unrenderable: the template refuses a chat, or puts its turns otherwise once a reply follows.
    """
    if "text" in rows[0]:
        texts = [_ended(row["text"], tokenizer) for row in rows]
        return [{"input_ids": ids, "labels": list(ids)} for ids in tokenizer(texts)["input_ids"]]
    if isinstance(rows[0]["prompt"], str):
        prompts = tokenizer([row["prompt"] for row in rows])["input_ids"]
        wholes = tokenizer([row["prompt"] + _ended(row["completion"], tokenizer) for row in rows])["input_ids"]
        return [_completion(prompt, whole) for prompt, whole in zip(prompts, wholes, strict=True)]
    asked, whole = zip(*(_chat(row, number, tokenizer) for number, row in enumerate(rows)), strict=True)
    prompts, wholes = (tokenizer(list(texts), add_special_tokens=False)["input_ids"] for texts in (asked, whole))
    ends = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = [_completion(prompt, whole) for prompt, whole in zip(prompts, wholes, strict=True)]
    return [row if ends & set(row["labels"]) else _with_end(row, tokenizer.eos_token_id) for row in found]


def _ended(text: str, tokenizer) -> str:
    return text if text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token


def _with_end(row: dict, end: int) -> dict:
    """``row`` of a template without an end of its own, which would never learn to stop."""
    return {name: [*tokens, end] for name, tokens in row.items()}


def _chat(row: dict, number: int, tokenizer) -> tuple[str, str]:
    """What the template asks, and that with the reply."""
    from jinja2 import TemplateError

    try:
        asked = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    except TemplateError as error:
        raise Unrenderable(number, f"the model's template refuses it ({error})") from error
    common = os.path.commonprefix([asked, whole])
    for message in row["prompt"]:
        said = message["content"].strip()
        if message["role"] != "assistant" and said in asked and said not in common:
            raise Unrenderable(
                number, f"the model's template puts the turn of {message['role']} otherwise once a reply follows"
            )
    return asked, whole


def _completion(prompt: list[int], whole: list[int]) -> dict:
    """Labels from where prompt and whole part, which is not always the prompt's end: tokens may merge across it."""
    start = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    return {"input_ids": whole, "labels": [IGNORED] * start + whole[start:]}


def pack(
    epoch: Callable[[int], Sequence[dict]],
    tokenizer,
    *,
    epochs: float,
    seed: int,
    most_rows: int | None = None,
    max_length: int | None = None,
    strategy: str | None = None,
) -> Packed:
    """Rows of ``epochs`` epochs, each of one example, or of several packed to at most ``max_length`` tokens.

    Args:
        epoch: the examples of epoch 0, 1, ...
        epochs: how many; the last one may be a part.
        seed: orders each epoch.
        most_rows: so many rows, in as many epochs as they take, instead of ``epochs``.
        strategy: ``bfd`` or ``bfd_split`` (best fit decreasing, Ding et al. 2024, arXiv:2404.10830, without or with
            cutting long examples up), or None to pack nothing. With ``bfd``, an example that an epoch's order of
            options makes longer than ``max_length`` is left out of that epoch.

    Raises:
        InputError: ``epochs`` is not above 0.
    """
    if epochs <= 0:
        raise InputError(f"num_train_epochs is {epochs}; it must be above 0")
    rows: list[dict] = []
    ends: list[int] = []
    done = 0.0
    while len(rows) < most_rows if most_rows else done < epochs:
        number = int(done)
        new = _epoch(encode(epoch(number), tokenizer), random.Random(f"{seed} {number}"), max_length, strategy)
        wanted = most_rows - len(rows) if most_rows else math.ceil(round(len(new) * (epochs - number), 6))
        rows += new[:wanted]
        ends.append(len(rows))
        done += min(1.0, wanted / len(new) if most_rows else epochs - number)
    return Packed(rows, done, ends)


def _epoch(encoded: list[dict], rng: random.Random, max_length: int | None, strategy: str | None) -> list[dict]:
    numbered = [row | {"examples": [number] * len(row["input_ids"])} for number, row in enumerate(encoded)]
    if strategy == "bfd":  # it would cut off the end, which is the answer
        numbered = [row for row in numbered if len(row["input_ids"]) <= max_length]
    rng.shuffle(numbered)
    if strategy is None:
        return [row | {"examples": row["examples"][:1], "seq_lengths": [len(row["input_ids"])]} for row in numbered]
    from datasets import Dataset
    from trl import pack_dataset

    packed = pack_dataset(
        Dataset.from_list(numbered), max_length, strategy, {"batch_size": PACKED_TOGETHER, "keep_in_memory": True}
    ).to_list()
    for row in packed:
        starts = accumulate(row["seq_lengths"][:-1], initial=0)
        row["examples"] = [row["examples"][start] for start in starts]
    rng.shuffle(packed)
    return packed


def fill_up(rows: list[dict], batch: int, token: int) -> list[dict]:
    """``rows``, and behind them rows of one ``token``, of which nothing is learned, until all batches are full.

    Where several processes share a batch, accelerate gives those that would go without a row one that was seen already,
    and it would count twice.
    """
    filling = {"input_ids": [token], "labels": [IGNORED], "seq_lengths": [1], "examples": []}
    return rows + [filling] * (-len(rows) % batch)


class Collator:
    """Rows to one micro-batch: tensors of shape (1, tokens), documents bounded by ``cu_seq_lens_q``.

    With ``tokens`` every micro-batch has that many, filled up with documents of at most ``max_length`` tokens that have
    no labels, and ``documents`` boundaries, so that compiled code and captured graphs meet one shape.

    Returns (per call) a dict of ``input_ids``, ``position_ids`` (from 0 in each document), ``labels``,
    ``shift_labels`` (the label of the next token), ``scored`` (the positions that have one), ``cu_seq_lens_q`` and
    ``_k`` (int32, documents + 1), ``max_length_q`` and ``_k``, ``examples`` (numbers, a list) and ``num_tokens``
    (of rows with examples, int).
    """

    def __init__(self, pad_token_id: int, tokens: int = 0, documents: int = 0, max_length: int = 0):
        self.pad_token_id, self.tokens, self.documents, self.max_length = pad_token_id, tokens, documents, max_length

    def __call__(self, rows: Sequence[dict]) -> dict:
        import torch

        ids = [token for row in rows for token in row["input_ids"]]
        labels = [label for row in rows for label in row["labels"]]
        lengths = [length for row in rows for length in row["seq_lengths"]]
        num_tokens = sum(len(row["input_ids"]) for row in rows if row["examples"])
        if (filling := self.tokens - len(ids)) > 0:
            ids += [self.pad_token_id] * filling
            labels += [IGNORED] * filling
            lengths += [len(part) for part in chunks(range(filling), self.max_length)]
        bounds = list(accumulate(lengths, initial=0))
        starts = torch.tensor(bounds[:-1])
        labels = torch.tensor(labels)
        labels[starts] = IGNORED  # the first token of a document has nothing before it
        shifted = torch.cat([labels[1:], labels.new_tensor([IGNORED])])
        boundaries = torch.tensor(bounds + [bounds[-1]] * (self.documents + 1 - len(bounds)), dtype=torch.int32)
        longest = max(self.max_length, *lengths)  # held-out documents may be longer
        return {
            "input_ids": torch.tensor([ids]),
            "position_ids": (torch.arange(len(ids)) - starts.repeat_interleave(torch.tensor(lengths)))[None],
            "labels": labels[None],
            "shift_labels": shifted[None],
            "scored": (shifted != IGNORED).nonzero().flatten(),
            "cu_seq_lens_q": boundaries,
            "cu_seq_lens_k": boundaries,
            "max_length_q": longest,
            "max_length_k": longest,
            "examples": [number for row in rows for number in row["examples"]],
            "num_tokens": num_tokens,
        }


def chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    """``items`` in consecutive parts of ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
