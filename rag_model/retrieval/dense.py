"""Search by the inner product of vectors: exactly over an index's shards, or in its store."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from medtasks.errors import InputError
from rag_model.embedding import Embedder
from rag_model.index import Index
from rag_model.retrieval.top_k import blocks, top_k
from rag_model.vector_store import Store

if TYPE_CHECKING:
    import numpy as np
    import torch

BLOCK_ROWS = 32_768
"""Vectors that are compared at once with :data:`~rag_model.retrieval.top_k.BLOCK_QUERIES` queries: 134 MB of scores."""
HELD_BYTES = 4 << 30
"""An index of more bytes of vectors is read from disk at every search; a smaller one is kept in memory."""


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
            scores: float32, shape ``(len(queries), k)``; the inner product of query and snippet, of most embedders
                the cosine.
        """
        return self.nearest(self.embedder.encode_queries(list(queries)), k)

    def nearest(self, vectors: "np.ndarray", k: int) -> "tuple[list[list[str]], np.ndarray]":
        """As :meth:`search`, for queries that are embedded already: float32, ``(queries, dimension)``."""
        positions, scores = top_k(vectors, self._blocks(), min(k, self.index.meta["snippets"]["count"]))
        ids = self.index.ids
        return [[ids[position] for position in row] for row in positions.tolist()], scores

    def _blocks(self) -> "Iterator[torch.Tensor]":
        """The index's vectors in order, on the device one block at a time: between searches it holds nothing there."""
        import torch

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        n_bytes = 4 * self.index.meta["dimension"] * self.index.meta["snippets"]["count"]
        for rows in self._held if n_bytes <= HELD_BYTES else blocks(self.index.shards(), BLOCK_ROWS):
            yield torch.from_numpy(rows).to(device)

    @cached_property
    def _held(self) -> "list[np.ndarray]":
        return list(blocks(self.index.shards(), BLOCK_ROWS))


class Stored:
    """Asks the store that the index was built with; its graph may miss a neighbour.

    Args:
        index: an opened index.
        embedder: the index's embedder.

    Raises:
        InputError: the index was built without a store.
    """

    def __init__(self, index: Index, embedder: Embedder):
        self.index, self.embedder = index, embedder
        self.store = store_of(index)

    def search(self, queries: Sequence[str], k: int) -> "tuple[list[list[str]], np.ndarray]":
        """As :meth:`Exact.search`; the order among equal scores is the store's.

        Raises:
            InputError: the store is missing or damaged, or does not answer.
        """
        vectors = self.embedder.encode_queries(list(queries))
        return self.store.nearest(vectors, min(k, self.index.meta["snippets"]["count"]))


def store_of(index: Index) -> Store:
    """The store of ``index``.

    Raises:
        InputError: it was built without one.
    """
    if (store := index.store()) is None:
        raise InputError(f"{index.folder}: was built without a store; take search=exact, or build it with one")
    return store


def embedder_of(index: Index, embedder: Embedder | str | None, device: str | None) -> Embedder:
    """The embedder that ``index`` was built with.

    Args:
        embedder: it, or where it lies on this machine; None for the name that the index records.
        device: torch's name of the device that embeds (default: the GPU if there is one).

    Raises:
        InputError: it is not there, or another one was given.
    """
    recorded = index.meta["embedder"]
    if not hasattr(embedder, "encode_queries"):
        try:
            embedder = Embedder(recorded["name"] if embedder is None else embedder, device)
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
