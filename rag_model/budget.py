"""How many tokens a prompt may have: what the inner model's window leaves, and what passages are allowed."""

from collections.abc import Callable, Mapping, Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from medtasks.errors import InputError
from rag_model import examples

ROOM_FOR_A_BYTE = 2
"""Tokens that a byte of text becomes at most, normalization included; a text short by this need not be tokenized."""
DEFAULT_MAX_GEN_TOKS = 256
"""lm-eval's, where a model names none."""


class Budget:
    """Counts with the inner model's own tokenizer. A model without one (a server) gets no prompt cut for its window.

    Args:
        inner: the model that answers.
        max_context_tokens: of the block of passages, its heading included; None for no other limit than the window.

    Raises:
        InputError: a limit that is no positive whole number, or that nothing can count.
    """

    def __init__(self, inner: LM, max_context_tokens: int | None = None):
        self.counts = isinstance(inner, TemplateLM) and inner.tokenizer is not None
        if max_context_tokens is not None:
            if type(max_context_tokens) is not int or max_context_tokens < 1:
                raise InputError(f"max_context_tokens={max_context_tokens}: must be a whole number, 1 or more")
            if not self.counts:
                raise InputError(
                    "max_context_tokens: the inner model has no tokenizer here to count with; take it out, or give "
                    "fewer passages (k)"
                )
        self.inner, self.max_context_tokens = inner, max_context_tokens

    @property
    def limits(self) -> str:
        """The limits, in words."""
        window = f"{self.inner.max_length} tokens"
        return window if self.max_context_tokens is None else f"{window}, {self.max_context_tokens} of passages"

    def window(self, method: str, group: Sequence[Instance]) -> Callable[[object], bool]:
        """A function that says whether a prompt, with the longest answer of ``group``, fits into the inner model.

        Args:
            method: ``loglikelihood`` or ``generate_until``.
            group: requests that share a prompt.
        """
        if not self.counts or not isinstance(group[0].args[0], str):
            return lambda prompt: True
        inner = self.inner
        if method == "loglikelihood":
            longest, generated = max((r.args[1] for r in group), key=lambda answer: len(inner.tok_encode(answer))), 0
        else:
            default = getattr(inner, "max_gen_toks", DEFAULT_MAX_GEN_TOKS)
            longest, generated = "", max(normalize_gen_kwargs(r.args[1], default)["max_gen_toks"] for r in group)
        room = inner.max_length - generated - 1  # one for a start token, which some models add only when they answer
        return lambda prompt: self._is_within(room, prompt, longest)

    def allows(self, passages: Sequence[dict], doc: Mapping) -> bool:
        """Whether what ``doc`` is shown of ``passages`` stays within ``max_context_tokens``."""
        return self.max_context_tokens is None or self._is_within(
            self.max_context_tokens, examples.block(passages, doc).rstrip()
        )

    def _is_within(self, tokens: int, text: str, more: str = "") -> bool:
        if ROOM_FOR_A_BYTE * (len(more.encode()) + len(text.encode())) <= tokens:
            return True
        return len(self.inner.tok_encode(text + more)) <= tokens
