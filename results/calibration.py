"""How well a run's confidence fits its correctness, with bootstrap samples that runs of the same items share.

The confidence in an answer is the probability of the chosen option among the options, a softmax of their
log-likelihoods. Generated answers have none, so no calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.statistics import CONFIDENCE

DRAWS, SEED = 1_000, 0
CHUNK = 100
"""Bootstrap samples that are in memory at once."""


@dataclass(frozen=True)
class Answers:
    """Items as a calibration sees them: confidence in [0, 1], correctness 0/1 and Brier score in [0, 2] of each.

    ``brier`` is None where the log does not say which option is right.
    """

    confidence: np.ndarray
    correct: np.ndarray
    brier: np.ndarray | None

    @classmethod
    def of(cls, predictions: Sequence[dict]) -> "Answers | None":
        """Of predictions (:func:`results.harness_output.predictions`); None if one has no log-likelihoods."""
        if not all(len(row["loglikelihoods"]) > 1 for row in predictions):
            return None
        width = max(len(row["loglikelihoods"]) for row in predictions)
        logs = np.full((len(predictions), width), -np.inf)
        for log, row in zip(logs, predictions, strict=True):
            log[: len(row["loglikelihoods"])] = row["loglikelihoods"]
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        brier = None
        if all(row["gold"] is not None for row in predictions):
            truth = np.arange(width) == np.array([[row["gold"]] for row in predictions])
            brier = ((shares - truth) ** 2).sum(axis=1)
        return cls(shares.max(axis=1), np.array([row["correct"] for row in predictions]), brier)

    @classmethod
    def together(cls, tasks: "Sequence[Answers]") -> "Answers":
        """The items of several tasks as one."""
        briers = [task.brier for task in tasks]
        return cls(
            np.concatenate([task.confidence for task in tasks]),
            np.concatenate([task.correct for task in tasks]),
            None if any(brier is None for brier in briers) else np.concatenate(briers),
        )


def ece(answers: Answers, times: np.ndarray | None = None) -> np.ndarray:
    """:func:`medtasks.metrics.ece` of samples in which items occur several times or never.

    Args:
        times: (samples, items) how often each sample holds each item; each item once if None.

    Returns:
        (samples,) expected calibration errors, in [0, 1].
    """
    from medtasks.metrics import BINS  # imports lm_eval

    distinct, group = np.unique(-answers.confidence, return_inverse=True)  # ascending, so the surest is first
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(len(distinct)))
    count = np.ones((1, len(order))) if times is None else times[:, order]
    right = count * answers.correct[order]
    if len(distinct) < len(order):  # some items are of equal confidence
        count, right = np.add.reduceat(count, first, axis=1), np.add.reduceat(right, first, axis=1)
    reached = np.cumsum(count, axis=1)
    gap = np.cumsum(right + distinct * count, axis=1)  # right answers less confidence, of the surest items so far
    return np.array([_ece(r, g, BINS) for r, g in zip(reached, gap, strict=True)])


def _ece(reached: np.ndarray, gap: np.ndarray, bins: int) -> float:
    """ECE of one sample; ``reached`` and ``gap`` are sums over the surest items so far, at each distinct confidence.

    Items of equal confidence share their mean correctness, so between these points the gap grows evenly.
    """
    n = reached[-1]
    bins = min(bins, int(n))
    sizes = n // bins + (np.arange(bins) < n % bins)  # as np.array_split
    edges = np.concatenate([[0], np.cumsum(sizes)])
    return float(np.abs(np.diff(np.interp(edges, np.append(0, reached), np.append(0, gap)))).sum() / n)


def brier(answers: Answers, times: np.ndarray | None = None) -> np.ndarray | None:
    """Mean Brier score (1950; 0 to 2) of samples, as :func:`ece`; None where the right option is not known."""
    if answers.brier is None:
        return None
    return np.array([answers.brier.mean()]) if times is None else times @ answers.brier / times.sum(axis=1)


def bootstrap(answers: Sequence[Answers], clusters: Sequence[np.ndarray]) -> dict[str, np.ndarray | None]:
    """ECE and Brier score of bootstrap samples of one or several tasks, clusters drawn whole within each task.

    The draws depend on nothing but the clusters, so runs of the same items get the same samples: their results, one
    subtracted from the other, are a paired bootstrap of the difference.

    Args:
        answers: of each task.
        clusters: the cluster of each item, numbered from 0, of each task.

    Returns:
        ``ece`` and ``brier``, each (:data:`DRAWS`,) or None.
    """
    draw = np.random.default_rng(SEED)
    joined = answers[0] if len(answers) == 1 else Answers.together(answers)
    found: dict[str, list] = {"ece": [], "brier": []}
    for _ in range(DRAWS // CHUNK):
        times = np.concatenate([_times(task, draw) for task in clusters], axis=1)
        found["ece"].append(ece(joined, times))
        found["brier"].append(brier(joined, times))
    return {name: None if parts[0] is None else np.concatenate(parts) for name, parts in found.items()}


def interval(difference: float, drawn: np.ndarray) -> tuple[float, float]:
    """95% interval of a difference with the bootstrap's standard error (Efron 1979, doi:10.1214/aos/1176344552).

    Around the difference itself and not the draws' quantiles, because resampling adds to an ECE, more to a small one.
    For the same reason a sample's ECE is above the population's: the interval of an ECE is one of samples of this size.
    """
    from scipy.stats import norm

    half = float(norm.ppf((1 + CONFIDENCE) / 2) * np.std(drawn, ddof=1))
    return difference - half, difference + half


def _times(clusters: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(CHUNK, items): how often each item is in a sample of as many clusters as there are, with replacement."""
    n = int(clusters.max()) + 1
    drawn = draw.integers(n, size=(CHUNK, n)) + n * np.arange(CHUNK)[:, None]
    return np.bincount(drawn.ravel(), minlength=CHUNK * n).reshape(CHUNK, n)[:, clusters].astype(float)
