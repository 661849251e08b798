"""Search finds what brute force finds, exactly and through Chroma, and only with the index's own embedder."""

import numpy as np
import pytest
from rag_doubles import ITEMS, WordEmbedder

from medtasks.errors import InputError
from rag_model import embedding
from rag_model.build import build
from rag_model.index import open_index
from rag_model.retrieval import Retrieval, dense
from rag_model.retrieval.dense import Exact, Stored

QUERIES = [item["question"] for item in ITEMS]


def brute_force(queries, vectors, k):
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return positions, np.take_along_axis(scores, positions, axis=1)


@pytest.fixture
def index(little_index):
    return open_index(little_index)


def test_an_index_too_large_to_hold_is_read_at_every_search(index, monkeypatch):
    held = Exact(index, WordEmbedder()).search(QUERIES, 3)
    monkeypatch.setattr(dense, "HELD_BYTES", 0)
    read = Exact(index, WordEmbedder())
    for _ in range(2):
        assert read.search(QUERIES, 3)[0] == held[0]
    assert "_held" not in vars(read)


def test_exact_and_chroma_agree(index):
    vectors = np.concatenate(list(index.shards()))
    ids, scores = Exact(index, WordEmbedder()).search(QUERIES, 4)
    positions, expected = brute_force(WordEmbedder().encode(QUERIES), vectors, 4)
    assert ids == [[index.ids[p] for p in row] for row in positions]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    chroma_ids, chroma_scores = Stored(index, WordEmbedder()).search(QUERIES, 4)
    np.testing.assert_allclose(chroma_scores, scores, atol=1e-5)
    for one, other, row in zip(ids, chroma_ids, scores, strict=True):
        sure = [
            i for i, score in enumerate(row) if np.isclose(row, score).sum() == 1 and not np.isclose(score, row[-1])
        ]
        assert [one[i] for i in sure] == [other[i] for i in sure]  # among equal scores Chroma's order is its own


def test_chroma_gives_the_same_at_every_opening(little_index):
    answers = [Stored(open_index(little_index), WordEmbedder()).search(QUERIES, 4)[0] for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]


def test_more_than_there_is_gives_all(index):
    for searcher in (Exact(index, WordEmbedder()), Stored(index, WordEmbedder())):
        ids, scores = searcher.search(["asthma"], 10_000)
        assert sorted(ids[0]) == sorted(index.ids) and scores.shape == (1, len(index.ids))
        assert (np.diff(scores[0]) <= 1e-6).all()


def test_queries_are_embedded_as_queries_where_that_differs(index):
    class Asymmetric(WordEmbedder):
        def encode_queries(self, texts):
            return self.encode([text.replace("sugar disease", "diabetes") for text in texts])

    ids, _ = Exact(index, Asymmetric()).search(["sugar disease"], 1)
    assert ids == Exact(index, WordEmbedder()).search(["diabetes"], 1)[0]


def test_another_embedder_is_refused(index):
    with pytest.raises(InputError, match=r"built with the embedder words \(words-64\), not with words \(words-32\)"):
        Retrieval(index, embedder=WordEmbedder(32))


def test_an_embedder_that_is_not_here_is_named(index):
    with pytest.raises(InputError, match="built with the embedder words; .*give its place here as embedder"):
        Retrieval(index)


def test_minilm_finds_meaning_and_knows_itself(embedder, corpus, tmp_path):
    model = embedding.Embedder(str(embedder), device="cpu")
    vectors = model.encode(["heart attack", "a much longer text about myocardial infarction of the heart", "tax law"])
    assert vectors.dtype == np.float32 and vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    build(str(corpus), tmp_path / "index", model, progress=False)
    retrieval = Retrieval(open_index(tmp_path / "index"))
    [found] = retrieval.find([{"question": "Which drug is given for high blood glucose?"}], 1)
    assert "diabetes" in retrieval.passages(found)[0]["text"]


def test_pooling_is_part_of_an_embedders_fingerprint(embedder, tmp_path):
    import shutil

    copy = shutil.copytree(embedder, tmp_path / "copy")
    assert embedding.Embedder(str(copy)).fingerprint == embedding.Embedder(str(embedder)).fingerprint
    settings = copy / "sentence_bert_config.json"
    settings.write_text(settings.read_text().replace("256", "128"))
    assert embedding.Embedder(str(copy)).fingerprint != embedding.Embedder(str(embedder)).fingerprint


def test_a_folder_that_is_no_embedder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such model folder"):
        embedding.Embedder(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded as an embedder"):
        embedding.Embedder(str(tmp_path)).encode(["x"])
