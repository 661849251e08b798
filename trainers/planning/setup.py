"""What in a recipe decides memory and time: batch, precision, adapter, checkpointing, optimizer, devices."""

import json
import re
from dataclasses import dataclass

from medtasks.errors import InputError
from trainers import acceleration, processes

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
    "fused": True,
    "dequantize_base": False,
    "compile_layers": None,
    "cuda_graph": None,
}
"""What the keys that count have where a recipe does not have them."""
UNCOUNTED = ("lora_modules_to_save", "use_dora", "label_smoothing_factor")
"""Keys that take memory which nothing here counts."""
CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
"""transformers' newer name for it, which wins, and the older."""
LETTER_LABELS = 0.05
"""Share of tokens that are labelled at most where a letter is the answer: the letter and the end, of 40 and more."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "auto": 2}
DTYPES = tuple(BYTES)
MAPS = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn")
MAPS |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp")
"""The maps of a layer, and the part of the layer that has each."""
LAYERS = 200
"""More than models here have; among so many a pattern's layers are looked for."""


@dataclass(frozen=True)
class Setup:
    """A way to train a model.

    Attributes:
        micro_batch: rows of a forward pass on one device (``per_device_train_batch_size``).
        length: tokens of a row at most.
        accumulation: forward passes before a step.
        base: what the products' weights are kept in: ``nf4``, ``int8``, ``bfloat16``, ``float16`` or ``float32``.
        nested: whether NF4's constants are quantized too (double quantization).
        dequantized: whether the products' weights were NF4 and are held in ``base``.
        stream: bytes of a number between the layers, and of a weight of embeddings, head and norms.
        autocast: whether products are computed in 2 bytes whatever their inputs have.
        rank: of the LoRA adapter; None trains all weights.
        targets: the maps that LoRA adapts.
        dropout: before each adapter.
        checkpointing: ``off``, ``all`` (a layer keeps its input) or ``selective`` (and its attention's output).
        every: checkpointing of every n-th layer alone.
        optim: the optimizer, by transformers' name.
        labelled: share of the tokens that the loss is computed for.
        attention: ``attn_implementation``; None is variable-length attention (:mod:`trainers.acceleration.attention`)
            on a GPU, and SDPA on a CPU.
        packed: whether a row may hold several documents.
        fused: whether LoRA may be computed in one operation with its map (:mod:`trainers.acceleration.lora`).
        compiled: whether torch.compile has fused the layers.
        graphed: whether compiled layers may be captured as CUDA graphs (:mod:`trainers.acceleration.graphs`).
        gpus: devices that train together.
        sharded: whether weights, gradients and moments are divided among them (FSDP), or each has all (DDP).
        on_cpu: whether the CPU trains.
        compiles_from: tokens of the whole run, if they decide whether layers are compiled, and go with ``length``.
        checkpointing_key: the recipe's name for checkpointing: transformers' older one, or the newer.
        as_adapter: what else is so where an adapter learns in place of all weights: attributes and their values.
        fixed: keys that cannot be turned: those of an adapter that learns on, and what ``cuda_graph: true`` forbids.
    """

    micro_batch: int
    length: int
    accumulation: int = 1
    base: str = "bfloat16"
    nested: bool = False
    dequantized: bool = False
    stream: int = 2
    autocast: bool = True
    rank: int | None = 16
    targets: str | tuple[str, ...] = "all-linear"
    dropout: float = 0.0
    checkpointing: str = "off"
    every: int = 1
    optim: str = "adamw_torch_fused"
    labelled: float = 1.0
    attention: str | None = None
    packed: bool = True
    fused: bool = True
    compiled: bool = False
    graphed: bool = True
    gpus: int = 1
    sharded: bool = False
    on_cpu: bool = False
    compiles_from: int | None = None
    checkpointing_key: str = CHECKPOINTING[1]
    as_adapter: tuple[tuple[str, object], ...] = (("rank", DEFAULTS["lora_r"]),)
    fixed: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass on one device."""
        return self.micro_batch * self.length

    @property
    def masked(self) -> bool:
        """Whether documents that stand side by side are kept apart by a whole mask, as SDPA needs it."""
        usual = "sdpa" if self.on_cpu or self.computed == 4 else acceleration.attention.NAME
        kind = self.attention or usual
        return kind == "sdpa" and (self.packed or self.micro_batch > 1)

    @property
    def quantized(self) -> bool:
        """Whether the products' weights are in 4 or 8 bits."""
        return self.base in ("nf4", "int8")

    @property
    def fuses(self) -> bool:
        """Whether LoRA and its map are one operation: over plain weights, without dropout."""
        return self.fused and bool(self.rank) and not (self.dropout or self.quantized or self.sharded)

    @property
    def captures(self) -> bool:
        """Whether forward and backward of the layers are captured once and replayed."""
        changes = self.dropout or self.checkpointing != "off" or self.sharded
        return self.graphed and self.compiled and self.rank is not None and not (changes or self.on_cpu)

    @property
    def computed(self) -> int:
        """Bytes of a number that a product gives."""
        return 2 if self.autocast else self.stream

    @property
    def trained_bytes(self) -> int:
        """Bytes of a weight that learns, of its gradient, and of each of its moments.

        Adapters learn in float32 (:func:`trainers.adapter.train_in_float32`), a model that learns whole in its dtype.
        """
        return self.stream if self.rank is None else 4

    @property
    def precision(self) -> str:
        """In the words of measurements: ``nf4``, ``int8`` or a dtype; ``full`` before it where all weights learn."""
        return self.base if self.rank else f"full {self.base}"


