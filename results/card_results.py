"""What a model card says of results: the runs of an adapter and its base, their comparison, and how to read it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtasks import catalogue
from medtasks.errors import InputError
from results import runs
from results.comparison import MEAN, POOLED, compare
from results.runs import Run
from results.training_records import Training
from trainers import run_folder

ALPHA = 0.05


@dataclass(frozen=True)
class Evidence:
    """Runs for a card.

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
    if not (study / "study.json").is_file():
        raise InputError(f"{study}: no study.json, so not a study's folder")
    definition = json.loads((study / "study.json").read_text(encoding="utf-8"))
    name = next((name for name in definition["trainings"] if _is_training(study, name, training)), None)
    if name is None:
        known = ", ".join(definition["trainings"]) or "none"
        raise InputError(f"{study}: none of its trainings ({known}) is that of {training.folder}")
    variants = definition["variants"]
    done = [variant for variant in variants if (study / "runs" / variant / runs.PREDICTIONS).is_file()]
    read = {variant: runs.read(study / "runs" / variant, name=variant) for variant in done}
    base = next((v for v in done if variants[v]["training"] is None and variants[v]["index"] is None), None)
    adapted = [read[variant] for variant in done if variants[variant]["training"] == name]
    if base is None or not adapted:
        missing = "the base" if base is None else f"a variant with the training {name}"
        raise InputError(f"{study}: no finished run of {missing}; run the study again, it does what is missing")
    record = study / "steps" / f"train-{name}.json"
    step = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    settings = definition["trainings"][name]
    return Evidence(
        adapter=adapted,
        base=read[base],
        comparison=compare(list(read.values()), base),
        origin=definition.get("source"),
        recipe=(settings["stage"], settings["recipe"]),
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


def uses_passages(run: Run) -> bool:
    """Whether passages were added to the prompts, so that the run says something of more than the adapter."""
    config = run.results["config"]
    return config.get("model") == "rag" or "rag_index" in config


def is_official(run: Run, task: str) -> bool:
    """Whether the run asked the whole official test set of one of our tasks."""
    known = catalogue.tasks().get(task)
    return known is not None and len(run.tasks[task]) == known.about.items


def eval_results(evidence: Evidence) -> list:
    """The card's ``model-index``: accuracy of the adapter alone on each official test set (shares, 4 decimals).

    Returns:
        ``huggingface_hub.EvalResult`` objects.
    """
    from huggingface_hub import EvalResult

    known, found = catalogue.tasks(), []
    for run in evidence.adapter:
        for task, rows in run.tasks.items():
            if uses_passages(run) or not is_official(run, task):
                continue
            about, shots = known[task].about, run.results.get("n-shot", {}).get(task)
            found.append(
                EvalResult(
                    task_type="multiple-choice",
                    task_name="Multiple choice",
                    dataset_type=known[task].dataset,
                    dataset_name=task,
                    dataset_split=about.split,
                    dataset_args={"num_few_shot": shots},
                    metric_type="accuracy",
                    metric_name=f"accuracy on {task}",
                    metric_value=round(sum(row["correct"] for row in rows) / len(rows), 4),
                )
            )
    return found


def reading(rows: Sequence[dict]) -> list[str]:
    """What the differences of one run to its base show and do not show, a sentence each."""
    tasks = [row for row in rows if row["task"] != MEAN]
    known = [row for row in tasks if row["p_holm"] is not None]
    better = [row for row in known if row["p_holm"] < ALPHA and row["difference"] > 0]
    worse = [row for row in known if row["p_holm"] < ALPHA and row["difference"] < 0]
    open_ = [row for row in known if row["p_holm"] >= ALPHA]
    sentences = []
    for found, word in ((better, "Better"), (worse, "Worse")):
        if found:
            named = ", ".join(f"{row['task']} ({100 * row['difference']:+.1f} points)" for row in found)
            sentences.append(f"{word} than the base beyond chance (Holm-corrected p < {ALPHA}): {named}.")
    if open_:
        named = ", ".join(f"{row['task']} ({100 * row['difference']:+.1f})" for row in open_)
        sentences.append(f"Not told apart from the base by these items: {named}. That is no proof of equality.")
    if seen := [row["detectable"] for row in tasks if row["detectable"] is not None]:
        low, high = 100 * min(seen), 100 * max(seen)
        span = f"{low:.1f}" if round(low, 1) == round(high, 1) else f"{low:.1f} to {high:.1f}"
        sentences.append(
            f"A single task shows a true difference of {span} points with 80% power, before the correction; smaller ones "
            "are likely to go unseen."
        )
    return sentences
