"""What a forward pass keeps for the backward, itemized: the tensors that autograd saves, in bytes.

Followed through transformers' Llama and Qwen decoder layers with PEFT's LoRA, operation by operation, and checked
against autograd itself (``tests/trainers/test_plan_activations.py``). The way of counting is that of Korthikanti et al.
2022 (arXiv:2205.05198), for today's layers: RMSNorm in float32, rotary positions, grouped and fused attention (Dao et
al. 2022, arXiv:2205.14135: the output and one number a query, no scores), a gated MLP, adapters.
"""

from trainers.planning.setup import Setup
from trainers.planning.shape import Product, Shape

HEADS = ("q_proj", "k_proj", "v_proj", "qkv_proj")
INPUTS = (HEADS, ("o_proj",), ("gate_proj", "up_proj", "gate_up_proj"), ("down_proj",))
"""The maps of a layer by what goes into them, in the order of computing."""
ROTATED, NORM_STATISTIC, LOGSUMEXP = 2, 4, 4
"""Cosine and sine; bytes of a norm's and of an attention head's one number a token."""


def layer(shape: Shape, setup: Setup) -> float:
    """Bytes that one layer keeps of one forward pass."""
    a_token = compiled_layer(shape, setup) if setup.compiled else eager_layer(shape, setup)
    return setup.tokens * a_token + mask_copy(setup)


def eager_layer(shape: Shape, setup: Setup) -> float:
    """Bytes a token that one layer keeps where every operation saves for itself."""
    mlp = 3 * setup.computed * shape.inner  # SiLU's input and output, and what the output is multiplied by
    return _norms(shape, setup) + attention(shape, setup) + mlp + _all_inputs(shape, setup)


def compiled_layer(shape: Shape, setup: Setup) -> float:
    """Bytes a token that one compiled layer keeps.

    torch.compile cuts between forward and backward where the fewest bytes cross (min-cut partitioner) and computes
    elementwise work again where it can be done in passing: of norms the residual stream and one number a token remain,
    of the MLP its two products. What goes into another product is kept.
    """
    norms = shape.norms * (setup.stream * shape.hidden + NORM_STATISTIC)
    return norms + attention(shape, setup) + 2 * setup.computed * shape.inner + _all_inputs(shape, setup)


def attention(shape: Shape, setup: Setup) -> float:
    """Bytes a token: queries, keys, values, output, and each query's logsumexp.

    With a mask, keys and values are first repeated for all query heads. Without, values that were computed together
    with queries and keys keep those in memory too, as they were before their rotation.
    """
    keys = shape.query_width if setup.masked else shape.key_width
    unrotated = shape.query_width + shape.key_width if _values_are_a_part(shape, setup) else 0
    return setup.computed * (2 * shape.query_width + 2 * keys + unrotated) + LOGSUMEXP * shape.heads


def _values_are_a_part(shape: Shape, setup: Setup) -> bool:
    """Whether attention keeps values as a part of a larger tensor of which nothing else keeps the rest."""
    together = shape.has_fused_heads
    together = together or any(len(products) > 1 and products[0].name == "q_proj" for products in fused(shape, setup))
    rest_is_kept = shape.normed_heads and setup.computed == 4  # by the norms of queries and keys
    return together and not (setup.masked or rest_is_kept)


def mask_copy(setup: Setup) -> float:
    """Bytes of the mask as a layer's attention keeps it: the one term that grows with the square of the row.

    A padding-free row holds the whole micro-batch. SDPA turns the mask of truth values into one to add, in each layer.
    """
    return setup.computed * setup.tokens**2 if setup.masked else 0.0


def groups(shape: Shape, setup: Setup) -> list[tuple[tuple[Product, ...], int, int]]:
    """The products of a layer that share an input: (products, width of the input, its bytes a number)."""
    sources = (setup.stream, setup.computed, setup.stream, setup.computed)
    found = [tuple(product for product in shape.products if product.name in names) for names in INPUTS]
    return [(products, products[0].inputs, source) for products, source in zip(found, sources, strict=True)]


def fused(shape: Shape, setup: Setup) -> list[tuple[Product, ...]]:
    """The products of a layer that fused LoRA computes in one, or alone (:func:`trainers.acceleration.lora.fuse`)."""
    if not setup.fuses:
        return []
    adapted = set(shape.adapted(setup.targets))
    found = []
    for products, _, _ in groups(shape, setup):
        one = adapted.issuperset(products) and len({product.bias for product in products}) == 1
        found += [products] if one else [(product,) for product in products if product in adapted]
    return found


def _all_inputs(shape: Shape, setup: Setup) -> float:
    """Bytes a token of what a layer's products keep of their inputs."""
    return sum(_inputs(setup, group, width, source) for group, width, source in groups(shape, setup))


def _norms(shape: Shape, setup: Setup) -> float:
    """Bytes a token of a layer's norms: float32 copies of their inputs; normed values too where their weights learn."""
    kept = shape.norms * norm(shape, setup)
    if shape.normed_heads or shape.normed_whole:
        width = shape.query_width + shape.key_width
        kept += 4 * width + NORM_STATISTIC * (shape.heads + shape.keys if shape.normed_heads else 2)
        kept += 0 if setup.rank else setup.computed * width
    return kept


