"""How many tokens a second a training will see: what launching its kernels takes, or its arithmetic, if that is more.

Both are read off trainings that were measured, as a roofline is (Williams et al. 2009, doi:10.1145/1498765.1498785). No
training can take less than the processor needs to launch its kernels, which goes by layers and micro-batches, however
large; captured graphs are launched at once. And none can take less than its operations take at the GPU's rate.
Onto another GPU that rate is scaled by those of the datasheets, of arithmetic in bfloat16 and of memory, which give a
lower and an upper bound; launching is not scaled, since it is the processor's.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from trainers.planning.setup import Setup
from trainers.planning.shape import Shape, of_config

MEASUREMENTS = Path(__file__).with_name("measurements.json")
"""Trainings that were measured: ``gpu`` (PyTorch's name), ``model`` (the sizes in its ``config.json``), ``precision``
(:attr:`Setup.precision`), ``rank``, ``targets`` (all linear maps where it is missing), ``compiled``, ``captured``,
``checkpointing``, ``tokens`` (of a micro-batch), ``tokens_per_second`` (of one device), ``peak_allocated_bytes``,
``versions`` and ``source``."""


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
    found = _alike(words)
    return found[0] if len(found) == 1 else None


def candidates(name: str) -> list[str]:
    """The datasheets' keys that a name may mean."""
    return _alike(set(re.split(r"[\s-]+", name.lower().strip())) - MAKER)


def _alike(words: set[str]) -> list[str]:
    keys = {key: set(key.lower().split()) for key in GPUS}
    return [key for key, own in keys.items() if own <= words or (words and words <= own)]


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


def of(model: Shape, setup: Setup, name: str, measured: list[dict], fullness: float = 1.0) -> Speed | None:
    """The speed on the GPU ``name`` (a key of :data:`GPUS`); None where nothing was measured.

    Args:
        fullness: the share of a micro-batch's tokens that are there: launching takes as long for fewer.
    """
    on_it = [each for each in measured if gpu(each["gpu"]) == name] or measured
    alike = [each for each in on_it if each["compiled"] == setup.compiled] or on_it
    if not alike:
        return None
    launch = 0.0 if setup.captures else model.layers * _launch_of_a_layer(setup, alike)
    captured = [each for each in alike if each["captured"]]  # others may have waited for launches
    rate = max(_rate(each) for each in [each for each in captured if each["precision"] == setup.precision] or alike)
    other = gpu(alike[0]["gpu"])
    scales = [1.0]
    if other != name and other is not None:
        scales = [getattr(GPUS[name], what) / getattr(GPUS[other], what) for what in ("operations", "bandwidth")]
    tokens = fullness * setup.tokens
    work = tokens * operations(model, setup)
    seconds = [max(launch, work / (rate * scale)) for scale in scales]
    return Speed(
        tokens / max(seconds),
        tokens / min(seconds),
        _source(alike[0]["gpu"], rate, launch, is_bound=launch == max(seconds))
        + (f"; scaled to {name} by the datasheets' rates of memory and of arithmetic" if len(scales) > 1 else ""),
    )


def _source(name: str, rate: float, launch: float, is_bound: bool) -> str:
    found = f"from trainings measured on {name}: {rate / 1e12:.0f} trillion operations a second"
    if launch:
        found += f", and {launch:.2f} s to launch a micro-batch's kernels"
    return found + (", which binds here: larger micro-batches cost no time" if is_bound else "")


def _launch_of_a_layer(setup: Setup, measured: list[dict]) -> float:
    """The least that a layer's micro-batch took where kernels are launched one by one: in trainings that launch the
    same ones, as far as that is measured. Dequantizing and computing a layer again take more of them."""
    launched = [each for each in measured if not each["captured"]]
    same = [each for each in launched if _kernels(**each) == _kernels(setup.precision, setup.checkpointing)]
    return min((_launch(each) for each in same or launched), default=0.0)


def _kernels(precision: str, checkpointing: str, **_) -> tuple[bool, bool]:
    """Whether a layer's weights are dequantized, and whether it is computed again."""
    return precision == "nf4", checkpointing != "off"


def _launch(each: dict) -> float:
    """Seconds a layer of a measured training's micro-batch, all in all: launching took that long at most."""
    return each["tokens"] / each["tokens_per_second"] / _shape(each).layers


def _rate(each: dict) -> float:
    """Operations a second of a measured training: the GPU can do as many at least."""
    full = each["precision"].startswith("full")
    setup = Setup(
        micro_batch=1,
        length=each.get("length", each["tokens"]),
        rank=None if full else each["rank"],
        targets=each.get("targets", "all-linear"),
        checkpointing=each["checkpointing"],
        labelled=each.get("labelled", 1.0),
    )
    return each["tokens_per_second"] * operations(_shape(each), setup)


def _shape(each: dict) -> Shape:
    return of_config(each["model"])
