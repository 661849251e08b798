"""The words of items, read from lm-eval's per-item logs: question, context and options, of our tasks or anyone's."""

import json
from collections.abc import Collection
from pathlib import Path

from medtasks.errors import InputError
from rag_model.prompts import QUESTION_FIELDS
from results import harness_output
from results.runs import PREDICTIONS, Run

OPTION_FIELDS = ("options", "choices")


def logs(run: Run) -> dict[str, Path]:
    """Task -> the file of its logged samples; empty where they were not kept."""
    folder = Path(run.source).expanduser()
    if (folder / PREDICTIONS).is_file():
        return {file.stem: file for file in sorted((folder / "samples").glob("*.jsonl"))}
    return harness_output.samples(harness_output.find(folder))


def read(file: Path, doc_ids: Collection[int]) -> dict[int, dict]:
    """The words of some items.

    Returns:
        doc_id -> ``q``, the question, ``c``, the context ("" if none), and ``o``, the options (list of str). Where a
        task keeps its question or options in unknown fields, ``q`` is the whole prompt and ``o`` what was scored.

    Raises:
        InputError: the file is damaged.
    """
    wanted, found = set(doc_ids), {}
    with file.open(encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            try:
                sample = json.loads(line)
                if sample["doc_id"] in wanted:
                    found[sample["doc_id"]] = _words(sample)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{file}:{number}: damaged ({error}); evaluate again with --log_samples") from error
    return found


def _words(sample: dict) -> dict:
    doc = sample["doc"] if isinstance(sample["doc"], dict) else {}
    question = next((doc[name] for name in QUESTION_FIELDS if isinstance(doc.get(name), str)), None)
    options = next((texts for name in OPTION_FIELDS if (texts := _texts(doc.get(name)))), None)
    if question is None or options is None:
        requests = [_values(request) for request in _values(sample["arguments"])]
        question = str(requests[0][0])
        options = [str(request[1]).strip() for request in requests if isinstance(request[1], str)]
    context = doc.get("context")
    return {"q": question, "c": context if isinstance(context, str) else "", "o": options}


def _values(items: dict | list) -> list:
    """lm-eval logs arguments as mappings; before 0.4.4, as lists."""
    return list(items.values()) if isinstance(items, dict) else items


def _texts(value) -> list[str] | None:
    """Options as texts: a list of them, ``{"text": [...]}`` as in ARC, or ``{"A": ...}`` as in MedQA."""
    if isinstance(value, dict):
        value = value.get("text", list(value.values()))
    return value if isinstance(value, list) and value and all(isinstance(text, str) for text in value) else None
