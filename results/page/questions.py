"""The words of items, read from lm-eval's per-item logs: question, context and options, of our tasks or anyone's."""

from collections.abc import Collection
from pathlib import Path

from medtasks.errors import InputError
from rag_model.prompts import QUESTION_FIELDS
from results import harness_output, runs
from results.runs import Run

OPTION_FIELDS = ("options", "choices")


def logs(run: Run) -> dict[str, Path]:
    """Task -> the file of its logged samples; empty where they were not kept."""
    folder = Path(run.source).expanduser()
    if runs.is_finished(folder):
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
    for number, sample in harness_output.logged(file):
        try:
            if sample["doc_id"] in wanted:
                found[sample["doc_id"]] = _words(sample)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file}:{number}: damaged ({error}); {harness_output.AGAIN}") from error
    return found


def _words(sample: dict) -> dict:
    doc = sample["doc"] if isinstance(sample["doc"], dict) else {}
    question = next((doc[name] for name in QUESTION_FIELDS if isinstance(doc.get(name), str)), None)
    options = next((texts for name in OPTION_FIELDS if (texts := _texts(doc.get(name)))), None)
    if question is None or options is None:
        requests = harness_output.arguments(sample)
        question = str(requests[0][0])
        options = [str(request[1]).strip() for request in requests if isinstance(request[1], str)]
    context = doc.get("context")
    return {"q": question, "c": context if isinstance(context, str) else "", "o": options}


def _texts(value) -> list[str] | None:
    """Options as texts: a list of them, ``{"text": [...]}`` as in ARC, or ``{"A": ...}`` as in MedQA."""
    if isinstance(value, dict):
        value = value.get("text", list(value.values()))
    return value if isinstance(value, list) and value and all(isinstance(text, str) for text in value) else None
