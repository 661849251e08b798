"""Cross-entropy of a language model's head without the logits of all tokens, its gradient computed on the way.

The head's gradient with respect to the hidden states is known as soon as a chunk's logits are, so it is computed there
and then: two products with the vocabulary instead of the three of recomputing the logits in backward (as in Liger's
fused linear cross-entropy, Hsu et al. 2024, arXiv:2410.10989). The head itself is frozen.
"""

import functools
import importlib.util
import types

import torch

from trainers.acceleration import CHUNK, precision


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor):
    """Negative log-likelihood of ``labels``, summed, and how many of them were the likeliest token.

    Args:
        hidden: (tokens, width); what is differentiated.
        weight: (vocabulary, width), frozen.
        labels: (tokens,) of int64; no ignored positions.

    Returns:
        Two scalars: float32 with a gradient to ``hidden``, and int64.
    """
    dtype = precision.of_products(hidden.device, hidden.dtype)
    return _LinearCrossEntropy.apply(hidden.to(dtype), weight.to(dtype), labels)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels):
        losses, right = hidden.new_zeros((), dtype=torch.float32), labels.new_zeros(())
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            logits = hidden[part] @ weight.t()
            loss, hits, logits = _chunk(logits, labels[part])
            losses += loss
            right += hits
            if gradient is not None:
                torch.mm(logits, weight, out=gradient[part])
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(right)
        return losses, right

    @staticmethod
    def backward(ctx, scale, _):
        (gradient,) = ctx.saved_tensors
        return gradient * scale.to(gradient.dtype), None, None


def _plain_chunk(logits, labels):
    """Summed loss, hits, and the loss's gradient with respect to the logits (in their dtype)."""
    scores = logits.float()
    top = scores.amax(-1, keepdim=True)
    exponents = (scores - top).exp()
    total = exponents.sum(-1, keepdim=True)
    own = scores.gather(-1, labels[:, None])
    loss = (total.log() + top - own).sum()
    is_label = torch.arange(logits.shape[-1], device=logits.device) == labels[:, None]
    return loss, (own == top).sum(), (exponents / total - is_label.float()).to(logits.dtype)


def _chunk(logits, labels):
    """As :func:`_plain_chunk`; on a GPU by one kernel, which writes the gradient over the logits."""
    if not (logits.is_cuda and _has_triton()):
        return _plain_chunk(logits, labels)
    from trainers.acceleration import kernels

    loss, hits = kernels.cross_entropy_(logits, labels)
    return loss, hits, logits


@functools.cache
def _has_triton() -> bool:
    """Whether there is Triton, for NVIDIA's GPUs: it comes with torch, on Linux."""
    return torch.version.cuda is not None and importlib.util.find_spec("triton") is not None


SCALED = (
    *("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "logit_scale"),
    *("output_multiplier", "lm_head_multiplier", "logits_scaling"),
)
"""Keys of configurations by which some architectures change their logits; TRL's own head knows them."""


def has_plain_head(model) -> bool:
    """Whether the model's logits are a product of hidden states and a frozen matrix, and nothing more."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    scaled = any(getattr(config, key, None) is not None for key in SCALED)
    return not scaled and head.bias is None and not head.weight.requires_grad and not config.is_encoder_decoder


def add_head(model, graphed=None) -> None:
    """Let ``model(..., scored=, targets=)`` return (summed loss, hits) of the ``scored`` positions alone.

    Without ``targets`` the forward is the one that it was. ``graphed`` (:class:`.graphs.GraphedBackbone`) takes the
    backbone's place in training.
    """
    original = model.forward

    @functools.wraps(original)
    def forward(self, *args, scored=None, targets=None, **kwargs):
        if targets is None:
            return original(*args, **kwargs)
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        if graphed is not None and self.training:
            hidden = graphed(kwargs["input_ids"], kwargs["position_ids"], kwargs["cu_seq_lens_q"])
        else:
            hidden = self.base_model(**kwargs).last_hidden_state
        weight = self.get_output_embeddings().weight
        if hasattr(weight, "full_tensor"):  # sharded by FSDP2
            weight = weight.full_tensor()
        return linear_cross_entropy(hidden[0].index_select(0, scored), weight, targets)

    model.forward = types.MethodType(forward, model)
