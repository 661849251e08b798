"""Search finds what brute force finds, exactly and through Chroma, and only with the index's own embedder."""

import numpy as np
import pytest
from rag_doubles import ITEMS, WordEmbedder

from medtasks.errors import InputError
from rag_model import embedding
from rag_model.build import build
from rag_model.index import open_index
from rag_model.retrieval import Retrieval, dense
from rag_model.retrieval.dense import Chroma, Exact, top_k

QUERIES = [item["question"] for item in ITEMS]


def brute_force(queries, vectors, k):
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return positions, np.take_along_axis(scores, positions, axis=1)


@pytest.fixture
def index(little_index):
    return open_index(little_index)


@pytest.fixture
def many():
    """(500 vectors, 33 queries), float32, of 16 dimensions."""
    rng = np.random.default_rng(4242)
    return rng.normal(size=(500, 16)).astype("float32"), rng.normal(size=(33, 16)).astype("float32")


@pytest.mark.parametrize("k", [1, 5, 40, 500])
@pytest.mark.parametrize("block_queries", [10, 1024])
def test_top_k_is_brute_force_over_shards(many, k, block_queries, monkeypatch):
    monkeypatch.setattr(dense, "BLOCK_QUERIES", block_queries)
    vectors, queries = many
    positions, scores = top_k(queries, [vectors[:3], vectors[3:200], vectors[200:]], k)
    expected_positions, expected_scores = brute_force(queries, vectors, k)
    assert (positions == expected_positions).all()
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)


def test_of_equal_scores_the_earlier_position_wins():
    vectors = np.ones((10, 4), dtype="float32")
    positions, _ = top_k(np.ones((2, 4), dtype="float32"), [vectors[:4], vectors[4:]], 6)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_what_is_asked_in_the_same_call_and_how_rows_are_cut_change_not_one_bit(many):
    vectors, queries = many
    positions, scores = top_k(queries, [vectors], 7)
    alone = [top_k(query[None], [vectors[start : start + 90] for start in range(0, 500, 90)], 7) for query in queries]
    assert (positions == np.concatenate([positions for positions, _ in alone])).all()
    assert (scores == np.concatenate([scores for _, scores in alone])).all()


def test_neighbours_closer_than_float32_can_tell_stand_in_their_true_order():
    rng = np.random.default_rng(7)
    vectors = np.tile(rng.normal(size=64), (300, 1)).astype("float32")
    vectors[:, 0] += np.float32(2e-7) * rng.permutation(300).astype("float32")
    query = rng.normal(size=(1, 64)).astype("float32")
    assert (top_k(query, [vectors], 20)[0] == brute_force(query, vectors, 20)[0]).all()


def test_the_best_of_scores_are_those_of_a_stable_sort():
    scores = np.random.default_rng(1).integers(0, 9, size=(20, 300)).astype("float32")
    positions, best = dense.best_of(scores, 30)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :30]
    assert (positions == expected).all() and (best == np.take_along_axis(scores, expected, axis=1)).all()


@pytest.mark.parametrize("size", [1, 7, 100])
def test_blocks_hold_the_rows_of_the_shards(size):
    rows = np.arange(60, dtype="float32").reshape(30, 2)
    cut = list(dense.blocks([rows[:4], rows[4:25], rows[25:]], size))
    assert (np.concatenate(cut) == rows).all()
    assert {len(block) for block in cut[:-1]} <= {size} and 0 < len(cut[-1]) <= size


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
    chroma_ids, chroma_scores = Chroma(index, WordEmbedder()).search(QUERIES, 4)
    np.testing.assert_allclose(chroma_scores, scores, atol=1e-5)
    for one, other, row in zip(ids, chroma_ids, scores, strict=True):
        sure = [
            i for i, score in enumerate(row) if np.isclose(row, score).sum() == 1 and not np.isclose(score, row[-1])
        ]
        assert [one[i] for i in sure] == [other[i] for i in sure]  # among equal scores Chroma's order is its own


def test_chroma_gives_the_same_at_every_opening(little_index):
    answers = [Chroma(open_index(little_index), WordEmbedder()).search(QUERIES, 4)[0] for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]


def test_more_than_there_is_gives_all(index):
    for searcher in (Exact(index, WordEmbedder()), Chroma(index, WordEmbedder())):
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
