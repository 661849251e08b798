"""What each variant cost: time, memory, energy and speed, out of a study's step records and trainings."""

import re
from dataclasses import dataclass
from pathlib import Path

from medtasks.errors import InputError
from results.page.evidence import Evidence

HOUR = 3_600
STEPS = {"index": "index", "training": "train", "evaluation": "eval"}
"""Kind of step -> how its record's name begins."""


@dataclass(frozen=True)
class Cost:
    """The cost of one variant: of its own steps and of those that it needs, which variants may share.

    Attributes:
        steps: kind (index, training, evaluation) -> record of the step (:mod:`results.studies.cost`), as far as
            it goes.
    """

    steps: dict[str, dict]

    @property
    def hours(self) -> dict[str, float]:
        """Kind of step -> hours of wall time, times the number of devices."""
        return {kind: step["seconds"] * count(step.get("device")) / HOUR for kind, step in self.steps.items()}

    @property
    def total(self) -> float:
        """Hours of all steps."""
        return sum(self.hours.values())

    @property
    def devices(self) -> list[str]:
        """What the steps ran on, as far as they recorded it."""
        return list(dict.fromkeys(step["device"] for step in self.steps.values() if step.get("device")))

    @property
    def on_gpu(self) -> bool:
        """Whether every step recorded a GPU."""
        return all("cpu" not in (step.get("device") or "cpu").lower() for step in self.steps.values())

    @property
    def peak_bytes(self) -> int | None:
        """Most memory of a step: of the GPU if one used a GPU, else of the processes; None if unknown."""
        return max(self._known("peak_gpu_bytes") or self._known("peak_rss_bytes"), default=None)

    @property
    def joules(self) -> float | None:
        """Energy of the GPUs; None unless every step recorded it."""
        energies = self._known("gpu_joules")
        return sum(energies) if len(energies) == len(self.steps) else None

    @property
    def training_tokens_per_second(self) -> float | None:
        """Speed of the training loop; None if unknown."""
        return self.steps.get("training", {}).get("tokens_per_second")

    @property
    def evaluation_tokens_per_second(self) -> float | None:
        """Prompt tokens by the seconds of the whole evaluation, loading included; None if unknown."""
        step = self.steps.get("evaluation", {})
        return step["tokens"] / step["seconds"] if step.get("tokens") and step["seconds"] else None

    def _known(self, name: str) -> list[float]:
        return [step[name] for step in self.steps.values() if step.get(name) is not None]


def of(found: Evidence) -> dict[str, Cost]:
    """Variant -> its cost; none for a variant that needs a step of which nothing is recorded, nor for bare runs."""
    costs = {name: _cost(found, name) for name in found.runs} if found.study else {}
    return {name: cost for name, cost in costs.items() if cost}


def _cost(found: Evidence, variant: str) -> Cost | None:
    settings = found.study.variants[variant]
    names = {"index": settings.index, "training": settings.training, "evaluation": variant}
    needed = {kind: f"{STEPS[kind]}-{name}.json" for kind, name in names.items() if name}
    steps = {kind: found.record("steps", file) for kind, file in needed.items()}
    if not all(step and "seconds" in step for step in steps.values()):
        return None
    if "training" in steps:
        trained = found.record("trainings", settings.training, "cost.json") or {}
        steps["training"] = _with_training(steps["training"], trained)
    return Cost(steps)


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
    """Training -> its logged steps; the first stage of ``msft`` is ``msft/cpt``.

    Raises:
        InputError: a history is damaged or none of our trainers.
    """
    folder = found.folder / "trainings" if found.folder else None
    files = sorted([*folder.glob("*/loss.json"), *folder.glob("*/*/loss.json")]) if folder else []
    histories = {file: found.record(*file.relative_to(found.folder).parts) for file in files}
    for file, history in histories.items():
        if not isinstance(history, list) or not all(
            isinstance(e, dict) and {"step", "loss"} <= set(e) for e in history
        ):
            raise InputError(f"{file}: not a loss history of these trainers; delete its folder and run the study again")
    return {_name(file, folder): history for file, history in histories.items()}


def _name(file: Path, folder: Path) -> str:
    return file.parent.relative_to(folder).as_posix()
