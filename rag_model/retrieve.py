"""Queries -> the ids and scores of the nearest snippets of an index."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from medtasks.errors import InputError
from rag_model import index as index_room
from rag_model import store
from rag_model.embedding import Embedder
from rag_model.index import Index

if TYPE_CHECKING:
    import numpy as np

SEARCHES = ("exact", "chroma")
QUERY_BATCH = 256


class Retriever:
    """Searches one index.

    Args:
        index: an opened index.
        embedder: the index's embedder, or where it lies on this machine; None for the name that the index records.
        search: ``exact`` compares each query with every vector, always with the same result; ``chroma`` asks the
            Chroma store through LlamaIndex, whose HNSW graph may miss a neighbour.
        device: torch's name of the device that embeds queries (default: the GPU if there is one).

    Raises:
        InputError: no such search or embedder, or the index was built with another one.
    """

    def __init__(
        self, index: Index, embedder: Embedder | str | None = None, search: str = "exact", device: str | None = None
    ):
        if search not in SEARCHES:
            raise InputError(f"unknown search '{search}'; there are {', '.join(SEARCHES)}")
        self.index, self.how = index, search
        self.embedder = _embedder(index, embedder, device)

    def search(self, queries: Sequence[str], k: int) -> "tuple[list[list[str]], np.ndarray]":
        """The ``k`` snippets nearest to each query, best first.

        Returns:
            ids: one list of ``k`` snippet ids a query (of all snippets, where the index has fewer than ``k``).
            scores: float32, shape ``(len(queries), k)``; the cosine of query and snippet.
        """
        vectors = self.embedder.encode_queries(queries)
        k = min(k, self.index.meta["snippets"]["count"])
        return (self._exact if self.how == "exact" else self._chroma)(vectors, k)

    def _exact(self, vectors, k):
        import numpy as np

        found = [
            top_k(vectors[start : start + QUERY_BATCH], self.index.shards(), k)
            for start in range(0, len(vectors), QUERY_BATCH)
        ]
        positions = np.concatenate([positions for positions, _ in found])
        scores = np.concatenate([scores for _, scores in found])
        return [[self.index.ids[position] for position in row] for row in positions], scores

    def _chroma(self, vectors, k):
        import numpy as np
        from llama_index.core.vector_stores.types import VectorStoreQuery

        with store.opened(self.index.folder / index_room.STORE) as chroma:
            found = [
                chroma.query(VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=k))
                for vector in vectors
            ]
        # LlamaIndex gives exp(-distance), and Chroma's distance is 1 - cosine.
        scores = 1 + np.log(np.array([result.similarities for result in found]))
        return [result.ids for result in found], scores.astype(np.float32)


def top_k(queries: "np.ndarray", shards: "Iterable[np.ndarray]", k: int) -> "tuple[np.ndarray, np.ndarray]":
    """The ``k`` rows with the largest inner product with each query; of equal ones, the earlier.

    Args:
        queries: float32, shape ``(n, dimension)``.
        shards: float32, shape ``(rows, dimension)`` each; at least ``k`` rows together.

    Returns:
        positions (int64) in the concatenated shards and scores (float32), both ``(n, k)``, best first.
    """
    import numpy as np

    best_positions = np.full((len(queries), k), -1, dtype=np.int64)
    best_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    first = 0
    for shard in shards:
        scores = queries @ shard.T
        for i in np.flatnonzero(scores.max(axis=1) > best_scores[:, -1]):
            better = np.flatnonzero(scores[i] > best_scores[i, -1])  # an equal one lies later, so it loses
            candidates = np.concatenate([best_scores[i], scores[i, better]])
            order = np.argsort(-candidates, kind="stable")[:k]
            best_scores[i] = candidates[order]
            best_positions[i] = np.concatenate([best_positions[i], first + better])[order]
        first += len(shard)
    return best_positions, best_scores


def _embedder(index: Index, embedder: Embedder | str | None, device: str | None) -> Embedder:
    recorded = index.meta["embedder"]
    if embedder is None or isinstance(embedder, str):
        try:
            embedder = Embedder(embedder or recorded["name"], device)
        except InputError as error:
            raise InputError(
                f"{index.folder} was built with the embedder {recorded['name']}; {error}; or give its "
                "place here as embedder"
            ) from error
    if embedder.fingerprint != recorded["fingerprint"]:
        raise InputError(
            f"{index.folder} was built with the embedder {recorded['name']} ({recorded['fingerprint']}), not with "
            f"{embedder.name} ({embedder.fingerprint}); give that one, or build the index again"
        )
    return embedder
