"""Show which test items stand in a training set, a corpus or any other text.

``medadapt contamination --tasks medqa,mmlu_med --against medqa:train corpus.jsonl.gz`` prints a table, a row for each
task and source. What counts as found: :mod:`medtasks.contamination`.
"""

import argparse
import json
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from medtasks import benchmarks, corpora, files, sources
from medtasks.contamination import KINDS, LEAKS, Overlap, texts
from medtasks.errors import InputError

GROUPS = {
    "medadapt": ("medqa", "medmcqa", "pubmedqa", "mmlu_med"),
    "medadapt_sub": ("medqa_sub", "medmcqa_sub", "pubmedqa_sub", "mmlu_med_sub"),
}
"""The groups of tasks, as in ``medtasks/medadapt/``."""

TEXT = (".txt", ".md")
COLUMNS = ("task", "against", "rows", "items", *KINDS, "share")


def contamination(argv: list[str]) -> int:
    """``medadapt contamination``. Returns 0 whatever is found, or 1 if a share is above ``--fail-above``.

    Raises:
        InputError: unknown task or source, a row that cannot be read.
    """
    args = _parser().parse_args(argv)
    tasks = _tasks(args.tasks)
    opened = {source: rows(source) for source in dict.fromkeys(args.against)}
    overlap = Overlap(item for items in tasks.values() for item in items)
    owners = [task for task, items in tasks.items() for _ in items]
    tally = Tally(tasks, owners)
    findings = (finding for source in opened for finding in _search(overlap, owners, source, opened[source], tally))
    if args.out:
        files.write_jsonl(args.out, findings)
    else:
        deque(findings, maxlen=0)
    summary = tally.summary()
    print(json.dumps(summary, indent=2) if args.json else _table(summary))
    return int(args.fail_above is not None and any(line["share"] > args.fail_above for line in summary))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medadapt contamination",
        description=f"{__doc__.splitlines()[0]} share: of the items, those that are {', '.join(LEAKS[:-1])} or "
        f"{LEAKS[-1]}; an item counts once a source, with its worst finding.",
    )
    known = ", ".join([*GROUPS, *benchmarks.ALL])
    parser.add_argument(
        "--tasks",
        default="medadapt",
        metavar="NAME[:SPLIT],...",
        help=f"whose items to look for (split: test; default: medadapt): {known}",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        required=True,
        metavar="SOURCE",
        help="where to look: a .jsonl, .jsonl.gz, .txt or .md file, 'sample' (the bundled corpus), BENCHMARK[:SPLIT] "
        "or ORG/NAME[/CONFIG][:SPLIT] from the Hub (split: train)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write every finding, one a line")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument(
        "--fail-above", type=float, metavar="SHARE", help="exit with 1 if a share (0 to 1) is greater than this"
    )
    return parser


def _tasks(names: str) -> dict[str, list[dict]]:
    """Name as asked for -> its items."""
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if not asked:
        raise InputError(f"no task; give --tasks with some of {', '.join([*GROUPS, *benchmarks.ALL])}")
    members = dict.fromkeys(member for name in asked for member in GROUPS.get(name, (name,)))
    return {name: benchmarks.load(name.partition(":")[0], name.partition(":")[2] or "test") for name in members}


# Sources


def rows(source: str) -> Iterator[tuple[str, dict | str]]:
    """(a name for the row in findings, the row) of each row of a source; a text file is one row.

    Raises:
        InputError: no such source (at once), a row that cannot be read or has no text (when it is reached).
    """
    name, _, split = source.partition(":")
    if name in benchmarks.ALL:
        return ((item["id"], item) for item in _lazily(benchmarks.load, name, split or "train"))
    path = corpora.SAMPLE if source == "sample" else Path(source).expanduser()
    if path.is_file() and path.name.endswith(corpora.JSONL):
        return _checked(corpora.file_rows(path))
    if path.is_file() and path.name.endswith(TEXT):
        return ((source, text) for text in _lazily(_read_text, path))
    kinds = f"a {', '.join(corpora.JSONL)}, {' or '.join(TEXT)} file"
    if path.exists():
        raise InputError(f"{source}: cannot be searched; give {kinds}")
    on_hub = name.count("/") in (1, 2) and not name.startswith((".", "/", "~"))
    if not on_hub or name.endswith((*corpora.JSONL, *TEXT)):
        raise InputError(
            f"{source}: no such file; give {kinds}, 'sample', ORG/NAME, or one of {', '.join(benchmarks.ALL)}"
        )
    organization, dataset, *config = name.split("/")
    loaded = _lazily(sources.load_rows, f"{organization}/{dataset}", config[0] if config else None, split or "train")
    return _checked((f"{source} row {number}", row) for number, row in enumerate(loaded))


