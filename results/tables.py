"""The table of a study: variant x task, accuracy with its interval, difference to the base with its paired p-value."""

from medtasks.errors import InputError
from results import statistics

MEAN = "mean"
P_FLOOR = 0.001


def compare(runs: dict[str, dict[str, list[dict]]], base: str) -> list[dict]:
    """One row a variant and task, plus the mean over tasks where there are several.

    Accuracy counts every row of a task, as published. Tests and differences' p-values count each distinct item once:
    the published MMLU subset asks 12 questions twice, and a repeated item is no second observation.

    Args:
        runs: variant -> task -> predictions (``id, correct``) in document order.
        base: the variant to compare with.

    Returns:
        Dicts ``variant, task, n, n_distinct, accuracy, low, high`` and, but for the base, ``difference, fixed,
        broken, p``; shares between 0 and 1. ``mean`` rows also have ``difference_low, difference_high``.

    Raises:
        InputError: two runs did not answer the same items.
    """
    rows = []
    for variant, tasks in runs.items():
        for task, predictions in tasks.items():
            rows.append(_row(variant, task, predictions, None if variant == base else runs[base].get(task)))
        if len(tasks) > 1:
            rows.append(_mean_row(variant, tasks, None if variant == base else runs[base]))
    return rows


def _row(variant: str, task: str, predictions: list[dict], base: list[dict] | None) -> dict:
    estimate = statistics.accuracy([p["correct"] for p in predictions])
    row = {
        "variant": variant,
        "task": task,
        "n": len(predictions),
        "n_distinct": len({p["id"] for p in predictions}),
        "accuracy": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
    }
    if base is not None:
        _same_items(variant, task, predictions, base)
        ours, theirs = _distinct(predictions), _distinct(base)
        row["difference"] = estimate.value - sum(p["correct"] for p in base) / len(base)
        row["fixed"] = sum(o > b for o, b in zip(ours, theirs, strict=True))
        row["broken"] = sum(o < b for o, b in zip(ours, theirs, strict=True))
        row["p"] = statistics.mcnemar(theirs, ours)
    return row


def _mean_row(variant: str, tasks: dict[str, list[dict]], base: dict[str, list[dict]] | None) -> dict:
    estimate = statistics.macro_accuracy([[p["correct"] for p in predictions] for predictions in tasks.values()])
    row = {
        "variant": variant,
        "task": MEAN,
        "n": sum(map(len, tasks.values())),
        "n_distinct": sum(len(_distinct(predictions)) for predictions in tasks.values()),
        "accuracy": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
    }
    if base is not None:
        difference, p = statistics.macro_difference(
            [_distinct(base[task]) for task in tasks], [_distinct(predictions) for predictions in tasks.values()]
        )
        accuracy = statistics.macro_accuracy([[p["correct"] for p in base[task]] for task in tasks]).value
        shift = estimate.value - accuracy - difference.value  # 0 but where items repeat
        row["difference"] = estimate.value - accuracy
        row["difference_low"], row["difference_high"] = difference.low + shift, difference.high + shift
        row["p"] = p
    return row


def _distinct(predictions: list[dict]) -> list[int]:
    """Correctness of each distinct item, in order of first appearance."""
    return list({p["id"]: p["correct"] for p in reversed(predictions)}.values())[::-1]


def _same_items(variant: str, task: str, ours: list[dict], base: list[dict]) -> None:
    if [p["id"] for p in ours] != [p["id"] for p in base]:
        raise InputError(f"{variant} and the base did not answer the same items of {task}; delete the older run")


def text(rows: list[dict]) -> str:
    """Two tables for the terminal: accuracies with intervals, then differences to the base with p-values."""
    variants, tasks = _axes(rows)
    cells = {(row["variant"], row["task"]): row for row in rows}
    first = [["accuracy, % [95% interval]", *tasks]]
    first += [[variant, *(_accuracy(cells[variant, task]) for task in tasks)] for variant in variants]
    second = [["difference to base, points (p)", *tasks]]
    for variant in variants:
        if any("p" in cells[variant, task] for task in tasks):
            second.append([variant, *(_difference(cells[variant, task]) for task in tasks)])
    width = max(len(line[0]) for line in first + second)
    return "\n\n".join(_aligned(lines, width) for lines in (first, second) if len(lines) > 1)


def markdown(rows: list[dict]) -> str:
    """One Markdown table: each cell holds accuracy, interval and, but for the base, difference and p-value."""
    variants, tasks = _axes(rows)
    cells = {(row["variant"], row["task"]): row for row in rows}
    lines = ["| variant | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for variant in variants:
        shown = []
        for task in tasks:
            row = cells[variant, task]
            shown.append(_accuracy(row) + (f"<br>{_difference(row)}" if "p" in row else ""))
        lines.append(f"| {variant} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _axes(rows: list[dict]) -> tuple[list[str], list[str]]:
    """Variants and tasks in order of first appearance, the mean last."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    return list(dict.fromkeys(row["variant"] for row in rows)), sorted(tasks, key=lambda task: task == MEAN)


def _accuracy(row: dict) -> str:
    return f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _difference(row: dict) -> str:
    if "p" not in row:
        return ""
    p = f"p<{P_FLOOR:.3f}" if row["p"] < P_FLOOR else f"p={row['p']:.3f}"
    return f"{100 * row['difference']:+.1f} ({p})"


def _aligned(lines: list[list[str]], first_width: int) -> str:
    widths = [first_width, *(max(len(line[i]) for line in lines) for i in range(1, len(lines[0])))]
    rule = "  ".join("-" * width for width in widths)
    shown = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([shown[0], rule, *shown[1:]])
