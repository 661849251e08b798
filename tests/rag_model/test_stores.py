"""Every store finds what exact search finds, gives LlamaIndex its texts, and is filled again from the vectors."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from index_content import SHARD_SIZE, make
from rag_doubles import ITEMS, WordEmbedder

from medtasks.errors import InputError
from rag_model import store
from rag_model.build import build, mend_store
from rag_model.index import open_index, store_damage
from rag_model.retrieval.top_k import top_k

QUERIES = WordEmbedder().encode([item["question"] for item in ITEMS])


@pytest.fixture(scope="module")
def chroma_server(tmp_path_factory):
    """The address of a Chroma server of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).parent / "chroma"
    command = [program, "run", "--path", tmp_path_factory.mktemp("server"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/api/v2/heartbeat").close()
            break
        except OSError:
            time.sleep(0.1)
    yield address
    process.terminate()
    process.wait()


@pytest.fixture(params=["chroma", "hnsw", "chroma-server", "qdrant"])
def spec(request, tmp_path):
    if request.param == "chroma-server":
        return f"chroma-server={request.getfixturevalue('chroma_server')}"
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client", reason="the extra `qdrant` is not installed")
        return f"qdrant={tmp_path / 'qdrant'}"
    return request.param


def test_a_store_finds_what_exact_search_finds_and_is_filled_again(corpus, tmp_path, spec):
    out = tmp_path / "index"
    make(corpus, out, store_spec=spec)
    index = open_index(out)
    assert index.meta["store"] == spec and store_damage(index) is None
    ids, scores = index.store().nearest(QUERIES, 4)
    _, expected = top_k(QUERIES, index.shards(), 4)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    places = {snippet_id: place for place, snippet_id in enumerate(index.ids)}
    vectors = np.concatenate(list(index.shards()))
    for row, found, query in zip(ids, scores, QUERIES, strict=True):
        np.testing.assert_allclose([vectors[places[i]] @ query for i in row], found, atol=1e-5)
    _empty(spec, out, index)
    assert store_damage(open_index(out)) is not None
    embedder = WordEmbedder()
    assert make(corpus, out, embedder=embedder).changed and embedder.n_texts == 0
    assert store_damage(open_index(out)) is None and not mend_store(out, progress=False)


def _empty(spec, out, index):
    kind, _, place = spec.partition("=")
    if kind == "chroma-server":
        with index.store()._client() as client:
            client.delete_collection(f"medadapt-{index.meta['fingerprint']}")
    else:
        shutil.rmtree(place or out / kind)


def test_llamaindex_reads_texts_and_metadata(corpus, tmp_path, spec):
    from llama_index.core.vector_stores.types import VectorStoreQuery

    make(corpus, tmp_path / "index", store_spec=spec)
    index = open_index(tmp_path / "index")
    if spec == "hnsw":
        with pytest.raises(InputError, match="holds vectors alone"), index.store().opened():
            pass
        return
    with index.store().opened() as opened:
        [node] = opened.query(VectorStoreQuery(query_embedding=QUERIES[0].tolist(), similarity_top_k=1)).nodes
    snippet = next(index.snippet(i) for i in index.ids if index.snippet(i)["text"] == node.text)
    assert {field: node.metadata[field] for field in ("title", "source", "license")} == {
        field: snippet[field] for field in ("title", "source", "license")
    }


def test_a_vector_that_differs_and_a_snippet_that_is_missing_are_named(little_index, tmp_path):
    index = open_index(shutil.copytree(little_index, tmp_path / "index"))
    vectors = np.concatenate(list(index.shards()))
    changed = vectors.copy()
    changed[7] = vectors[8]
    assert index.store().differs(index.ids, [changed]) == f"the snippet {index.ids[7]} has another vector"
    assert index.store().differs([*index.ids[:-1], "other"], [vectors]) == "the snippet other is missing"
    assert index.store().differs(index.ids[:5], [vectors[:5]]) == f"it holds {len(vectors)} snippets, not 5"


@pytest.mark.parametrize("harm", ["truncate", "remove", "flip"])
def test_no_damage_to_chromas_files_goes_unseen(little_index, tmp_path, harm):
    """Chroma itself ends the process (a segmentation fault) over some of these."""
    whole = open_index(little_index)
    whole.store().nearest(QUERIES, 2)
    assert store_damage(whole) is None
    graph = [path.relative_to(little_index) for path in (little_index / "chroma").glob("*/*")]
    assert len(graph) > 3
    for name in graph:
        out = shutil.copytree(little_index, tmp_path / "index", dirs_exist_ok=True)
        file, content = out / name, (out / name).read_bytes()
        if harm == "remove":
            file.unlink()
        else:
            flipped = content[:-1] + bytes([content[-1] ^ 1])
            file.write_bytes(content[: len(content) // 2] if harm == "truncate" else flipped)
        assert store_damage(open_index(out)) is not None, name
        if harm != "flip":
            with pytest.raises(InputError, match="its graph is cut short.*--mend"):
                open_index(out).store().nearest(QUERIES, 2)
    assert mend_store(out, progress=False) and store_damage(open_index(out)) is None


def test_without_a_store_there_is_none_and_another_may_follow(corpus, tmp_path):
    out = tmp_path / "index"
    make(corpus, out, store_spec="none")
    assert open_index(out).store() is None and not (out / "chroma").exists()
    assert not make(corpus, out).changed
    fingerprint = open_index(out).meta["fingerprint"]
    embedder = WordEmbedder()
    assert make(corpus, out, embedder=embedder, store_spec="hnsw").changed and embedder.n_texts == 0
    assert open_index(out).meta["fingerprint"] == fingerprint and open_index(out).store().count() > 0


def test_inner_products_of_any_length_are_kept(corpus, tmp_path):
    class Long(WordEmbedder):
        def __init__(self):
            super().__init__()
            self.similarity = "dot"

        def encode(self, texts, progress=lambda n: None):
            return super().encode(texts, progress) * np.arange(1, len(texts) + 1, dtype=np.float32)[:, None]

    build(str(corpus), tmp_path / "index", Long(), shard_size=SHARD_SIZE, progress=False)
    index = open_index(tmp_path / "index")
    assert store_damage(index) is None
    _, scores = index.store().nearest(QUERIES, 3)
    np.testing.assert_allclose(scores, top_k(QUERIES, index.shards(), 3)[1], rtol=1e-4)
    assert scores.max() > 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("faiss", "unknown store 'faiss'; there are chroma, none"),
        ("chroma=x", "unknown store"),
        ("qdrant", "unknown store"),
        ("chroma-server=nowhere", "not an address"),
    ],
)
def test_what_is_no_store_is_refused_before_anything_is_written(corpus, tmp_path, spec, message):
    with pytest.raises(InputError, match=message):
        make(corpus, tmp_path / "index", store_spec=spec)
    assert not (tmp_path / "index").exists()


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install \"medadapt\[qdrant\]\""):
        store.check("qdrant=folder")


def test_a_server_that_does_not_answer_is_named(corpus, tmp_path, free_port):
    with pytest.raises(InputError, match=f"127.0.0.1:{free_port}: the Chroma server does not answer") as caught:
        make(corpus, tmp_path / "index", store_spec=f"chroma-server=http://127.0.0.1:{free_port}")
    assert "\n" not in str(caught.value)
    assert make(corpus, tmp_path / "index", store_spec="none").changed  # the vectors are there
