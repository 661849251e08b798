"""A frozen linear map and its LoRA in one operation: no intermediate as large as the output, and few launches.

PEFT computes ``base(x)``, ``lora_B(lora_A(x)) * scaling`` and their sum, each written to memory and read again. Here
the update is added by the epilogue of its own product, and backward keeps the input and the ``tokens x rank``
intermediate alone. The result is PEFT's to rounding: same weights, same adapters, same files.

Adding to something large reads and writes it once more. So where a map is much wider than what it reads, ``lora_B`` is
held in further columns of its weight, and one product computes ``[x, x a^T] [W, b]^T``; where it is much narrower,
``lora_A`` is held in further rows, and backward computes ``[dy, dy b] [W; a]`` (:class:`_Group`).

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
    """``x W^T + bias + (x a^T) b^T``, and what backward needs of it: ``x a^T``, or ``[x, x a^T]``.

    Args:
        x: (tokens, inputs).
        weight: (outputs, inputs), frozen; or (outputs, inputs + rank) with ``b`` on the right; or (outputs + rank,
            inputs) with ``a`` below.
        bias: (outputs,) or None, frozen.
        a: (rank, inputs), ``lora_A``.
        b: (outputs, rank), ``lora_B`` times the scaling.
    """
    (outputs, _), (_, inputs) = b.shape, a.shape
    if weight.shape[1] == inputs:
        low = x @ a.t()
        return torch.nn.functional.linear(x, weight[:outputs], bias).addmm_(low, b.t()), low
    wide = x.new_empty(len(x), weight.shape[1])
    wide[:, :inputs] = x
    torch.mm(x, a.t(), out=wide[:, inputs:])
    return torch.nn.functional.linear(wide, weight, bias), wide


@lora_linear.register_fake
def _(x, weight, bias, a, b):
    kept = len(a) if weight.shape[1] == a.shape[1] else weight.shape[1]
    return x.new_empty(x.shape[0], b.shape[0]), x.new_empty(x.shape[0], kept)


@torch.library.custom_op(f"{OPERATORS}::lora_linear_backward", mutates_args=())
def lora_linear_backward(
    dy: torch.Tensor, x: torch.Tensor, low: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of ``x``, ``a`` and ``b`` from that of the output, ``dy`` (tokens, outputs); ``low`` is ``x a^T``."""
    (outputs, _), (_, inputs) = b.shape, a.shape
    if len(weight) == outputs:
        dlow = dy @ b
        dx = (dy @ weight[:, :inputs]).addmm_(dlow, a)
    else:
        wide = dy.new_empty(len(dy), len(weight))
        wide[:, :outputs] = dy
        dlow = torch.mm(dy, b, out=wide[:, outputs:])
        dx = wide @ weight
    return dx, dlow.t() @ x, dy.t() @ low


@lora_linear_backward.register_fake
def _(dy, x, low, weight, a, b):
    return x.new_empty(x.shape), torch.empty_like(a), torch.empty_like(b)


def _save(ctx, inputs, output):
    x, weight, _, a, b = inputs
    holds_b = weight.shape[1] > a.shape[1]
    ctx.save_for_backward(None if holds_b else x, output[1], weight, a, b)


def _backward(ctx, dy, _):
    x, low, weight, a, b = ctx.saved_tensors
    if x is None:
        x, low = low.split([a.shape[1], len(a)], 1)
    dx, da, db = lora_linear_backward(dy.contiguous(), x, low, weight, a, b)
    return dx, None, None, da, db


lora_linear.register_autograd(_backward, setup_context=_save)


SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of maps, in the order in which a layer calls them, that all read the same states."""

MUCH = 2.5
"""From this ratio of outputs to inputs on (or the reverse), the adapter is held beside the weight.

