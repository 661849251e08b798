"""A frozen linear map and its LoRA in one operation: no intermediate as large as the output, and few launches.

PEFT computes ``base(x)``, ``lora_B(lora_A(x)) * scaling`` and their sum, each written to memory and read again. Here
the update is added by the epilogue of its own product, and backward keeps the input and the ``tokens x rank``
intermediate alone. The result is PEFT's to rounding: same weights, same adapters, same files.

The two operators are opaque to ``torch.compile``, which fuses what stands between them (norms, rotary embedding,
activation, residuals).
"""

import types

import torch

from trainers.acceleration import precision

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


def _forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    """What takes the place of PEFT's forward."""
    base = self.base_layer
    dtype = precision.of_products(x.device, base.weight.dtype)
    bias = None if base.bias is None else base.bias.to(dtype)
    a = self.lora_A["default"].weight.to(dtype)
    b = (self.lora_B["default"].weight * self.scaling["default"]).to(dtype)
    y, _ = lora_linear(x.reshape(-1, x.shape[-1]).to(dtype), base.weight.to(dtype), bias, a, b)
    return y.view(*x.shape[:-1], -1)


def fuse(model) -> int:
    """Replace the forward of each LoRA layer that is a plain linear map without dropout; returns how many."""
    from peft.tuners.lora.layer import Linear

    layers = [module for module in model.modules() if type(module) is Linear and _can_be_fused(module)]
    for layer in layers:
        layer.forward = types.MethodType(_forward, layer)
    return len(layers)


def _can_be_fused(layer) -> bool:
    return (
        type(layer.base_layer) is torch.nn.Linear
        and list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and not layer.lora_bias["default"]
        and not layer.fan_in_fan_out
        and not getattr(layer.lora_dropout["default"], "p", 0.0)
    )
