"""Items -> passages: queries, search, rerank and filter, variety, and a cache around it all."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files
from medtasks.errors import InputError
from rag_model.chunking import embedded_text
from rag_model.embedding import Embedder
from rag_model.index import Index
from rag_model.retrieval import cache as kept
from rag_model.retrieval import dense, fusion, mmr
from rag_model.retrieval.bm25 import BM25
from rag_model.retrieval.queries import WRITTEN, Query, queries
from rag_model.retrieval.rerank import Reranker

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
"""Of what is computed: a change that finds other passages with the same settings makes older caches void."""
SEARCHES = ("exact", "store", "bm25", "rrf", "chroma")
VECTOR_STORE = ("store", "chroma")
CANDIDATES = 50
"""Snippets that are found for each query, at least, where they are reranked or chosen from for variety."""

Found = list[tuple[str, float]]
"""Snippet ids and scores, best first."""


class Retrieval:
    """Finds passages for items, all in one batch; each step is one argument.

    Args:
        index: an opened index.
        search: ``exact`` compares each query with every vector; ``store`` (or, as it was called, ``chroma``) asks the
            store that the index was built with, whose graph may miss a neighbour; ``bm25`` compares words; ``rrf``
            fuses ``exact`` and ``bm25``; ``package.module:Class`` is any LlamaIndex retriever
            (:mod:`rag_model.retrieval.foreign`).
        query: what is searched for (:func:`rag_model.retrieval.queries.queries`). Several queries of one item get
            ``k / n`` passages each, and more where they find the same.
        rerank: Hub id or folder of a cross-encoder (:class:`~rag_model.retrieval.rerank.Reranker`), or an object with
            ``name``, ``fingerprint`` and ``score(pairs)``, that orders the best :data:`CANDIDATES` anew.
        filter: the cross-encoder's score under which a passage is dropped; an item may then get none.
        mmr: lambda of :func:`~rag_model.retrieval.mmr.maximal_marginal_relevance`, 0 to 1; None leaves the order.
        fuse: of ``rrf``: ``rrf``, or ``rrf:W`` for a weight of W (0 to 1) of ``exact`` and 1 - W of ``bm25``.
        embedder: the index's embedder, or where it lies on this machine; None for the name that the index records.
        device: torch's name of the device that embeds, multiplies and reranks (default: the GPU if there is one).
        cache: folder that keeps what was found; ``none`` for no such; None for the user's
            (:func:`rag_model.retrieval.cache.file_of`).
        write: prompts -> texts, for the queries that a model writes. What it writes is kept in the cache only if it has
            an attribute ``fingerprint`` that says which model with which settings it is.

    Raises:
        InputError: an argument that is not one of these, or that lacks another one.
    """

    def __init__(
        self,
        index: Index,
        *,
        search: str = "exact",
        query: str = "question",
        rerank: str | Reranker | None = None,
        filter: float | None = None,
        mmr: float | None = None,
        fuse: str = "rrf",
        embedder: Embedder | str | None = None,
        device: str | None = None,
        cache: str | Path | None = None,
        write: Callable[[list[str]], list[str]] | None = None,
    ):
        queries([], query, write)
        for name, value in {"search": search, "fuse": fuse}.items():
            if not isinstance(value, str):
                raise InputError(f"{name}={value}: must be a text")
        for name, value in {"mmr": mmr, "filter": filter}.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise InputError(f"{name}={value}: must be a number")
        if search not in SEARCHES and ":" not in search:
            raise InputError(
                f"unknown search '{search}'; there are {', '.join(SEARCHES)}, and package.module:Class for a "
                "retriever of LlamaIndex"
            )
        if filter is not None and rerank is None:
            raise InputError(f"filter={filter} is a cross-encoder's score: give rerank=MODEL with it")
        if mmr is not None and not 0 <= mmr <= 1:
            raise InputError(f"mmr={mmr}: must lie between 0 (variety alone) and 1 (relevance alone)")
        self.index, self.how, self.query, self.write = index, search, query, write
        self.filter, self.mmr, self.fuse, self.device = filter, mmr, fuse, device
        self._weights = _weights(fuse)
        self._embedder = dense.embedder_of(index, embedder, device) if search != "bm25" or mmr is not None else None
        self.reranker = rerank if rerank is None or hasattr(rerank, "score") else Reranker(rerank, device)
        self.searcher = self._searcher()
        self.cache = kept.Cache(kept.file_of(cache, index.meta["fingerprint"]))

    def _searcher(self) -> fusion.Searcher:
        """What finds the candidates of each query."""
        if self.how == "exact":
            return dense.Exact(self.index, self._embedder, self.device)
        if self.how in VECTOR_STORE:
            return dense.Stored(self.index, self._embedder)
        if self.how == "bm25":
            return BM25(self.index)
        if self.how == "rrf":
            exact = dense.Exact(self.index, self._embedder, self.device)
            return fusion.Fused([exact, BM25(self.index)], self._weights)
        from rag_model.retrieval.foreign import LlamaIndexSearcher

        return LlamaIndexSearcher(self.how, self.index, self._embedder)

    @cached_property
    def settings(self) -> dict:
        """Everything that what is found depends on, as JSON: for fingerprints and records."""
        searched = {"search": self.how}
        if self.how in VECTOR_STORE:
            searched["store"] = self.index.meta["store"].partition("=")[0]
        if self.how in ("bm25", "rrf"):
            searched["bm25"] = BM25(self.index).settings
        if self.how == "rrf":
            searched["fuse"] = {"weights": self._weights, "k": fusion.RRF_K, "depth": fusion.DEPTH}
        reranker = self.reranker
        return {
            "version": VERSION,
            "index": self.index.meta["fingerprint"],
            **searched,
            "query": self.query,
            "rerank": {"name": reranker.name, "fingerprint": reranker.fingerprint} if reranker else None,
            "filter": self.filter,
            "mmr": self.mmr,
            "candidates": CANDIDATES if reranker or self.mmr is not None else None,
        }

    def find(self, items: Sequence[dict], k: int) -> list[Found]:
        """The passages of each item: at most ``k`` snippet ids with their scores, best first.

        A score is an inner product (``exact``, ``store``), a sum of BM25 weights, of reciprocal ranks (``rrf``), or the
        cross-encoder's logit; passages of different queries stand in turn, so their scores need not fall.

        Args:
            items: dicts with a question and maybe ``options``, as lm-eval's docs.

        Raises:
            InputError: an item without a question, or a store or model that cannot be used.
        """
        asked = queries(items, self.query, self._written if self.query in WRITTEN else None)
        settings = files.sha256_json(self.settings)
        keys = [files.sha256_json([settings, k, of_item]) for of_item in asked]
        found = self.cache.get(keys)
        new = {key: of_item for key, of_item in zip(keys, asked, strict=True) if key not in found}
        if new:
            fresh = dict(zip(new, self._find(list(new.values()), k), strict=True))
            self.cache.put(fresh)
            found |= fresh
        return [[(snippet_id, score) for snippet_id, score in found[key]] for key in keys]

    def passages(self, found: Found) -> list[dict]:
        """The snippets (:data:`rag_model.chunking.FIELDS`) of one item's ``found``, in its order."""
        return [self.index.snippet(snippet_id) for snippet_id, _ in found]

    def _written(self, forms: list[str]) -> list[str]:
        """What the model writes to each prompt, each once; kept where it says who it is."""
        writer = getattr(self.write, "fingerprint", None)
        keys = {form: files.sha256_json(["written", writer, form]) for form in forms}
        known = self.cache.get(keys.values()) if writer else {}
        new = [form for form, key in keys.items() if key not in known]
        texts = dict(zip((keys[form] for form in new), self.write(new) if new else [], strict=True))
        if writer:
            self.cache.put(texts)
        return [(known | texts)[keys[form]] for form in forms]

    def _find(self, asked: list[list[Query]], k: int) -> list[Found]:
        distinct = list(dict.fromkeys(query for of_item in asked for query in of_item))
        n_candidates = k if self.reranker is None and self.mmr is None else max(k, CANDIDATES)
        ids, scores = self.searcher.search([query.text for query in distinct], n_candidates)
        candidates = [list(zip(own, map(float, row), strict=False)) for own, row in zip(ids, scores, strict=True)]
        if self.reranker is not None:
            candidates = self._reranked(distinct, candidates)
        if self.mmr is not None:
            vectors = self._vectors({snippet_id for found in candidates for snippet_id, _ in found})
            candidates = [self._varied(found, vectors, k) for found in candidates]
        of_query = dict(zip(distinct, candidates, strict=True))
        return [fusion.round_robin([of_query[query] for query in of_item], k) for of_item in asked]

    def _reranked(self, distinct: list[Query], candidates: list[Found]) -> list[Found]:
        """The candidates in the cross-encoder's order, without those under ``filter``."""
        snippets = {snippet_id for found in candidates for snippet_id, _ in found}
        texts = {snippet_id: embedded_text(self.index.snippet(snippet_id)) for snippet_id in sorted(snippets)}
        pairs = [
            (query.asked, texts[snippet_id])
            for query, found in zip(distinct, candidates, strict=True)
            for snippet_id, _ in found
        ]
        scores = iter(self.reranker.score(pairs).tolist() if pairs else [])
        least = -math.inf if self.filter is None else self.filter
        reranked = []
        for found in candidates:
            scored = [(snippet_id, next(scores)) for snippet_id, _ in found]
            reranked.append(sorted((pair for pair in scored if pair[1] >= least), key=lambda pair: -pair[1]))
        return reranked

    def _varied(self, found: Found, vectors: "dict[str, np.ndarray]", k: int) -> Found:
        import numpy as np

        if not found:
            return found
        relevance = np.array([score for _, score in found])
        is_cosine = self.index.meta["embedder"]["similarity"] == "cosine" and self.how in ("exact", *VECTOR_STORE)
        if self.reranker is not None or not is_cosine:
            relevance = mmr.on_the_scale_of_a_cosine(relevance)
        own = np.stack([vectors[snippet_id] for snippet_id, _ in found])
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        return [found[i] for i in mmr.maximal_marginal_relevance(relevance, own, k, self.mmr)]

    def _vectors(self, wanted: set[str]) -> "dict[str, np.ndarray]":
        """Snippet id -> its vector."""
        ids = iter(self.index.ids)
        rows = (row for shard in self.index.shards() for row in shard)
        return {snippet_id: row for snippet_id, row in zip(ids, rows, strict=True) if snippet_id in wanted}


def _weights(fuse: str) -> tuple[float, float]:
    """Of ``exact`` and ``bm25``."""
    method, _, share = fuse.partition(":")
    try:
        dense_share = float(share) if share else 0.5
    except ValueError:
        dense_share = math.nan
    if method != "rrf" or not 0 <= dense_share <= 1:
        raise InputError(f"fuse={fuse}: must be rrf, or rrf:W with the weight W of exact search, 0 to 1")
    return (dense_share, 1 - dense_share) if share else (1.0, 1.0)
