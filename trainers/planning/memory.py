"""What a training holds in memory at its highest, itemized in bytes.

Three moments can be the highest: where the backward begins (all activations are there), where it ends (all gradients
are), and the optimizer's step. Where forward and backward are captured as graphs, that is a moment of its own, before
the first step; the graphs' memory is then nobody else's, though PyTorch does not count it as allocated any more. Where
a 4-bit base is dequantized, there is a moment when it is held twice, and where FSDP shards a model, each device has had
it whole. :func:`plan` itemizes each and keeps the highest.
All figures are of one device.
"""

from dataclasses import dataclass, replace

from trainers.acceleration import CHUNK
from trainers.planning import activations
from trainers.planning.setup import Setup
from trainers.planning.shape import Shape

NF4_BYTES = 0.5
NF4_BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a constant, and constants that share one of their own (Dettmers et al. 2023, arXiv:2305.14314)."""
INT8_OPTIMIZER_BLOCK = 256
"""Moments that share a float32 constant (Dettmers et al. 2021, arXiv:2110.02861)."""
HEAD_TOKENS, HEAD_COLUMNS = 4096, 32768
"""The tile in which TRL's fused head computes logits (``trl.kernels.chunked_logprob``, ``trl.trainer.utils``)."""
CPU_TILE = 28
"""Bytes a logit that the tile's gradient takes in torch's own operations, where there is no Triton."""
CPU_CHUNK = 21
"""Bytes a logit that a chunk of our own head takes beside the logits, where there is no GPU: five values in float32 and
a truth value (:func:`trainers.acceleration.loss._plain_chunk`)."""
CUBLAS_WORKSPACES = 2 * 32 * 2**20
"""Of the forward's and the backward's thread, as PyTorch allocates them on Hopper; 8 MiB each on older GPUs."""
CONTEXT = 0.5e9
"""CUDA's context and the loaded kernels, outside PyTorch's allocator: a usual size, not told by any interface."""
SLACK = 0.05
"""Of the allocated: what the caching allocator reserves beyond it, in pieces too small to use."""
PROCESS, CPU_SLACK = 1.0e9, 0.5
"""Where the CPU trains: Python with its libraries; and, of the allocated, what the heap holds beyond, which grows with
rows of changing length. Rough: recorded trainings took 0.7 to 1.6 times what is told with it."""


@dataclass(frozen=True)
class Plan:
    """Memory of one device at its highest.

    Attributes:
        items: name -> bytes, at that moment, the largest first; they add up to ``allocated``, but where graphs are
            captured to what is held for good.
        moment: which of the moments it is.
        allocated: what ``torch.cuda.max_memory_allocated`` will tell (of a CPU: what the training adds to the process).
        shown: what ``nvidia-smi`` will show, the CUDA context included (of a CPU: of the whole process).
    """

    items: dict[str, float]
    moment: str
    allocated: float
    shown: float


def plan(shape: Shape, setup: Setup) -> Plan:
    """The memory that ``setup`` needs to train a model of ``shape``."""
    held_at = _moments(shape, setup)
    moment = max(held_at, key=lambda name: sum(held_at[name].values()))
    items = {name: size for name, size in sorted(held_at[moment].items(), key=lambda item: -item[1]) if size}
    held = sum(items.values())
    allocated = held
    if setup.captures:
        allocated = max(sum(each.values()) for each in (_capturing(shape, setup), _dequantizing(shape, setup)))
    around = PROCESS + CPU_SLACK * held if setup.on_cpu else CONTEXT + SLACK * held
    return Plan(items, moment, allocated, held + around)


def _moments(shape: Shape, setup: Setup) -> dict[str, dict[str, float]]:
    """The moments that can be the highest, and what is there at each."""
    lasting = _lasting(shape, setup)
    loading = {
        "where the base is dequantized": _dequantizing(shape, setup),
        "where FSDP shards the model": _sharding(shape, setup),
    }
    if setup.captures:
        return loading | {"where graphs are replayed": lasting | _replayed(shape, setup)}
    return loading | {
        "where the backward begins": lasting | _backward_begins(shape, setup),
        "where the backward ends": lasting | _backward_ends(shape, setup),
        "in the optimizer's step": lasting | _step(shape, setup),
    }


def product_bytes(setup: Setup) -> float:
    """Bytes of one weight of the layers' products, its share of quantization constants included."""
    if setup.base == "nf4":
        return nf4_bytes(setup.nested)
    return {"int8": 1.0, "float32": 4.0}.get(setup.base, 2.0)


def nf4_bytes(nested: bool) -> float:
    """Bytes of one weight in NF4, its share of quantization constants included."""
    return NF4_BYTES + ((1 + 4 / NESTED_BLOCK) / NF4_BLOCK if nested else 4 / NF4_BLOCK)


def trained(shape: Shape, setup: Setup) -> int:
    """How many weights learn."""
    return shape.parameters if setup.rank is None else shape.adapter_weights(setup.rank, setup.targets)


