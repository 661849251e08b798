"""Search by the inner product of vectors: exactly over an index's shards, or in its Chroma store."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from medtasks.errors import InputError
from rag_model import index as index_room
from rag_model import store
from rag_model.embedding import Embedder
from rag_model.index import Index

if TYPE_CHECKING:
    import numpy as np
    import torch

BLOCK_ROWS = 32_768
BLOCK_QUERIES = 1_024
"""Vectors and queries that are multiplied at once: 134 MB of float32 scores."""
HELD_BYTES = 4 << 30
"""An index of more bytes of vectors is read from disk at every search."""
SEGMENTS = 16
"""Parts of a block, for each snippet wanted, whose maxima bound the score from which a vector can be among the best."""
ROUNDING = 1e-4
"""What a float32 inner product may be off by, relative to the norms; the order is decided in float64."""


class Exact:
    """Compares each query with every vector: the same queries and index give the same snippets and scores, whatever
    the device, the size of the shards, and what else is asked in the same call.

    Args:
        index: an opened index.
        embedder: the index's embedder.
        device: torch's name of the device that multiplies (default: the GPU if there is one).
    """

    def __init__(self, index: Index, embedder: Embedder, device: str | None = None):
        self.index, self.embedder, self.device = index, embedder, device

    def search(self, queries: Sequence[str], k: int) -> "tuple[list[list[str]], np.ndarray]":
        """The ``k`` snippets nearest to each query, best first; of equal ones, the earlier in the index.

        Returns:
            ids: one list of ``k`` snippet ids a query (of all snippets, where the index has fewer than ``k``).
            scores: float32, shape ``(len(queries), k)``; the cosine of query and snippet.
        """
        return self.nearest(query_vectors(self.embedder, queries), k)

    def nearest(self, vectors: "np.ndarray", k: int) -> "tuple[list[list[str]], np.ndarray]":
        """As :meth:`search`, for queries that are embedded already: float32, ``(queries, dimension)``."""
        positions, scores = top_k(vectors, self._blocks(), min(k, self.index.meta["snippets"]["count"]))
        return [[self.index.ids[position] for position in row] for row in positions], scores

    def _blocks(self) -> "Iterable[torch.Tensor]":
        n_bytes = 4 * self.index.meta["dimension"] * self.index.meta["snippets"]["count"]
        return self._held if n_bytes <= HELD_BYTES else self._read()

    @cached_property
    def _held(self) -> "list[torch.Tensor]":
        return list(self._read())

    def _read(self) -> "Iterator[torch.Tensor]":
        import torch

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        for rows in blocks(self.index.shards(), BLOCK_ROWS):
            yield torch.from_numpy(rows).to(device)


class Chroma:
    """Asks the index's Chroma store through LlamaIndex; its HNSW graph may miss a neighbour.

    Args:
        index: an opened index.
        embedder: the index's embedder.
    """

    def __init__(self, index: Index, embedder: Embedder):
        self.index, self.embedder = index, embedder

    def search(self, queries: Sequence[str], k: int) -> "tuple[list[list[str]], np.ndarray]":
        """As :meth:`Exact.search`; the order among equal scores is Chroma's.

        Raises:
            InputError: the store is missing or damaged.
        """
        import numpy as np
        from llama_index.core.vector_stores.types import VectorStoreQuery

        k = min(k, self.index.meta["snippets"]["count"])
        vectors = query_vectors(self.embedder, queries)
        with store.opened(self.index.folder / index_room.STORE) as chroma:
            found = [
                chroma.query(VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=k))
                for vector in vectors
            ]
        # LlamaIndex gives exp(-distance), and Chroma's distance is 1 - cosine.
        scores = 1 + np.log(np.array([result.similarities for result in found]).reshape(len(found), -1))
        return [result.ids for result in found], scores.astype(np.float32)


def top_k(
    queries: "np.ndarray", rows: "Iterable[np.ndarray | torch.Tensor]", k: int
) -> "tuple[np.ndarray, np.ndarray]":
    """The ``k`` rows with the largest inner product with each query; of equal ones, the earlier.

    Products are float32; those that could be among the best are computed again in float64, one by one, and ordered by
    that. So the result does not depend on how rows and queries are cut into blocks, nor on the device.

    Args:
        queries: float32, shape ``(n, dimension)``.
        rows: float32, shape ``(rows, dimension)`` each, on any device; at least ``k`` rows together.

    Returns:
        positions (int64) in the concatenated rows and scores (float32), both ``(n, k)``, best first.
    """
    import numpy as np
    import torch

    best_positions = np.full((len(queries), k), -1, dtype=np.int64)
    best_scores = np.full((len(queries), k), -np.inf)
    first = 0
    for block in rows:
        block = torch.as_tensor(block)
        for start in range(0, len(queries), BLOCK_QUERIES):
            part = slice(start, start + BLOCK_QUERIES)
            asked = torch.from_numpy(np.ascontiguousarray(queries[part])).to(block.device)
            query, row = _candidates(asked, block, best_scores[part, -1], k)
            scores = (asked[query].double().cpu() * block[row].double().cpu()).numpy().sum(axis=1)
            best_positions[part], best_scores[part] = _best(
                best_positions[part], best_scores[part], query.cpu().numpy(), first + row.cpu().numpy(), scores
            )
        first += len(block)
    return best_positions, best_scores.astype(np.float32)


def _candidates(queries: "torch.Tensor", block: "torch.Tensor", floor: "np.ndarray", k: int):
    """(query, row) of all pairs that may be among a query's ``k`` best, given the ``k``-th best score so far."""
    import torch

    scores = queries @ block.T
    floor = torch.maximum(torch.from_numpy(floor).to(scores), _floor(scores, k))
    margin = ROUNDING * queries.norm(dim=1) * block.norm(dim=1).max()
    return (scores >= (floor - margin)[:, None]).nonzero(as_tuple=True)


