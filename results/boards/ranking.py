"""Rank leaderboard files, ours or anyone's: mean accuracy with its interval, ranks that overlapping intervals share.

**Rank** = 1 + the number of models whose interval lies wholly above this one's (Chatbot Arena's approximate ranking:
Chiang et al. 2024, arXiv:2403.04132). A rank counts what is better beyond doubt, so it needs no transitivity of "cannot
be told apart", and a model whose interval reaches higher never ranks worse. All models may be first.

**Mean**: tasks weigh alike, as on the leaderboard. **Interval**: normal, 95%, from the tasks' standard errors, those in
the file or else the binomial's on the official number of items. It takes runs as independent; two runs on the same
items are told apart more sharply by their paired difference (``medadapt compare``), which these files do not hold.

**Boards**: files are grouped by their set of tasks. One with the leaderboard's nine is of that board; one with some of
the nine and nothing else (unless marked as ours, ``config.prompts``) is incomplete there: listed apart, unranked.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from medtasks import catalogue
from medtasks.errors import InputError
from results.boards import leaderboard, submission

Z = NormalDist().inv_cdf(0.975)
DATE = re.compile(r"(\d{4}-\d\d-\d\d)[ _T](\d\d)[-:_](\d\d)[-:_](\d\d)(?:[.,](\d+))?")


@dataclass(frozen=True)
class Entry:
    """One leaderboard file.

    Attributes:
        model: ``config.model_name``.
        dtype: ``config.model_dtype``, "" if it is not there.
        date: of the evaluation, from the file's name, spelled to be sorted; "" if it has none.
        accuracies: task -> (share right, standard error or None).
        is_ours: whether the tasks bear medadapt's names and prompts.
    """

    model: str
    dtype: str
    date: str
    accuracies: dict[str, tuple[float, float | None]]
    is_ours: bool


@dataclass(frozen=True)
class Place:
    """A ranked entry: its rank, and the mean over the board's tasks with its interval (shares)."""

    rank: int
    entry: Entry
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Board:
    """Entries of the same tasks: the ranked, best mean first, and the unranked with the reason."""

    tasks: tuple[str, ...]
    ranked: list[Place]
    unranked: list[tuple[Entry, str]]


def find(path: Path) -> list[Path]:
    """The leaderboard files that ``path`` is or that lie below it, in order of their names.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return [path]
    files = [
        file
        for file in sorted(path.rglob("results_*.json"))
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
        and not file.stem.endswith("-checkpoint")
    ]
    if not files:
        raise InputError(f"{path}: no <org>/<model>/results_<datetime>.json below it")
    return files


def read(file: Path) -> Entry:
    """One file.

    Raises:
        InputError: damaged, or no leaderboard file.
    """
    content = leaderboard.read(file)
    if isinstance(content, dict) and "configs" in content and "model_name" not in (content.get("config") or {}):
        raise InputError(
            f"{file}: lm-eval's own results; make a leaderboard file of them with `medadapt submit {file}`"
        )
    leaderboard.check(content, file, kind="file")
    config = content["config"]
    accuracies = {
        task: pair for task, metrics in content["results"].items() if (pair := _accuracy(file, task, metrics))
    }
    if not accuracies:
        raise InputError(f"{file}: not a leaderboard file: no task has acc,none")
    return Entry(
        model=config["model_name"],
        dtype=(config.get("model_dtype") or "").removeprefix("torch."),
        date=_date(file.stem),
        accuracies=accuracies,
        is_ours=config.get("prompts") == leaderboard.OURS,
    )


def _accuracy(file: Path, task: str, metrics: dict) -> tuple[float, float | None] | None:
    """Accuracy and standard error under any answer filter, or under none (``acc``, as hand-made files have it)."""
    found = {metric: value for metric, value in metrics.items() if metric == "acc" or metric.startswith("acc,")}
    if not found:
        return None
    metric = "acc,none" if "acc,none" in found else min(found)
    value, error = found[metric], metrics.get(f"acc_stderr{metric.removeprefix('acc')}")
    if not _is_number(value) or not 0 <= value <= 1:
        raise InputError(f"{file}: not a leaderboard file: {task}: {metric} is {value}, not a share between 0 and 1")
    return float(value), float(error) if _is_number(error) and error >= 0 else None


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _date(name: str) -> str:
    found = DATE.search(name)
    return f"{found[1]}T{found[2]}:{found[3]}:{found[4]}.{(found[5] or '0'):0<6}" if found else ""


def boards(entries: Iterable[Entry]) -> list[Board]:
    """All entries, ranked among those of the same tasks; the board of most models first."""
    of_tasks: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        of_tasks.setdefault(_board_of(entry), []).append(entry)
    found = [_board(tasks, _newest(tasks, group)) for tasks, group in of_tasks.items()]
    return sorted(found, key=lambda board: (-len(board.ranked) - len(board.unranked), board.tasks))


def _board_of(entry: Entry) -> tuple[str, ...]:
    """The tasks that an entry is ranked by."""
    nine, asked = set(leaderboard.TASKS), set(entry.accuracies)
    if not entry.is_ours and (asked >= nine or asked <= nine):
        return tuple(leaderboard.TASKS)
    return tuple(sorted(asked))


def _newest(tasks: Sequence[str], entries: list[Entry]) -> list[Entry]:
    """Of each model and dtype the newest entry, complete ones before incomplete ones."""
    chosen: dict[tuple[str, str], Entry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.accuracies.keys() >= set(tasks), entry.date)):
        chosen[entry.model, entry.dtype] = entry
    return list(chosen.values())


def _board(tasks: tuple[str, ...], entries: list[Entry]) -> Board:
    means, unranked = [], []
    for entry in entries:
        missing = [task for task in tasks if task not in entry.accuracies]
        unknown = [] if missing else [task for task in tasks if _stderr(entry, task) is None]
        if missing:
            unranked.append((entry, f"no {', '.join(missing)}"))
        elif unknown:
            unranked.append((entry, f"no interval: neither acc_stderr nor a known size of {', '.join(unknown)}"))
        else:
            means.append((entry, *_mean(entry, tasks)))
    places = [
        Place(1 + sum(other_low > high for _, _, other_low, _ in means), entry, mean, low, high)
        for entry, mean, low, high in means
    ]
    places.sort(key=lambda place: (-place.mean, place.entry.model, place.entry.dtype))
    return Board(tasks, places, sorted(unranked, key=lambda pair: (pair[0].model, pair[0].dtype)))


def _mean(entry: Entry, tasks: Sequence[str]) -> tuple[float, float, float]:
    """Mean over tasks and the ends of its interval."""
    mean = math.fsum(entry.accuracies[task][0] for task in tasks) / len(tasks)
    half = Z * math.sqrt(math.fsum(_stderr(entry, task) ** 2 for task in tasks)) / len(tasks)
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def _stderr(entry: Entry, task: str) -> float | None:
    """Standard error of a task's accuracy: the file's, or the binomial's on the official number of items."""
    value, error = entry.accuracies[task]
    if error is not None:
        return error
    if not entry.is_ours and task in leaderboard.TASKS:
        items = submission.sizes([task])[task]
    else:
        ours = catalogue.tasks().get(task)
        items = ours.about.items if ours else None
    return math.sqrt(value * (1 - value) / items) if items else None
