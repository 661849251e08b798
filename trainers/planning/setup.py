"""What in a recipe decides memory and time: batch, precision, adapter, checkpointing, optimizer, devices."""

import json
from dataclasses import dataclass

from medtasks.errors import InputError

DEFAULTS = {
    "dtype": "float32",
    "load_in_4bit": False,
    "load_in_8bit": False,
    "use_bnb_nested_quant": False,
    "use_peft": False,
    "lora_r": 16,
    "lora_dropout": 0.05,
    "lora_target_modules": None,
    "attn_implementation": None,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_length": 1024,
    "gradient_checkpointing": True,
    "optim": "adamw_torch_fused",
    "bf16": None,
    "fp16": False,
    "packing": False,
    "padding_free": False,
}
"""What TRL takes for the keys that count where a recipe does not have them."""
LETTER_LABELS = 0.05
"""Share of tokens that are labelled at most where a letter is the answer: the letter and the end, of 40 and more."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "auto": 2}
DTYPES = tuple(BYTES)


@dataclass(frozen=True)
class Setup:
    """A way to train a model.

    Attributes:
        micro_batch: rows of a forward pass on one device (``per_device_train_batch_size``).
        length: tokens of a row at most.
        accumulation: forward passes before a step.
        base: what the products' weights are kept in: ``nf4``, ``int8``, ``bfloat16``, ``float16`` or ``float32``.
        nested: whether NF4's constants are quantized too (double quantization).
        stream: bytes of a number between the layers, and of a weight of embeddings, head and norms.
        autocast: whether products are computed in 2 bytes whatever their inputs have.
        rank: of the LoRA adapter; None trains all weights.
        targets: the maps that LoRA adapts.
        dropout: before each adapter.
        checkpointing: ``off``, ``all`` (a layer keeps its input) or ``selective`` (and its attention's output).
        every: checkpointing of every n-th layer alone.
        optim: the optimizer, by transformers' name.
        labelled: share of the tokens that the loss is computed for.
        masked: whether attention gets a whole mask, as it does for several documents in one row.
        compiled: whether torch.compile has fused the layers.
        gpus: devices that train together.
        sharded: whether weights, gradients and moments are divided among them (FSDP), or each has all (DDP).
        on_cpu: whether the CPU trains.
    """

    micro_batch: int
    length: int
    accumulation: int = 1
    base: str = "bfloat16"
    nested: bool = False
    stream: int = 2
    autocast: bool = True
    rank: int | None = 16
    targets: str | tuple[str, ...] = "all-linear"
    dropout: float = 0.0
    checkpointing: str = "off"
    every: int = 1
    optim: str = "adamw_torch_fused"
    labelled: float = 1.0
    masked: bool = False
    compiled: bool = False
    gpus: int = 1
    sharded: bool = False
    on_cpu: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass on one device."""
        return self.micro_batch * self.length

    @property
    def quantized(self) -> bool:
        """Whether the products' weights are in 4 or 8 bits."""
        return self.base in ("nf4", "int8")

    @property
    def computed(self) -> int:
        """Bytes of a number that a product gives."""
        return 2 if self.autocast else self.stream

    @property
    def trained_bytes(self) -> int:
        """Bytes of a weight that learns, of its gradient, and of each of its moments.

        Adapters learn in float32 (:func:`trainers.adapter.train_in_float32`), except under FSDP, which shards one
        dtype; a model that learns whole does so in its own ``dtype``.
        """
        return self.stream if self.sharded or self.rank is None else 4

    @property
    def precision(self) -> str:
        """In the words of measurements: ``nf4``, ``int8`` or a dtype; ``full`` before it where all weights learn."""
        return self.base if self.rank else f"full {self.base}"


def of(settings: dict, gpus: int = 1, sharded: bool = False, on_cpu: bool = False) -> Setup:
    """The setup that a recipe's settings describe; where keys are missing, TRL's :data:`DEFAULTS` count.

    Raises:
        InputError: settings that cannot be planned.
    """
    settings = DEFAULTS | settings
    dtype = str(settings["dtype"]).removeprefix("torch.")
    if dtype not in BYTES:
        raise InputError(f"dtype: '{dtype}' is none of {', '.join(DTYPES)}")
    base = "bfloat16" if dtype == "auto" else dtype
    if settings["load_in_4bit"]:
        base = "nf4"
    elif settings["load_in_8bit"]:
        base = "int8"
    if base in ("nf4", "int8") and not settings["use_peft"]:
        raise InputError("a base in 4 or 8 bits cannot learn itself; say 'use_peft: true', or take load_in_4bit out")
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "lora_r"):
        if not isinstance(settings[key], int) or settings[key] < 1:
            raise InputError(f"{key}: {settings[key]} is no number from 1 on")
    checkpointing, every = _checkpointing(settings)
    bf16, fp16 = settings["bf16"], bool(settings["fp16"])
    return Setup(
        micro_batch=settings["per_device_train_batch_size"],
        length=settings["max_length"],
        accumulation=settings["gradient_accumulation_steps"],
        base=base,
        nested=bool(settings["use_bnb_nested_quant"]),
        stream=BYTES[dtype],
        autocast=fp16 or (bf16 if bf16 is not None else not fp16),
        rank=settings["lora_r"] if settings["use_peft"] else None,
        targets=_targets(settings["lora_target_modules"]),
        dropout=float(settings["lora_dropout"]),
        checkpointing=checkpointing,
        every=every,
        optim=str(getattr(settings["optim"], "value", settings["optim"])),
        labelled=LETTER_LABELS if settings.get("answer_style") == "letter" else 1.0,
        masked=_is_masked(settings),
        compiled=bool(settings.get("torch_compile")),
        gpus=gpus,
        sharded=sharded,
        on_cpu=on_cpu,
    )


def _targets(targets) -> str | tuple[str, ...]:
    """LoRA's targets; PEFT's own choice for the models here is q and v."""
    if targets is None:
        return ("q_proj", "v_proj")
    names = [targets] if isinstance(targets, str) else list(targets)
    return "all-linear" if names == ["all-linear"] else tuple(names)


def _checkpointing(settings: dict) -> tuple[str, int]:
    """How layers are checkpointed, and every how many; ``activation_checkpointing`` is transformers' newer name."""
    new, old = ("activation_checkpointing", "gradient_checkpointing")
    is_on = settings[old] if settings.get(new) is None else settings[new]
    how = settings.get(f"{new}_kwargs") or settings.get(f"{old}_kwargs") or {}
    try:
        how = json.loads(how) if isinstance(how, str) else dict(how)  # text, from the command line
    except (ValueError, TypeError) as error:
        raise InputError(f"{old}_kwargs: a mapping expected, not '{how}'") from error
    kind = "off" if not is_on else "selective" if how.get("selective") else "all"
    return kind, int(how.get("every_n_layers", 1))


def _is_masked(settings: dict) -> bool:
    """Whether documents that share a row are kept apart by a mask: by SDPA, but not by flash or flex attention."""
    attention = str(settings["attn_implementation"] or "sdpa")
    if attention == "eager":
        raise InputError(
            "attn_implementation: eager keeps every score and is not planned; take the key out, or say sdpa"
        )
    return bool(settings["packing"] or settings["padding_free"]) and attention == "sdpa"
