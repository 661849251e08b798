"""What each variant cost: time, memory, energy and speed, out of a study's step records and trainings."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from results.page.evidence import Evidence

HOUR = 3_600


@dataclass
class Cost:
    """The cost of one variant: of its own steps and of those that it needs, which variants may share.

    Attributes:
        hours: step kind (index, training, evaluation) -> hours of wall time, times the number of devices.
        devices: what it ran on, as recorded.
        on_gpu: whether every step recorded a GPU.
        peak_bytes: most memory of a step: of the GPU if one used a GPU, else of the processes; None if unknown.
        joules: energy of the GPUs; None unless every step recorded it.
        tokens_per_second: of the training, of the evaluation; None if unknown.
    """

    hours: dict[str, float] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    on_gpu: bool = False
    peak_bytes: int | None = None
    joules: float | None = None
    training_tokens_per_second: float | None = None
    evaluation_tokens_per_second: float | None = None

    @property
    def total(self) -> float:
        """Hours of all steps."""
        return sum(self.hours.values())


def of(found: Evidence) -> dict[str, Cost]:
    """Variant -> its cost; variants of which no step is recorded are left out, so a bare run has none."""
    costs = {name: _cost(found, name) for name in found.runs} if found.study else {}
    return {name: cost for name, cost in costs.items() if cost.hours}


def _cost(found: Evidence, variant: str) -> Cost:
    settings = found.study.variants[variant]
    names = {"index": settings.index, "training": settings.training, "evaluation": variant}
    prefixes = {"index": "index", "training": "train", "evaluation": "eval"}
    cost, steps = Cost(), {}
    for kind, name in names.items():
        step = found.record("steps", f"{prefixes[kind]}-{name}.json") if name else None
        if step and "seconds" in step:
            steps[kind] = step
    if "training" in steps:
        trained = found.record("trainings", settings.training, "cost.json") or {}
        steps["training"] = _with_training(steps["training"], trained)
    for kind, step in steps.items():
        device = step.get("device")
        cost.hours[kind] = step["seconds"] * count(device) / HOUR
        if device and device not in cost.devices:
            cost.devices.append(device)
    cost.on_gpu = all("cpu" not in (step.get("device") or "cpu").lower() for step in steps.values())
    peaks = [[step[key] for step in steps.values() if step.get(key)] for key in ("peak_gpu_bytes", "peak_rss_bytes")]
    cost.peak_bytes = max(peaks[0] or peaks[1], default=None)
    energies = [step.get("gpu_joules") for step in steps.values()]
    cost.joules = sum(energies) if energies and None not in energies else None
    cost.training_tokens_per_second = steps.get("training", {}).get("tokens_per_second")
    if (step := steps.get("evaluation", {})).get("tokens") and step["seconds"]:
        cost.evaluation_tokens_per_second = step["tokens"] / step["seconds"]
    return cost


def _with_training(step: dict, trained: dict) -> dict:
    """A step's record with what the training noted itself, which fills in records of earlier versions."""
    device = step.get("device") or trained.get("device")
    memory = "peak_rss_bytes" if device and "cpu" in device.lower() else "peak_gpu_bytes"
    known = {name: value for name, value in step.items() if value is not None}
    step = {"device": device, memory: trained.get("peak_memory_bytes"), **known}
    if trained.get("train_seconds") and trained.get("tokens_seen"):
        step["tokens_per_second"] = trained["tokens_seen"] / trained["train_seconds"]
    return step


def count(device: str | None) -> int:
    """Devices that ``2 x NVIDIA ...`` names; the cores of a CPU count as one device."""
    found = re.match(r"(\d+) x (?!cpu)", device or "")
    return int(found[1]) if found else 1


@dataclass(frozen=True)
class Unit:
    """``name``: of the unit that times are drawn in; ``per_hour``: how many an hour has."""

    name: str
    per_hour: int


def unit(costs: dict[str, Cost]) -> Unit:
    """Hours, or minutes where no variant took an hour; of GPUs where every step recorded one."""
    of = "GPU " if all(cost.on_gpu for cost in costs.values()) else ""
    return Unit(f"{of}hours", 1) if max(cost.total for cost in costs.values()) >= 1 else Unit(f"{of}minutes", 60)


def losses(found: Evidence) -> dict[str, list[dict]]:
    """Training -> its logged steps; the first stage of ``msft`` is ``msft/cpt``."""
    folder = found.folder / "trainings" if found.folder else None
    files = sorted([*folder.glob("*/loss.json"), *folder.glob("*/*/loss.json")]) if folder else []
    return {_name(file, folder): found.record(*file.relative_to(found.folder).parts) for file in files}


def _name(file: Path, folder: Path) -> str:
    return file.parent.relative_to(folder).as_posix()
