"""Metrics of a ranking whose right documents are known, and intervals over questions."""

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000
SEED = 4242
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over questions and its 95% interval."""

    mean: float
    low: float
    high: float


def recall(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Share of the ``relevant`` documents (at least one) among the first ``k`` of ``ranking``."""
    return len(set(ranking[:k]) & set(relevant)) / len(relevant)


def ndcg(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Normalized discounted cumulated gain at ``k``: a relevant document at rank r, from 1, gains 1 / log2(r + 1);
    divided by what the best ranking gains (Järvelin & Kekäläinen 2002, doi:10.1145/582415.582418, with the discount of
    Burges et al. 2005, doi:10.1145/1102351.1102363, as trec_eval and BEIR compute it)."""
    gain = sum(1 / math.log2(rank + 1) for rank, found in enumerate(ranking[:k], 1) if found in relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))


def reciprocal_rank(ranking: Sequence[str], relevant: Collection[str]) -> float:
    """1 / rank of the first relevant document, 0 if there is none; its mean is MRR (Voorhees 1999, TREC-8 QA track)."""
    return next((1 / rank for rank, found in enumerate(ranking, 1) if found in relevant), 0.0)


def estimate(values: "np.ndarray") -> Estimate:
    """The mean of ``values``, one a question, and its percentile bootstrap interval: :data:`RESAMPLES` draws of as many
    questions (Efron & Tibshirani 1993, chapter 13). The same values give the same interval."""
    import numpy as np

    values = np.asarray(values, dtype=float)
    draws = np.random.default_rng(SEED)
    means = np.array([values[draws.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values.mean()), float(low), float(high))
