"""Passages that do not repeat each other."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def maximal_marginal_relevance(relevance: "np.ndarray", vectors: "np.ndarray", k: int, weight: float) -> list[int]:
    """Positions of ``k`` candidates (all, if they are fewer), in the order in which they are chosen.

    Next comes the candidate with the largest ``weight * relevance - (1 - weight) * likeness``, where likeness is its
    largest cosine with one that was chosen before (Carbonell & Goldstein 1998, doi:10.1145/290941.291025); of equal
    ones, the first.

    Args:
        relevance: ``(candidates,)``, on the scale of a cosine.
        vectors: ``(candidates, dimension)`` unit vectors.
        weight: their lambda: 1 for the order of relevance, 0 for variety alone.
    """
    import numpy as np

    chosen: list[int] = []
    likeness = np.zeros(len(relevance))
    left = np.ones(len(relevance), dtype=bool)
    while left.any() and len(chosen) < k:
        gain = np.where(left, weight * relevance - (1 - weight) * likeness, -np.inf)
        best = int(gain.argmax())
        chosen.append(best)
        left[best] = False
        cosines = vectors @ vectors[best]
        likeness = cosines if len(chosen) == 1 else np.maximum(likeness, cosines)
    return chosen


def on_the_scale_of_a_cosine(scores: "np.ndarray") -> "np.ndarray":
    """``scores`` of another kind, moved and stretched so that the greatest is 1 and the least 0 (all 1, if equal)."""
    import numpy as np

    least, greatest = scores.min(), scores.max()
    return (scores - least) / (greatest - least) if greatest > least else np.ones(len(scores))
