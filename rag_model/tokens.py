"""Texts -> what a sentence-transformers model reads, turned into tokens once for all batches.

``SentenceTransformer.preprocess`` turns each batch into tokens by itself, and lengths must be known before there are
batches: a small model on a fast GPU then waits for Python most of the time.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Text = str | tuple[str, str]
"""What is embedded: a text, or a title and a text for models that want pairs."""


class Tokens:
    """The tokens of ``texts``, from which batches are made.

    What ``model.preprocess`` makes of the first batch is compared with what is made here; where they differ in
    anything (a model with images, other padding, query expansion), ``preprocess`` makes the others, too.

    Args:
        model: a ``SentenceTransformer``.
        prompt: goes before each text.
        task: ``query`` or ``document``.

    Attributes:
        lengths: of each text, in tokens; in characters for models without a tokenizer of transformers.
    """

    def __init__(self, model, texts: Sequence[Text], prompt: str, task: str):
        self._model, self._texts, self._prompt, self._task = model, texts, prompt, task
        self._ids = self._segments = self._rest = None
        whole = [prompt + text if isinstance(text, str) else text for text in texts]
        if not texts or not hasattr(model.tokenizer, "convert_ids_to_tokens"):
            self.lengths = [len("".join(text)) for text in whole]
            return
        limit = {"truncation": "longest_first", "max_length": model.max_seq_length}
        has_pairs = not all(isinstance(text, str) for text in texts)
        encoded = model.tokenizer(whole, return_attention_mask=False, return_token_type_ids=has_pairs, **limit)
        self._ids, self._segments = encoded["input_ids"], encoded.get("token_type_ids")
        self.lengths = [len(ids) for ids in self._ids]

    def features(self, rows: Sequence[int]) -> dict:
        """What the model reads of the texts at ``rows``: tensors (texts, longest) on the CPU, and settings."""
        if self._rest is not None:
            return self._made(rows) | self._rest
        asked = self._model.preprocess([self._texts[row] for row in rows], prompt=self._prompt or None, task=self._task)
        if self._ids is not None:
            rest = {name: value for name, value in asked.items() if not hasattr(value, "to")}
            if _are_same(self._made(rows), {name: asked[name] for name in asked.keys() - rest.keys()}):
                self._rest = rest
            else:
                self._ids = None
        return asked

    def _made(self, rows: Sequence[int]) -> "dict[str, torch.Tensor]":
        import torch

        tokenizer = self._model.tokenizer
        lengths = torch.tensor([self.lengths[row] for row in rows])
        is_token = torch.arange(int(lengths.max())) < lengths[:, None]
        padded = {"input_ids": _padded(self._ids, rows, is_token, tokenizer.pad_token_id)}
        if self._segments is not None:
            padded["token_type_ids"] = _padded(self._segments, rows, is_token, tokenizer.pad_token_type_id)
        elif "token_type_ids" in tokenizer.model_input_names:
            padded["token_type_ids"] = torch.zeros_like(padded["input_ids"])
        return padded | {"attention_mask": is_token.long()}


def _padded(values: Sequence[Sequence[int]], rows: Sequence[int], is_token: "torch.Tensor", filling: int):
    """The ``values`` at ``rows`` side by side, filled up behind."""
    import numpy as np
    import torch

    padded = torch.full(is_token.shape, filling or 0)
    padded[is_token] = torch.from_numpy(np.concatenate([np.asarray(values[row]) for row in rows]))
    return padded


def _are_same(made: dict, asked: dict) -> bool:
    import torch

    return made.keys() == asked.keys() and all(torch.equal(made[name], asked[name]) for name in made)
