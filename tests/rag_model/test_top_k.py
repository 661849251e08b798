"""The largest scores are those of brute force in float64, to the last bit and in the order of positions."""

import numpy as np
import pytest

from rag_model.retrieval.top_k import best_of, blocks, top_k


def brute_force(queries, vectors, k):
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return positions, np.take_along_axis(scores, positions, axis=1)


@pytest.fixture
def many():
    """(500 vectors, 33 queries), float32, of 16 dimensions."""
    rng = np.random.default_rng(4242)
    return rng.normal(size=(500, 16)).astype("float32"), rng.normal(size=(33, 16)).astype("float32")


@pytest.mark.parametrize("k", [1, 5, 40, 500])
@pytest.mark.parametrize("block_queries", [10, 1024])
def test_top_k_is_brute_force_over_shards(many, k, block_queries, monkeypatch):
    monkeypatch.setattr("rag_model.retrieval.top_k.BLOCK_QUERIES", block_queries)
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
    scores = np.random.default_rng(1).integers(1, 9, size=(20, 300)).astype("float32")
    positions, best = best_of(scores, 30)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :30]
    assert (positions == expected).all() and (best == np.take_along_axis(scores, expected, axis=1)).all()


def test_what_scores_nothing_is_not_among_the_best():
    positions, best = best_of(np.array([[0, 2, 0, 3], [0, 0, 0, 0]], dtype="float32"), 3)
    assert positions.tolist() == [[3, 1, -1], [-1, -1, -1]]
    assert best.tolist() == [[3, 2, -np.inf], [-np.inf] * 3]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_blocks_hold_the_rows_of_the_shards(size):
    rows = np.arange(60, dtype="float32").reshape(30, 2)
    cut = list(blocks([rows[:4], rows[4:25], rows[25:]], size))
    assert (np.concatenate(cut) == rows).all()
    assert {len(block) for block in cut[:-1]} <= {size} and 0 < len(cut[-1]) <= size