def of(
    settings: dict,
    gpus: int = 1,
    sharded: bool = False,
    on_cpu: bool = False,
    tokens: int | None = None,
    by_letter: bool | None = None,
    grows_with_length: bool = False,
) -> Setup:
    """The setup that a recipe's settings describe; where keys are missing, the :data:`DEFAULTS` count.

    A model that learns whole is held in float32 (:func:`trainers.adapter.check_base`), whatever ``dtype`` says.

    Args:
        tokens: of the whole run, by which a GPU decides whether to compile where the recipe does not; None: it does
            not, which takes the more memory.
        by_letter: whether a letter is all that is learned of every example; None: as ``answer_style`` says.
        grows_with_length: whether ``tokens`` go with ``max_length``.

    Raises:
        InputError: settings that cannot be planned.
    """
    settings = DEFAULTS | settings
    dtype = str(settings["dtype"]).removeprefix("torch.")
    if dtype not in BYTES:
        raise InputError(f"dtype: '{dtype}' is none of {', '.join(DTYPES)}")
    if (settings["load_in_4bit"] or settings["load_in_8bit"]) and not settings["use_peft"]:
        raise InputError("a base in 4 or 8 bits cannot learn itself; say 'use_peft: true', or take load_in_4bit out")
    stored, dtype = dtype, dtype if settings["use_peft"] else "float32"
    if uncounted := [key for key in UNCOUNTED if settings.get(key)]:
        raise InputError(
            f"{uncounted[0]} is not planned: what it takes is not counted; take the key out to plan the rest"
        )
    if sharded and settings["load_in_8bit"]:
        raise InputError(processes.NO_8_BITS)
    if sharded and settings["dequantize_base"]:
        raise InputError(acceleration.NOT_SHARDED)
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "lora_r"):
        if not isinstance(settings[key], int) or settings[key] < 1:
            raise InputError(f"{key}: {settings[key]} is no number from 1 on")
    by_letter = settings.get("answer_style") == "letter" if by_letter is None else by_letter
    checkpointing, every = _checkpointing(settings)
    bf16, fp16 = settings["bf16"], bool(settings["fp16"])
    return Setup(
        micro_batch=settings["per_device_train_batch_size"],
        length=settings["max_length"],
        accumulation=settings["gradient_accumulation_steps"],
        base=_base(settings, dtype),
        nested=bool(settings["use_bnb_nested_quant"]),
        dequantized=bool(settings["load_in_4bit"] and settings["dequantize_base"]),
        stream=BYTES[dtype],
        autocast=fp16 or (bf16 if bf16 is not None else not fp16),
        rank=settings["lora_r"] if settings["use_peft"] else None,
        targets=_targets(settings["lora_target_modules"]),
        dropout=float(settings["lora_dropout"]),
        checkpointing=checkpointing,
        every=every,
        optim=str(getattr(settings["optim"], "value", settings["optim"])),
        labelled=LETTER_LABELS if by_letter else 1.0,
        attention=_attention(settings),
        packed=bool(settings["packing"]),
        fused=bool(settings["fused"]),
        compiled=_compiles(settings, tokens, is_plain_gpu=not on_cpu and not sharded),
        graphed=settings["cuda_graph"] is not False and acceleration.obstacle_in_keys(settings) is None,
        gpus=gpus,
        sharded=sharded,
        on_cpu=on_cpu,
        compiles_from=tokens if grows_with_length and settings["compile_layers"] is None else None,
        checkpointing_key=CHECKPOINTING[settings.get(CHECKPOINTING[0]) is None],
        as_adapter=_as_adapter(settings, stored),
        fixed=_fixed(settings),
    )


