"""Leaderboards to look at: text for the terminal, Markdown, CSV, JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence

from medtasks.errors import InputError
from results.boards.ranking import Board, Entry, Place
from results.rounding import percent

NOTE = (
    "rank: 1 + the number of models whose 95% interval lies wholly above (arXiv:2403.04132); mean: tasks weigh alike; "
    "intervals take runs as independent, `medadapt compare` pairs them"
)
CSV_HEADS = ("board", "rank", "model", "dtype", "date", "mean", "low", "high", "reason")


def sort(boards: Sequence[Board], task: str | None) -> list[Board]:
    """The boards with the ranked in order of their accuracy on ``task``; ranks stay those of the mean.

    Boards without the task stay as they are; None changes nothing.

    Raises:
        InputError: no board has such a task.
    """
    if task is None:
        return list(boards)
    if not any(task in board.tasks for board in boards):
        known = ", ".join(dict.fromkeys(name for board in boards for name in board.tasks))
        raise InputError(f"--sort {task}: no board has such a task; there are {known}")
    return [
        Board(board.tasks, sorted(board.ranked, key=lambda place: -place.entry.accuracies[task][0]), board.unranked)
        if task in board.tasks
        else board
        for board in boards
    ]


def text(boards: Sequence[Board]) -> str:
    """Tables for the terminal, tasks by number with their names below."""
    return "\n\n".join(map(_text, boards)) + f"\n\n{NOTE}\n"


def _text(board: Board) -> str:
    rows = [["rank", "model", "dtype", "mean, % [95%]", *(f"({i + 1})" for i in range(len(board.tasks)))]]
    rows += [_cells(place, board.tasks) for place in board.ranked]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    legend = "  ".join(f"({i}) {task}" for i, task in enumerate(board.tasks, 1))
    unranked = [f"not ranked: {_name(entry)}: {reason}" for entry, reason in board.unranked]
    return "\n".join([*(lines if board.ranked else []), legend, *unranked])


def markdown(boards: Sequence[Board]) -> str:
    """One table a board, the unranked in a list below it."""
    return "\n\n".join(map(_markdown, boards)) + f"\n\n{NOTE[0].upper()}{NOTE[1:]}.\n"


def _markdown(board: Board) -> str:
    heads = ["rank", "model", "dtype", "mean, % [95%]", *board.tasks]
    rows = [heads, ["---"] * len(heads), *(_cells(place, board.tasks) for place in board.ranked)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    unranked = [f"- not ranked: {_name(entry)}: {reason}" for entry, reason in board.unranked]
    return "\n".join([*lines, *([""] if unranked else []), *unranked])


def _cells(place: Place, tasks: Sequence[str]) -> list[str]:
    mean = f"{percent(place.mean)} [{percent(place.low)}, {percent(place.high)}]"
    accuracies = [percent(place.entry.accuracies[task][0]) for task in tasks]
    return [str(place.rank), place.entry.model, place.entry.dtype, mean, *accuracies]


def _name(entry: Entry) -> str:
    return f"{entry.model} ({entry.dtype})" if entry.dtype else entry.model


def as_csv(boards: Sequence[Board]) -> str:
    """A line an entry: board (counted from 1), rank (empty for the unranked), shares unrounded."""
    tasks = list(dict.fromkeys(task for board in boards for task in board.tasks))
    out = io.StringIO()
    writer = csv.DictWriter(out, [*CSV_HEADS, *tasks], lineterminator="\n")
    writer.writeheader()
    for number, board in enumerate(boards, 1):
        for row in _rows(board):
            writer.writerow({"board": number} | row["accuracies"] | {k: v for k, v in row.items() if k in CSV_HEADS})
    return out.getvalue()


def as_json(boards: Sequence[Board]) -> str:
    """``[{"tasks": [...], "entries": [{"rank", "model", "dtype", "date", "mean", "low", "high", "reason",
    "accuracies"}]}]``; an unranked entry has a reason in place of rank and mean."""
    found = [{"tasks": board.tasks, "entries": _rows(board)} for board in boards]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _rows(board: Board) -> list[dict]:
    ranked = [
        {"rank": place.rank} | _about(place.entry) | {"mean": place.mean, "low": place.low, "high": place.high}
        for place in board.ranked
    ]
    rows = ranked + [_about(entry) | {"reason": reason} for entry, reason in board.unranked]
    entries = [*(place.entry for place in board.ranked), *(entry for entry, _ in board.unranked)]
    return [
        row | {"accuracies": {task: entry.accuracies[task][0] for task in board.tasks if task in entry.accuracies}}
        for row, entry in zip(rows, entries, strict=True)
    ]


def _about(entry: Entry) -> dict:
    return {"model": entry.model, "dtype": entry.dtype, "date": entry.date}


FORMATS: dict[str, Callable[[Sequence[Board]], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": as_csv,
    "json": as_json,
}