On an H100, 8,192 tokens: adding to 17,920 outputs of 1,536 inputs took 306 us beside a product of 597, the one product
657 and copying what it reads 37; adding to the gradient of 8,960 inputs of 1,536 outputs 156 beside 303, the one 315.
"""
ALIGNED = 8
"""Ranks held beside a weight are multiples of it: rows of 16-bit numbers then begin at multiples of 16 bytes."""


def fuse(model) -> int:
    """Replace the forward of each LoRA layer that is a plain linear map without dropout; returns how many.

    Those of :data:`SHARED_INPUT` are computed together, as one map with their weights one below the other; their own
    weights become parts of that. Adapters that are held beside weights are copied there before each forward of the
    backbone.
    """
    fused, held = 0, []
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
            held += group.held
    if held:
        causal = model.get_base_model()
        getattr(causal, "base_model", causal).register_forward_pre_hook(lambda *_: _hold(held))
        _hold(held)
    return fused


def _hold(held: list) -> None:
    """Copy adapters to where they are held beside weights.

    Args:
        held: places, what belongs there, and the layer whose scaling it takes on (None: as it is).
    """
    places, adapters, layers = zip(*held, strict=True)
    scalings = [1.0 if layer is None else layer.scaling["default"] for layer in layers]
    with torch.no_grad():
        torch._foreach_copy_(places, torch._foreach_mul([adapter.detach() for adapter in adapters], scalings))


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
    """LoRA layers that read the same states; what they make of it is computed when the first of them is asked.

    Attributes:
        held: places in the weight that hold parts of the adapter, each with its source (:func:`_hold`).
    """

    def __init__(self, layers: list):
        self.layers = layers
        bases = [layer.base_layer for layer in layers]
        self.sizes = [base.out_features for base in bases]
        self.weight, self.bias = bases[0].weight, bases[0].bias
        self.held: list[tuple] = []
        outputs, inputs = sum(self.sizes), bases[0].in_features
        rank = sum(layer.r["default"] for layer in layers)
        right = rank if outputs >= MUCH * inputs and rank % ALIGNED == 0 else 0
        below = rank if inputs >= MUCH * outputs and rank % ALIGNED == 0 else 0
        if len(layers) > 1 or right or below:
            self.weight = self.weight.new_zeros(outputs + below, inputs + right)
            self.bias = None if self.bias is None else torch.cat([base.bias.data for base in bases])
            parts = self.weight[:outputs, :inputs].split(self.sizes)
            for base, part in zip(bases, parts, strict=True):
                part.copy_(base.weight.data)
                base.weight.data = part
        if right:
            self._hold_ups(self.weight.data[:outputs, inputs:])  # data: a second forward writes the same once more,
        if below:  # which autograd must not take for a change
            self._hold_downs(self.weight.data[outputs:])
        self.read, self.made = None, ()

    def _hold_ups(self, room: torch.Tensor) -> None:
        """Hold each ``lora_B`` in its rows and columns of ``room`` (outputs, rank)."""
        ranks = [layer.r["default"] for layer in self.layers]
        for number, (layer, rows) in enumerate(zip(self.layers, room.split(self.sizes), strict=True)):
            place = rows.split(ranks, 1)[number]
            self.held.append((place, layer.lora_B["default"].weight, layer))

    def _hold_downs(self, room: torch.Tensor) -> None:
        """Hold each ``lora_A`` in its rows of ``room`` (rank, inputs)."""
        for layer, place in zip(self.layers, room.split([layer.r["default"] for layer in self.layers]), strict=True):
            self.held.append((place, layer.lora_A["default"].weight, None))

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What each layer makes of ``x``."""
        dtype = precision.of_products(x.device, self.weight.dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        downs = [layer.lora_A["default"].weight for layer in self.layers]
        ups = [layer.lora_B["default"].weight * layer.scaling["default"] for layer in self.layers]
        a = downs[0] if len(downs) == 1 else torch.cat(downs)
        b = ups[0] if len(ups) == 1 else torch.block_diag(*ups)
        x_flat = x.reshape(-1, x.shape[-1]).to(dtype)
        y, _ = lora_linear(x_flat, self.weight.to(dtype), bias, a.to(dtype), b.to(dtype))
        y = y.view(*x.shape[:-1], -1)
        return (y,) if len(self.sizes) == 1 else y.split(self.sizes, -1)  # a part may not be changed in its place


def _forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    """What takes the place of PEFT's forward."""
    group, number = self.group, self.place_in_group
    if number == 0 or group.read is not x:
        group.read, group.made = x, group(x)
    part = group.made[number]
    if number == len(group.layers) - 1:
        group.read, group.made = None, ()  # activations live no longer than they are needed
    return part