def moments(setup: Setup) -> int:
    """How many moments the optimizer keeps for a weight that learns: Adam's two, unless it is a thriftier one.

    Paged ones live in memory that the driver moves to the host at need, and are not counted.
    """
    name = setup.optim
    if "paged" in name or "adafactor" in name or name == "sgd":
        return 0
    return 1 if "lion" in name or "rmsprop" in name else 2


def moment_bytes(setup: Setup) -> float:
    """Bytes that the optimizer keeps for a weight that learns."""
    in_8_bits = "8bit" in setup.optim
    return moments(setup) * (1 + 4 / INT8_OPTIMIZER_BLOCK if in_8_bits else setup.trained_bytes)


def _optimizer(shape: Shape, setup: Setup) -> float:
    """Bytes of the optimizer. Where it keeps 8 bits, transformers keeps the embeddings' moments in float32."""
    embeddings = shape.vocabulary * shape.hidden if setup.rank is None and "8bit" in setup.optim else 0
    return moment_bytes(setup) * (trained(shape, setup) - embeddings) + 4 * moments(setup) * embeddings


def _base(shape: Shape, setup: Setup) -> dict[str, float]:
    """The model as it is loaded."""
    share = setup.gpus if setup.sharded else 1
    constants = nf4_bytes(setup.nested) - NF4_BYTES if setup.base == "nf4" else 0.0  # each device has them all
    a_weight = (product_bytes(setup) - constants) / share + constants
    return {
        f"weights of the layers ({setup.base})": a_weight * shape.product_weights,
        "embeddings and head": setup.stream * shape.embedding_weights / share,
        "norms and biases": setup.stream * shape.small_weights / share,
    }


def _lasting(shape: Shape, setup: Setup) -> dict[str, float]:
    """What is there from the first step to the last."""
    share = setup.gpus if setup.sharded else 1
    learn = trained(shape, setup)
    return _base(shape, setup) | {
        "adapter": 0 if setup.rank is None else setup.trained_bytes * learn / share,
        "optimizer": _optimizer(shape, setup) / share,
        "gathered weights (FSDP)": _gathered(shape, setup),
        "buckets of gradients (DDP)": _ddp_buckets(shape, setup),
        "cuBLAS workspaces": 0 if setup.on_cpu else CUBLAS_WORKSPACES,
    }


def _dequantizing(shape: Shape, setup: Setup) -> dict[str, float]:
    """A base in 4 bits and dequantized: the first is let go of once all of the second is there."""
    if not setup.dequantized:
        return {}
    return _base(shape, setup) | {"weights of the layers (nf4)": nf4_bytes(setup.nested) * shape.product_weights}


def _sharding(shape: Shape, setup: Setup) -> dict[str, float]:
    """A model that is to be sharded: every device loads it whole, and lets go of a layer once it has its share of it
    (:func:`trainers.processes.shard_well`)."""
    if not (setup.sharded and setup.gpus > 1):
        return {}
    whole = replace(setup, sharded=False)
    adapter = 0 if setup.rank is None else setup.trained_bytes * trained(shape, setup)
    return _base(shape, whole) | {
        "adapter": adapter,
        "first layer's share": product_bytes(setup) * shape.product_weights / shape.layers / setup.gpus,
    }


def _capturing(shape: Shape, setup: Setup) -> dict[str, float]:
    """The rehearsals before forward and backward of the layers are captured: no loss and no optimizer yet."""
    lasting = _lasting(shape, setup) | {"optimizer": 0}
    return lasting | _kept(shape, setup) | _layer_at_work(shape, setup)


def _replayed(shape: Shape, setup: Setup) -> dict[str, float]:
    """What is there where graphs are replayed: their own memory for the layers and gradients, which is nobody else's,
    the head's, and the gradients that were copied out of them."""
    copies = 2 if setup.accumulation > 1 else 1
    return {
        **_kept(shape, setup),
        **_layer_at_work(shape, setup),
        "gradients": copies * _gradients(shape, setup),
        **loss_head(shape, setup),
    }


def _gradients(shape: Shape, setup: Setup) -> float:
    return setup.trained_bytes * trained(shape, setup) / (setup.gpus if setup.sharded else 1)


def _ddp_buckets(shape: Shape, setup: Setup) -> float:
    """DDP's second copy of the gradients, in which they are summed over devices."""
    return _gradients(shape, setup) if setup.gpus > 1 and not setup.sharded else 0.0


def _gathered(shape: Shape, setup: Setup) -> float:
    """Weights that FSDP has whole at a time: a layer with the next one, or with embeddings and head."""
    if not (setup.sharded and setup.gpus > 1):
        return 0.0
    a_layer = product_bytes(setup) * shape.product_weights / shape.layers
    return a_layer + max(a_layer, setup.stream * shape.embedding_weights)


