"""Runs made by hand, for the tests of what compares them."""

from pathlib import Path

from results.runs import Run


def prediction(item, correct, **changes):
    row = {
        "task": "exam",
        "doc_id": 0,
        "id": f"id-{item}",
        "group": f"id-{item}",
        "subject": "",
        "doc_hash": f"hash-{item}",
        "prompt_hash": f"prompt-{item}",
        "gold": 0,
        "choice": 0 if correct else 1,
        "correct": correct,
        "loglikelihoods": [-1.0, -2.0] if correct else [-1.5, -1.0],
    }
    return row | changes


def answered(correct, items=None, **changes):
    """Predictions of these right and wrong answers; ``items`` names what was asked, 0, 1, ... if None."""
    items = range(len(correct)) if items is None else items
    return [prediction(item, c, **changes) for item, c in zip(items, correct, strict=True)]


def run(name, version=1.0, **tasks):
    return Run(name, Path(name), {"versions": dict.fromkeys(tasks, version)}, tasks)
