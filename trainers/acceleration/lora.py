"""A frozen linear map and its LoRA in one operation: no intermediate as large as the output, and few launches.

PEFT computes ``base(x)``, ``lora_B(lora_A(x)) * scaling`` and their sum, each written to memory and read again. Here
the update is added by the epilogue of its own product, and backward keeps the input and the ``tokens x rank``
intermediate alone. The result is PEFT's to rounding: same weights, same adapters, same files.

The two operators are opaque to ``torch.compile``, which fuses what stands between them (norms, rotary embedding,
activation, residuals).
"""

import types

import torch

OPERATORS = "medadapt"


@torch.library.custom_op(f"{OPERATORS}::lora_linear", mutates_args=())
def lora_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``x W^T + bias + (x a^T) b^T``, and the intermediate ``x a^T``.

    Args:
        x: (tokens, inputs).
        weight: (outputs, inputs), frozen.
        bias: (outputs,) or None, frozen.
        a: (rank, inputs), ``lora_A``.
        b: (outputs, rank), ``lora_B`` times the scaling.
    """
    low = x @ a.t()
    y = torch.nn.functional.linear(x, weight, bias)
    return y.addmm_(low, b.t()), low


@lora_linear.register_fake
def _(x, weight, bias, a, b):
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], a.shape[0])


@torch.library.custom_op(f"{OPERATORS}::lora_linear_backward", mutates_args=())
def lora_linear_backward(
    dy: torch.Tensor, x: torch.Tensor, low: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of ``x``, ``a`` and ``b`` from that of the output, ``dy`` (tokens, outputs)."""
    dlow = dy @ b
    dx = dy @ weight
    return dx.addmm_(dlow, a), dlow.t() @ x, dy.t() @ low


@lora_linear_backward.register_fake
def _(dy, x, low, weight, a, b):
    return torch.empty_like(x), torch.empty_like(a), torch.empty_like(b)


def _save(ctx, inputs, output):
    x, weight, _, a, b = inputs
    ctx.save_for_backward(x, output[1], weight, a, b)


def _backward(ctx, dy, _):
    x, low, weight, a, b = ctx.saved_tensors
    dx, da, db = lora_linear_backward(dy.contiguous(), x, low, weight, a, b)
    return dx, None, None, da, db


lora_linear.register_autograd(_backward, setup_context=_save)


SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of maps, in the order in which a layer calls them, that all read the same states."""


def fuse(model) -> int:
    """Replace the forward of each LoRA layer that is a plain linear map without dropout; returns how many.

    Those of :data:`SHARED_INPUT` are computed together, as one map with their weights one below the other; their own
    weights become parts of that.
    """
    fused = 0
    for parent in list(model.modules()):
        children = dict(parent.named_children())
        groups = [[children.get(name) for name in names] for names in SHARED_INPUT]
        groups = [group for group in groups if all(map(_can_be_fused, group)) and _fit_together(group)]
        alone = [[child] for child in children.values() if _can_be_fused(child)]
        taken = {id(layer) for group in groups for layer in group}
        for layers in groups + [group for group in alone if id(group[0]) not in taken]:
            group = _Group(layers)
            for number, layer in enumerate(layers):
                layer.group, layer.place_in_group = group, number
                layer.forward = types.MethodType(_forward, layer)  # one function for all, so that it is compiled once
            fused += len(layers)
    return fused


def _can_be_fused(layer) -> bool:
    from peft.tuners.lora.layer import Linear

    return (
        type(layer) is Linear
        and type(layer.base_layer) is torch.nn.Linear
        and list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and not layer.lora_bias["default"]
        and not layer.fan_in_fan_out
        and not getattr(layer.lora_dropout["default"], "p", 0.0)
    )


def _fit_together(layers: list) -> bool:
    bases = [layer.base_layer for layer in layers]
    return len({(base.in_features, base.weight.dtype, base.bias is None) for base in bases}) == 1


class _Group:
    """LoRA layers that read the same states; what they make of it is computed when the first of them is asked."""

    def __init__(self, layers: list):
        self.layers = layers
        bases = [layer.base_layer for layer in layers]
        self.sizes = [base.out_features for base in bases]
        self.weight, self.bias = bases[0].weight, bases[0].bias
        if len(layers) > 1:
            self.weight = torch.cat([base.weight.data for base in bases])
            self.bias = None if self.bias is None else torch.cat([base.bias.data for base in bases])
            for base, part in zip(bases, self.weight.split(self.sizes), strict=True):
                base.weight.data = part
        self.read, self.made = None, ()

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What each layer makes of ``x``."""
        dtype = self.weight.dtype
        downs = [layer.lora_A["default"].weight for layer in self.layers]
        ups = [layer.lora_B["default"].weight * layer.scaling["default"] for layer in self.layers]
        a = downs[0] if len(downs) == 1 else torch.cat(downs)
        b = ups[0] if len(ups) == 1 else torch.block_diag(*ups)
        y, _ = lora_linear(x.reshape(-1, x.shape[-1]).to(dtype), self.weight, self.bias, a.to(dtype), b.to(dtype))
        return y.view(*x.shape[:-1], -1).split(self.sizes, -1)


def _forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    """What takes the place of PEFT's forward."""
    group, number = self.group, self.place_in_group
    if number == 0 or group.read is not x:
        group.read, group.made = x, group(x)
    part = group.made[number]
    if number == len(group.layers) - 1:
        group.read, group.made = None, ()  # activations live no longer than they are needed
    return part
