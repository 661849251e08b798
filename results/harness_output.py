"""Read what lm-eval wrote, ours or anyone's: ``results_<date>.json`` and ``samples_<task>_<date>.jsonl``.

Only what every harness run has is read, so the files of plain ``lm_eval --log_samples`` do. lm-eval's own documentation
names no format; this is what 0.4.13 writes and 0.4.4 to 0.4.12 wrote in the same way.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

from medtasks import mcq
from medtasks.errors import InputError

METRICS = ("acc", "exact_match")
"""Per-item right-or-wrong metrics, the first that a task has is read unless another is asked for."""

HASH = 16
"""Hex digits that are kept of lm-eval's SHA-256 hashes."""

DECIMALS = 6
"""Of log-likelihoods, which are rounded to be stored."""

MAPPING = {"type": "object"}
MAPPINGS = {"type": "object", "additionalProperties": MAPPING}
SHAPE = {
    "type": "object",
    "required": ["results", "configs", "versions"],
    "properties": {
        "results": MAPPINGS,
        "configs": MAPPINGS,
        "versions": MAPPING,
        "config": MAPPING,
        "n-shot": MAPPING,
        "n-samples": {
            "type": "object",
            "additionalProperties": {"type": "object", "properties": {"effective": {"type": "integer"}}},
        },
    },
}
"""JSON schema of what is read of a results file."""

AGAIN = "evaluate again with a current lm_eval and --log_samples"


def find(path: Path) -> Path:
    """The results file that ``path`` is, or the only one below the folder ``path``.

    Raises:
        InputError: none is there, or several are.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give what lm_eval --output_path wrote, or a study's run")
    if path.is_file():
        return path
    found = sorted(file for file in path.rglob("*.json") if re.fullmatch(r".+_\d{4}-\d\d-\d\dT.+", file.stem))
    if not found:
        raise InputError(f"{path}: no results_<date>.json, so not a folder that lm_eval --output_path wrote")
    if len(found) > 1:
        named = ", ".join(str(file.relative_to(path)) for file in found[:3])
        raise InputError(f"{path}: holds {len(found)} evaluations ({named}, ...); give one of these files")
    return found[0]


def results(file: Path) -> dict:
    """lm-eval's results file as a dict.

    Raises:
        InputError: damaged, or no results of lm-eval.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
    except ValueError as error:
        raise InputError(f"{file}: damaged or cut off ({error}); {AGAIN}") from error
    import jsonschema

    wrong = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(SHAPE).iter_errors(found))
    if wrong is not None:
        raise InputError(
            f"{file}: no results of an lm-eval that this can read ({wrong.json_path}: {wrong.message[:80]}); {AGAIN}"
        )
    return found


def model_args(results: dict) -> dict:
    """The arguments of the harness model: versions of lm-eval write them as a mapping or as they were typed."""
    given = results.get("config", {}).get("model_args") or {}
    if isinstance(given, dict):
        return given
    return dict(part.split("=", 1) for part in str(given).split(",") if "=" in part)


def has_passages(results: dict) -> bool:
    """Whether passages were added to the prompts, by our model ``rag``."""
    config = results.get("config", {})
    return config.get("model") == "rag" or "rag_index" in config


def samples(file: Path) -> dict[str, Path]:
    """Task -> its file of per-item samples, of the results file ``file``.

    Raises:
        InputError: the evaluation logged none.
    """
    date = file.stem.rpartition("_")[2]
    found = {
        sample.stem.removeprefix("samples_").removesuffix(f"_{date}"): sample
        for sample in sorted(file.parent.glob(f"samples_*_{date}.jsonl"))
    }
    if not found:
        raise InputError(f"{file}: no samples_*_{date}.jsonl beside it; {AGAIN}")
    return found


def predictions(
    task: str, file: Path, expected: int | None = None, metric: str | None = None, filter_name: str | None = None
) -> list[dict]:
    """One short row an item, in document order: enough for every statistic, without prompts and questions.

    Args:
        expected: how many items lm-eval says it asked; None not to check.
        metric: the right-or-wrong metric to read; the first of :data:`METRICS` that is there if None.
        filter_name: lm-eval's answer filter, where a task has several.

    Returns:
        Dicts of ``task, doc_id, id`` (the item's own where it has one), ``group`` (the item that this is a version
        of, or its id), ``subject`` ("" if it has none), ``doc_hash, prompt_hash`` (:data:`HASH` hex digits), ``gold,
        choice`` (indices of options; None where there are none), ``correct`` (0 or 1) and ``loglikelihoods`` (of each
        option, in nats; empty for generated answers).

    Raises:
        InputError: the file is damaged, cut off or of another version, or has no such metric or filter.
    """
    rows, filters = [], {}
    for number, sample in logged(file):
        name = sample.get("filter", "none")
        filters[name] = None
        if filter_name is not None and name != filter_name:
            continue
        try:
            rows.append(_row(task, sample, metric))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{file}:{number}: not a sample that this can read ({reason}); {AGAIN}") from error
    if filter_name is None and len(filters) > 1:
        raise InputError(f"{file}: answers went through several filters; choose one with --filter {'|'.join(filters)}")
    if not rows:
        raise InputError(f"{file}: no samples{f' of filter {filter_name}' if filter_name else ''}; {AGAIN}")
    if len({row["doc_id"] for row in rows}) < len(rows):
        raise InputError(f"{file}: holds items twice, so two evaluations were written into it; {AGAIN}")
    if expected is not None and len(rows) < expected:
        raise InputError(f"{file}: {len(rows)} of {expected} items, so it was cut off; {AGAIN}")
    return sorted(rows, key=lambda row: row["doc_id"])


