"""How many tokens a second a training will see: from the nearest of the measured ones, by arithmetic.

On the same kind of GPU a measurement is scaled by the operations of a token; onto another kind by the two rates of
their datasheets, of arithmetic in bfloat16 and of memory, which give a lower and an upper bound.
"""

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from trainers.planning.setup import Setup
from trainers.planning.shape import Shape, of_config

MEASUREMENTS = Path(__file__).with_name("measurements.json")
"""Trainings that were measured: ``gpu`` (PyTorch's name), ``model`` (the sizes in its ``config.json``), ``precision``
(:attr:`Setup.precision`), ``rank``, ``compiled``, ``checkpointing``, ``tokens`` (of a micro-batch),
``tokens_per_second``, ``peak_allocated_bytes``, ``versions`` and ``source``."""


@dataclass(frozen=True)
class GPU:
    """A GPU's datasheet: operations a second in dense bfloat16, bytes a second of its memory, and bytes of it."""

    operations: float
    bandwidth: float
    memory: float


GPUS = {
    "H200": GPU(989e12, 4.8e12, 141e9),
    "H100": GPU(989e12, 3.35e12, 80e9),
    "A100 80GB": GPU(312e12, 2.039e12, 80e9),
    "A100 40GB": GPU(312e12, 1.555e12, 40e9),
    "L40S": GPU(362e12, 0.864e12, 48e9),
    "L4": GPU(121e12, 0.3e12, 24e9),
    "RTX 4090": GPU(165e12, 1.008e12, 24e9),
    "RTX 3090": GPU(71e12, 0.936e12, 24e9),
    "RTX 4060": GPU(30e12, 0.272e12, 8e9),
}
"""NVIDIA's datasheets (SXM forms where there are several), without sparsity; by words of PyTorch's name."""
MAKER = {"nvidia", "geforce"}
OTHERS = {"ti", "super", "laptop", "pcie", "nvl"}
"""Words of a name that make it another GPU, of other rates."""


@dataclass(frozen=True)
class Speed:
    """Tokens a second on one device: between ``low`` and ``high``, and in words from what (``source``)."""

    low: float
    high: float
    source: str


def gpu(name: str) -> str | None:
    """The datasheet's key for a GPU's name, PyTorch's or a part of it (``4090``); None where there is none."""
    words = set(re.split(r"[\s-]+", name.lower().strip())) - MAKER
    if not words or words & OTHERS:
        return None
    keys = {key: set(key.lower().split()) for key in GPUS}
    return next((key for key, own in keys.items() if own <= words or words <= own), None)


def measurements(path: Path = MEASUREMENTS) -> list[dict]:
    """The measured trainings."""
    return json.loads(path.read_text(encoding="utf-8"))


def operations(model: Shape, setup: Setup) -> float:
    """Operations of training on one token: 2 a weight forward, 2 for the input's gradient, 2 for that of a weight that
    learns (Kaplan et al. 2020, arXiv:2001.08361), the layers' forward again where they are checkpointed.

    Attention sees half of the row on average; the fused head computes its logits once more in the backward.
    """
    adapter = model.adapter_weights(setup.rank, setup.targets) if setup.rank else 0
    attention = 2 * model.layers * model.query_width * setup.length / 2
    learning = 2 if setup.rank is None else 0
    again = 2 / setup.every if setup.checkpointing != "off" else 0
    layers = (4 + learning + again) * model.product_weights + (6 + again) * adapter + (4 + again) * attention
    return layers + setup.labelled * (6 + learning) * model.vocabulary * model.hidden


def of(model: Shape, setup: Setup, name: str, measured: list[dict]) -> Speed | None:
    """The speed on the GPU ``name`` (a key of :data:`GPUS`); None where nothing was measured."""
    if not measured:
        return None
    distances = [_distance(each, model, setup, name) for each in measured]
    nearest = [each for each, distance in zip(measured, distances, strict=True) if distance == min(distances)]
    scaled = [each["tokens_per_second"] * _work(each) / operations(model, setup) for each in nearest]
    rate, other, like = statistics.median(scaled), gpu(nearest[0]["gpu"]), nearest[0]
    times = f", {len(nearest)} times" if len(nearest) > 1 else ""
    how = "compiled" if like["compiled"] else "not compiled"
    source = (
        f"measured on {like['gpu']}{times}: {like['precision']}, {like['tokens']:,} tokens a micro-batch, {how}, "
        f"checkpointing {like['checkpointing']}; scaled by the operations of a token"
    )
    if other == name or other is None:
        return Speed(rate, rate, source)
    bounds = [getattr(GPUS[name], what) / getattr(GPUS[other], what) for what in ("operations", "bandwidth")]
    source += f", and to {name} by the datasheets' rates of memory and of arithmetic, which are the two bounds"
    return Speed(rate * min(bounds), rate * max(bounds), source)


def _distance(each: dict, model: Shape, setup: Setup, name: str) -> tuple:
    """How far a measurement is from what is asked, the weightiest difference first."""
    return (
        gpu(each["gpu"]) != name,
        each["precision"] != setup.precision,
        each["compiled"] != setup.compiled,
        each["checkpointing"] != setup.checkpointing,
        round(abs(math.log(each["tokens"] / setup.tokens)), 3),
        round(abs(math.log(_shape(each).product_weights / model.product_weights)), 3),
        abs(each["rank"] - (setup.rank or 0)),
    )


def _shape(each: dict) -> Shape:
    return of_config(each["model"])


def _work(each: dict) -> float:
    """Operations a token of a measured training."""
    full = each["precision"].startswith("full")
    setup = Setup(
        micro_batch=1,
        length=each.get("length", each["tokens"]),
        rank=None if full else each["rank"],
        checkpointing=each["checkpointing"],
        labelled=each.get("labelled", 1.0),
    )
    return operations(_shape(each), setup)
