"""Chroma as a store: in the index's folder or on a server, with texts or as a graph of vectors alone.

Snippets are written by Chroma's own client, so that LlamaIndex can read them, but leaner than it writes them: the text
stands in the node's JSON alone, not also as a Chroma document, whose trigram index costs a third of the time; ids and
relationships are not kept a second time.
"""

import json
import os
import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from medtasks import files
from medtasks.errors import InputError
from rag_model.vector_store import Rows, Store, batches

if TYPE_CHECKING:
    import numpy as np

COLLECTION = "snippets"
SEARCH_WIDTH = 200
"""HNSW's ef_search: candidates kept while searching; more misses fewer neighbours."""
SPACES = {"cosine": "cosine", "dot": "ip"}
"""Of a similarity, Chroma's name; its distance is 1 - inner product in both."""
QUERIES = 256
GRAPH = "graph.json"
"""Beside Chroma's own files: sizes and hashes of those that hold the graph."""


class _Chroma(Store):
    batch = 5_000
    """Chroma takes at most 5,461."""

    def __init__(self, similarity: str, with_texts: bool):
        self._space, self._with_texts = SPACES[similarity], with_texts

    @abstractmethod
    def _collection(self) -> AbstractContextManager:
        """The filled collection; raises InputError where there is none."""

    def _write(self, collection, rows: Rows, progress: Callable[[int], object]) -> None:
        import numpy as np

        for batch in batches(rows, self.batch):
            collection.add(
                ids=[snippet["id"] for snippet, _ in batch],
                embeddings=np.stack([vector for _, vector in batch]),
                metadatas=[_metadata(snippet) for snippet, _ in batch] if self._with_texts else None,
            )
            progress(len(batch))

    def _configuration(self, count: int) -> dict:
        # The graph goes to disk once, with the last row. What is not on disk Chroma inserts again at every opening:
        # slowly, and into a graph that gives other neighbours each time.
        return {
            "hnsw": {
                "space": self._space,
                "ef_search": SEARCH_WIDTH,
                "sync_threshold": max(2, count),
                "batch_size": max(2, min(count, self.batch)),
            }
        }

    def count(self) -> int:
        with self._collection() as collection:
            return collection.count()

    def vectors(self, ids: Iterable[Sequence[str]]) -> Iterator[dict]:
        with self._collection() as collection:
            for batch in ids:
                got = collection.get(ids=list(batch), include=["embeddings"])
                yield dict(zip(got["ids"], got["embeddings"], strict=True))

    def nearest(self, vectors, k: int):
        import numpy as np

        ids, distances = [], []
        with self._collection() as collection:
            for start in range(0, len(vectors), QUERIES):
                found = collection.query(vectors[start : start + QUERIES], n_results=k, include=["distances"])
                ids += found["ids"]
                distances += found["distances"]
        return ids, 1 - np.array(distances, dtype=np.float32)

    @contextmanager
    def opened(self):
        from llama_index.vector_stores.chroma import ChromaVectorStore

        if not self._with_texts:
            raise InputError("a store 'hnsw' holds vectors alone; build the index again with --store chroma")
        with self._collection() as collection:
            yield ChromaVectorStore(chroma_collection=collection)


