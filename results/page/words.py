"""The answer in words, computed from the comparison: what is better, what is worse, and what could have been seen."""

from results import rounding
from results.comparison import is_significant
from results.page.evidence import Evidence

NAMED = 6
"""Variants, and differences on single tasks, that a sentence names at most."""


def points(share: float | None, digits: int = 1) -> str:
    """A share as percentage points with its sign: ``+4.0``."""
    return "unknown" if share is None else _true_minus(rounding.percent(share, "+", digits))


def signed(value: float, digits: int) -> str:
    """A number with its sign, a true minus among them; what rounds to zero has none."""
    return _true_minus(f"{value:+.{digits}f}")


def _true_minus(text: str) -> str:
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def percent(share: float | None) -> str:
    """A share as a percentage with one digit, without the sign."""
    return "–" if share is None else rounding.percent(share)


def p_value(p: float | None) -> str:
    """``p = 0.019``, or ``p < 0.001``."""
    if p is None:
        return "p unknown"
    return f"p < {rounding.P_FLOOR}" if p < rounding.P_FLOOR else f"p = {rounding.p_value(p)}"


def answer(found: Evidence) -> list[str]:
    """The sentences that answer the study's question; every number is the comparison's."""
    estimate = found.estimate(found.base, found.overall)
    over = f"on average over {len(found.tasks)} tasks" if len(found.tasks) > 1 else f"of {found.overall}"
    base = "The base" if found.base == "base" else f"The base, {found.base},"
    sentences = [f"{base} answers {percent(estimate['accuracy'])}% of {estimate['n']:,} questions correctly, {over}."]
    rows = [found.difference(name, found.overall) for name in found.variants]
    if not rows:
        return sentences
    better = [row for row in rows if is_significant(row) and row["difference"] > 0]
    worse = [row for row in rows if is_significant(row) and row["difference"] < 0]
    others = [row for row in rows if not is_significant(row)]
    known = [f"{_each(kept, how)}: {_named(kept)}" for kept, how in ((better, "better"), (worse, "worse")) if kept]
    sentences.append(
        f"Of {_count(len(rows), 'variant')}, {'; '.join(known)}."
        if known
        else f"{_none(len(rows))} better or worse than {found.base} beyond chance."
    )
    if found.prompts_differ:
        sentences.append("The prompts differ between the runs, so differences hold what the prompts do.")
    if others:
        sentences.append(f"Not told from chance: {_named(others)}.")
    if len(found.tasks) > 1:
        sentences.append(_by_task(found))
    if detectable := [row["detectable"] for row in rows if row["detectable"] is not None]:
        low, high = percent(min(detectable)), percent(max(detectable))
        size = low if low == high else f"{low} to {high}"
        sentences.append(f"The smallest difference that these questions would show in 4 of 5 studies is {size} points.")
    return sentences


def _none(n: int) -> str:
    return "The only variant is not" if n == 1 else f"None of {n} variants is"


def _each(rows: list[dict], how: str) -> str:
    return f"{len(rows)} {'is' if len(rows) == 1 else 'are'} {how} than {rows[0]['base']} beyond chance"


def _named(rows: list[dict]) -> str:
    ordered = sorted(rows, key=lambda row: -row["difference"])
    more = [f"{len(rows) - NAMED} more"] if len(rows) > NAMED else []
    return _listed([_row(row) for row in ordered[:NAMED]] + more)


def _row(row: dict) -> str:
    p = f"Holm {p_value(row['p_holm'])}"
    return f"{row['variant']} by {points(row['difference'])} points [{points(row['low'])}, {points(row['high'])}] ({p})"


def _by_task(found: Evidence) -> str:
    rows = [found.difference(name, task) for name in found.variants for task in found.tasks]
    kept = [row for row in rows if is_significant(row)]
    if not kept:
        return f"None of the {len(rows)} differences on single tasks is beyond chance."
    largest = sorted(kept, key=lambda row: -abs(row["difference"]))[:NAMED]
    named = _listed([f"{row['variant']} on {row['task']} ({points(row['difference'])})" for row in largest])
    more = f" are the {NAMED} largest" if len(kept) > NAMED else ""
    are = "is" if len(kept) == 1 else "are"
    return f"Of the {len(rows)} differences on single tasks, {len(kept)} {are} beyond chance: {named}{more}."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _listed(parts: list[str]) -> str:
    """``a, b and c``; empty parts are left out."""
    parts = [part for part in parts if part]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
