"""How many questions a second are answered with passages, against LlamaIndex's retriever asked one by one.

    python benchmarks/retrieve.py --index DIR --embedder MODEL --out FILE.json              (all 7,045 test questions)
    python benchmarks/retrieve.py --index DIR --embedder MODEL --limit 300 --peer-limit 100

Both sides search the same index, with the same embedder and device, for the same questions of the four test sets (the
question alone); each side's first search, which opens what it needs, is not timed (BM25's files are made before). Timed
is the way from questions to ids and scores:

ours            ``Retrieval.find`` of all questions, without a cache: ``exact``, and ``rrf`` (exact + BM25); best of 3
peer: chroma    LlamaIndex's ``VectorIndexRetriever`` over the index's Chroma store (an HNSW graph), a question a call
peer: default   the same over LlamaIndex's default store (``SimpleVectorStore``: every vector, exactly)

Each is timed twice: embedding the questions included (``with embedding``), and with vectors that both sides are given
(``vectors given``). ``--peer-limit`` and ``--default-limit`` ask the peers the first questions only: they are asked one
by one, so their rate does not depend on how many. Said is also of how many questions the passages of ``exact`` are
those of the default store, and how many of them Chroma's graph finds.
"""

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path

import numpy as np

RUNS = 3
TIE = 2e-6
TASKS = ("medqa", "medmcqa", "mmlu_med", "pubmedqa")


class Known:
    """Gives vectors that were computed before: what is timed then is the search alone."""

    def __init__(self, embedder, texts, vectors):
        self.name, self.fingerprint = embedder.name, embedder.fingerprint
        self.vectors = dict(zip(texts, vectors, strict=True))

    def encode_queries(self, texts):
        return np.stack([self.vectors[text] for text in texts])


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from medtasks import benchmarks
    from rag_model.embedding import Embedder
    from rag_model.index import open_index
    from rag_model.retrieval import Retrieval

    index, embedder = open_index(arguments.index), Embedder(arguments.embedder, arguments.device)
    items = [item for task in TASKS for item in benchmarks.load(task, "test")]
    items = items[:: max(1, len(items) // arguments.limit)][: arguments.limit] if arguments.limit else items
    texts = [item["question"].strip() for item in items]
    Retrieval(index, search="bm25").find(items[:1], arguments.k)
    vectors = embedder.encode_queries(texts)
    known = Known(embedder, texts, vectors)
    figures = {
        "machine": _machine(),
        "index": {"fingerprint": index.meta["fingerprint"], "snippets": index.meta["snippets"]["count"]},
        "embedder": Path(arguments.embedder).name,
        "questions": len(items),
        "k": arguments.k,
        "with embedding": {},
        "vectors given": {},
    }
    found = {}
    for case, used in (("with embedding", embedder), ("vectors given", known)):
        for search in ("exact", "rrf"):
            retrieval = Retrieval(index, search=search, embedder=used, device=arguments.device, cache="none")
            seconds, found[search] = _ours(retrieval, items, arguments.k)
            _note(figures[case], search, len(items), seconds)
    nodes = _default_store(index, vectors)
    for case, used in (("with embedding", embedder), ("vectors given", known)):
        n = arguments.peer_limit or len(texts)
        seconds, chroma = _chroma(index, used, texts[:n], arguments.k)
        _note(figures[case], "peer: chroma", n, seconds)
        n = min(arguments.default_limit, len(texts))
        seconds, default = _one_by_one(nodes, used, texts[:n], arguments.k)
        _note(figures[case], "peer: default", n, seconds)
        for search in ("exact", "rrf"):
            for peer in ("peer: chroma", "peer: default"):
                rates = figures[case]
                ratio = rates[search]["questions_per_second"] / rates[peer]["questions_per_second"]
                rates[search][f"ratio to {peer}"] = round(ratio, 1)
    figures["exact equals"] = {
        "peer: default": _equal(found["exact"], default),
        "peer: chroma": _equal(found["exact"], chroma),
    }
    print(json.dumps(figures, indent=1))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _ours(retrieval, items, k):
    """(seconds of the fastest of RUNS, what was found)."""
    retrieval.find(items[:2], k)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        found = retrieval.find(items, k)
        times.append(time.perf_counter() - start)
    return min(times), found


def _chroma(index, embedder, texts, k):
    from llama_index.core import VectorStoreIndex

    from rag_model.retrieval.foreign import QueryEmbedding

    with index.store().opened() as chroma:
        llama_index = VectorStoreIndex.from_vector_store(chroma, embed_model=QueryEmbedding(embedder))
        seconds, answers = _asked(llama_index.as_retriever(similarity_top_k=k), texts)
    # LlamaIndex gives exp(-distance), and Chroma's distance is 1 - cosine.
    return seconds, [[(name, 1 + math.log(score)) for name, score in answer] for answer in answers]


def _default_store(index, vectors):
    """Nodes with their vectors, for LlamaIndex's default store."""
    from llama_index.core.schema import TextNode

    rows = (row for shard in index.shards() for row in shard)
    return [
        TextNode(id_=name, text=index.snippet(name)["text"], embedding=row.tolist())
        for name, row in zip(index.ids, rows, strict=True)
    ]


def _one_by_one(nodes, embedder, texts, k):
    from llama_index.core import VectorStoreIndex

    from rag_model.retrieval.foreign import QueryEmbedding

    llama_index = VectorStoreIndex(nodes, embed_model=QueryEmbedding(embedder))
    return _asked(llama_index.as_retriever(similarity_top_k=k), texts)


def _asked(retriever, texts):
    """(seconds, [(id, score), ...] of each text)."""
    retriever.retrieve(texts[0])
    start = time.perf_counter()
    answers = [retriever.retrieve(text) for text in texts]
    seconds = time.perf_counter() - start
    return seconds, [[(node.node.node_id, node.score) for node in nodes] for nodes in answers]


def _equal(ours, theirs):
    """Of how many questions the ids are the same in the same order, and the scores at each rank (so that what differs
    are ties alone)."""
    pairs = list(zip(ours, theirs, strict=False))
    ids = [[name for name, _ in own] == [name for name, _ in other] for own, other in pairs]
    scores = [np.allclose([s for _, s in own], [s for _, s in other], rtol=0, atol=TIE) for own, other in pairs]
    return {"questions": len(pairs), "same ids": sum(ids), "same scores": sum(scores)}


def _note(figures, name, n, seconds):
    figures[name] = {"questions": n, "seconds": round(seconds, 3), "questions_per_second": round(n / seconds, 1)}
    print(f"{name}: {n} questions in {seconds:.2f} s", flush=True)


def _machine():
    from importlib.metadata import version

    import torch

    packages = ("torch", "sentence-transformers", "llama-index-core", "chromadb", "bm25s", "numpy", "scipy")
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--embedder", required=True)
    parser.add_argument("--device", help="torch's name (default: the GPU if there is one)")
    parser.add_argument("-k", type=int, default=8)
    parser.add_argument("--limit", type=int, help="questions, evenly from all (default: all)")
    parser.add_argument("--peer-limit", type=int, help="questions that LlamaIndex is asked over Chroma (default: all)")
    parser.add_argument("--default-limit", type=int, default=200, help="and over its default store")
    parser.add_argument("--out", metavar="FILE.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
