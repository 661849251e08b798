"""Several rankings become one, and a ranking becomes one without repetition."""

import numpy as np
import pytest

from rag_model.retrieval.fusion import Fused, reciprocal_rank_fusion, round_robin
from rag_model.retrieval.mmr import maximal_marginal_relevance, on_the_scale_of_a_cosine


def test_reciprocal_ranks_are_summed_as_published():
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "a"]], [1, 1])
    assert [name for name, _ in fused] == ["a", "c", "b"]
    assert dict(fused) == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62})


def test_of_equal_sums_the_earlier_ranking_wins():
    assert [name for name, _ in reciprocal_rank_fusion([["a"], ["b"]], [1, 1])] == ["a", "b"]
    assert [name for name, _ in reciprocal_rank_fusion([["a"], ["b"]], [0.4, 0.6])] == ["b", "a"]


class Fixed:
    def __init__(self, ranking):
        self.ranking, self.asked = ranking, []

    def search(self, queries, k):
        self.asked.append((list(queries), k))
        return [self.ranking[:k] for _ in queries], np.zeros((len(queries), k), dtype=np.float32)


def test_fused_search_looks_deeper_than_it_is_asked_and_pads_what_it_lacks():
    one, other = Fixed(["a", "b", "c"]), Fixed(["d", "c"])
    ids, scores = Fused([one, other], [1, 1], depth=3).search(["x", "y"], 2)
    assert ids == [["c", "a"]] * 2 and one.asked == other.asked == [(["x", "y"], 3)]
    np.testing.assert_allclose(scores, [[1 / 63 + 1 / 62, 1 / 61]] * 2)
    ids, scores = Fused([one, other], [1, 1]).search(["x"], 6)
    assert len(ids[0]) == 4 and np.isneginf(scores[0, 4:]).all() and np.isfinite(scores[0, :4]).all()


def test_queries_of_one_item_take_turns_and_fill_up():
    one, other = [("a", 3.0), ("b", 2.0), ("c", 1.0)], [("b", 9.0), ("d", 8.0)]
    assert round_robin([one, other], 4) == [("a", 3.0), ("b", 9.0), ("d", 8.0), ("c", 1.0)]
    assert round_robin([one, other], 2) == [("a", 3.0), ("b", 9.0)]
    assert round_robin([[], other], 9) == other


@pytest.mark.parametrize(("weight", "expected"), [(1.0, [0, 1, 2]), (0.5, [0, 2, 1]), (0.0, [0, 2, 1])])
def test_mmr_weighs_relevance_against_likeness(weight, expected):
    vectors = np.array([[1, 0], [0.99, np.sqrt(1 - 0.99**2)], [0, 1]])
    assert maximal_marginal_relevance(np.array([0.9, 0.8, 0.5]), vectors, 3, weight) == expected


def test_mmr_takes_the_largest_likeness_to_any_that_was_chosen():
    vectors = np.array([[1, 0], [0, 1], [0, 1], [0.6, 0.8]])
    assert maximal_marginal_relevance(np.array([0.9, 0.8, 0.79, 0.7]), vectors, 3, 0.5) == [0, 1, 3]
    assert maximal_marginal_relevance(np.array([0.9, 0.8]), vectors[:2], 5, 0.5) == [0, 1]


def test_other_scores_are_brought_to_the_scale_of_a_cosine():
    assert on_the_scale_of_a_cosine(np.array([6.0, -2.0, 2.0])).tolist() == [1, 0, 0.5]
    assert on_the_scale_of_a_cosine(np.array([3.0, 3.0])).tolist() == [1, 1]
