"""Read what lm-eval wrote (``results_*.json`` and ``samples_*.jsonl``) and keep it as one run of a study.

A run folder holds ``results.json`` (lm-eval's own file, less its listing of the machine), ``samples/<task>.jsonl`` (its
per-item logs), ``retrieval/<task>.jsonl`` where passages were used, and ``predictions.jsonl``: one short line an item,
enough for every statistic, without prompts or questions.
"""

import json
import os
import shutil
from pathlib import Path

from medtasks import TASKS_DIR, mcq
from medtasks.errors import InputError
from medtasks.files import write_json, write_jsonl

PREDICTIONS = "predictions.jsonl"
DECIMALS = 6


def collect(output: Path, run: Path) -> None:
    """Turn lm-eval's output folder into the run folder ``run``, put in place whole by one rename.

    Raises:
        InputError: lm-eval left no results or no samples (it only warns when it cannot write).
    """
    found = sorted(output.glob("**/results_*.json"))
    if not found:
        raise InputError(f"{output}: the evaluation left no results_*.json; see its messages above")
    temporary = run.with_name(f".{run.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "samples").mkdir(parents=True)
    results = found[-1]
    kept = json.loads(_relative(results.read_text(encoding="utf-8")))
    kept.pop("pretty_env_info", None)
    write_json(temporary / "results.json", kept)
    date = results.stem.removeprefix("results_")
    predictions = []
    for file in sorted(results.parent.glob(f"samples_*_{date}.jsonl")):
        task = file.stem.removeprefix("samples_").removesuffix(f"_{date}")
        shutil.copyfile(file, temporary / "samples" / f"{task}.jsonl")
        predictions += _predictions(task, file)
    if not predictions:
        raise InputError(f"{output}: the evaluation left no samples_*.jsonl; run it with --log_samples")
    write_jsonl(temporary / PREDICTIONS, predictions)
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


def _predictions(task: str, file: Path) -> list[dict]:
    """``task, doc_id, id, gold, choice, correct, loglikelihoods`` of each multiple-choice sample, in doc order."""
    rows = []
    with file.open(encoding="utf-8") as f:
        for line in f:
            sample = json.loads(line)
            gold, choice, loglikelihoods = _answer(sample)
            rows.append(
                {
                    "task": task,
                    "doc_id": sample["doc_id"],
                    "id": sample["doc"].get("id", sample["doc_hash"]),
                    "gold": gold,
                    "choice": choice,
                    "correct": int(choice == gold),
                    "loglikelihoods": [round(value, DECIMALS) for value in loglikelihoods],
                }
            )
    return sorted(rows, key=lambda row: row["doc_id"])


def _answer(sample: dict) -> tuple[int, int | None, list[float]]:
    """The right option, the chosen one, and the options' log-likelihoods, of one sample.

    A written answer (chain of thought) has no log-likelihoods, and no choice where it declares none.
    """
    if "declared" in sample:
        letter = sample["declared"]
        return mcq.LETTERS.index(sample["target"]), mcq.LETTERS.index(letter) if letter else None, []
    loglikelihoods = [float(response[0]) for response in sample["filtered_resps"]]
    return int(sample["target"]), mcq.likeliest(loglikelihoods), loglikelihoods


def predictions(run: Path) -> dict[str, list[dict]]:
    """The predictions of a run by task, each in document order.

    Raises:
        InputError: the run has no predictions, or the file is damaged.
    """
    file = run / PREDICTIONS
    if not file.is_file():
        raise InputError(f"{run}: no {PREDICTIONS}; not a finished run")
    by_task: dict[str, list[dict]] = {}
    with file.open(encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{file}:{number}: damaged ({error.msg}); delete {run} and run the study again"
                ) from error
            by_task.setdefault(row["task"], []).append(row)
    return by_task
