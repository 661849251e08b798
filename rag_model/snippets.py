"""Corpora -> ``snippets.jsonl``: read once, kept free of test items, cut, and counted by source and licence."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import corpora, files
from medtasks.errors import InputError
from rag_model import chunking, solved
from rag_model.chunking import Chunking
from rag_model.index import CORPUS, LEFT_OUT, SNIPPETS

if TYPE_CHECKING:
    from medtasks.contamination import Overlap


def version(names: Sequence[str], license: str) -> dict:
    """What says whether corpora are the same as before: ``name`` and ``sha256``, of their contents and of the licence
    that is filled in; ``solved`` where they are solved questions.

    Raises:
        InputError: there is no such corpus.
    """
    if solved.are_solved(names):
        content = [solved.version(names), license]
        return {"name": ", ".join(map(solved.shown_name, names)), "sha256": files.sha256_json(content), "solved": True}
    found = [corpora.locate(name) for name in names]
    content = [[corpus.name, corpus.limit, corpus.version()] for corpus in found]
    shown = [corpus.name if corpus.limit is None else f"{corpus.name}:{corpus.limit}" for corpus in found]
    return {"name": ", ".join(shown), "sha256": files.sha256_json([content, license])}


def write(out: Path, names: Sequence[str], license: str, cut: Chunking, held_out: "Overlap | None") -> None:
    """Write ``corpus.json`` (and ``left_out.jsonl``), then ``snippets.jsonl``.

    Raises:
        InputError: a bad row, or every passage holds a test item; no file is written then.
    """
    reader = _Reader(held_out)
    unfinished = out / f".{SNIPPETS}.whole.tmp"
    try:
        if solved.are_solved(names):
            made = reader.kept(solved.read(names, license))
        else:
            made = chunking.split(reader.kept(corpora.read(*names, license=license)), cut)
        files.write_jsonl(unfinished, reader.counted(made))
        if not reader.snippets:
            raise InputError(
                f"{out}: all {len(reader.left_out)} passages hold a test item, so nothing is left to index"
            )
        if held_out is not None:
            files.write_jsonl(out / LEFT_OUT, reader.left_out)
        files.write_json(out / CORPUS, reader.account())
        unfinished.replace(out / SNIPPETS)
    finally:
        unfinished.unlink(missing_ok=True)


class _Reader:
    """Counts what passes through it."""

    def __init__(self, held_out: "Overlap | None"):
        self.left_out: list[dict] = []
        self.read: Counter[tuple[str, str]] = Counter()
        self.snippets: Counter[tuple[str, str]] = Counter()
        self._held_out = held_out

    def kept(self, passages: Iterator[dict]) -> Iterator[dict]:
        """The passages that hold no item; the others are listed in ``left_out``, each with the first item it holds."""
        for passage in passages:
            if (leak := self._leak(passage)) is not None:
                self.left_out.append(leak)
                continue
            self.read[passage["source"], passage["license"]] += 1
            yield passage

    def counted(self, snippets: Iterator[dict]) -> Iterator[dict]:
        for snippet in snippets:
            self.snippets[snippet["source"], snippet["license"]] += 1
            yield snippet

    def account(self) -> dict:
        """The content of ``corpus.json``."""
        return {
            "passages": self.read.total() + len(self.left_out),
            "left_out": len(self.left_out),
            "sources": [
                {"source": source, "license": license, "passages": n, "snippets": self.snippets[source, license]}
                for (source, license), n in self.read.items()
            ],
        }

    def _leak(self, passage: dict) -> dict | None:
        from medtasks import contamination

        if self._held_out is None:
            return None
        looked_at = passage.get(chunking.ITEM, passage)
        found = [finding for finding in self._held_out.find(looked_at) if finding.kind in contamination.LEAKS]
        if not found:
            return None
        return {"id": passage["id"], "item": self._held_out.items[found[0].position]["id"], "kind": found[0].kind}
