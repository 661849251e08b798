"""Training at the speed of the hardware: what is fused, compiled and captured, and when it pays.

On a fast GPU with a small model the processor that launches kernels is the bottleneck, not the GPU: compiled but not
captured, a step of a 1.5B model kept an H100 busy for 152 of 216 ms. So LoRA is computed in one operation
(:mod:`.lora`), the head scores labelled tokens alone and differentiates on the way (:mod:`.loss`, :mod:`.kernels`),
layers are compiled (elementwise work in few kernels), and forward and backward of all layers are captured once and
replayed (:mod:`.graphs`). Each gives what it replaces gives, to rounding.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from medtasks.errors import InputError
from trainers.acceleration import attention

CHUNK = 2_048
"""Tokens whose logits exist at a time: 0.6 GB in bfloat16 with a vocabulary of 150,000."""

MORE_LEARNS = "more than LoRA learns, so the loss is TRL's, over the whole model"
NOT_SHARDED = "dequantize_base does not go together with FSDP; take one of them out"

COMPILES_FROM = 500_000
"""Tokens of a run from which compiling (about 20 s on an H100) is made up for."""


@dataclass
class AccelerationArguments:
    """How training is made fast; none of it changes what is learned beyond rounding."""

    _argument_group_name = "acceleration"

    fused: bool = field(
        default=True,
        metadata={"help": "Compute a linear map with its LoRA in one operation, where lora_dropout is 0."},
    )
    dequantize_base: bool = field(
        default=False,
        metadata={
            "help": "Hold the 4-bit base's weights dequantized in `dtype`: the same numbers as in 4-bit training, "
            "without dequantizing at every product, for 1.5 bytes more a weight."
        },
    )
    compile_layers: bool | None = field(
        default=None,
        metadata={"help": "Compile the model's layers; left out, on a GPU and where the run is long enough to pay."},
    )
    cuda_graph: bool | None = field(
        default=None,
        metadata={
            "help": "Capture forward and backward of all layers once and replay them; left out, where layers are "
            "compiled, without dropout, gradient checkpointing and FSDP."
        },
    )


@dataclass(frozen=True)
class Acceleration:
    """What was decided for one run."""

    attention: str | None = None
    """``attn_implementation``; None leaves it to transformers."""
    dequantizes: bool = False
    fuses: bool = False
    compiles: bool = False
    captures: bool = False
    must_capture: bool = False
    """Whether the recipe asks for it."""
    tokens: int = 0
    """Tokens of every micro-batch where its shape must not change, else 0."""
    documents: int = 0
    """Boundaries of documents in it."""


def decide(args: AccelerationArguments, training, model, packed, *, shards: bool) -> Acceleration:
    """What pays and is possible for the run of ``packed`` rows (:class:`trainers.batches.Packed`).

    Args:
        training: SFTConfig.
        model: ModelConfig.
        shards: whether FSDP parts the weights.

    Raises:
        InputError: a key asks for what this run cannot do.
    """
    on_gpu = training.device.type == "cuda"
    if obstacle := _obstacle_to_attention(training, model, on_gpu):
        raise InputError(f"attn_implementation: {model.attn_implementation} {obstacle}, or take the key out")
    if training.activation_offloading and not on_gpu:
        raise InputError("activation_offloading: there is no GPU to offload from; take the key out")
    if args.dequantize_base and not model.load_in_4bit:
        raise InputError("dequantize_base: the base is not in 4 bits; take the key out, or say 'load_in_4bit: true'")
    if args.dequantize_base and shards:
        raise InputError(NOT_SHARDED)
    compiles = args.compile_layers
    if compiles is None:
        compiles = on_gpu and packed.tokens >= COMPILES_FROM and not shards
    obstacle = _obstacle_to_capture(training, model, on_gpu=on_gpu, compiles=compiles, shards=shards)
    if args.cuda_graph and obstacle:
        raise InputError(f"cuda_graph: {obstacle}; take the key out")
    captures = not obstacle if args.cuda_graph is None else args.cuda_graph
    rows = training.per_device_train_batch_size
    longest = max(len(row["input_ids"]) for row in packed.rows)
    is_static = (compiles or captures) and on_gpu
    return Acceleration(
        attention=model.attn_implementation or (attention.NAME if on_gpu and _in_16_bits(training, model) else None),
        dequantizes=args.dequantize_base,
        fuses=args.fused and not model.lora_dropout and not shards,
        compiles=compiles,
        captures=captures,
        must_capture=bool(args.cuda_graph),
        tokens=rows * longest if is_static else 0,
        documents=packed.most_documents(rows) + rows if is_static else 0,
    )


def _obstacle_to_attention(training, model, on_gpu: bool) -> str | None:
    """Why the attention that the recipe names cannot be learned with, as far as it can be told here, or None."""
    if model.attn_implementation in (attention.NAME, "flex_attention") and not on_gpu:
        return "learns on a GPU alone; say 'sdpa'"
    if model.attn_implementation == attention.NAME and model.dtype == "float32" and not _in_16_bits(training, model):
        return "computes in 16 bits alone; say 'bf16: true'"
    return None


def _in_16_bits(training, model) -> bool:
    """Whether products are computed in 16 bits, as the kernel of packed attention needs it."""
    return training.bf16 or training.fp16 or model.dtype in ("bfloat16", "float16")


def _obstacle_to_capture(training, model, *, on_gpu: bool, compiles: bool, shards: bool) -> str | None:
    """Why forward and backward cannot be captured, or None."""
    if not on_gpu:
        return "there is no GPU"
    if not model.use_peft:
        return MORE_LEARNS
    if obstacle := obstacle_in_keys(vars(training) | vars(model)):
        return obstacle
    if shards:
        return "FSDP's GPUs speak with each other in between"
    if model.lora_dropout:
        return "lora_dropout draws other numbers each time"
    if training.gradient_checkpointing:
        return "gradient_checkpointing computes activations again"
    return None if compiles else "layers are not compiled (compile_layers)"


def obstacle_in_keys(settings: dict) -> str | None:
    """Why a recipe's ``settings`` keep LoRA's training from being captured, but for what a planned
    :class:`trainers.planning.setup.Setup` knows itself (dropout, checkpointing, devices); or None."""
    if settings.get("lora_modules_to_save"):
        return MORE_LEARNS
    if settings.get("loss_type") not in (None, "nll") or settings.get("label_smoothing_factor"):
        return "the loss is TRL's, over the whole model"
    if settings.get("load_in_8bit"):
        return "products in 8 bits look at their outliers on the way"
    if settings.get("neftune_noise_alpha") is not None:
        return "neftune_noise_alpha draws other numbers each time"
    return None


def apply(chosen: Acceleration, trainer) -> None:
    """Put what was chosen into ``trainer`` (:class:`trainers.trainer.Trainer`), model and all."""
    import torch

    from trainers.acceleration import graphs, lora, loss
    from trainers.batches import Collator

    causal = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    training = trainer.args
    longest = chosen.tokens // training.per_device_train_batch_size
    filling = causal.config.get_text_config().pad_token_id
    trainer.data_collator = Collator(filling, chosen.tokens, chosen.documents, longest)
    attention.prepare(training.device)
    if chosen.fuses:
        lora.fuse(trainer.model)
    if chosen.compiles:
        for layer in _layers(causal.base_model):
            layer.compile(dynamic=False if chosen.tokens else None)
    if loss.has_plain_head(causal) and _has_plain_loss(trainer):
        graphed = None
        if chosen.captures:
            dtype = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None
            accumulates = training.gradient_accumulation_steps > 1
            graphed = graphs.GraphedBackbone(causal.base_model, _filling(trainer), dtype, accumulates)
        loss.add_head(causal, graphed)
        trainer.has_own_head = True
    elif chosen.must_capture:
        raise InputError("cuda_graph: this model's head is TRL's to score, over the whole model; take the key out")


def _layers(backbone) -> Iterable:
    """The layers of a decoder, whatever it calls them."""
    from torch.nn import ModuleList

    return next((part for part in backbone.children() if isinstance(part, ModuleList)), ())


def _filling(trainer) -> dict:
    """A micro-batch of the static shape that holds no example."""
    return {
        key: value.to(trainer.args.device) if hasattr(value, "to") else value
        for key, value in trainer.data_collator([]).items()
    }


def _has_plain_loss(trainer) -> bool:
    """Whether the recipe asks for the negative log-likelihood and nothing more."""
    return trainer.args.loss_type == "nll" and trainer.label_smoother is None and not trainer.aux_loss_enabled
