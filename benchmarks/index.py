"""How fast an index is built, against LlamaIndex's `VectorStoreIndex.from_documents` over Chroma in the same run.

    python benchmarks/index.py FILE.jsonl.gz ... --embedder .models/all-MiniLM-L6-v2 --out FILE.json
    python benchmarks/index.py FILE.jsonl.gz ... --embedder MODEL --snippets 200000 --device cuda --out FILE.json

Takes the first N snippets (default 20,000) of the corpora, cut as `medadapt index build` cuts them. On a CPU it
measures, each in a process of its own, one after the other:

    peer               from_documents with LlamaIndex's own HuggingFaceEmbedding, all of its settings its defaults
                       (needs llama-index-embeddings-huggingface, which is no dependency of this project)
    ours float32       `rag_model.build.build` over the same snippets, with the same model and precision
    ours bfloat16      the same in bfloat16
    store peer, ours   storing alone, the vectors of `ours float32` at hand: from_documents with an embedder that looks
                       them up, and the store's `fill`

Timed are wall seconds and CPU seconds of the process, from texts to a store that is on disk and answers; imports, and
loading and warming up the model, are not. Both embed the same words (title and text), and the vectors are compared.
The test items that a build keeps out by default are not looked for here: the peer has no such step.

With `--device cuda` it measures ours alone, stage by stage, the check for test items included. If the corpora give
fewer snippets than asked for, they are repeated with other ids, and the number of different texts is in the figures.
Cores are those that the process may use.

Measured: figures/index_cpu.json; figures/index_h100.json (200,000 snippets: 110 s to exact search, 301 s with Chroma).
"""

import argparse
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

ARMS = ("peer", "ours float32", "ours bfloat16", "store peer", "store ours")
WARM_UP = 64
QUERIES = 1_000


def main() -> None:
    arguments = _arguments()
    if arguments.arm:
        figures = _run(arguments)
        arguments.out.write_text(json.dumps(figures))
        return
    work = Path(tempfile.mkdtemp(prefix="medadapt-index-", dir=arguments.work))
    try:
        distinct = _write_snippets(arguments, work / "snippets.jsonl.gz")
        figures = {"machine": _machine(arguments.device), "settings": _settings(arguments), "different_texts": distinct}
        arms = ("stages",) if arguments.device == "cuda" else ARMS
        for arm in arms:
            figures[arm] = _in_a_process(arm, arguments, work)
            print(f"{arm}: {json.dumps(figures[arm])}", flush=True)
        if arguments.device != "cuda":
            figures["ratios"] = _ratios(figures)
            figures["cosines"] = _cosines(work)
            print(json.dumps({"ratios": figures["ratios"], "cosines": figures["cosines"]}))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", help="what medadapt index build takes")
    parser.add_argument("--embedder", default=".models/all-MiniLM-L6-v2")
    parser.add_argument("--snippets", type=int, default=20_000)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--store", default="chroma", help="what the stages on a GPU end in")
    parser.add_argument("--work", type=Path, help="folder for what is built meanwhile (default: the system's)")
    parser.add_argument("--out", type=Path, help="where to write the figures")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    return parser.parse_args()


def _settings(arguments: argparse.Namespace) -> dict:
    return {
        "corpus": [Path(name).name for name in arguments.corpus],
        "embedder": Path(arguments.embedder).name,
        "snippets": arguments.snippets,
    }


def _machine(device: str) -> dict:
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    return {"device": name, "gpus": gpus, "cores": len(os.sched_getaffinity(0)), "torch": torch.__version__}


def _write_snippets(arguments: argparse.Namespace, file: Path) -> int:
    """The snippets as a corpus, whose passages stay whole; returns how many different ones there are."""
    from medtasks import corpora
    from rag_model.chunking import Chunking, split

    found = list(islice(split(corpora.read(*arguments.corpus), Chunking()), arguments.snippets))
    with gzip.open(file, "wt") as f:
        for number in range(arguments.snippets):
            snippet = found[number % len(found)]
            f.write(json.dumps(snippet | {"id": f"{snippet['id']}-{number // len(found)}"}) + "\n")
    return len(found)


