"""An account of what is learned from: rows by source and reason, tokens, and how long the examples are."""

from collections import Counter

from trainers.data.examples import Examples
from trainers.data.lengths import token_counts

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SMALLEST = 16
"""Tokens up to which the first bin of the histogram goes; each bin after it goes to twice as many."""

BAR = 40
"""Characters of the longest bar."""


def summary(examples: Examples, tokenizer, max_length: int | None = None) -> dict:
    """What there is to say of ``examples``, as JSON values: the content of a run's ``data.json``.

    ``counts``, ``notes`` and ``sources`` are the examples' own, ``dev`` has those of the held-out ones;
    ``personal_data`` has counts by source and kind, and ``rows``, where they stand. ``tokens`` holds, for ``prompt``,
    ``completion`` (SFT) and ``whole``: ``total, mean, quantiles`` and ``histogram`` (most tokens of a bin, a power of
    two -> examples). ``above_max_length`` is the share of the examples that have more tokens than ``max_length``, in
    [0, 1].
    """
    counts = examples.lengths or token_counts(examples.rows, tokenizer)
    parts = {"whole": [sum(count) for count in counts]}
    if examples.rows and "prompt" in examples.rows[0]:
        parts = {"prompt": [n for n, _ in counts], "completion": [n for _, n in counts]} | parts
    too_long = sum(n > max_length for n in parts["whole"]) if max_length else 0
    return {
        "fingerprint": examples.fingerprint,
        "counts": examples.counts,
        "notes": examples.notes,
        "sources": _sources(examples),
        "dev": examples.dev and {"counts": examples.dev.counts, "sources": _sources(examples.dev)},
        "personal_data": _personal_data(examples),
        "tokens": {part: _lengths(lengths) for part, lengths in parts.items()},
        "max_length": max_length,
        "above_max_length": round(too_long / len(counts), 6) if counts else 0.0,
    }


def _sources(examples: Examples) -> list[dict]:
    reasons: dict[str, Counter[str]] = {}
    for row in examples.dropped:
        reasons.setdefault(row["source"], Counter())[row["reason"]] += 1
    return [about | {"dropped": dict(sorted(reasons.get(about["source"], {}).items()))} for about in examples.sources]


def _personal_data(examples: Examples) -> dict:
    kinds: dict[str, Counter[str]] = {}
    for row in examples.personal_data:
        kinds.setdefault(row["source"], Counter()).update(row["entities"])
    return {
        "kinds": {source: dict(sorted(found.items())) for source, found in kinds.items()},
        "rows": examples.personal_data,
    }


def _lengths(lengths: list[int]) -> dict:
    if not lengths:
        return {"total": 0, "mean": 0.0, "quantiles": {}, "histogram": {}}
    ordered = sorted(lengths)
    quantiles = {str(q): ordered[min(int(q * len(ordered)), len(ordered) - 1)] for q in QUANTILES}
    bins = Counter(_bin(length) for length in lengths)
    return {
        "total": sum(lengths),
        "mean": round(sum(lengths) / len(lengths), 2),
        "quantiles": quantiles | {"1.0": ordered[-1]},
        "histogram": {str(most): bins[most] for most in _bins(max(bins))},
    }


def _bin(length: int) -> int:
    """The power of two, from :data:`SMALLEST`, that is not below ``length``."""
    return max(SMALLEST, 1 << max(length - 1, 0).bit_length())


def _bins(largest: int) -> list[int]:
    """The bins up to ``largest``."""
    return [most for most in (SMALLEST << step for step in range(40)) if most <= largest]


# As text


def table(about: dict) -> str:
    """A summary as text: a line a source, then counts, tokens and a histogram of whole examples."""
    lines = [("source", "read", "usable", "drawn", "dropped"), *(_source_cells(source) for source in about["sources"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(_aligned(cells, widths)).rstrip() for cells in lines]
    text += ["", "examples: " + _listed({"used": about["counts"]["used"]} | about["notes"])]
    text.append(
        "dropped:  "
        + (_listed({k: n for k, n in about["counts"].items() if k not in ("read", "used") and n}) or "none")
    )
    if about["dev"]:
        text.append(f"held out: {about['dev']['counts']['used']:,}")
    for source, kinds in about["personal_data"]["kinds"].items():
        text.append(f"personal data in {source}: {_listed(kinds)}")
    for part, lengths in about["tokens"].items():
        middle = ", ".join(f"{float(q):.0%} {n:,}" for q, n in lengths["quantiles"].items())
        text.append(f"tokens of {part}: {lengths['total']:,}, mean {lengths['mean']:,}; quantiles {middle}")
    if about["max_length"]:
        text.append(f"longer than max_length {about['max_length']:,}: {about['above_max_length']:.2%}")
    return "\n".join([*text, "", *_bars(about["tokens"]["whole"]["histogram"])])


def _source_cells(source: dict) -> tuple[str, ...]:
    name = f"{source['source']} (replay)" if source["replay"] else source["source"]
    return (name, *(f"{source[column]:,}" for column in ("read", "usable", "drawn")), _listed(source["dropped"]) or "-")


def _aligned(cells: tuple[str, ...], widths: list[int]) -> list[str]:
    first, *numbers, last = (
        cell.ljust(width) if i in (0, len(cells) - 1) else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return [first, *numbers, last]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts.items())


def _bars(histogram: dict[str, int]) -> list[str]:
    """A line a bin: its most tokens, a bar, and how many examples."""
    largest = max(histogram.values(), default=1)
    return [
        f"{'<=' + most:>8} {'#' * max(round(BAR * n / largest), n > 0):<{BAR}} {n:,}" for most, n in histogram.items()
    ]