def _backward_begins(shape: Shape, setup: Setup) -> dict[str, float]:
    """Everything that the forward kept, and the most that the head or a layer needs while it works.

    Gradients are there from earlier micro-batches alone.
    """
    head = loss_head(shape, setup)
    return _kept(shape, setup) | {
        "gradients": _gradients(shape, setup) if setup.accumulation > 1 else 0,
        **_larger(head, _layer_at_work(shape, setup)),
    }


def _backward_ends(shape: Shape, setup: Setup) -> dict[str, float]:
    """All gradients, and the first layer at work, where autograd has let go of the others; or, after it, the gradient
    that embeddings have as such, before it is added to the one that they have as the head."""
    one = activations.layer(shape, setup) if setup.checkpointing == "off" else 0
    first = {"activations of the layers": one, **_layer_at_work(shape, setup)}
    learns_twice = setup.rank is None and shape.tied
    again = setup.trained_bytes * shape.embedding_weights / (setup.gpus if setup.sharded else 1)
    return {"gradients": _gradients(shape, setup)} | _larger(
        first, {"second gradient of the embeddings": again if learns_twice else 0}
    )


def _step(shape: Shape, setup: Setup) -> dict[str, float]:
    """Gradients, and the copies that an unfused optimizer makes of them."""
    learn = trained(shape, setup) / (setup.gpus if setup.sharded else 1)
    unfused = learn * setup.trained_bytes if setup.optim in ("adamw_torch", "adamw_hf") else 0
    return {"gradients": _gradients(shape, setup), "copies in the step": unfused}


def _larger(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return max(one, other, key=lambda items: sum(items.values()))


def _kept(shape: Shape, setup: Setup) -> dict[str, float]:
    """What the forward pass keeps."""
    whole = shape.layers * activations.layer(shape, setup) - activations.not_in_first_layer(shape, setup)
    masks = shape.layers * activations.mask_copy(setup)
    if setup.checkpointing == "off":
        layers = {"activations of the layers": whole - masks, "attention masks": masks}
    else:
        checkpointed = -(-shape.layers // setup.every)
        open_layers = (shape.layers - checkpointed) * activations.layer(shape, setup)
        layers = {
            "activations of the layers": open_layers,
            "inputs of the layers": checkpointed * checkpoint(shape, setup),
        }
    return layers | {
        "activations around the layers": activations.around_layers(shape, setup),
        "weights' copies for autocast": activations.copies(shape, setup),
    }


def checkpoint(shape: Shape, setup: Setup) -> float:
    """Bytes that a checkpointed layer keeps (Chen et al. 2016, arXiv:1604.06174): its input, selectively the output
    of its attention too."""
    kept = setup.stream * shape.hidden
    if setup.checkpointing == "selective":
        kept += setup.computed * shape.query_width + activations.LOGSUMEXP * shape.heads
    return setup.tokens * kept


def _layer_at_work(shape: Shape, setup: Setup) -> dict[str, float]:
    """What a layer needs while it is computed, forward or backward: its own activations again where it was
    checkpointed, values in passing, and a dequantized weight."""
    again = activations.layer(shape, setup) if setup.checkpointing != "off" else 0
    largest = max(product.weights for product in shape.products)
    gradient = setup.trained_bytes * largest if setup.rank is None else 0
    return {
        "one layer computed again": again,
        "values in passing": setup.tokens * activations.passing(shape, setup) + gradient,
        "dequantized weight": 2 * largest if setup.quantized else 0,
    }


def loss_head(shape: Shape, setup: Setup) -> dict[str, float]:
    """What the loss takes: by our own head where it is frozen, by TRL's where it learns."""
    head = _learning_head(shape, setup) if setup.rank is None else _frozen_head(shape, setup)
    return {"loss head": head + setup.tokens * shape.hidden * setup.stream}  # and the last hidden states


def _frozen_head(shape: Shape, setup: Setup) -> float:
    """:mod:`trainers.acceleration.loss`: a chunk's logits, which on a GPU become their gradient; the hidden states of
    the labelled tokens, and their gradient."""
    tokens = setup.labelled * setup.tokens
    a_logit = setup.computed + (CPU_CHUNK if setup.on_cpu else 0)
    return min(tokens, CHUNK) * shape.vocabulary * a_logit + tokens * shape.hidden * 2 * setup.stream


def _learning_head(shape: Shape, setup: Setup) -> float:
    """TRL's fused head: logits of 4,096 tokens and 32,768 words at a time, the gradients of what goes in in float32,
    and that of its weights, summed beside the one that is kept."""
    tokens = setup.labelled * setup.tokens
    rows, columns = min(tokens, HEAD_TOKENS), min(shape.vocabulary, HEAD_COLUMNS)
    tile = rows * (setup.computed * HEAD_COLUMNS + (CPU_TILE * columns if setup.on_cpu else 0))
    weights = shape.vocabulary * shape.hidden * (4 + setup.stream * (setup.stream != 4))
    return tile + tokens * shape.hidden * (2 * setup.stream + 4) + weights