class LocalChroma(_Chroma):
    """Chroma in a folder."""

    def __init__(self, folder: Path, similarity: str = "cosine", with_texts: bool = True):
        super().__init__(similarity, with_texts)
        self._folder = folder

    def fill(self, rows: Rows, count: int, progress: Callable[[int], object]) -> None:
        """Fills a folder beside its own, and renames that at the end."""
        unfinished = self._folder.with_name(self._folder.name + ".tmp")
        for old in (unfinished, self._folder):
            if old.exists():
                shutil.rmtree(old)
        with _client(unfinished) as client:
            collection = client.create_collection(
                COLLECTION, embedding_function=None, configuration=self._configuration(count)
            )
            self._write(collection, rows, progress)
        graph = {
            name: {"bytes": size, "sha256": files.sha256_file(unfinished / name)}
            for name, size in _graph(unfinished).items()
        }
        files.write_json(unfinished / GRAPH, graph)
        os.replace(unfinished, self._folder)

    def differs(self, ids: Sequence[str], shards: "Iterable[np.ndarray]") -> str | None:
        if self._has_graph():
            recorded = json.loads((self._folder / GRAPH).read_text(encoding="utf-8"))
            changed = [name for name, of in recorded.items() if files.sha256_file(self._folder / name) != of["sha256"]]
            if changed:
                return f"its graph is not as it was written ({changed[0]})"
        return super().differs(ids, shards)

    @contextmanager
    def _collection(self):
        import chromadb

        again = "run medadapt index build again, or medadapt index verify --mend, to fill it from the vectors"
        if not (self._folder / "chroma.sqlite3").is_file():  # Chroma would make an empty store
            raise InputError(f"{self._folder}: no Chroma store here; {again}")
        if not self._has_graph():
            raise InputError(f"{self._folder}: the Chroma store cannot be read (its graph is cut short); {again}")
        try:
            with _client(self._folder) as client:
                collection = client.get_collection(COLLECTION, embedding_function=None)
                collection.count()
                yield collection
        except chromadb.errors.ChromaError as error:
            from chromadb.api.shared_system_client import SharedSystemClient

            SharedSystemClient.clear_system_cache()  # else a mended store here stays unreadable in this process
            raise InputError(f"{self._folder}: the Chroma store cannot be read ({error}); {again}") from error

    def _has_graph(self) -> bool:
        """Whether the graph's files have their sizes; Chroma crashes the process over one that is cut short."""
        try:
            recorded = json.loads((self._folder / GRAPH).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return _graph(self._folder) == {name: of["bytes"] for name, of in recorded.items()}


class ChromaServer(_Chroma):
    """A collection of a Chroma server, named after the index's fingerprint."""

    def __init__(self, url: str, name: str, similarity: str = "cosine"):
        super().__init__(similarity, with_texts=True)
        self._url, self._name = url, name

    def fill(self, rows: Rows, count: int, progress: Callable[[int], object]) -> None:
        """Fills a collection of another name, and renames that at the end."""
        unfinished = f"{self._name}-unfinished"
        with self._client() as client:
            for collection in client.list_collections():
                if collection.name in (unfinished, self._name):
                    client.delete_collection(collection.name)
            collection = client.create_collection(
                unfinished, embedding_function=None, configuration=self._configuration(count)
            )
            self._write(collection, rows, progress)
            collection.modify(name=self._name)

    @contextmanager
    def _collection(self):
        import chromadb

        with self._client() as client:
            try:
                collection = client.get_collection(self._name, embedding_function=None)
            except chromadb.errors.NotFoundError as error:
                raise InputError(
                    f"{self._url}: the Chroma server has no collection {self._name}; "
                    "run medadapt index build again to fill it from the vectors"
                ) from error
            yield collection

    @contextmanager
    def _client(self):
        import chromadb
        import httpx
        from chromadb.config import Settings

        address = urlsplit(self._url)
        secure = address.scheme == "https"
        try:
            yield chromadb.HttpClient(
                host=address.hostname,
                port=address.port or (443 if secure else 8000),
                ssl=secure,
                settings=Settings(anonymized_telemetry=False),
            )
        except (httpx.HTTPError, OSError, ValueError, chromadb.errors.ChromaError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{self._url}: the Chroma server does not answer as it should ({reason})") from error


def _graph(folder: Path) -> dict[str, int]:
    """The sizes of the files in which Chroma keeps its graph, in bytes; it writes them once and then reads them."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.glob("*/*"))}


def _metadata(snippet: dict) -> dict:
    """The node's JSON, from which LlamaIndex makes it again, and keys to filter by: no more, since each costs time."""
    node = {
        "id_": snippet["id"],
        "text": snippet["text"],
        "metadata": {field: snippet[field] for field in ("title", "source", "license")},
    }
    return {
        "source": snippet["source"],
        "license": snippet["license"],
        "_node_content": json.dumps(node, ensure_ascii=False),
    }


def _client(folder: Path):
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
