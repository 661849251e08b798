"""The harness model ``hf-mcq``: lm-eval's ``hf`` with a fast way to score continuations.

``lm_eval --model hf-mcq --model_args pretrained=MODEL --tasks medqa``
"""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from medtasks.errors import InputError
from medtasks.scoring import tokens
from medtasks.scoring.packing import PACKABLE
from medtasks.scoring.scorer import Answer, Chunk, Request, Scorer

logger = logging.getLogger(__name__)

Encoded = list[tuple[tuple[str, str] | None, list[int], list[int]]]
"""lm-eval's form of requests: (context, continuation), the context's tokens, the continuation's tokens."""

FIRST_CHUNK, LARGEST_CHUNK = 500, 8_000
"""Requests that are encoded and planned together: those of one chunk share prefixes, those of the next are made
meanwhile. Each is twice as large as the one before, since making one takes half as long as computing it (1.5B model,
H100)."""
CHARACTERS_PER_TOKEN = 4
"""Of English text, to guess the work ahead."""


class HFMCQ(HFLM):
    """``hf``, computing log-likelihoods in packed batches; everything else (generation, rolling log-likelihoods,
    encoder-decoder models, attention that packed runs cannot do) is ``hf``'s own.

    Args:
        max_batch_tokens: tokens of a packed batch; ``auto`` finds it from the free memory. ``batch_size`` is for what
            ``hf`` does itself.
        compile_layers: whether ``torch.compile`` fuses the element-wise work of the decoder layers; ``auto`` does where
            the run is long enough to pay for it.
        reorder_weights: whether a CPU's products see weights reordered once (:mod:`medtasks.scoring.packing`): ``auto``
            does in bfloat16, where products stay the same; True in float32 too, where they come from another library
            and log-likelihoods move as they do between ``hf``'s batch sizes.
        args, keywords: all of ``hf``'s.

    Raises:
        InputError: a bad value of ``max_batch_tokens``, ``compile_layers`` or ``reorder_weights``.
    """

    def __init__(
        self,
        *args,
        max_batch_tokens: int | str = "auto",
        compile_layers: bool | str = "auto",
        reorder_weights: bool | str = "auto",
        **keywords,
    ):
        if max_batch_tokens != "auto" and (not isinstance(max_batch_tokens, int) or max_batch_tokens < 1):
            raise InputError(f"max_batch_tokens={max_batch_tokens}: must be a number of tokens, or auto")
        for name, value in (("compile_layers", compile_layers), ("reorder_weights", reorder_weights)):
            if value not in (True, False, "auto"):
                raise InputError(f"{name}={value}: must be True, False or auto")
        super().__init__(*args, **keywords)
        self.max_batch_tokens, self.compile_layers = max_batch_tokens, compile_layers
        self.reorder_weights = reorder_weights
        self._scorer: Scorer | None = None
        self._checked = False
        self.prompt_tokens = 0
        """Tokens of the prompts scored so far, by this process, each once for all its continuations of one token."""

    @property
    def scorer(self) -> Scorer | None:
        """What scores in packed batches; None if this model cannot be trusted with them. Checked at the first use."""
        if not self._checked:
            self._checked = True
            self._scorer = self._make_scorer()
        return self._scorer

    def _make_scorer(self) -> Scorer | None:
        reason = None
        if self.backend != "causal":
            reason = "an encoder-decoder model"
        elif not isinstance(self.model, torch.nn.Module):
            reason = "not a torch module"
        else:
            scorer = Scorer(
                self.model,
                self._autocast,
                self.softmax_dtype,
                None if self.max_batch_tokens == "auto" else self.max_batch_tokens,
                {"auto": (torch.bfloat16,), True: PACKABLE, False: ()}[self.reorder_weights],
            )
            reason = scorer.check()
        if reason is None:
            return scorer
        logger.warning("hf-mcq: scoring as hf does, since packed batches do not work for this model (%s)", reason)
        return None

    def _autocast(self):
        return torch.autocast(
            device_type=self.device.type,
            dtype=self.mixed_precision_dtype,
            enabled=self.mixed_precision_dtype is not None,
        )

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Answer]:
        """(log-probability in nats, whether greedy decoding gives it) of each continuation, in the order given."""
        pairs = [request.args for request in requests]
        if self.enable_thinking or self.scorer is None or any(context == "" for context, _ in pairs):
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

        def chunks() -> Iterator[Encoded]:
            for start, end in _chunk_bounds(len(pairs)):
                part = pairs[start:end]
                yield [(pair, *ids) for pair, ids in zip(part, tokens.encode_pairs(self, part), strict=True)]

        return self._score(chunks(), pairs, disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Encoded, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        """As ``hf``'s. With ``override_bs``, which rolling log-likelihoods give, ``hf``'s own: they share nothing."""
        if override_bs is not None or self.scorer is None:
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        return self._score(iter([requests]), [pair for pair, _, _ in requests], disable_tqdm)

    def _score(
        self, encoded: Iterator[Encoded], pairs: list[tuple[str, str] | None], disable_tqdm: bool
    ) -> list[Answer]:
        """Score ``pairs``, which come ``encoded`` in consecutive chunks."""
        answers: list[Answer | None] = [None] * len(pairs)
        progress = tqdm(total=len(pairs), disable=disable_tqdm or self.rank != 0, desc="Running loglikelihood requests")
        all_encoded: Encoded = []

        def chunks() -> Iterator[Chunk]:
            for requests in encoded:
                first = len(all_encoded)
                all_encoded.extend(requests)
                yield Chunk(dict(enumerate(self._as_requests(requests), first)))

        def done(index: int, answer: Answer) -> None:
            answers[index] = answer
            if pairs[index] is not None:
                self.cache_hook.add_partial("loglikelihood", pairs[index], answer)
            progress.update(1)

        if self.compile_layers is True:
            self.scorer.compile()
        elif self.compile_layers == "auto":
            texts = dict.fromkeys(pair[0] for pair in pairs if pair is not None)
            self.scorer.compile_if_it_pays(sum(map(len, texts)) // CHARACTERS_PER_TOKEN)
        unfit = self.scorer.score(chunks(), done)
        if unfit:
            logger.warning("hf-mcq: %d requests do not fit into memory packed; scoring them one by one", len(unfit))
            alone = super()._loglikelihood_tokens([all_encoded[i] for i in unfit], disable_tqdm=True, override_bs=1)
            for index, answer in zip(unfit, alone, strict=True):
                answers[index] = answer
                progress.update(1)
        progress.close()
        return answers

    def _as_requests(self, requests: Encoded) -> list[Request]:
        """Arrays instead of lists, cut from the left to the model's length as ``hf`` cuts; says how many were cut."""
        arrays: dict[int, np.ndarray] = {}  # by context list: many requests share one
        paths: dict[tuple, np.ndarray] = {}
        made, cut, longest = [], 0, self.max_length
        for pair, context, continuation in requests:
            if not context or not 0 < len(continuation) <= longest:
                raise InputError(
                    f"a continuation of {len(continuation) or 'no'} tokens (the model takes 1 to {longest}) after "
                    f"{_shortened(pair)}; look at the task's options"
                )
            key = (id(context), *continuation[:-1])
            path = paths.get(key)
            if path is None:
                if id(context) not in arrays:
                    arrays[id(context)] = np.array(context, dtype=np.int64)
                path = arrays[id(context)]
                if len(continuation) > 1:
                    path = np.concatenate([path, np.array(continuation[:-1], dtype=np.int64)])
                path = paths[key] = path[-longest:]
            cut += len(context) + len(continuation) - 1 > longest
            made.append(Request(path, continuation))
        self.prompt_tokens += sum(map(len, paths.values()))
        if cut:
            logger.warning(
                "hf-mcq: %d of %d requests are longer than the model's %d tokens and lose their beginning",
                cut,
                len(requests),
                longest,
            )
        return made

    # What `hf` does itself, it does uncompiled

    def _model_call(self, *args, **keywords) -> torch.Tensor:
        with torch.compiler.set_stance("force_eager"):
            return super()._model_call(*args, **keywords)

    def _model_generate(self, *args, **keywords) -> torch.Tensor:
        with torch.compiler.set_stance("force_eager"):
            return super()._model_generate(*args, **keywords)

    def get_model_info(self) -> dict:
        """``hf``'s, how continuations were scored, and ``prompt_tokens`` where one process scored them all; lm-eval
        merges it into ``results["config"]``."""
        info = super().get_model_info() | {"scoring": "packed" if self._scorer else "hf"}
        return info | ({"prompt_tokens": self.prompt_tokens} if self._scorer and self.world_size == 1 else {})


def _shortened(pair: tuple[str, str] | None) -> str:
    return "a context" if pair is None else repr(pair[0][-60:])


def _chunk_bounds(n: int) -> Iterator[tuple[int, int]]:
    """Where each chunk of ``n`` requests starts and ends."""
    start, size = 0, FIRST_CHUNK
    while start < n:
        yield start, min(n, start + size)
        start, size = start + size, min(2 * size, LARGEST_CHUNK)