def _lazily(load, *arguments) -> Iterator:
    """The values of ``load(*arguments)``, loaded when the first is asked for."""
    yield from load(*arguments)


def _read_text(path: Path) -> list[str]:
    try:
        return [path.read_text(encoding="utf-8")]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text in UTF-8 ({error}); convert it first") from error


def _checked(read: Iterator[tuple[str, dict]]) -> Iterator[tuple[str, dict]]:
    for place, row in read:
        if not isinstance(row, dict):
            raise InputError(f"{place}: not a JSON object; each line must be one")
        if next(texts(row), None) is None:
            raise InputError(f"{place}: no text in it; a row needs a column that holds some")
        yield place, row


# Findings


class Tally:
    """How many items of each task stand in each source, each counted once a source, with its worst kind."""

    def __init__(self, tasks: dict[str, list[dict]], owners: list[str]):
        self._items = {task: len(items) for task, items in tasks.items()}
        self._owners = owners
        self._rows: Counter[str] = Counter()
        self._worst: dict[str, dict[int, int]] = {}

    def add(self, source: str, findings: list) -> None:
        """One more row of ``source``, with what was found in it."""
        self._rows[source] += 1
        worst = self._worst.setdefault(source, {})
        for finding in findings:
            kind = KINDS.index(finding.kind)
            worst[finding.position] = min(kind, worst.get(finding.position, kind))

    def summary(self) -> list[dict]:
        """One dict of :data:`COLUMNS` for each source and task; ``share`` of the items, in [0, 1]."""
        lines = []
        for source, worst in self._worst.items():
            for task, n_items in self._items.items():
                kinds = Counter(KINDS[kind] for position, kind in worst.items() if self._owners[position] == task)
                line = {"task": task, "against": source, "rows": self._rows[source], "items": n_items}
                line |= {kind: kinds[kind] for kind in KINDS}
                lines.append(line | {"share": sum(kinds[kind] for kind in LEAKS) / n_items})
        return lines


def _search(overlap: Overlap, owners: list[str], source: str, read: Iterator, tally: Tally) -> Iterator[dict]:
    """Every finding in one source, as it is written to ``--out``."""
    place = None
    for place, row in read:
        found = overlap.find(row)
        tally.add(source, found)
        for finding in found:
            yield {
                "task": owners[finding.position],
                "item": overlap.items[finding.position]["id"],
                "kind": finding.kind,
                "share": round(finding.share, 4),
                "against": source,
                "row": place,
                "id": str(row.get("id") or "") if isinstance(row, dict) else "",
                "text": finding.text,
            }
    if place is None:
        raise InputError(f"{source}: it is empty, nothing to search")


def _table(summary: list[dict]) -> str:
    """The summary as a Markdown table with aligned columns."""
    lines = [COLUMNS]
    for line in summary:
        counts = [f"{line[column]:,}" for column in COLUMNS[2:-1]]
        lines.append((line["task"], line["against"], *counts, f"{line['share']:.2%}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, [f"{'-' * (width - (i > 1))}{':' * (i > 1)}" for i, width in enumerate(widths)])
    aligned = [str.ljust, str.ljust] + [str.rjust] * (len(COLUMNS) - 2)
    return "\n".join(
        f"| {' | '.join(align(cell, width) for align, cell, width in zip(aligned, line, widths, strict=True))} |"
        for line in lines
    )
