"""Search finds what brute force finds, exactly and through Chroma, and only with the index's own embedder."""

import numpy as np
import pytest
from rag_doubles import ITEMS, WordEmbedder

from medtasks.errors import InputError
from rag_model import embedding
from rag_model.build import build
from rag_model.index import open_index
from rag_model.retrieve import Retriever, top_k

QUERIES = [item["question"] for item in ITEMS]


def brute_force(queries, vectors, k):
    scores = queries @ vectors.T
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return positions, np.take_along_axis(scores, positions, axis=1)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_top_k_is_brute_force_over_shards(k):
    rng = np.random.default_rng(4242)
    vectors, queries = rng.normal(size=(500, 16)).astype("float32"), rng.normal(size=(33, 16)).astype("float32")
    positions, scores = top_k(queries, [vectors[:3], vectors[3:200], vectors[200:]], k)
    expected_positions, expected_scores = brute_force(queries, vectors, k)
    assert (positions == expected_positions).all()
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


def test_of_equal_scores_the_earlier_position_wins():
    vectors = np.ones((10, 4), dtype="float32")
    positions, _ = top_k(np.ones((2, 4), dtype="float32"), [vectors[:4], vectors[4:]], 6)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_exact_and_chroma_agree(little_index):
    index = open_index(little_index)
    vectors = np.concatenate(list(index.shards()))
    ids, scores = Retriever(index, WordEmbedder()).search(QUERIES, 4)
    positions, expected = brute_force(WordEmbedder().encode(QUERIES), vectors, 4)
    assert ids == [[index.ids[p] for p in row] for row in positions]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    chroma_ids, chroma_scores = Retriever(index, WordEmbedder(), "chroma").search(QUERIES, 4)
    np.testing.assert_allclose(chroma_scores, scores, atol=1e-5)
    for one, other, row in zip(ids, chroma_ids, scores, strict=True):
        sure = [
            i for i, score in enumerate(row) if np.isclose(row, score).sum() == 1 and not np.isclose(score, row[-1])
        ]
        assert [one[i] for i in sure] == [other[i] for i in sure]  # among equal scores Chroma's order is its own


def test_chroma_gives_the_same_at_every_opening(little_index):
    answers = [Retriever(open_index(little_index), WordEmbedder(), "chroma").search(QUERIES, 4)[0] for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]


def test_more_than_there_is_gives_all(little_index):
    index = open_index(little_index)
    for search in ("exact", "chroma"):
        ids, scores = Retriever(index, WordEmbedder(), search).search(["asthma"], 10_000)
        assert sorted(ids[0]) == sorted(index.ids) and scores.shape == (1, len(index.ids))
        assert (np.diff(scores[0]) <= 1e-6).all()


def test_another_embedder_is_refused(little_index):
    with pytest.raises(InputError, match=r"built with the embedder words \(words-64\), not with words \(words-32\)"):
        Retriever(open_index(little_index), WordEmbedder(32))


def test_an_embedder_that_is_not_here_is_named(little_index):
    with pytest.raises(InputError, match="built with the embedder words; .*give its place here as embedder"):
        Retriever(open_index(little_index))


def test_an_unknown_search_is_refused(little_index):
    with pytest.raises(InputError, match="unknown search 'bm25'; there are exact, chroma"):
        Retriever(open_index(little_index), WordEmbedder(), "bm25")


def test_minilm_finds_meaning_and_knows_itself(embedder, corpus, tmp_path):
    model = embedding.Embedder(str(embedder), device="cpu")
    vectors = model.encode(["heart attack", "a much longer text about myocardial infarction of the heart", "tax law"])
    assert vectors.dtype == np.float32 and vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    build(str(corpus), tmp_path / "index", model, progress=False)
    ids, _ = Retriever(open_index(tmp_path / "index")).search(["Which drug is given for high blood glucose?"], 1)
    index = open_index(tmp_path / "index")
    assert "diabetes" in index.snippet(ids[0][0])["text"]


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
