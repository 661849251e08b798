"""Kernels of our own in Triton, for what torch's compiler reads more often from memory than it must."""

import torch
import triton
import triton.language as tl

BLOCK = 32_768
"""Logits of a row that a program looks at together."""
WARPS = 32
"""So many that a multiprocessor works at one or two rows: 132 rows of 150,000 logits in 16 bits fit into an H100's
second-level cache, so that the second pass over them reads no memory."""


@triton.jit
def _cross_entropy(logits, labels, losses, hits, vocabulary, BLOCK: tl.constexpr):
    """One row of ``logits``: its loss, whether its label is the likeliest, and the gradient in the logits' place."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * vocabulary
    label = tl.load(labels + row)
    own = tl.load(logits + label).to(tl.float32)
    top, total = float("-inf"), 0.0
    for start in range(0, vocabulary, BLOCK):
        at = start + tl.arange(0, BLOCK)
        part = tl.load(logits + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
        new_top = tl.maximum(top, tl.max(part))
        total = total * tl.exp(top - new_top) + tl.sum(tl.exp(part - new_top))
        top = new_top
    tl.store(losses + row, tl.log(total) + top - own)
    tl.store(hits + row, (own == top).to(tl.int64))
    for start in range(0, vocabulary, BLOCK):
        at = start + tl.arange(0, BLOCK)
        part = tl.load(logits + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
        gradient = tl.exp(part - top) / total - (at == label).to(tl.float32)
        tl.store(logits + at, gradient.to(logits.dtype.element_ty), mask=at < vocabulary)


def cross_entropy_(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed negative log-likelihood of ``labels`` and how many were the likeliest; ``logits`` become its gradient.

    Args:
        logits: (tokens, vocabulary), contiguous, on a GPU; overwritten.
        labels: (tokens,) of int64.

    Returns:
        Two scalars: float32 and int64.
    """
    losses = torch.empty(len(labels), device=logits.device, dtype=torch.float32)
    hits = torch.empty(len(labels), device=logits.device, dtype=torch.int64)
    if len(labels):
        block = min(BLOCK, triton.next_power_of_2(logits.shape[1]))
        _cross_entropy[(len(labels),)](logits, labels, losses, hits, logits.shape[1], BLOCK=block, num_warps=WARPS)
    return losses.sum(), hits.sum()