def logged(file: Path) -> Iterator[tuple[int, dict]]:
    """Line number and sample of each line of a file of logged samples.

    Raises:
        InputError: a line is damaged or holds something else.
    """
    with file.open("rb") as f:
        for number, line in enumerate(f, 1):
            try:
                sample = json.loads(line.decode())
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise InputError(f"{file}:{number}: damaged or cut off ({error}); {AGAIN}") from error
            if not isinstance(sample, dict):
                raise InputError(f"{file}:{number}: not a sample of lm-eval; {AGAIN}")
            yield number, sample


def _row(task: str, sample: dict, metric: str | None) -> dict:
    doc = sample["doc"] if isinstance(sample["doc"], dict) else {}
    gold, choice, loglikelihoods = _answer(sample)
    item = str(doc.get("id", sample["doc_hash"][:HASH]))
    return {
        "task": task,
        "doc_id": int(sample["doc_id"]),
        "id": item,
        "group": str(doc.get("original_id") or item),
        "subject": str(doc.get("subject") or ""),
        "doc_hash": sample["doc_hash"][:HASH],
        "prompt_hash": sample["prompt_hash"][:HASH],
        "gold": gold,
        "choice": choice,
        "correct": _correct(sample, metric, gold, choice),
        "loglikelihoods": [round(value, DECIMALS) for value in loglikelihoods],
    }


def _correct(sample: dict, metric: str | None, gold: int | None, choice: int | None) -> int:
    """Whether the item counts as right, 0 or 1: by ``metric``, or by what lm-eval calls right if None."""
    values = {name: sample.get(name) for name in ([metric] if metric else METRICS)}
    for value in values.values():
        if isinstance(value, int | float) and value in (0, 1):
            return int(value)
    if metric is None and gold is not None:  # a task whose metrics are of another kind
        return int(choice == gold)
    known = ", ".join(map(str, sample.get("metrics", ()))) or "none"
    raise ValueError(f"no {' or '.join(values)} that is 1 (right) or 0 (wrong); its metrics are: {known}")


def _answer(sample: dict) -> tuple[int | None, int | None, list[float]]:
    """The right option, the chosen one, and the options' log-likelihoods.

    A generated answer has no log-likelihoods; our chain-of-thought tasks say which letter it declared.
    """
    if "declared" in sample:
        letter = sample["declared"]
        return mcq.LETTERS.index(sample["target"]), mcq.LETTERS.index(letter) if letter else None, []
    answers = sample["filtered_resps"]
    if not all(isinstance(answer, list) and len(answer) == 2 for answer in answers):
        return None, None, []
    requests = arguments(sample)
    options = [str(option) for context, option in requests if context]  # acc_mutual_info asks all again without context
    loglikelihoods = [float(loglikelihood) for loglikelihood, _ in answers[: len(options)]]
    if any(map(math.isnan, loglikelihoods)):
        raise ValueError("a log-likelihood is NaN: the model broke down, in float16 say")
    return _gold(sample["target"], options), mcq.likeliest(loglikelihoods), loglikelihoods


def arguments(sample: dict) -> list[list]:
    """What each request of a sample asked: mostly [context, continuation].

    lm-eval logs ``{"gen_args_0": {"arg_0": ...}}``; before 0.4.4, lists of lists.
    """

    def values(items: dict | list) -> list:
        return list(items.values()) if isinstance(items, dict) else list(items)

    return [values(request) for request in values(sample["arguments"])]


def _gold(target, options: list[str]) -> int | None:
    """Index of the right option: lm-eval logs it as a number or as the option's text."""
    text = str(target).strip()
    if text.isdigit() and int(text) < len(options):
        return int(text)
    stripped = [option.strip() for option in options]
    return stripped.index(text) if text in stripped else None
