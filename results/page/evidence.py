"""What a report is made of: runs, the comparison of them, and what a study folder knows beside."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtasks.errors import InputError
from results import harness_output, runs
from results.comparison import MEAN, compare
from results.pairing import PairedTask, pair
from results.runs import Run
from results.studies import study as studies
from results.studies.study import Study


@dataclass(frozen=True)
class Evidence:
    """Everything a report says is computed from this.

    Attributes:
        name: of the study, or of the runs compared.
        base: the run that the others are compared with.
        runs: name -> run, the base first.
        paired: task -> the answers of all runs to its items, in one order; the tasks that every run has.
        comparison: what :func:`results.comparison.compare` found.
        folder, study: the study's folder and what it says of itself; None where runs were given.
    """

    name: str
    base: str
    runs: dict[str, Run]
    paired: dict[str, PairedTask]
    comparison: dict
    folder: Path | None = None
    study: Study | None = None

    @property
    def variants(self) -> list[str]:
        """The runs that are compared with the base."""
        return [name for name in self.runs if name != self.base]

    @property
    def unfinished(self) -> list[str]:
        """Variants of the study that have not been evaluated."""
        return [name for name in self.study.variants if name not in self.runs] if self.study else []

    @property
    def tasks(self) -> list[str]:
        """The tasks that every run has."""
        return list(self.paired)

    @property
    def prompts_differ(self) -> bool:
        """Whether runs were asked with different prompts, which the reader of the page must allow."""
        return any(task.prompts_differ for task in self.paired.values())

    @property
    def overall(self) -> str:
        """The task that stands for all: their mean, or the only one."""
        return MEAN if len(self.tasks) > 1 else self.tasks[0]

    def estimate(self, variant: str, task: str) -> dict:
        """The comparison's row of one variant's accuracy."""
        return _row(self.comparison["estimates"], variant, task)

    def difference(self, variant: str, task: str) -> dict:
        """The comparison's row of one variant against the base."""
        return _row(self.comparison["comparisons"], variant, task)

    def record(self, *parts: str) -> dict | list | None:
        """A JSON file of the study folder; None where there is none, or no study.

        Raises:
            InputError: it is damaged.
        """
        file = self.folder.joinpath(*parts) if self.folder else None
        return _json(file) if file and file.is_file() else None


def _row(rows: list[dict], variant: str, task: str) -> dict:
    return next(row for row in rows if row["variant"] == variant and row["task"] == task)


def _json(file: Path) -> dict | list:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: damaged or unreadable ({error}); run the study again") from error


def gather(
    paths: Sequence[Path],
    base: str | None = None,
    names: Sequence[str] = (),
    allow: Collection[str] = (),
    metric: str | None = None,
    filter_name: str | None = None,
) -> Evidence:
    """Read a study folder, or runs of any lm-eval.

    Args:
        paths: one study folder, or several runs.
        base: the run to compare with; a study's own base, or the first run, if None.
        names: what to call the runs; their folders' names if empty.
        allow: differences between runs to let pass, of :data:`results.pairing.ALLOWED`.
        metric, filter_name: of runs, as in :func:`results.harness_output.predictions`.

    Raises:
        InputError: nothing is there, it is damaged, or the runs cannot be compared.
    """
    paths = [path.expanduser() for path in paths]
    if len(paths) == 1 and (paths[0] / studies.FILE).is_file():
        return _study(paths[0], base, allow)
    if len(paths) == 1:
        raise InputError(f"{paths[0]}: no {studies.FILE}, so not a study's folder; give one, or at least two runs")
    found = runs.read_all(paths, names, metric, filter_name)
    base = base or found[0].name
    others = [run.name for run in found if run.name != base]
    return _compared(f"{' and '.join(others)} against {base}", found, base, allow)


def _study(folder: Path, base: str | None, allow: Collection[str]) -> Evidence:
    study, finished = studies.of_folder(folder), studies.runs_of(folder)
    base = base or study.reference
    if base not in finished:
        raise InputError(f"{folder}: the base '{base}' has not been evaluated; run the study, or give another --base")
    found = [runs.read(run, name) for name, run in finished.items()]
    return _compared(study.name, found, base, allow, folder, study)


def _compared(
    name: str,
    found: list[Run],
    base: str,
    allow: Collection[str],
    folder: Path | None = None,
    study: Study | None = None,
) -> Evidence:
    paired, _ = pair(found, base, allow)
    ordered = dict(sorted(((run.name, run) for run in found), key=lambda named: named[0] != base))
    return Evidence(name, base, ordered, paired, compare(found, base, allow=allow), folder, study)


def adapter(run: Run) -> str | None:
    """The folder of the adapter that the run's model has; None for a plain model."""
    return harness_output.model_args(run.results).get("peft") or None


def trained_by(run: Run) -> str | None:
    """The name of the training that made the run's adapter: of its folder, which holds it as ``adapter``."""
    path = Path(adapter(run) or "")
    return path.parent.name if path.name == "adapter" else path.name or None


def passages(run: Run) -> int:
    """How many passages stood before each item."""
    return int(run.results.get("config", {}).get("rag_k") or 0)


OF_TRAININGS = ("model", "merged")
"""The folders of a training that hold a whole model."""


def model(run: Run) -> str:
    """The name of the run's base model: its Hub id, or the last part of its folder; ``model NAME`` of what a training
    left in ``NAME/model``, ``merged NAME`` of ``NAME/merged``. lm-eval names a model with an adapter by the adapter."""
    results = run.results
    name = str(results.get("model_name") or results.get("config", {}).get("model") or "unknown")
    if name == adapter(run):
        name = str(harness_output.model_args(results).get("pretrained") or name)
    if not name.startswith((".", "/", "~")) and name.count("/") < 2:
        return name
    path = Path(name)
    return f"{path.name} {path.parent.name}" if path.name in OF_TRAININGS else path.name


def adds(run: Run, base: Run) -> str:
    """What a run's model is, in words: its name where it is not the base's, adapter and passages."""
    config, parts = run.results.get("config", {}), []
    if model(run) != model(base):
        parts.append(model(run))
    if training := trained_by(run):
        parts.append(f"adapter {training}")
    if passages(run) or config.get("rag_mode", "always") != "always":
        parts.append(_shown(config))
    return " + ".join(parts) or "the model alone"


def _shown(config: dict) -> str:
    """The passages of a run, in words: ``3 random passages of books (gate+mix)``, ``4 solved questions of
    items:medqa``, ``the item's own context after 4 solved questions``."""
    k, kind = int(config["rag_k"]), config.get("rag_context", "retrieved")
    corpus = config.get("rag_corpus", {})
    which = "" if kind == "retrieved" else f"{kind} "
    what = "solved question" if corpus.get("solved") else "passage"
    of_kind = {"none": "no passages", "oracle": "the item's own context"}
    found = of_kind.get(kind, f"{k} {which}{what}{'s' if k > 1 else ''} of {_short(corpus.get('name', 'an index'))}")
    if (before := config.get("rag_examples")) and kind != "none":
        found += f" after {before['shots']} {'random ' if kind == 'random' else ''}solved questions"
    mode = config.get("rag_mode", "always")
    return found if mode == "always" else f"{found} ({mode})"


def _short(names: str) -> str:
    """The names of corpora; of more than three the first and how many others there are."""
    first, *others = names.split(", ")
    return names if len(others) < 3 else f"{first} and {len(others)} others"
