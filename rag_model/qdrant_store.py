"""Qdrant as a store, through LlamaIndex: a server's collection or a folder of the client's local mode."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from uuid import NAMESPACE_OID, uuid5

from medtasks.errors import InputError
from rag_model.vector_store import Rows, Store, batches

API_KEY = "QDRANT_API_KEY"
"""Environment variable with a server's key."""
SNIPPET = "snippet"
"""The key of a point's payload that holds the snippet's id; Qdrant's own ids are UUIDs."""


class Qdrant(Store):
    """A collection named after the index's fingerprint; it counts as filled when it holds every snippet."""

    def __init__(self, place: str, name: str, similarity: str = "cosine"):
        self._place, self._name, self._similarity = place, name, similarity

    def fill(self, rows: Rows, count: int, progress: Callable[[int], object]) -> None:
        from llama_index.core.schema import TextNode
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client.http.models import Distance, VectorParams

        with self._client() as client:
            if client.collection_exists(self._name):
                client.delete_collection(self._name)
            store = None
            for batch in batches(rows, self.batch):
                if store is None:
                    distance = {"cosine": Distance.COSINE, "dot": Distance.DOT}[self._similarity]
                    params = VectorParams(size=len(batch[0][1]), distance=distance)
                    store = QdrantVectorStore(self._name, client=client, dense_config=params, batch_size=self.batch)
                told = ("title", "source", "license")
                store.add(
                    [
                        TextNode(
                            id_=_point(snippet["id"]),
                            text=snippet["text"],
                            metadata={field: snippet[field] for field in told} | {SNIPPET: snippet["id"]},
                            embedding=vector.tolist(),
                        )
                        for snippet, vector in batch
                    ]
                )
                progress(len(batch))

    def count(self) -> int:
        with self._filled() as client:
            return client.count(self._name, exact=True).count

    def vectors(self, ids: Iterable[Sequence[str]]) -> Iterator[dict]:
        with self._filled() as client:
            for batch in ids:
                points = client.retrieve(self._name, [_point(i) for i in batch], with_vectors=True)
                yield {point.payload[SNIPPET]: _dense(point.vector) for point in points}

    def nearest(self, vectors, k: int):
        import numpy as np
        from llama_index.core.vector_stores.types import VectorStoreQuery

        with self.opened() as store:
            queries = [VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=k) for vector in vectors]
            found = [store.query(query) for query in queries]
        ids = [[node.metadata[SNIPPET] for node in result.nodes] for result in found]
        return ids, np.array([result.similarities for result in found], dtype=np.float32)

    @contextmanager
    def opened(self):
        from llama_index.vector_stores.qdrant import QdrantVectorStore

        with self._filled() as client:
            yield QdrantVectorStore(self._name, client=client)

    @contextmanager
    def _filled(self):
        with self._client() as client:
            if not client.collection_exists(self._name):
                raise InputError(
                    f"{self._place}: Qdrant has no collection {self._name}; "
                    "run medadapt index build again to fill it from the vectors"
                )
            yield client

    @contextmanager
    def _client(self):
        from qdrant_client import QdrantClient
        from qdrant_client.http.exceptions import ApiException

        is_server = self._place.startswith(("http://", "https://"))
        where = {"url": self._place, "api_key": os.environ.get(API_KEY)} if is_server else {"path": self._place}
        try:
            client = QdrantClient(**where)
            try:
                yield client
            finally:
                client.close()
        except (ApiException, OSError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{self._place}: Qdrant does not answer as it should ({reason})") from error


def _point(snippet_id: str) -> str:
    return str(uuid5(NAMESPACE_OID, snippet_id))


def _dense(vector):
    """The vector of a point, which LlamaIndex may have given a name."""
    return next(iter(vector.values())) if isinstance(vector, dict) else vector