def norm(shape: Shape, setup: Setup) -> float:
    """Bytes a token of one RMSNorm over the hidden width."""
    return (4 + (0 if setup.rank else setup.stream)) * shape.hidden + NORM_STATISTIC


def _inputs(setup: Setup, group: tuple[Product, ...], width: int, source: int) -> float:
    """Bytes a token of what products of one input of ``source`` bytes a number keep of it, to train their weights.

    Frozen weights keep nothing. PEFT casts an adapter's input to float32 (for a quantized base under autocast on a GPU
    it does not, nor where LoRA is fused with its map), drops some of it, and autocast casts it once more: each time a
    copy for each product. Where nothing changes the input, all share it, and attention's output is kept by attention
    already. torch.compile makes no copy in passing, but keeps the input of a product all the same: it computes nothing
    again that would have to be written to memory.
    """
    is_kept_already = group[0].name == "o_proj"
    if setup.rank is None:
        if source == setup.computed:
            return 0 if is_kept_already else source * width
        return len(group) * setup.computed * width
    adapted = [product for product in group if setup.targets == "all-linear" or product.name in setup.targets]
    if not adapted:
        return 0
    given = _given(setup, source)
    kept = 2 if setup.autocast else given
    inner = len(adapted) * setup.rank * _adapter_bytes(setup)
    if not setup.dropout and source == given == kept:
        return inner + (0 if is_kept_already else kept * width)
    return inner + len(adapted) * (kept + _mask(setup, source)) * width


def _given(setup: Setup, source: int) -> int:
    """Bytes of a number of an adapter's input, before autocast."""
    return source if setup.fuses or setup.compiled or (setup.quantized and setup.autocast) else 4


def _mask(setup: Setup, source: int) -> int:
    """Bytes of dropout's mask for a number of an adapter's input; a CPU multiplies by one of the input's dtype."""
    if not setup.dropout:
        return 0
    return _given(setup, source) if setup.on_cpu else 1


def _adapter_bytes(setup: Setup) -> int:
    """Bytes of a number inside an adapter, between its two maps."""
    return 2 if setup.autocast else 4


def around_layers(shape: Shape, setup: Setup) -> float:
    """Bytes that one forward pass keeps outside the layers: the last norm, rotary positions, the tokens' numbers."""
    rotary = ROTATED * setup.stream * shape.head * setup.length
    ids = 0 if setup.rank else 8
    return setup.tokens * (norm(shape, setup) + ids) + rotary


def not_in_first_layer(shape: Shape, setup: Setup) -> float:
    """Bytes that the first layer does not keep of the above, since nothing that learns comes before its adapters.

    These are its norm, and for q, k and v the dropout's mask and the copies of weights.
    """
    if setup.rank is None or setup.checkpointing != "off" or setup.compiled:
        return 0.0
    adapted = [product for product in shape.adapted(setup.targets) if product.name in HEADS]
    kept = setup.tokens * (norm(shape, setup) + len(adapted) * _mask(setup, setup.stream) * shape.hidden)
    if setup.autocast and not setup.fuses:
        frozen = sum(product.weights for product in adapted) if setup.base == "float32" else 0
        kept += 2 * (frozen + len(adapted) * setup.rank * shape.hidden)
    return kept


def passing(shape: Shape, setup: Setup) -> float:
    """Bytes a token of what a layer at work holds for a moment, at its widest, the MLP's last product.

    There the product's input stands beside the copies that PEFT makes of it for the adapter (in float32, and once more
    with dropout), or its gradient beside those of the two that made it. Measured on the CPU by following every
    allocation, for several widths.
    """
    if setup.rank is None:
        return 3 * setup.computed * shape.inner + 6 * setup.stream * shape.hidden
    if setup.compiled or setup.fuses or (setup.quantized and setup.autocast):
        return 2 * setup.computed * shape.inner + 4 * setup.stream * shape.hidden
    in_float32 = 2 if setup.dropout else 1
    copies_of_input = setup.computed if setup.autocast else 0
    return (copies_of_input + 4 * in_float32) * shape.inner + 4 * setup.stream * shape.hidden


def copies(shape: Shape, setup: Setup) -> float:
    """Bytes of weights' copies that are kept for the backward: of float32 weights in the 2 bytes in which autocast
    multiplies; with fused LoRA, of the adapter in the base's dtype, B scaled."""
    if setup.rank is None:
        return 2.0 * shape.product_weights if setup.autocast and setup.trained_bytes == 4 else 0.0
    if setup.fuses:
        return float(
            shape.layers * setup.stream * sum(_fused_copies(products, setup) for products in fused(shape, setup))
        )
    if not setup.autocast:
        return 0.0
    adapter = shape.adapter_weights(setup.rank, setup.targets)
    return 2.0 * (adapter + (shape.product_weights if setup.base == "float32" else 0))


def _fused_copies(products: tuple[Product, ...], setup: Setup) -> int:
    """Numbers in the copies of the adapters of products in one: A one below the other, B along a diagonal."""
    rank = len(products) * setup.rank
    is_copied = len(products) > 1 or setup.stream != 4
    return rank * (products[0].inputs * is_copied + sum(product.outputs for product in products))
