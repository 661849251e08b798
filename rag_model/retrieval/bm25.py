"""Search by shared words: BM25 (Robertson & Zaragoza 2009, doi:10.1561/1500000019) as bm25s computes it.

Its files lie in the index's folder ``bm25``, made at the first search: bm25s's own (``bm25s.BM25.load`` opens them),
and ``settings.json``, which says of what index and words they are.
"""

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files
from rag_model.chunking import embedded_text
from rag_model.index import Index
from rag_model.retrieval.top_k import best_of

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

FOLDER = "bm25"
LOCK = ".bm25.lock"
SETTINGS = "settings.json"
K1, B = 1.2, 0.75
"""Lucene's."""
BLOCK = 1 << 18
"""Scores that one thread holds at once: 1 MB, which fits its cache."""


class BM25:
    """Searches an index for the words of queries: stems (Snowball's English stemmer), without stopwords (Lucene's).

    Args:
        index: an opened index.
        k1, b: how soon a word's repetitions, and how much a snippet's length, stop to count.
    """

    def __init__(self, index: Index, k1: float = K1, b: float = B):
        self.index, self.k1, self.b = index, k1, b

    @cached_property
    def settings(self) -> dict:
        """What the files depend on, as JSON."""
        from importlib.metadata import version

        return {
            "index": self.index.meta["fingerprint"],
            "words": "NFKC, lower case, letters and digits",
            "stopwords": "Lucene",
            "stemmer": f"Snowball English, PyStemmer {version('PyStemmer')}",
            "method": "lucene",
            "k1": self.k1,
            "b": self.b,
            "bm25s": version("bm25s"),
        }

    def search(self, queries: Sequence[str], k: int) -> "tuple[list[list[str]], np.ndarray]":
        """The ``k`` snippets with the highest scores for each query, best first; of equal ones, the earlier.

        Returns:
            ids: one list a query, shorter than ``k`` where fewer snippets share a word with it.
            scores: float32, shape ``(len(queries), k)``; -inf where there is no snippet.
        """
        import numpy as np

        k = min(k, len(self.index.ids))
        terms = [self._terms(query) for query in queries]
        size = max(1, BLOCK // len(self.index.ids))
        parts = [terms[start : start + size] for start in range(0, len(terms), size)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda part: self._best(part, k), parts))
        positions = np.concatenate([np.empty((0, k), np.int64), *(positions for positions, _ in found)])
        scores = np.concatenate([np.empty((0, k), np.float32), *(scores for _, scores in found)])
        names, n_found = self.index.ids, np.isfinite(scores).sum(axis=1).tolist()
        ids = [[names[place] for place in row[:n]] for row, n in zip(positions.tolist(), n_found, strict=True)]
        return ids, scores

    def _best(self, terms: list[list[int]], k: int) -> "tuple[np.ndarray, np.ndarray]":
        """Positions and scores of the best ``k`` snippets for each query, given as numbers of its words."""
        import numpy as np
        from scipy.sparse import csr_array

        counts = np.ones(sum(map(len, terms)), dtype=np.float32)
        numbers = np.fromiter(chain.from_iterable(terms), dtype=np.int32)
        ends = np.cumsum([0, *map(len, terms)])
        asked = csr_array((counts, numbers, ends), shape=(len(terms), self._scores.shape[0]))
        return best_of((asked @ self._scores).toarray(), k)

    def _terms(self, query: str) -> list[int]:
        """The numbers of the words of ``query`` that some snippet has; a word that comes twice counts twice."""
        numbers = (self._vocabulary.get(stem) for stem in stems(query))
        return [number for number in numbers if number is not None]

    @property
    def _scores(self):
        """``(words, snippets)`` sparse float32: what each word adds to each snippet's score."""
        return self._opened[0]

    @property
    def _vocabulary(self) -> dict[str, int]:
        return self._opened[1]

    @cached_property
    def _opened(self):
        from scipy.sparse import csr_array

        model = self._kept() or self._made()
        data, indices, indptr = (model.scores[part] for part in ("data", "indices", "indptr"))
        scores = csr_array((data, indices, indptr), shape=(len(indptr) - 1, len(self.index.ids)))
        return scores, model.vocab_dict

    def _kept(self):
        """bm25s's model of the files, made if they are not there; None where they cannot be written."""
        from filelock import FileLock

        bm25s = _bm25s()
        folder = self.index.folder / FOLDER
        try:
            if not self._is_whole(folder):
                with FileLock(self.index.folder / LOCK):
                    if not self._is_whole(folder):
                        self._keep(self._made(), folder)
        except OSError as error:
            logger.warning("%s: cannot be written (%s); words are counted anew in every process", folder, error)
            return None
        return bm25s.BM25.load(folder, mmap=True)

    def _made(self):
        """bm25s's model of the index's snippets."""
        bm25s = _bm25s()
        logger.info("bm25: counting the words of %d snippets", len(self.index.ids))
        vocabulary: dict[str, int] = {}
        numbers = [
            [vocabulary.setdefault(stem, len(vocabulary)) for stem in stems(embedded_text(snippet))]
            for snippet in self.index.snippets()
        ]
        model = bm25s.BM25(method="lucene", k1=self.k1, b=self.b)
        model.index((numbers, vocabulary), show_progress=False)
        return model

    def _keep(self, model, folder: Path) -> None:
        with files.new_folder(folder) as unfinished:
            model.save(unfinished, show_progress=False)
            parts = {file.name: files.sha256_file(file) for file in sorted(unfinished.iterdir())}
            files.write_json(unfinished / SETTINGS, {"settings": self.settings, "files": parts})

    def _is_whole(self, folder: Path) -> bool:
        """Whether the files are there, as written, of this index and with these settings; warns where not so."""
        if not folder.is_dir():
            return False
        try:
            written = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            if written["settings"] != self.settings:
                raise ValueError("made of another index or with other settings")
            for name, sha256 in written["files"].items():
                if files.sha256_file(folder / name) != sha256:
                    raise ValueError(f"{name} is damaged")
        except (OSError, ValueError, KeyError) as error:
            logger.warning("%s: made again (%s)", folder, error)
            return False
        return True


def stems(text: str) -> list[str]:
    """The words of ``text`` as BM25 compares them: :func:`medtasks.ngrams.words`, less stopwords, stemmed."""
    from medtasks.ngrams import words

    stemmer, stopwords = _english()
    return stemmer.stemWords([word for word in words(text) if word not in stopwords])


@cache
def _english():
    """Snowball's stemmer, which remembers words it has seen, and Lucene's stopwords."""
    import Stemmer

    return Stemmer.Stemmer("english"), frozenset(_bm25s().stopwords.STOPWORDS_EN)


@cache
def _bm25s():
    """The library. Where JAX is installed, it warms it up when it is imported, and JAX then takes most of a GPU's
    memory: here it finds the CPU alone, whichever it finds elsewhere."""
    before = os.environ.get("JAX_PLATFORMS")
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        import bm25s.stopwords
    finally:
        os.environ.pop("JAX_PLATFORMS")
        if before is not None:
            os.environ["JAX_PLATFORMS"] = before
    return bm25s
