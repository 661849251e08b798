"""Put the answers of several runs side by side, item by item, and refuse runs that were not asked the same.

Items are joined on lm-eval's hash of the document, in whatever order the runs have them; on their ids where a run of
an earlier version has no hashes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medtasks.errors import InputError
from results.runs import Run

PROMPTS, VERSIONS = "prompts", "versions"
ALLOWED = (PROMPTS, VERSIONS)
"""Differences between runs that can be let pass."""


@dataclass(frozen=True)
class PairedTask:
    """The answers of several runs to the items of one task.

    Attributes:
        rows: run -> its predictions, all in one order of the items.
        first: (n,) whether an item occurs for the first time; a few benchmarks ask some questions twice.
        clusters: (n,) the cluster of each item, numbered from 0: its versions and repetitions share one.
    """

    rows: dict[str, list[dict]]
    first: np.ndarray
    clusters: np.ndarray

    @cached_property
    def correct(self) -> dict[str, np.ndarray]:
        """Run -> (n,) 0/1."""
        return {name: np.array([row["correct"] for row in rows]) for name, rows in self.rows.items()}

    @property
    def prompts_differ(self) -> bool:
        """Whether some item was asked with different prompts (known where the runs recorded their hashes)."""
        asked = zip(*([row["prompt_hash"] for row in rows] for rows in self.rows.values()), strict=True)
        return any(len(set(hashes) - {None}) > 1 for hashes in asked)

    @property
    def n(self) -> int:
        """Items as they were asked."""
        return len(self.clusters)

    @property
    def n_distinct(self) -> int:
        """Independent items, which tests count: versions and repetitions of an item are one."""
        return int(self.clusters.max()) + 1


def pair(runs: Sequence[Run], base: str, allow: Collection[str] = ()) -> tuple[dict[str, PairedTask], dict[str, str]]:
    """The tasks that all runs answered, and why others are left out.

    Args:
        base: the name of the run that the messages compare with.
        allow: which of :data:`ALLOWED` to let pass.

    Raises:
        InputError: two runs of one name, no such base, no common task; different items, prompts or versions of a task.
    """
    by_name = {run.name: run for run in runs}
    if len(by_name) < len(runs):
        names = [run.name for run in runs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{names.count(twice)} runs are named '{twice}'; give each a name of its own with --names")
    if base not in by_name:
        raise InputError(f"no run is named '{base}'; --base takes one of {', '.join(by_name)}")
    if unknown := sorted(set(allow) - set(ALLOWED)):
        raise InputError(f"'{unknown[0]}' cannot be allowed; --allow takes {', '.join(ALLOWED)}")
    tasks = list(dict.fromkeys(task for run in (by_name[base], *runs) for task in run.tasks))
    without = {task: [run.name for run in runs if not run.tasks.get(task)] for task in tasks}
    common = [task for task in tasks if not without[task]]
    if not common:
        have = "; ".join(f"{run.name}: {', '.join(run.tasks) or 'none'}" for run in runs)
        raise InputError(f"the runs have no task in common ({have}); evaluate them on the same tasks")
    left_out = {task: f"not in {', '.join(names)}" for task, names in without.items() if names}
    return {task: _pair_task(task, runs, by_name[base], allow) for task in common}, left_out


def _pair_task(task: str, runs: Sequence[Run], base: Run, allow: Collection[str]) -> PairedTask:
    item = _identity([row for run in runs for row in run.tasks[task]])
    keyed = {run.name: _keyed(run.tasks[task], item) for run in runs}
    order = sorted(keyed[base.name])
    for run in runs:
        _require_same_version(task, run, base, allow)
        _require_same_items(task, run.name, base.name, keyed)
    rows = {name: [found[key] for key in order] for name, found in keyed.items()}
    for run in runs:
        _require_same_prompts(task, run.name, base.name, rows, allow)
    groups = [row["group"] for row in rows[base.name]]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    first = np.array([occurrence == 0 for _, occurrence in order])
    return PairedTask(rows, first, np.array([numbers[group] for group in groups]))


def _identity(rows: list[dict]) -> Callable[[dict], str]:
    field = "doc_hash" if all(row["doc_hash"] for row in rows) else "id"
    return lambda row: row[field]


def _keyed(rows: list[dict], item: Callable[[dict], str]) -> dict[tuple[str, int], dict]:
    """(item, how often it occurred before) -> its row."""
    seen: dict[str, int] = {}
    keyed = {}
    for row in rows:
        key = item(row)
        keyed[key, seen.get(key, 0)] = row
        seen[key] = seen.get(key, 0) + 1
    return keyed


def _require_same_version(task: str, run: Run, base: Run, allow: Collection[str]) -> None:
    ours, theirs = (side.results.get("versions", {}).get(task) for side in (run, base))
    if VERSIONS not in allow and None not in (ours, theirs) and ours != theirs:
        raise InputError(
            f"{run.name} answered version {ours} of {task}, {base.name} version {theirs}; evaluate again with one "
            f"version, or give --allow {VERSIONS}"
        )


def _require_same_items(task: str, run: str, base: str, keyed: dict[str, dict]) -> None:
    ours, theirs = keyed[run].keys(), keyed[base].keys()
    if ours != theirs:
        raise InputError(
            f"{run} and {base} did not answer the same items of {task}: {len(ours - theirs)} of {len(ours)} only in "
            f"{run}, {len(theirs - ours)} of {len(theirs)} only in {base}; evaluate both on the same data and --limit"
        )


def _require_same_prompts(task: str, run: str, base: str, rows: dict[str, list[dict]], allow: Collection[str]) -> None:
    pairs = [(a["prompt_hash"], b["prompt_hash"]) for a, b in zip(rows[run], rows[base], strict=True)]
    different = sum(None not in pair and pair[0] != pair[1] for pair in pairs)
    if PROMPTS not in allow and different:
        raise InputError(
            f"{run} and {base} were asked {different} of {len(pairs)} items of {task} with different prompts; evaluate "
            f"both with the same few-shot examples and chat template, or give --allow {PROMPTS}"
        )
