"""Does it fit, and if not, what to turn next: each knob with what it alone would save."""

import dataclasses
from dataclasses import dataclass

from medtasks.errors import InputError
from trainers.acceleration import COMPILES_FROM
from trainers.planning import memory, retry, setup, shape
from trainers.planning.setup import Setup
from trainers.planning.shape import Shape

SHORTEST, SMALLEST_RANK = 256, 8
"""Row and rank below which no knob goes."""
LEAST = 0.01
"""Share of the memory that a knob must save to be named where memory is full."""


@dataclass(frozen=True)
class Knob:
    """A change of the recipe: its ``keys``, what it costs, the setup with it, and the ``saved`` bytes, if it alone is
    turned."""

    keys: str
    costs: str
    setup: Setup
    saved: float


def knobs(model: Shape, now: Setup) -> list[Knob]:
    """The knobs that save memory, in the order in which to turn them: what costs least of what is learned first."""
    taken = memory.plan(model, now).shown
    found = []
    for keys, costs, changes in _changes(now):
        turned = dataclasses.replace(now, **changes)
        saved = taken - memory.plan(model, turned).shown
        if saved > 0:
            found.append(Knob(keys, costs, turned, saved))
    return found


def together(model: Shape, now: Setup) -> float:
    """The bytes that all knobs leave (:attr:`trainers.planning.memory.Plan.shown`), each turned as far as it goes."""
    while found := knobs(model, now):
        now = found[0].setup
    return memory.plan(model, now).shown


def _changes(now: Setup):
    if split := retry.smaller_split(now.micro_batch, now.accumulation):
        keys = f"per_device_train_batch_size: {split[0]}, gradient_accumulation_steps: {split[1]}"
        yield keys, "a little time", {"micro_batch": split[0], "accumulation": split[1]}
    if now.checkpointing == "off" and "gradient_checkpointing" not in now.fixed:
        yield f"{now.checkpointing_key}: true", "time: the forward twice", {"checkpointing": "all"}
    if not (now.compiled or now.on_cpu or now.sharded):
        yield "compile_layers: true", "20 s and more to compile, then less time", {"compiled": True}
    if now.length >= 2 * SHORTEST:
        yield f"max_length: {now.length // 2}", "longer examples are dropped or cut", _halved(now)
    if now.rank is None:
        keys = "full_finetuning: false, use_peft: true, lora_target_modules: all-linear"
        yield keys, "an adapter learns in place of all weights", dict(now.as_adapter)
    elif now.dequantized:
        yield "dequantize_base: false", "time", {"base": "nf4", "dequantized": False}
    elif not now.quantized:
        four_bits = {"base": "nf4", "nested": True}
        keys = "load_in_4bit: true, use_bnb_nested_quant: true"
        keys += ", bnb_4bit_quant_storage: bfloat16" if now.sharded else ""
        yield keys, "time, some accuracy of the base", four_bits
    if "8bit" not in now.optim:
        yield "optim: adamw_8bit", "moments in 8 bits", {"optim": "adamw_8bit"}
    if now.rank and now.rank >= 2 * SMALLEST_RANK and "lora_r" not in now.fixed:
        yield f"lora_r: {now.rank // 2}", "a smaller adapter", {"rank": now.rank // 2}
    if now.rank and now.dropout:
        yield "lora_dropout: 0", "no dropout", {"dropout": 0.0}


def _halved(now: Setup) -> dict:
    """Rows of half the length; a run of so many steps then has half the tokens, which may be too few to compile for."""
    tokens = now.compiles_from and now.compiles_from // 2
    compiled = now.compiled and (tokens is None or tokens >= COMPILES_FROM)
    return {"length": now.length // 2, "compiled": compiled, "compiles_from": tokens}


def largest_that_fits(model: Shape, now: Setup, vram: float) -> Setup | None:
    """``now`` with the largest micro-batch that fits into ``vram`` bytes at the same rows a step; None if none does."""
    rows = now.micro_batch * now.accumulation
    for micro_batch in range(rows, 0, -1):
        if rows % micro_batch == 0:
            split = dataclasses.replace(now, micro_batch=micro_batch, accumulation=rows // micro_batch)
            if memory.plan(model, split).shown <= vram:
                return split
    return None


def advice(settings: dict, **circumstances) -> str:
    """The first knob for a recipe's settings, as the end of a sentence; ``circumstances`` as of :func:`setup.of`."""
    try:
        base = settings["model_name_or_path"], settings.get("model_revision")
        model, now = shape.of(*base), setup.of(settings | shape.stored_as(*base), **circumstances)
        least = LEAST * memory.plan(model, now).allocated
        turn = [knob for knob in knobs(model, now) if knob.saved >= least]
    except InputError:  # a model that is not planned
        turn = []
    if not turn:
        return "lower max_length, take a smaller model or a larger accelerator"
    return f"set {turn[0].keys} (saves about {turn[0].saved / 1e9:.1f} GB; {turn[0].costs})"
