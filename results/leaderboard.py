"""Leaderboard files in the Open Medical-LLM Leaderboard's format, one a variant."""

import json
import re
from pathlib import Path

from medtasks.files import write_json

ORGANISATION = "medadapt"


def write(folder: Path, study_name: str, variant: str, run: Path, fingerprint: str) -> Path:
    """Write ``folder/medadapt/<study>__<variant>/results_<datetime>.json`` from a run's results.

    The format: ``{"config": {"model_dtype", "model_name", "model_sha"}, "results": {task: {"acc,none": share}}}``.
    The datetime is the evaluation's, so writing again gives the same file. Task names are ours: `medqa` has the prompt
    of lm-eval's `medqa_4options`, the others differ (``medtasks/README.md``), so they must not pass for it.

    Args:
        fingerprint: stands for ``model_sha`` where the base is a folder and lm-eval knows no commit.
    """
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    name = f"{study_name}__{re.sub(r'[^A-Za-z0-9._-]+', '-', variant)}"
    date = re.sub(r"\.\d+$", "", _datetime(results["date"]))
    entry = {
        "config": {
            "model_dtype": results["config"].get("model_dtype", "unknown"),
            "model_name": f"{ORGANISATION}/{name}",
            "model_sha": results["config"].get("model_sha") or fingerprint,
        },
        "results": {
            task: {metric: value for metric, value in metrics.items() if metric.startswith("acc,")}
            for task, metrics in sorted(results["results"].items())
        },
    }
    target = folder / ORGANISATION / name / f"results_{date}.json"
    for older in target.parent.glob("results_*.json"):
        if older != target:
            older.unlink()
    write_json(target, entry)
    return target


def _datetime(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
