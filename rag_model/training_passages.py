"""``medadapt rag passages``: the passages found for training items, in a file that trainers learn with (RAFT).

A line an item, as :mod:`trainers.data.raft` reads it: ``id`` (where it has one), ``question``, and ``passages``, best
first, each with ``id, title, text, score``. A passage that holds its item (:mod:`medtasks.contamination`) is left out
and the next best takes its place: what shows the answer to be given teaches to copy.
"""

import argparse
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from medtasks import benchmarks, contamination, corpora, files, item_rows
from medtasks.errors import InputError
from rag_model import neighbours, prompts
from rag_model.arguments import natural, positive
from rag_model.index import open_index
from rag_model.retrieval import Retrieval

SPARE = 5
"""Passages found beyond those wanted, to take the place of those that hold an item."""


def add_to(commands) -> None:
    """Add the subcommand ``passages`` to argparse's ``commands``."""
    parser = commands.add_parser(
        "passages",
        help="write the passages found for training items, for RAFT",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=write)
    parser.add_argument(
        "items", metavar="ITEMS", help="a benchmark, BENCHMARK:SPLIT (not test), or a .jsonl or .jsonl.gz file of items"
    )
    parser.add_argument("--index", required=True, metavar="DIR", help="the index", default=argparse.SUPPRESS)
    parser.add_argument("--out", required=True, metavar="FILE.jsonl", help="file to write", default=argparse.SUPPRESS)
    parser.add_argument("-k", type=positive, default=3, metavar="N", help="passages of an item")
    parser.add_argument(
        "--neighbours", type=natural, default=0, metavar="N", help="snippets before and after each that come with it"
    )
    parser.add_argument("--search", default="exact", metavar="HOW", help="exact, chroma, bm25, rrf or a retriever")
    parser.add_argument("--query", default="question", metavar="WHAT", help="question, question+options, per_option")
    parser.add_argument("--rerank", metavar="MODEL", help="a cross-encoder", default=argparse.SUPPRESS)
    parser.add_argument(
        "--embedder",
        metavar="MODEL",
        help="where the index's embedder lies, if not where it lay at the build",
        default=argparse.SUPPRESS,
    )


def write(options: argparse.Namespace) -> int:
    """Find, check and write; the exit code.

    Raises:
        InputError: no such items, index or retriever, or a file that cannot be written.
    """
    given, out = vars(options), files.output_file(options.out)
    items = read(options.items)
    retrieval = Retrieval(
        open_index(options.index),
        search=options.search,
        query=options.query,
        rerank=given.get("rerank"),
        embedder=given.get("embedder"),
    )
    rows, left_out = found_for(items, retrieval, options.k, options.neighbours)
    files.write_jsonl(out, rows)
    n_short = sum(len(row["passages"]) < options.k for row in rows)
    print(
        f"{options.out}: {len(rows):,} items, up to {options.k} passages each; {left_out:,} passages that hold their "
        f"item left out, {n_short:,} items with fewer than {options.k}"
    )
    print(f"learn with it: raft: {{passages: {options.out}}} in a recipe of trainers.sft")
    return 0


def read(name: str) -> list[dict]:
    """The training items that ``name`` names: a benchmark (its training split), BENCHMARK:SPLIT, or a file.

    Raises:
        InputError: no such items, a test split, or a row without a question.
    """
    if name.endswith(corpora.JSONL):
        path = Path(name).expanduser()
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        rows = [_item(row, place) for place, row in corpora.file_rows(path)]
    else:
        benchmark, _, split = name.partition(":")
        if split == "test":
            raise InputError(f"{name}: test items are for measuring; give {benchmark} for its training items")
        rows = benchmarks.load(benchmark, split or "train")
    if not rows:
        raise InputError(f"{name}: no items")
    return rows


def found_for(items: Sequence[dict], retrieval: Retrieval, k: int, n_beside: int = 0) -> tuple[list[dict], int]:
    """A row for each item, and how many passages were left out because they hold their item.

    Args:
        n_beside: snippets before and after each found one that are shown with it (:mod:`rag_model.neighbours`).
    """
    overlap = contamination.Overlap(
        {"question": prompts.question_of(item, ""), "options": item.get("options") or []} for item in items
    )
    index = retrieval.index

    @functools.cache
    def held_by(ids: tuple[str, ...]) -> set[int]:
        return set(_held(overlap, neighbours.read(index, ids)))

    rows, left_out = [], 0
    for number, (item, found) in enumerate(zip(items, retrieval.find(items, k + SPARE), strict=True)):
        kept = []
        for pair in found:
            if len(kept) == k:
                break
            (stretch,) = neighbours.stretches(index, [pair], n_beside)
            if number in held_by(tuple(stretch.ids)):
                left_out += 1
            else:
                kept.append(pair)
        passages = []
        for stretch in neighbours.stretches(index, kept, n_beside):
            if number in held_by(tuple(stretch.ids)):  # two that meet may, though neither does
                left_out += 1
                continue
            snippet = neighbours.read(index, stretch.ids)
            about = {field: snippet[field] for field in ("title", "text")}
            passages.append({"id": stretch.found} | about | {"score": round(stretch.score, 6)})
        identity = {"id": item["id"]} if item.get("id") else {}
        rows.append(identity | {"question": prompts.question_of(item, ""), "passages": passages})
    return rows, left_out


def _held(overlap: contamination.Overlap, snippet: dict) -> Iterator[int]:
    """Numbers of the items that a snippet holds."""
    for finding in overlap.find({field: snippet[field] for field in ("title", "text")}):
        if finding.kind in contamination.LEAKS:
            yield finding.position


def _item(row, place: str) -> dict:
    """A row of a file, with its options as a list whatever its schema."""
    if not isinstance(row, dict) or not any(isinstance(row.get(field), str) for field in prompts.QUESTION_FIELDS):
        raise InputError(f"{place}: no question (one of {', '.join(prompts.QUESTION_FIELDS)}); each line must have one")
    options = item_rows.options_of(row)
    if options in (None, [], {}, ""):
        return row | {"options": []}
    try:
        _, texts = item_rows.keys_and_texts(options)
    except item_rows.Faulty as fault:
        raise InputError(f"{place}: {fault}") from fault
    return row | {"options": [text for text in texts if text not in item_rows.NO_OPTION]}
