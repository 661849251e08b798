"""A run: one model's answers to the items of some tasks, read from anyone's lm-eval output or from a study.

A run folder of a study holds ``results.json`` (lm-eval's own file, less its listing of the machine),
``samples/<task>.jsonl`` (its per-item logs), ``retrieval/<task>.jsonl`` where passages were used, and
``predictions.jsonl``: one short line an item, enough for every statistic, without prompts or questions. It may be
packed (``gzip predictions.jsonl``).
"""

import gzip
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtasks import TASKS_DIR
from medtasks.errors import InputError
from medtasks.files import write_json, write_jsonl
from results import harness_output

PREDICTIONS = "predictions.jsonl"
PACKED = f"{PREDICTIONS}.gz"
RESULTS = "results.json"


@dataclass(frozen=True)
class Run:
    """One model's answers.

    Attributes:
        name: what tables call it.
        source: the folder or results file that it was read from.
        results: lm-eval's results file.
        tasks: task -> its predictions (:func:`results.harness_output.predictions`), in document order.
    """

    name: str
    source: Path
    results: dict
    tasks: dict[str, list[dict]]


def read(path: str | Path, name: str | None = None, metric: str | None = None, filter_name: str | None = None) -> Run:
    """Read a run of a study, or what ``lm_eval --log_samples --output_path`` left (its folder or results file).

    Args:
        name: what to call it; the folder's name if None.
        metric, filter_name: as in :func:`results.harness_output.predictions`; a study's run has only one of each.

    Raises:
        InputError: nothing is there, or it is damaged, cut off or of another version.
    """
    path = Path(path).expanduser()
    if is_finished(path):
        found, tasks = harness_output.results(path / RESULTS), predictions(path)
        for task, n in _asked(found).items():
            if len(tasks.get(task, ())) < n:
                raise InputError(
                    f"{_file(path)}: {len(tasks.get(task, ()))} of {n} items of {task}, so it was cut off; "
                    f"delete {path} and run the study again"
                )
        return Run(name or path.name, path, found, tasks)
    file = harness_output.find(path)
    found = harness_output.results(file)
    asked = _asked(found)
    tasks = {
        task: harness_output.predictions(task, samples, asked.get(task), metric, filter_name)
        for task, samples in harness_output.samples(file).items()
    }
    return Run(name or (path.name if path.is_dir() else path.parent.name), path, found, tasks)


def is_finished(run: Path) -> bool:
    """Whether the folder ``run`` is a run of a study that came to its end."""
    return _file(run).is_file()


def _file(run: Path) -> Path:
    return run / PACKED if (run / PACKED).is_file() else run / PREDICTIONS


def _asked(results: dict) -> dict[str, int]:
    """Task -> how many items lm-eval says it asked (in versions that say it)."""
    return {task: n["effective"] for task, n in results.get("n-samples", {}).items() if "effective" in n}


def read_all(
    paths: Sequence[Path], names: Sequence[str] = (), metric: str | None = None, filter_name: str | None = None
) -> list[Run]:
    """Several runs (:func:`read`), called ``names`` or, if these are none, as their folders.

    Raises:
        InputError: another number of names, or a run that cannot be read.
    """
    names = names or [path.resolve().name if path.is_dir() else None for path in paths]
    if len(names) != len(paths):
        raise InputError(f"--names holds {len(names)} names, but there are {len(paths)} runs; give one for each")
    return [read(path, name, metric, filter_name) for path, name in zip(paths, names, strict=True)]


def collect(output: Path, run: Path) -> None:
    """Turn lm-eval's output folder into the run folder ``run``, put in place whole by one rename.

    Raises:
        InputError: lm-eval left no results or no samples (it only warns when it cannot write), or damaged ones.
    """
    answered = read(output)
    results = harness_output.find(output)
    temporary = run.with_name(f".{run.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "samples").mkdir(parents=True)
    kept = json.loads(_relative(json.dumps(answered.results)))
    kept.pop("pretty_env_info", None)
    write_json(temporary / RESULTS, kept)
    for task, file in harness_output.samples(results).items():
        shutil.copyfile(file, temporary / "samples" / f"{task}.jsonl")
    write_jsonl(temporary / PREDICTIONS, (row for rows in answered.tasks.values() for row in rows))
    if (retrieval := output / "retrieval").is_dir():
        shutil.copytree(retrieval, temporary / "retrieval")
    shutil.rmtree(run, ignore_errors=True)
    os.replace(temporary, run)


def _relative(text: str) -> str:
    """Paths below the working, the installation and the home folder, made independent of this machine."""
    home = f"~{os.sep}"
    for folder, short in ((Path.cwd(), ""), (TASKS_DIR.parent, ""), (Path.home(), home)):
        prefix = f"{folder}{os.sep}"
        text = text.replace(json.dumps(prefix)[1:-1], json.dumps(short)[1:-1])
    return text


def predictions(run: Path) -> dict[str, list[dict]]:
    """The predictions of a study's run by task, each in document order.

    Runs of an earlier version have no hashes and groups: their items are known by ``id`` alone.

    Raises:
        InputError: the run has no predictions, or the file is damaged.
    """
    file = _file(run)
    if not file.is_file():
        raise InputError(f"{run}: no {PREDICTIONS}; not a finished run")
    by_task: dict[str, list[dict]] = {}
    number = 0
    with gzip.open(file) if file.name == PACKED else file.open("rb") as f:
        try:
            for line in f:
                number += 1
                row = json.loads(line.decode())
                row = {"group": row["id"], "subject": "", "doc_hash": None, "prompt_hash": None} | row
                by_task.setdefault(row["task"], []).append(row)
        except (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            mend = f"delete {run} and run the study again"
            raise InputError(f"{file}:{number}: damaged ({reason}); {mend}") from error
    return by_task
