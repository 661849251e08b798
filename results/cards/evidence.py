"""The runs of an adapter and its base, and their comparison: what a model card's results rest on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtasks.errors import InputError
from results import runs
from results.cards.training_records import Training
from results.comparison import MEAN, POOLED, compare
from results.runs import Run
from results.studies import study as studies
from trainers import run_folder


@dataclass(frozen=True)
class Evidence:
    """Runs of an adapter.

    Attributes:
        adapter: the runs of the adapter.
        base: the base's run, or None.
        comparison: of these and, of a study, all other runs (:func:`results.comparison.compare`): its Holm correction
            then counts every comparison that was made.
        origin: where the study's data came from: ``sample``, ``hub``, a folder, or None if that is not known.
        recipe: (stage, recipe file) that the study names for the training, or None.
        joules: of the GPU during training, or None if not measured.
    """

    adapter: list[Run]
    base: Run | None
    comparison: dict
    origin: str | None = None
    recipe: tuple[str, str] | None = None
    joules: float | None = None

    @property
    def tasks(self) -> list[str]:
        """The tasks that were compared."""
        return [task for task in dict.fromkeys(row["task"] for row in self.estimates()) if task not in (MEAN, POOLED)]

    def estimates(self) -> list[dict]:
        """Rows of the base and the adapter, less the pooled ones."""
        names = [run.name for run in ([self.base] if self.base else []) + self.adapter]
        rows = [row for row in self.comparison["estimates"] if row["variant"] in names and row["task"] != POOLED]
        return sorted(rows, key=lambda row: names.index(row["variant"]))

    def differences(self, run: Run) -> list[dict]:
        """Rows of the adapter's ``run`` minus the base; empty without a base."""
        rows = self.comparison["comparisons"] if self.base else []
        return [row for row in rows if row["variant"] == run.name and row["task"] != POOLED]


def of_study(study: Path, training: Training) -> Evidence:
    """The runs of a study's variants that use ``training``, compared with its base among all of its runs.

    Raises:
        InputError: no study, no such training in it, or no finished run of base and training.
    """
    definition = studies.of_folder(study)
    name = next((name for name in definition.trainings if _is_training(study, name, training)), None)
    if name is None:
        known = ", ".join(definition.trainings) or "none"
        raise InputError(f"{study}: none of its trainings ({known}) is that of {training.folder}")
    read = {variant: runs.read(run, name=variant) for variant, run in studies.runs_of(study).items()}
    base = definition.reference
    adapted = [run for variant, run in read.items() if definition.variants[variant].training == name]
    if base not in read or not adapted:
        missing = "the base" if base not in read else f"a variant with the training {name}"
        raise InputError(f"{study}: no finished run of {missing}; run the study again, it does what is missing")
    record = study / "steps" / f"train-{name}.json"
    step = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    settings = definition.trainings[name]
    return Evidence(
        adapter=adapted,
        base=read[base],
        comparison=compare(list(read.values()), base),
        origin=definition.source,
        recipe=(settings.stage, settings.recipe),
        joules=step.get("gpu_joules"),
    )


def _is_training(study: Path, name: str, training: Training) -> bool:
    record = study / "trainings" / name / run_folder.FINISHED
    return record.is_file() and training.is_same(json.loads(record.read_text(encoding="utf-8")))


def of_runs(adapter: Sequence[Path], base: Path | None) -> Evidence:
    """Runs given one by one.

    Raises:
        InputError: one cannot be read, or they cannot be compared.
    """
    read = [runs.read(path) for path in adapter]
    reference = runs.read(base, name="base") if base else None
    together = ([reference] if reference else []) + read
    return Evidence(read, reference, compare(together, together[0].name))
