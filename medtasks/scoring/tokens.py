"""Context-continuation pairs as tokens: what lm-eval's ``_encode_pair`` gives, in batches and each context once."""

import logging
from collections.abc import Sequence

from lm_eval.models.utils import has_bos_prefix

logger = logging.getLogger(__name__)

CHECKED = 32
"""Pairs that are also encoded whole, to see that the shortcut holds for this tokenizer and these prompts."""
LONGEST_TAIL = 400
"""Characters: a context whose last line is longer is encoded whole with each continuation."""

Pair = tuple[str, str]
Tokens = tuple[list[int], list[int]]


def encode_pairs(lm, pairs: Sequence[Pair]) -> list[Tokens]:
    """``lm._encode_pair`` of each pair with a context; contexts that are equal share one list.

    The tokens of a continuation are what the tokens of context and continuation together have beyond those of the
    context alone. Encoding each context once per option costs more than the model's forward on a GPU. Instead the
    context's last line is encoded with each continuation: a line break ends a word for tokenizers that split text into
    words before they merge bytes, so what stands before it does not change. It is used where the last line's own
    tokens are those at the end of the context, and only after :data:`CHECKED` pairs spread over the input agree with
    whole encodings.

    Args:
        lm: a causal ``HFLM``.
        pairs: context (not empty) and continuation of each request.
    """
    pairs = [_without_trailing_space(*pair) for pair in pairs]
    contexts = dict.fromkeys(context for context, _ in pairs)
    contexts = dict(zip(contexts, _encode(lm, list(contexts)), strict=True))
    tails = _tails(lm, contexts)
    wanted = dict.fromkeys((tails[context][0], continuation) for context, continuation in pairs if context in tails)
    ends = dict(zip(wanted, _plain(lm, [tail + continuation for tail, continuation in wanted]), strict=True))

    def short(context: str, continuation: str) -> list[int]:
        tail, size = tails[context]
        return ends[tail, continuation][size:]

    sample = [pair for pair in pairs if pair[0] in tails]
    sample = sample[:: max(1, len(sample) // CHECKED)]
    whole = _encode(lm, [context + continuation for context, continuation in sample])
    if any(
        short(context, continuation) != tokens[len(contexts[context]) :]
        for (context, continuation), tokens in zip(sample, whole, strict=True)
    ):
        logger.info("hf-mcq: this tokenizer changes tokens across line breaks; encoding every pair whole")
        tails = {}
    rest = list(dict.fromkeys(pair for pair in pairs if pair[0] not in tails))
    whole = dict(zip(rest, _encode(lm, [context + continuation for context, continuation in rest]), strict=True))
    encoded = []
    for context, continuation in pairs:
        ids = contexts[context]
        if context in tails:
            encoded.append((ids, short(context, continuation)))
        else:
            encoded.append((ids, whole[context, continuation][len(ids) :]))
    return encoded


def _without_trailing_space(context: str, continuation: str) -> Pair:
    """The pair with the context's trailing space moved to the continuation, as lm-eval does."""
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _tails(lm, contexts: dict[str, list[int]]) -> dict[str, tuple[str, int]]:
    """The last line, and how many tokens it has, of each context that these tokens end; no other contexts."""
    if not getattr(lm.tokenizer, "is_fast", False):
        return {}
    last = {}
    for context in contexts:
        tail = context[context.rfind("\n", 0, len(context) - 1) + 1 :]
        if tail != context and len(tail) <= LONGEST_TAIL and not tail[0].isspace():
            last[context] = tail
    distinct = list(dict.fromkeys(last.values()))
    tokens = dict(zip(distinct, _plain(lm, distinct), strict=True))
    return {
        context: (tail, len(tokens[tail]))
        for context, tail in last.items()
        if tokens[tail] and contexts[context][-len(tokens[tail]) :] == tokens[tail]
    }


def _encode(lm, texts: list[str]) -> list[list[int]]:
    """``lm.tok_encode`` of each text: special tokens as the model's arguments say, none where the text has its own."""
    beginning = lm.tokenizer.decode(lm.prefix_token_id)
    special = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    encoded: list[list[int] | None] = [None] * len(texts)
    for has_own in (False, True):
        places = [i for i, text in enumerate(texts) if has_bos_prefix(text, beginning) == has_own]
        keywords = {"add_special_tokens": False} if has_own else special
        if places:
            for i, tokens in zip(places, _tokenize(lm, [texts[i] for i in places], **keywords), strict=True):
                encoded[i] = tokens
    return encoded


def _plain(lm, texts: list[str]) -> list[list[int]]:
    return _tokenize(lm, texts, add_special_tokens=False) if texts else []


def _tokenize(lm, texts: list[str], **keywords) -> list[list[int]]:
    return lm.tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, verbose=False, **keywords)[
        "input_ids"
    ]
