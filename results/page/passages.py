"""The passages that items were shown, from the files that the model `rag` leaves beside its answers."""

import json
from collections.abc import Collection
from pathlib import Path

from medtasks.errors import InputError
from rag_model import neighbours
from rag_model.index import INDEX, SNIPPETS, Index
from results import harness_output
from results.page.evidence import Evidence
from results.runs import Run

SIDECAR = "retrieval"
DIGITS = 3


class Passages:
    """Collects the passages of several runs, each once.

    Attributes:
        known: ``id, title, text`` (the latter two "" where the index is not there), in order of first appearance.
        without_text: names of the runs whose index is not there.
        without_list: names of the runs with passages that kept no list of them.
    """

    def __init__(self, found: Evidence, texts: bool = True):
        self.known: list[dict] = []
        self.without_text: list[str] = []
        self.without_list: list[str] = []
        self._found, self._texts = found, texts
        self._places: dict[tuple[tuple[Path, ...], tuple[str, ...]], int] = {}
        self._opened: dict[Path, Index | None] = {}

    def of(self, run: Run, task: str, doc_ids: Collection[int]) -> dict[int, dict]:
        """doc_id -> ``seen``, pairs of a place in ``known`` and the score, best first, and ``cut``, how many passages
        were left out or shortened to fit into the model. Items whose book a gate left closed are not among them.

        Raises:
            InputError: the list of passages is damaged.
        """
        if not (file := _sidecar(run, task)):
            if "rag_k" in run.results.get("config", {}) and run.name not in self.without_list:
                self.without_list.append(run.name)
            return {}
        found, wanted = {}, set(doc_ids)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                if row["doc_id"] in wanted and row.get("opened", True):
                    seen = [[self._place(run, p), round(p["score"], DIGITS)] for p in row["passages"]]
                    found[row["doc_id"]] = {"seen": seen, "cut": row["n_cut"]}
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{file}:{number}: damaged ({error}); evaluate {run.name} again") from error
        return found

    def _place(self, run: Run, passage: dict) -> int:
        """Where the passage stands in ``known``; the text is of all snippets that it ``shows``."""
        folders, ids = self._folders(run), tuple(passage.get("shows", [passage["id"]]))
        key = (folders, ids)
        if key not in self._places:
            self._places[key] = len(self.known)
            snippet = self._snippet(run, folders, ids)
            self.known.append({"id": passage["id"], "title": snippet.get("title", ""), "text": snippet.get("text", "")})
        return self._places[key]

    def _snippet(self, run: Run, folders: tuple[Path, ...], ids: tuple[str, ...]) -> dict:
        if not self._texts:
            return {}
        for folder in folders:
            if folder not in self._opened:
                self._opened[folder] = Index(folder, {}) if (folder / SNIPPETS).is_file() else None
            index = self._opened[folder]
            if index is not None and all(snippet_id in index.offsets for snippet_id in ids):
                return neighbours.read(index, ids)
        if run.name not in self.without_text:
            self.without_text.append(run.name)
        return {}

    def _folders(self, run: Run) -> tuple[Path, ...]:
        """The indexes that the run searched: the study's own, wherever the study lies now, or where they lay then."""
        if self._found.study:
            own = [self._found.folder / "indexes" / name for name in self._found.study.variants[run.name].indexes]
            if own and all((folder / INDEX).is_file() for folder in own):
                return tuple(own)
        recorded = harness_output.model_args(run.results)
        return tuple(Path(recorded[name]).expanduser() for name in ("index", "examples") if recorded.get(name))


def _sidecar(run: Run, task: str) -> Path | None:
    """The list of what items of ``task`` saw: in the run's folder, or where ``--output_path`` pointed."""
    source = Path(run.source)
    folders = [source] if source.is_dir() else [source.parent, source.parent.parent]
    return next((file for folder in folders if (file := folder / SIDECAR / f"{task}.jsonl").is_file()), None)
