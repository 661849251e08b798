"""Make one ranking of several."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

RRF_K = 60
"""Cormack et al.'s."""
DEPTH = 100
"""Snippets of each ranking that are fused, at least."""


class Searcher(Protocol):
    """What finds snippets."""

    def search(self, queries: Sequence[str], k: int) -> "tuple[list[list[str]], np.ndarray]":
        """ids: one list of at most ``k`` snippet ids a query, best first; scores: float32, ``(len(queries), k)``, -inf
        where a list is shorter."""


class Fused:
    """Asks several searchers and fuses what they find by reciprocal rank.

    Args:
        searchers: at least one.
        weights: of each searcher; equal ones are the published method.
        k: see :func:`reciprocal_rank_fusion`.
        depth: snippets of each searcher that are fused, at least.
    """

    def __init__(self, searchers: Sequence[Searcher], weights: Sequence[float], k: float = RRF_K, depth: int = DEPTH):
        self.searchers, self.weights, self.k, self.depth = searchers, weights, k, depth

    def search(self, queries: Sequence[str], k: int) -> "tuple[list[list[str]], np.ndarray]":
        """As :meth:`Searcher.search`; scores are the sums of :func:`reciprocal_rank_fusion`."""
        import numpy as np

        rankings = [searcher.search(queries, max(k, self.depth))[0] for searcher in self.searchers]
        ids = []
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for row, of_query in enumerate(zip(*rankings, strict=True)):
            fused = reciprocal_rank_fusion(of_query, self.weights, self.k)[:k]
            ids.append([snippet_id for snippet_id, _ in fused])
            scores[row, : len(fused)] = [score for _, score in fused]
        return ids, scores


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], weights: Sequence[float], k: float = RRF_K
) -> list[tuple[str, float]]:
    """Every id of ``rankings`` (best first) with the sum of ``weight / (k + rank)`` over those that hold it, ranks from
    1; the greatest first, of equal ones the one that comes first in an earlier ranking.

    Cormack, Clarke & Büttcher 2009, doi:10.1145/1571941.1572114, whose weights are 1.
    """
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, snippet_id in enumerate(ranking, 1):
            scores[snippet_id] = scores.get(snippet_id, 0.0) + weight / (k + rank)
    return sorted(scores.items(), key=lambda scored: -scored[1])


def round_robin(rankings: Sequence[Sequence[tuple[str, float]]], k: int) -> list[tuple[str, float]]:
    """At most ``k`` of the (id, score) pairs: the best of each ranking, then the second of each, and so on, each id
    once. So ``n`` rankings give ``k / n`` each, and more where others repeat them or end."""
    taken: dict[str, float] = {}
    for pair in chain.from_iterable(zip_longest(*rankings)):
        if pair is not None and pair[0] not in taken and len(taken) < k:
            taken[pair[0]] = pair[1]
    return list(taken.items())