def _in_a_process(arm: str, arguments: argparse.Namespace, work: Path) -> dict:
    result = work / "result.json"
    command = [sys.executable, __file__, str(work / "snippets.jsonl.gz"), "--arm", arm, "--work", str(work)]
    command += ["--embedder", arguments.embedder, "--device", arguments.device, "--store", arguments.store]
    subprocess.run([*command, "--snippets", str(arguments.snippets), "--out", str(result)], check=True)
    return json.loads(result.read_text())


def _run(arguments: argparse.Namespace) -> dict:
    import chromadb  # noqa: F401 (imports are not timed)
    import llama_index.core  # noqa: F401

    kind, _, what = arguments.arm.partition(" ")
    run = {"peer": _peer, "ours": _ours, "store": _store, "stages": _stages}[kind]
    return run(arguments, what)


# What is measured


class Clock:
    """Wall and CPU seconds of a block."""

    def __enter__(self):
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu

    def figures(self, snippets: int) -> dict:
        return {
            "seconds": round(self.wall, 2),
            "cpu_seconds": round(self.cpu, 2),
            "snippets_per_second": round(snippets / self.wall, 1),
            "snippets_per_cpu_second": round(snippets / self.cpu, 1),
        }


def _snippets(arguments: argparse.Namespace) -> list[dict]:
    from medtasks import corpora

    return list(corpora.read(arguments.corpus[0]))


def _documents(snippets: list[dict]) -> list:
    """LlamaIndex's documents, of which the same words are embedded."""
    from llama_index.core import Document

    from rag_model.chunking import embedded_text

    told = ("source", "license")
    return [
        Document(
            id_=snippet["id"],
            text=embedded_text(snippet),
            metadata={field: snippet[field] for field in told},
            excluded_embed_metadata_keys=list(told),
        )
        for snippet in snippets
    ]


def _from_documents(folder: Path, snippets: list[dict], embed_model) -> Clock:
    import chromadb
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.vector_stores.chroma import ChromaVectorStore

    documents = _documents(snippets)
    client = chromadb.PersistentClient(path=str(folder))
    with Clock() as clock:
        store = ChromaVectorStore(chroma_collection=client.create_collection("snippets"))
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=embed_model)
        index.as_retriever(similarity_top_k=1).retrieve("gout")
    return clock


def _peer(arguments: argparse.Namespace, _: str) -> dict:
    import numpy as np
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    snippets = _snippets(arguments)
    embedder = HuggingFaceEmbedding(arguments.embedder, device=arguments.device)
    embedder.get_text_embedding_batch([snippet["text"] for snippet in snippets[:WARM_UP]])
    clock = _from_documents(arguments.work / "peer", snippets, embedder)
    vectors = embedder.get_text_embedding_batch([document.text for document in _documents(snippets[:WARM_UP])])
    np.save(arguments.work / "peer.npy", np.array(vectors, dtype=np.float32))
    return clock.figures(len(snippets)) | {"embed_batch_size": embedder.embed_batch_size, "precision": "float32"}


def _ours(arguments: argparse.Namespace, precision: str) -> dict:
    from rag_model.build import build
    from rag_model.embedding import Embedder

    snippets = _snippets(arguments)
    embedder = Embedder(arguments.embedder, device=arguments.device, precision=precision)
    embedder.encode([embedder.document(snippet) for snippet in snippets[:WARM_UP]])
    out = arguments.work / precision
    with Clock() as clock:
        build(arguments.corpus[0], out, embedder, progress=False)
        _first(out, embedder.encode_queries(["gout"]))
    return clock.figures(len(snippets)) | {"precision": precision}


def _first(out: Path, vectors) -> None:
    """Ask the store once: it answers."""
    from rag_model.index import open_index

    open_index(out).store().nearest(vectors, 1)