def _as_adapter(settings: dict, dtype: str) -> tuple[tuple[str, object], ...]:
    """What a LoRA adapter of all maps changes in the setup: the base then is in the recipe's ``dtype``."""
    return (
        ("base", _base(settings, dtype)),
        ("stream", BYTES[dtype]),
        ("rank", settings["lora_r"]),
        ("targets", "all-linear"),
        ("dropout", float(settings["lora_dropout"])),
    )


def _fixed(settings: dict) -> tuple[str, ...]:
    """Keys that no knob may turn: captured graphs that are demanded leave no checkpointing, an adapter its shape."""
    of_graphs = ("gradient_checkpointing",) if settings["cuda_graph"] else ()
    return of_graphs + (("lora_r",) if settings.get("adapter") else ())


def _base(settings: dict, dtype: str) -> str:
    """What the weights of the products are held in."""
    if settings["load_in_4bit"] and not settings["dequantize_base"]:
        return "nf4"
    if settings["load_in_8bit"]:
        return "int8"
    return "bfloat16" if dtype == "auto" else dtype


def _compiles(settings: dict, tokens: int | None, is_plain_gpu: bool) -> bool:
    """Whether layers are compiled: as the recipe says, or where it pays (:func:`trainers.acceleration.decide`)."""
    if settings["compile_layers"] is not None:
        return bool(settings["compile_layers"])
    return is_plain_gpu and (tokens or 0) >= acceleration.COMPILES_FROM


def _targets(targets) -> str | tuple[str, ...]:
    """LoRA's targets, by the last part of their names; PEFT's own choice for the models here is q and v.

    A single one that is no name is a pattern for a map's whole path, as PEFT takes it; what it matches in one layer is
    counted in all.
    """
    if targets is None:
        return ("q_proj", "v_proj")
    names = [targets] if isinstance(targets, str) else list(targets)
    if names == ["all-linear"]:
        return "all-linear"
    if len(names) == 1 and not names[0].isidentifier():
        return _matched(names[0])
    return tuple(name.rpartition(".")[2] for name in names)


def _matched(pattern: str) -> tuple[str, ...]:
    """The maps that a pattern matches in some layer of a decoder of the Llama kind."""
    try:
        matches = re.compile(pattern).fullmatch
    except re.error as error:
        raise InputError(f"lora_target_modules: '{pattern}' is neither a name nor a pattern ({error})") from error
    paths = {name: [f"model.layers.{n}.{block}.{name}" for n in range(LAYERS)] for name, block in MAPS.items()}
    if found := tuple(name for name in MAPS if any(map(matches, paths[name]))):
        return found
    raise InputError(
        f"lora_target_modules: '{pattern}' matches none of the maps that are planned, as {paths['q_proj'][0]} is one"
    )


def _checkpointing(settings: dict) -> tuple[str, int]:
    """How layers are checkpointed, and every how many; ``activation_checkpointing`` is transformers' newer name."""
    new, old = CHECKPOINTING
    is_on = settings[old] if settings.get(new) is None else settings[new]
    how = settings.get(f"{new}_kwargs") or settings.get(f"{old}_kwargs") or {}
    try:
        how = dict(json.loads(how) if isinstance(how, str) else how)  # text, from the command line
    except (ValueError, TypeError) as error:
        raise InputError(f"{old}_kwargs: a mapping expected, not '{how}'") from error
    every = how.get("every_n_layers", 1)
    if type(every) is not int or every < 1:
        raise InputError(f"{old}_kwargs: every_n_layers: {every!r} is no number from 1 on")
    kind = "off" if not is_on else "selective" if how.get("selective") else "all"
    return kind, every


def _attention(settings: dict) -> str | None:
    kind = settings["attn_implementation"]
    if kind == "eager":
        raise InputError(
            "attn_implementation: eager keeps every score and is not planned; take the key out, or say sdpa"
        )
    return kind