def _floor(scores: "torch.Tensor", k: int) -> "torch.Tensor":
    """A lower bound of each row's ``k``-th largest score, near it: the ``k``-th largest of the maxima of its parts."""
    n, m = scores.shape
    if m < k:
        return scores.new_full((n,), -float("inf"))
    n_parts = min(m, SEGMENTS * k)
    width = m // n_parts
    maxima = scores[:, : n_parts * width].unflatten(1, (n_parts, width)).amax(dim=2)
    return maxima.topk(k, dim=1).values[:, -1]


def best_of(scores: "np.ndarray", k: int) -> "tuple[np.ndarray, np.ndarray]":
    """Positions (int64) and scores of the ``k`` largest of each row of ``scores``, ``(n, m)`` with ``m >= k``: both
    ``(n, k)``, best first; of equal ones, the earlier."""
    import numpy as np
    import torch

    tensor = torch.from_numpy(scores)
    row, position = (part.numpy() for part in (tensor >= _floor(tensor, k)[:, None]).nonzero(as_tuple=True))
    n = len(scores)
    none = np.full((n, k), -1, dtype=np.int64), np.full((n, k), -np.inf, dtype=scores.dtype)
    return _best(*none, row, position, scores[row, position])


def _best(positions, scores, query, candidates, candidate_scores):
    """The best of each query's pairs so far, ``(n, k)``, and the candidates: sorted by score, then by position."""
    import numpy as np

    n, k = positions.shape
    query = np.concatenate([np.repeat(np.arange(n), k), query])
    positions = np.concatenate([positions.ravel(), candidates])
    scores = np.concatenate([scores.ravel(), candidate_scores])
    order = np.lexsort((positions, -scores, query))
    starts = np.searchsorted(query[order], np.arange(n))
    kept = order[starts[:, None] + np.arange(k)]
    return positions[kept], scores[kept]


def blocks(shards: "Iterable[np.ndarray]", size: int) -> "Iterator[np.ndarray]":
    """The rows of ``shards`` again, as float32 arrays in memory of ``size`` rows; the last may have fewer."""
    import numpy as np

    waiting, n_waiting = [], 0
    for shard in shards:
        while n_waiting + len(shard) >= size:
            taken, shard = shard[: size - n_waiting], shard[size - n_waiting :]
            yield np.concatenate([*waiting, taken]).astype(np.float32, copy=False)
            waiting, n_waiting = [], 0
        waiting.append(shard)
        n_waiting += len(shard)
    if n_waiting:
        yield np.concatenate(waiting).astype(np.float32, copy=False)


def query_vectors(embedder: Embedder, queries: Sequence[str]) -> "np.ndarray":
    """float32, ``(queries, dimension)``; by the embedder's ``encode_queries`` where queries are embedded otherwise than
    passages."""
    return getattr(embedder, "encode_queries", embedder.encode)(list(queries))


def embedder_of(index: Index, embedder: Embedder | str | None, device: str | None) -> Embedder:
    """The embedder that ``index`` was built with.

    Args:
        embedder: it, or where it lies on this machine; None for the name that the index records.
        device: torch's name of the device that embeds (default: the GPU if there is one).

    Raises:
        InputError: it is not there, or another one was given.
    """
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
