"""LlamaIndex's retrievers as ours: ``search=package.module:Class`` (:class:`LlamaIndexSearcher`)."""

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeWithScore
from pydantic import PrivateAttr

from medtasks.errors import InputError
from rag_model.embedding import Embedder
from rag_model.index import Index
from rag_model.retrieval import dense

if TYPE_CHECKING:
    import numpy as np

THREADS = 8


class LlamaIndexSearcher:
    """Asks any LlamaIndex retriever, by its ``retrieve``, one query after another; in threads, if its class has
    ``thread_safe = True``.

    Args:
        path: ``package.module:Class``. The class, or any function in its place, is called with ``index``, a LlamaIndex
            ``VectorStoreIndex`` over the index's store, and ``similarity_top_k``.
        index, embedder: an opened index and its embedder.

    Raises:
        InputError: there is no such class.
    """

    def __init__(self, path: str, index: Index, embedder: Embedder):
        module, _, name = path.partition(":")
        try:
            self.make = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"search={path}: no such LlamaIndex retriever ({error}); give package.module:Class"
            ) from error
        self.path, self.index, self.embedder = path, index, embedder

    def search(self, queries: Sequence[str], k: int) -> "tuple[list[list[str]], np.ndarray]":
        """As :meth:`rag_model.retrieval.fusion.Searcher.search`, in the retriever's order, each snippet once; a score
        that it does not give is 1 / rank.

        Raises:
            InputError: it cannot be made of an index, or gives a node that is no snippet of it.
        """
        import numpy as np

        with dense.store_of(self.index).opened() as vector_store:
            llama_index = VectorStoreIndex.from_vector_store(vector_store, embed_model=QueryEmbedding(self.embedder))
            try:
                retriever = self.make(index=llama_index, similarity_top_k=k)
            except TypeError as error:
                raise InputError(
                    f"search={self.path}: cannot be made with index= and similarity_top_k= ({error}); give a function "
                    "that takes these and makes it"
                ) from error
            threads = THREADS if getattr(retriever, "thread_safe", False) else 1
            with ThreadPoolExecutor(threads) as pool:
                answers = list(pool.map(retriever.retrieve, queries))
        ids = []
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for row, nodes in enumerate(answers):
            found = self._found(nodes, k)
            ids.append(list(found))
            scores[row, : len(found)] = list(found.values())
        return ids, scores

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self.index.ids)

    def _found(self, nodes: Sequence[NodeWithScore], k: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for rank, node in enumerate(nodes, 1):
            if node.node.node_id not in self._ids:
                raise InputError(
                    f"search={self.path}: gives '{node.node.node_id}', which is no snippet of {self.index.folder}"
                )
            if len(found) < k:
                found.setdefault(node.node.node_id, 1 / rank if node.score is None else float(node.score))
        return found


class QueryEmbedding(BaseEmbedding):
    """The embedder of an index as LlamaIndex's embedding model."""

    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder):
        super().__init__(model_name=embedder.name)
        self._embedder = embedder

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.encode_queries([query])[0].tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embedder.encode([text])[0].tolist()