def _store(arguments: argparse.Namespace, whose: str) -> dict:
    import numpy as np

    from rag_model.index import open_index

    index = open_index(arguments.work / "float32")
    vectors = np.concatenate(list(index.shards()))
    snippets = [index.snippet(snippet_id) for snippet_id in index.ids]
    if whose == "peer":
        return _from_documents(arguments.work / "store-peer", snippets, _known(snippets, vectors)).figures(
            len(snippets)
        )
    from rag_model.chroma_store import LocalChroma

    with Clock() as clock:
        store = LocalChroma(arguments.work / "store-ours")
        store.fill(zip(snippets, vectors, strict=True), len(snippets), lambda n: None)
        store.nearest(vectors[:1], 1)
    return clock.figures(len(snippets))


def _known(snippets: list[dict], vectors):
    """An embedder of LlamaIndex that knows the vectors already."""
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_model.chunking import embedded_text

    known = {embedded_text(snippet).strip(): vector.tolist() for snippet, vector in zip(snippets, vectors, strict=True)}
    anything = next(iter(known.values()))

    class Known(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            return known[text.strip()]

        def _get_query_embedding(self, query: str) -> list[float]:
            return anything

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return anything

    return Known()


def _stages(arguments: argparse.Namespace, _: str) -> dict:
    """Seconds of each stage from a corpus file to answers, on all GPUs."""
    from medtasks import contamination
    from rag_model import build as room
    from rag_model.embedding import Embedder
    from rag_model.index import open_index
    from rag_model.retrieval.top_k import top_k

    seconds: dict[str, float] = {}
    embedder = Embedder(arguments.embedder)
    started = time.perf_counter()
    with Clock() as clock:
        held_out = contamination.held_out(explanations=True)
    seconds["read the test items"] = clock.wall
    for module, name, stage in (
        (room.snippets, "write", "read, check for test items, cut"),
        (room.shards, "embed", "load the model and embed"),
        (room, "_fill_store", f"fill the store ({arguments.store})"),
    ):
        _clocked(module, name, stage, seconds)
    out = arguments.work / "stages"
    room.build(arguments.corpus[0], out, embedder, held_out=held_out, store_spec=arguments.store, progress=False)
    total = time.perf_counter() - started
    seconds["hashes and the rest"] = total - sum(seconds.values())
    index = open_index(out)
    queries = embedder.encode_queries([index.snippet(i)["text"][:200] for i in index.ids[:QUERIES]])
    with Clock() as clock:
        top_k(queries, index.shards(), 8)
    return {
        "precision": embedder.precision,
        "snippets": len(index.ids),
        "left_out": index.meta["left_out"],
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()} | {"in all": round(total, 2)},
        "snippets_per_second": round(len(index.ids) / total, 1),
        "exact_search_queries_per_second": round(len(queries) / clock.wall, 1),
    }


def _clocked(module, name: str, stage: str, seconds: dict[str, float]) -> None:
    """Let a function of a module note how long it takes."""
    function = getattr(module, name)

    def clocked(*args, **kwargs):
        with Clock() as clock:
            result = function(*args, **kwargs)
        seconds[stage] = clock.wall
        print(f"{stage}: {clock.wall:.1f} s", flush=True)
        return result

    setattr(module, name, clocked)


# What it says


def _ratios(figures: dict) -> dict:
    """Ours over the peer's, in snippets a second and a CPU second."""
    pairs = {
        "end to end, both float32": ("ours float32", "peer"),
        "end to end, ours bfloat16, peer float32": ("ours bfloat16", "peer"),
        "storing alone": ("store ours", "store peer"),
    }
    return {
        name: {
            rate: round(figures[ours][f"snippets_per_{rate}"] / figures[peer][f"snippets_per_{rate}"], 2)
            for rate in ("second", "cpu_second")
        }
        for name, (ours, peer) in pairs.items()
    }


def _cosines(work: Path) -> dict:
    """Of the first snippets' vectors with the peer's: the least."""
    import numpy as np

    peer = np.load(work / "peer.npy")
    peer /= np.linalg.norm(peer, axis=1, keepdims=True)
    first = {name: np.load(work / name / "vectors" / "00000.npy")[: len(peer)] for name in ("float32", "bfloat16")}
    return {name: round(float((vectors * peer).sum(axis=1).min()), 5) for name, vectors in first.items()}


if __name__ == "__main__":
    main()
