"""Files in the Open Medical-LLM Leaderboard's format, one model each: ``<org>/<model>/results_<datetime>.json``.

``{"config": {"model_dtype", "model_name", "model_sha"}, "results": {task: {"acc,none": share}}}``. The files here hold
``acc_stderr,none`` too, as lm-eval's do: the leaderboard's reader, that of the Hub's leaderboard template, takes the
named keys and lets others be. It shows no model that lacks one of its tasks, and skips a folder that holds anything but
JSON files. ``leaderboard.schema.json`` says the same as a JSON schema.
"""

import json
import math
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from medtasks.errors import InputError
from medtasks.files import write_json

ORGANISATION = "medadapt"
"""Under which a study's variants stand."""

OURS = "medadapt"
"""``config.prompts`` of a file whose tasks bear our names, which some of lm-eval's tasks of other prompts bear too."""

TASKS = {
    "medmcqa": "medmcqa_lmeval",
    "medqa_4options": "medqa",
    "mmlu_anatomy": "mmlu_med_lmeval_anatomy",
    "mmlu_clinical_knowledge": "mmlu_med_lmeval_clinical_knowledge",
    "mmlu_college_biology": "mmlu_med_lmeval_college_biology",
    "mmlu_college_medicine": "mmlu_med_lmeval_college_medicine",
    "mmlu_medical_genetics": "mmlu_med_lmeval_medical_genetics",
    "mmlu_professional_medicine": "mmlu_med_lmeval_professional_medicine",
    "pubmedqa": "pubmedqa_lmeval",
}
"""The leaderboard's nine tasks (lm-eval's group `multimedqa`) -> ours with the same prompts (`open_medical_llm`)."""


def is_ours(results: dict, task: str) -> bool:
    """Whether ``task`` of lm-eval's ``results`` is one of medadapt's, which all name their benchmark."""
    return "benchmark" in (results["configs"].get(task, {}).get("dataset_kwargs") or {})


def build(results: dict, model_name: str, model_sha: str, tasks: dict[str, str]) -> dict:
    """The content of a file.

    Args:
        results: lm-eval's results file.
        tasks: the run's tasks -> their names in the file.
    """
    config = {
        "model_dtype": str(results["config"].get("model_dtype") or "unknown").removeprefix("torch."),
        "model_name": model_name,
        "model_sha": model_sha,
    }
    if any(is_ours(results, task) and task == name for task, name in tasks.items()):
        config["prompts"] = OURS
    named = {name: accuracies(results["results"][task]) for task, name in tasks.items()}
    return {"config": config, "results": dict(sorted(named.items()))}


def accuracies(metrics: dict) -> dict[str, float]:
    """``acc,<filter>`` and ``acc_stderr,<filter>`` of a task's metrics, where they are finite numbers."""
    return {
        metric: value
        for metric, value in metrics.items()
        if metric.startswith(("acc,", "acc_stderr,")) and isinstance(value, int | float) and math.isfinite(value)
    }


def save(folder: Path, content: dict, date: str) -> Path:
    """Write ``folder/<org>/<model>/results_<date>.json`` and return its path."""
    target = folder / content["config"]["model_name"] / f"results_{date}.json"
    write_json(target, content)
    return target


def evaluation_date(results: dict) -> str:
    """When the evaluation began, ``2026-01-31T23-59-59.000000`` in UTC: lm-eval's own spelling in names of files."""
    return datetime.fromtimestamp(results["date"], UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")


def write(folder: Path, study_name: str, variant: str, run: Path, fingerprint: str) -> Path:
    """Write a study's variant, in place of older files, to ``folder/medadapt/<study>__<variant>/results_<date>.json``.

    The datetime is the evaluation's, so writing again gives the same file. Tasks keep our names: ``config.prompts``
    says so, since `medmcqa` and `pubmedqa` must not pass for lm-eval's (``medtasks/README.md``).

    Args:
        fingerprint: stands for ``model_sha`` where the base is a folder and lm-eval knows no commit.
    """
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    name = f"{ORGANISATION}/{study_name}__{re.sub(r'[^A-Za-z0-9._-]+', '-', variant)}"
    tasks = {task: task for task in results["configs"] if accuracies(results["results"].get(task, {}))}
    content = build(results, name, results["config"].get("model_sha") or fingerprint, tasks)
    target = save(folder, content, evaluation_date(results))
    for older in target.parent.glob("results_*.json"):
        if older != target:
            older.unlink()
    return target


def read(file: Path) -> dict:
    """The JSON of ``file``; NaN, which lm-eval writes and no accuracy is, becomes None.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda name: None)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: damaged or cut off ({error})") from error


def check(content, where: str | Path, kind: str = "submission") -> None:
    """Raise unless ``content`` fits the schema.

    Args:
        where: what to call it in a message.
        kind: ``submission``, or ``file`` for any board's.

    Raises:
        InputError: what is wrong, in one line.
    """
    from jsonschema.exceptions import best_match

    error = best_match(_validator(kind).iter_errors(content))
    if error is not None:
        place = error.json_path.removeprefix("$").lstrip(".") or "the file"
        raise InputError(f"{where}: not a leaderboard file: {place}: {_message(error)}")


def _message(error) -> str:
    if error.validator == "not":
        return "tasks in medadapt's prompts; `medadapt submit RUN` maps those that equal the leaderboard's"
    return error.message if len(error.message) < 200 else f"{error.message[:200]}..."


@cache
def _validator(kind: str):
    from jsonschema import Draft202012Validator

    schema = json.loads(Path(__file__).with_name("leaderboard.schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema | {"$ref": f"#/$defs/{kind}"})
