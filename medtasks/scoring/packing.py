"""Weights of linear layers in the layout that oneDNN's products want, made once instead of at each product.

On a CPU torch hands a bfloat16 weight to oneDNN as it lies, which reorders it for every product, and a float32 weight
to MKL, which is slow on AMD's processors. Over reordered weights the forward pass of SmolLM2-135M took a quarter less
time in bfloat16, with the same products, and a sixth less in float32 (2 cores of an AMD EPYC with avx512_bf16).
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence

import torch

logger = logging.getLogger(__name__)

PACKABLE = (torch.bfloat16, torch.float32)
SHARE_OF_FREE = 0.5
"""Share of the free memory that the reordered copies may take."""


@contextlib.contextmanager
def packed_linears(model: torch.nn.Module, tokens: int, precisions: Sequence[torch.dtype] = PACKABLE) -> Iterator[int]:
    """Within this, the ``nn.Linear`` layers of ``model`` compute with reordered weights.

    The head is left out (it sees few rows), as are layers of other types, quantized ones among them. Nothing is done
    for a model on another device, in another precision, or too large for the copies.

    Args:
        tokens: rows that a product typically has; chooses the layout.
        precisions: of the weights that are reordered. In bfloat16 the products stay the same to the last bit; in
            float32 oneDNN computes them instead of MKL, and rounds in another order.

    Yields:
        How many layers were packed.
    """
    head = model.get_output_embeddings()
    layers = [
        module
        for module in model.modules()
        if type(module) is torch.nn.Linear
        and module is not head
        and module.weight.dtype in precisions
        and module.weight.device.type == "cpu"
        and "forward" not in module.__dict__  # another library has replaced it
    ]
    needed = sum(layer.weight.nbytes for layer in layers)
    packed: list[torch.nn.Module] = []
    if needed <= SHARE_OF_FREE * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        packed = layers
    try:
        for layer in packed:
            layer.forward = _forward(layer, tokens)
    except (AttributeError, RuntimeError, NotImplementedError) as error:  # a build without oneDNN or these operators
        logger.info("hf-mcq: weights stay as they are (%s)", str(error).splitlines()[0])
        _restore(packed)
        packed = []
    try:
        yield len(packed)
    finally:
        _restore(packed)


def _forward(layer: torch.nn.Linear, tokens: int):
    """``layer.forward`` over a reordered copy of its weight."""
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), tokens)
    product = torch.ops.mkldnn._linear_pointwise

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dtype != weight.dtype:
            return torch.nn.functional.linear(x, layer.weight, layer.bias)
        return product(x, weight, layer.bias, "none", [], "")

    return forward


def _restore(layers: list[torch.nn.Module]) -> None:
    for layer in layers:
        layer.__dict__.pop("forward", None)
