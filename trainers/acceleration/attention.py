"""Attention within documents that stand side by side in one row, by torch's own variable-length FlashAttention.

A mask for 8,192 packed tokens would hold 67 million entries and take the slow kernels; here the documents' boundaries
are enough (Dao 2023, arXiv:2307.08691).
"""

import inspect

from medtasks.errors import InputError

NAME = "packed"
LACKS = ("softcap", "s_aux", "position_bias", "dropout")
"""What attention may be asked for and this one cannot."""


def register() -> None:
    """Make ``attn_implementation="packed"`` known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*args, **kwargs):
    return None


def _attention(module, query, key, value, mask, scaling=None, cu_seq_lens_q=None, max_length_q=None, **kwargs):
    """Causal attention of ``query`` (1, heads, tokens, width) within documents that ``cu_seq_lens_q`` bounds, and
    within the last ``sliding_window`` tokens where a layer has one.

    Raises:
        InputError: the model asks for something that is of :data:`LACKS`, or the batch is padded.
    """
    from torch.nn.attention.varlen import varlen_attn

    from trainers.acceleration import precision

    if cu_seq_lens_q is None:  # one text, whole
        from transformers import AttentionInterface

        if len(query) > 1:
            raise InputError("packed attention takes texts packed into one row, or one text; this is a padded batch")

        return AttentionInterface()["sdpa"](module, query, key, value, mask, scaling=scaling, **kwargs)
    if lacking := [name for name in LACKS if _is_asked_for(kwargs.get(name))]:
        raise InputError(f"packed attention lacks this model's {lacking[0]}; say 'attn_implementation: eager'")
    window = kwargs.get("sliding_window")
    dtype = precision.of_products(query.device, query.dtype)  # rotated by positions in float32, they may be float32
    query, key, value = (states[0].transpose(0, 1).to(dtype) for states in (query, key, value))
    repeats = query.shape[1] // key.shape[1]
    sharing = _shared_keys.get(query.device.index)
    if repeats > 1 and sharing is None:
        key, value, sharing = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), {}
    sharing = sharing or {}
    bounds = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
    seen = (-1 if window is None else window - 1, 0)  # tokens before and after its own that a token attends to
    return varlen_attn(query, key, value, *bounds, scale=scaling, window_size=seen, **sharing)[None], None


def _is_asked_for(setting) -> bool:
    return setting is not None and not (isinstance(setting, int | float) and setting == 0)


_shared_keys: dict[int | None, dict | None] = {}
"""GPU -> what :func:`_key_sharing` found for it."""


def prepare(device) -> None:
    """Find out how query heads share key heads on ``device``, before a forward is compiled, captured or checkpointed.

    Unprepared, keys are repeated for each query head.
    """
    if device.type == "cuda" and device.index not in _shared_keys:
        _shared_keys[device.index] = _key_sharing(device.index)


def _key_sharing(device: int) -> dict | None:
    """The argument by which several query heads share a key head; None where torch cannot.

    Torch 2.12 has one. Before that the kernel could without being asked, which is tried once: forward and backward must
    be those of repeated heads.
    """
    import torch
    from torch.nn.attention.varlen import varlen_attn

    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        return {"enable_gqa": True}
    with torch.enable_grad(), torch.autocast("cuda", enabled=False):
        numbers = torch.arange(16 * 2 * 64, device=f"cuda:{device}").sin().view(16, 2, 64).to(torch.bfloat16)
        query, key = numbers.requires_grad_(), numbers[:, :1].detach().requires_grad_()
        bounds = torch.tensor([0, 7, 16], device=numbers.device, dtype=torch.int32)
        found = []
        for shared in (key, key.repeat_interleave(2, 1)):
            try:
                out = varlen_attn(query, shared, shared, bounds, bounds, 9, 9, window_size=(-1, 0))
                found.append((out, *torch.autograd.grad(out.float().square().sum(), (query, key))))
            except (RuntimeError, ValueError):
                return None
    same = all(torch.allclose(a.float(), b.float(), atol=0.05, rtol=0.05) for a, b in zip(*found, strict=True))
    return {} if same else None
