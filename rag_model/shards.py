"""``snippets.jsonl`` -> shards of vectors, each embedded as a whole, longest texts first, by whichever device is free.

A shard is a function of its snippets and the embedder alone, so a build that was killed ends with the same bytes.
"""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import SimpleQueue

from medtasks import files
from medtasks.errors import InputError
from rag_model.embedding import Embedder
from rag_model.index import SNIPPETS, VECTORS, is_shard, load_shard
from rag_model.vector_store import Rows, batches


def embed(out: Path, embedder: Embedder, n_snippets: int, shard_size: int, progress: bool) -> list[Path]:
    """Write the shards that are not there yet; return the paths of all of them.

    Raises:
        InputError: the embedder gives numbers that are not finite.
    """
    from tqdm import tqdm

    shards, missing = [], []
    with tqdm(total=n_snippets, desc="embedding", unit="snippet", disable=not progress) as bar:
        for number in count():
            rows = min(shard_size, n_snippets - number * shard_size)
            if rows <= 0:
                break
            shards.append(out / VECTORS / f"{number:05d}.npy")
            if is_shard(shards[-1], rows):
                bar.update(rows)
            else:
                missing.append(number)
        if missing:
            jobs = ((shards[number], snippets) for number, snippets in _read(out, shard_size, set(missing)))
            _work(jobs, embedder, bar.update)
    return shards


def rows(out: Path, shards: list[Path]) -> Rows:
    """Every snippet with its vector, in index order."""
    with (out / SNIPPETS).open(encoding="utf-8") as f:
        vectors = (vector for shard in shards for vector in load_shard(shard))
        yield from zip(map(json.loads, f), vectors, strict=True)


def _read(out: Path, shard_size: int, wanted: set[int]) -> Iterator[tuple[int, list[dict]]]:
    """Number and snippets of the ``wanted`` shards."""
    with (out / SNIPPETS).open(encoding="utf-8") as f:
        for number, lines in enumerate(batches(f, shard_size)):
            if number in wanted:
                yield number, [json.loads(line) for line in lines]


def _work(jobs: Iterator[tuple[Path, list[dict]]], embedder: Embedder, progress) -> None:
    """Share the shards out among the embedder's replicas; no more are read than are being worked on."""
    replicas = embedder.replicas() if hasattr(embedder, "replicas") else [embedder]
    if len(replicas) == 1:
        for shard, snippets in jobs:
            _write(shard, snippets, replicas[0], progress)
        return
    free: SimpleQueue[Embedder] = SimpleQueue()
    for replica in replicas:
        replica.encode([])  # loads its model; transformers does not load several at the same time
        free.put(replica)

    def work(shard: Path, snippets: list[dict], replica: Embedder) -> None:
        try:
            _write(shard, snippets, replica, progress)
        finally:
            free.put(replica)

    futures: list[Future] = []
    with ThreadPoolExecutor(len(replicas)) as pool:
        for shard, snippets in jobs:
            for future in [future for future in futures if future.done()]:
                future.result()  # raises what went wrong in it
                futures.remove(future)
            futures.append(pool.submit(work, shard, snippets, free.get()))
    for future in futures:
        future.result()


def _write(shard: Path, snippets: list[dict], embedder: Embedder, progress) -> None:
    import numpy as np

    vectors = embedder.encode([embedder.document(snippet) for snippet in snippets], progress)
    if not np.isfinite(vectors).all():
        raise InputError(f"{embedder.name}: gives vectors that are not finite numbers; use another embedder")
    with files.atomic_write(shard, "wb") as f:
        np.save(f, vectors)
