"""A comparison (:func:`results.comparison.compare`) as text for the terminal, Markdown, CSV and LaTeX.

Shares are shown in percent, differences in percentage points. A star marks a difference that passes .05 after Holm's
correction.
"""

import csv as csv_format
import io
import re

from results.comparison import SIGNIFICANT, is_significant
from results.rounding import p_value, percent
from results.statistics import DRAWS, POWER

Comparison = dict
"""What :func:`results.comparison.compare` returns."""


def methods(comparison: Comparison, detectable: bool = True) -> list[str]:
    """How the figures were made, a line for the intervals and one for the tests.

    Args:
        detectable: whether the table has that column.
    """
    intervals = (
        "Intervals are of 95%: Wilson's for accuracies, paired bootstrap over items for differences "
        f"({DRAWS:,} draws within tasks)."
    )
    tests = len(comparison["comparisons"])
    p_values = (
        f"p: McNemar's exact test, sign flips for the mean; Holm-corrected over all {tests}, * below {SIGNIFICANT}."
    )
    if detectable:
        p_values += f" Detectable: in {POWER:.0%} of such samples, uncorrected."
    return [intervals, p_values] if tests else [intervals]


# Terminal

COLUMNS = ("accuracy, %", "difference", "Holm p", "fixed/broken", "detectable", "ECE change")


def text(comparison: Comparison) -> str:
    """A block a task: each variant's accuracy, and what changed against its base, in columns."""
    blocks, lines = _blocks(comparison), [["", *COLUMNS]]
    for title, rows in blocks:
        lines += [[title], *rows, []]
    widths = [
        max((len(line[i]) for line in lines if len(line) > max(i, 1)), default=0) for i in range(len(COLUMNS) + 1)
    ]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines]
    left_out = [f"{task} is left out: {reason}" for task, reason in comparison["left_out"].items()]
    return "\n".join([*shown[:-1], *([""] * bool(left_out)), *left_out])


def _blocks(comparison: Comparison) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of each task; a comparison with another base than the table's has a row of its own."""
    blocks = []
    variants, tasks = _axes(comparison)
    for task in tasks:
        estimates, compared = _cells(comparison, task)
        rows = []
        for variant in variants:
            changes = [
                _changes(row) for row in compared if (row["variant"], row["base"]) == (variant, comparison["base"])
            ]
            rows.append([f"  {variant}", _accuracy(estimates[variant]), *(changes[0] if changes else [])])
        others = [row for row in compared if row["base"] != comparison["base"]]
        rows += [[f"  {row['variant']} - {row['base']}", "", *_changes(row)] for row in others]
        blocks.append((f"{task}, {_size(estimates[variants[0]])}", rows))
    return blocks


def _changes(row: dict) -> list[str]:
    """One comparison in the columns after the accuracy."""
    detectable = "" if row["detectable"] is None else percent(row["detectable"])
    calibration = ""
    if row["ece_difference"] is not None:
        calibration = _interval(row["ece_difference"], row["ece_low"], row["ece_high"], "+")
    difference = _difference(row) + "*" * is_significant(row)
    return [difference, p_value(row["p_holm"]), f"{row['fixed']}/{row['broken']}", detectable, calibration]


def _size(row: dict) -> str:
    independent = "" if row["n"] == row["n_distinct"] else f" ({row['n_distinct']:,} independent)"
    return f"{row['n']:,} items{independent}"


# Markdown


def markdown(comparison: Comparison) -> str:
    """One Markdown table, a row a variant: each cell holds accuracy, then difference with interval and Holm's p."""
    variants, tasks = _axes(comparison)
    by_task = {task: _cells(comparison, task) for task in tasks}
    lines = ["| variant | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for variant in variants:
        cells = []
        for estimates, compared in by_task.values():
            rows = [row for row in compared if row["variant"] == variant]
            changes = [_difference_and_p(row) + _against(row, comparison) for row in rows]
            cells.append("<br>".join([_accuracy(estimates[variant]), *changes]))
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    left_out = [f"{task} is left out: {reason}." for task, reason in comparison["left_out"].items()]
    return "\n".join([*lines, "", *methods(comparison, detectable=False), *left_out]) + "\n"


def _difference_and_p(row: dict) -> str:
    p = p_value(row["p_holm"])
    return f"{_difference(row)} (p{p if p[0] == '<' else f'={p}'}){'*' * is_significant(row)}"


def _against(row: dict, comparison: Comparison) -> str:
    return "" if row["base"] == comparison["base"] else f" against {row['base']}"


# CSV


def csv(comparison: Comparison) -> str:
    """One line an estimate or comparison, with every number in full; shares between 0 and 1."""
    rows = [{"kind": "estimate"} | row for row in comparison["estimates"]]
    rows += [{"kind": "comparison"} | row for row in comparison["comparisons"]]
    buffer = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv_format.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


# LaTeX


def latex(comparison: Comparison) -> str:
    """A ``table*`` for the package booktabs: a row a variant, under it its difference to the base."""
    variants, tasks = _axes(comparison)
    by_task = {task: _cells(comparison, task) for task in tasks}
    lines = [" & ".join(["", *map(_escaped, tasks)]) + r" \\", r"\midrule"]
    for variant in variants:
        accuracies = [_small(_accuracy(estimates[variant])) for estimates, _ in by_task.values()]
        lines.append(" & ".join([_escaped(variant), *accuracies]) + r" \\")
        bases = [row["base"] for row in by_task[tasks[0]][1] if row["variant"] == variant]
        for base in bases:
            changes = [_latex_change(compared, variant, base) for _, compared in by_task.values()]
            lines.append(" & ".join([rf"\quad $-$ {_escaped(base)}", *changes]) + r" \\")
    caption = "Accuracy (\\%), and difference in percentage points with its $p$. " + " ".join(
        _escaped(sentence) for sentence in methods(comparison, detectable=False)
    )
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\small",
            rf"\begin{{tabular}}{{l{'l' * len(tasks)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            r"\end{table*}",
            "",
        ]
    )


def _latex_change(compared: list[dict], variant: str, base: str) -> str:
    row = next(row for row in compared if (row["variant"], row["base"]) == (variant, base))
    p = p_value(row["p_holm"])
    shown = f"{_small(_difference(row))} ({p})" + "$^{*}$" * is_significant(row)
    return re.sub(r"(?<![\d,])-(?=\d)", "$-$", shown).replace("<", "$<$")


def _small(estimate: str) -> str:
    """Its interval in small print."""
    value, _, interval = estimate.partition(" ")
    return rf"{value} {{\scriptsize {interval}}}"


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _escaped(name: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda found: _SPECIAL.get(found[0], "\\" + found[0]), name)


# Cells


def _axes(comparison: Comparison) -> tuple[list[str], list[str]]:
    """Variants and tasks in their order."""
    rows = comparison["estimates"]
    return list(dict.fromkeys(row["variant"] for row in rows)), list(dict.fromkeys(row["task"] for row in rows))


def _cells(comparison: Comparison, task: str) -> tuple[dict[str, dict], list[dict]]:
    """The estimates of a task by variant, and its comparisons."""
    estimates = {row["variant"]: row for row in comparison["estimates"] if row["task"] == task}
    return estimates, [row for row in comparison["comparisons"] if row["task"] == task]


def _accuracy(row: dict) -> str:
    return _interval(row["accuracy"], row["low"], row["high"])


def _difference(row: dict) -> str:
    return _interval(row["difference"], row["low"], row["high"], "+")


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{percent(value, sign)} [{percent(low, sign)}, {percent(high, sign)}]"
