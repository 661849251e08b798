"""The Chroma store of an index: filled from its vectors, and opened, through LlamaIndex.

The store is a copy: the shards of :mod:`rag_model.index` are the truth, from which it can be filled again at any time.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from medtasks.errors import InputError

COLLECTION = "snippets"
BATCH = 5_000
"""Snippets written in one call; Chroma takes at most 5,461."""
SEARCH_WIDTH = 200
"""HNSW's ef_search: candidates kept while searching; more misses fewer neighbours."""


def fill(folder: Path, rows: Iterable[tuple[dict, list[float]]], count: int, progress: Callable[[int], object]) -> None:
    """Write ``rows``, ``count`` pairs of snippet and unit vector, into a new store at ``folder``.

    Fills a folder beside it and renames that at the end, so a killed process leaves nothing that looks filled.
    ``progress`` is called with the number of snippets written since its last call.
    """
    from llama_index.core.schema import TextNode
    from llama_index.vector_stores.chroma import ChromaVectorStore

    unfinished = folder.with_name(folder.name + ".tmp")
    for old in (unfinished, folder):
        if old.exists():
            shutil.rmtree(old)
    # The graph goes to disk once, with the last row. What is not on disk Chroma inserts again at every opening: slowly,
    # and into a graph that gives other neighbours each time.
    hnsw = {"space": "cosine", "ef_search": SEARCH_WIDTH, "sync_threshold": max(2, count)}
    with _client(unfinished) as client:
        collection = client.create_collection(COLLECTION, embedding_function=None, configuration={"hnsw": hnsw})
        store = ChromaVectorStore(chroma_collection=collection)
        rows = iter(rows)
        while batch := list(islice(rows, BATCH)):
            nodes = [
                TextNode(
                    id_=snippet["id"],
                    text=snippet["text"],
                    metadata={field: snippet[field] for field in ("title", "source", "license")},
                    embedding=vector,
                )
                for snippet, vector in batch
            ]
            store.add(nodes)
            progress(len(nodes))
    os.replace(unfinished, folder)


def is_filled(folder: Path, count: int) -> bool:
    """Whether ``folder`` is a store that can be read and holds ``count`` snippets."""
    try:
        with _collection(folder) as collection:
            return collection.count() == count
    except InputError:
        return False


@contextmanager
def opened(folder: Path):
    """The store at ``folder`` as LlamaIndex's ``ChromaVectorStore``.

    Raises:
        InputError: it is missing or damaged.
    """
    from llama_index.vector_stores.chroma import ChromaVectorStore

    with _collection(folder) as collection:
        yield ChromaVectorStore(chroma_collection=collection)


@contextmanager
def _collection(folder: Path):
    import chromadb

    if not (folder / "chroma.sqlite3").is_file():  # Chroma would make an empty store
        raise InputError(f"{folder}: no Chroma store here; run medadapt index build again to fill it from the vectors")
    try:
        with _client(folder) as client:
            collection = client.get_collection(COLLECTION, embedding_function=None)
            collection.count()
            yield collection
    except chromadb.errors.ChromaError as error:
        from chromadb.api.shared_system_client import SharedSystemClient

        SharedSystemClient.clear_system_cache()  # else a mended store at this path stays unreadable in this process
        raise InputError(
            f"{folder}: the Chroma store cannot be read ({error}); run medadapt index build again to fill it anew"
        ) from error


def _client(folder: Path):
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
