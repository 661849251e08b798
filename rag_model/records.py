"""What each item saw: one row an item, for the sidecar files, the result's ``config`` and ``--use_cache``."""

from pathlib import Path

from medtasks import files
from rag_model import prompts
from rag_model.context import Key, Passage
from rag_model.open_book import OpenBook


class Records:
    """Rows by task and document.

    Args:
        sidecar: folder for ``<task>.jsonl``; None for no such files.
        fingerprint: of the configuration, in every row.
    """

    def __init__(self, sidecar: str | Path | None, fingerprint: str):
        self.sidecar = Path(sidecar).expanduser() if sidecar else None
        self.fingerprint = fingerprint
        self.rows: dict[Key, dict] = {}

    def note(self, key: Key, doc: dict, book: OpenBook | None, **more) -> None:
        """Note what an item saw.

        Args:
            book: None where it stayed closed.
            more: what a mode has to say (``margin``, ``opened``), or the text (``cited``).
        """
        task, doc_id = key
        shown = book.shown if book else []
        self.rows[key] = {
            "task": task,
            "doc_id": doc_id,
            "item": doc.get("id"),
            "query": prompts.question_of(doc, task),
            "passages": [_row(passage) for passage in shown],
            "n_cut": book.n_cut if book else 0,
            "rag": self.fingerprint,
        } | more

    @property
    def counts(self) -> dict[str, int]:
        """Items in all, those that lost passages, and, where a gate stood, those whose book was opened."""
        rows = self.rows.values()
        gated = [row["opened"] for row in rows if "opened" in row]
        found = {"items": len(rows), "items_cut": sum(row["n_cut"] > 0 for row in rows)}
        return found | ({"items_opened": sum(gated)} if gated else {})

    def write(self) -> None:
        """Write ``<task>.jsonl`` for all tasks so far, sorted by document."""
        if self.sidecar is None:
            return
        for task in sorted({task for task, _ in self.rows}):
            keys = sorted(key for key in self.rows if key[0] == task)
            files.write_jsonl(self.sidecar / f"{task}.jsonl", (self.rows[key] for key in keys))


def _row(passage: Passage) -> dict:
    row = {"id": passage.snippet["id"], "score": round(passage.score, 6)}
    return row | ({"shows": list(passage.shows)} if passage.shows else {})
