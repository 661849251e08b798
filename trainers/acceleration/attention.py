"""Attention within documents that stand side by side in one row, by torch's own variable-length FlashAttention.

A mask for 8,192 packed tokens would hold 67 million entries and take the slow kernels; here the documents' boundaries
are enough (Dao 2023, arXiv:2307.08691).
"""

import functools
import inspect

NAME = "packed"


def register() -> None:
    """Make ``attn_implementation="packed"`` known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*args, **kwargs):
    return None


def _attention(module, query, key, value, mask, scaling=None, cu_seq_lens_q=None, max_length_q=None, **kwargs):
    """Causal attention of ``query`` (1, heads, tokens, width) within documents that ``cu_seq_lens_q`` bounds."""
    from torch.nn.attention.varlen import varlen_attn

    if cu_seq_lens_q is None:  # not a packed batch: one that lm-eval or generate() asks for
        from transformers import AttentionInterface

        return AttentionInterface()["sdpa"](module, query, key, value, mask, scaling=scaling, **kwargs)
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    grouped = {}
    if _shares_keys():
        grouped = {"enable_gqa": True}
    elif query.shape[1] != key.shape[1]:
        key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], 1) for states in (key, value))
    bounds = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
    return varlen_attn(query, key, value, *bounds, scale=scaling, window_size=(-1, 0), **grouped)[None], None


@functools.cache
def _shares_keys() -> bool:
    """Whether torch's function lets several query heads share a key head (from torch 2.12 on)."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters
