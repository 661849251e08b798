"""The largest of many scores, exactly: the same result however the work is cut."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

BLOCK_QUERIES = 1_024
"""Queries that are multiplied with a block of rows at once."""
SEGMENTS = 16
"""Parts of a row of scores, for each one wanted, whose maxima bound the score from which one can be among the best."""
ROUNDING = 1e-4
"""What a float32 inner product may be off by, relative to the norms; the order is decided in float64."""
PAIRS = 4_096
"""Products computed again in float64 at once."""


def top_k(
    queries: "np.ndarray", rows: "Iterable[np.ndarray | torch.Tensor]", k: int
) -> "tuple[np.ndarray, np.ndarray]":
    """The ``k`` rows with the largest inner product with each query; of equal ones, the earlier.

    Products are float32; those that could be among the best are computed again in float64, one by one, and ordered by
    that. So the result does not depend on how rows and queries are cut into blocks, nor on the device.

    Args:
        queries: float32, shape ``(n, dimension)``.
        rows: float32, shape ``(rows, dimension)`` each, on any device; at least ``k`` rows together.

    Returns:
        positions (int64) in the concatenated rows and scores (float32), both ``(n, k)``, best first.
    """
    import numpy as np
    import torch

    best_positions = np.full((len(queries), k), -1, dtype=np.int64)
    best_scores = np.full((len(queries), k), -np.inf)
    first = 0
    for block in rows:
        if not isinstance(block, torch.Tensor):
            block = torch.from_numpy(np.require(block, requirements=["C", "W"]))  # memory-mapped files are copied
        for start in range(0, len(queries), BLOCK_QUERIES):
            part = slice(start, start + BLOCK_QUERIES)
            asked = torch.from_numpy(np.ascontiguousarray(queries[part])).to(block.device)
            query, row = _candidates(asked, block, best_scores[part, -1], k)
            scores = _products(asked, block, query, row)
            best_positions[part], best_scores[part] = _best(
                best_positions[part], best_scores[part], query, first + row, scores
            )
        first += len(block)
    return best_positions, best_scores.astype(np.float32)


def _candidates(queries: "torch.Tensor", block: "torch.Tensor", floor: "np.ndarray", k: int):
    """(query, row) of all pairs that may be among a query's ``k`` best, given the ``k``-th best score so far."""
    import torch

    scores = queries @ block.T
    floor = torch.maximum(torch.from_numpy(floor).to(scores), _floor(scores, k))
    margin = ROUNDING * queries.norm(dim=1) * block.norm(dim=1).max()
    return _pairs(scores >= (floor - margin)[:, None])


def _pairs(mask: "torch.Tensor") -> "tuple[np.ndarray, np.ndarray]":
    """(row, column) of what is True, by row, then column."""
    import numpy as np

    flat = mask.flatten()
    on_cpu = mask.device.type == "cpu"  # where NumPy's is the faster
    places = np.flatnonzero(flat.numpy()) if on_cpu else flat.nonzero()[:, 0].cpu().numpy()
    return np.divmod(places, mask.shape[1])


def _products(queries: "torch.Tensor", block: "torch.Tensor", query: "np.ndarray", row: "np.ndarray"):
    """The inner products of pairs, each computed in float64 by itself; ``(pairs,)``."""
    import numpy as np
    import torch

    def float64(vectors, places):
        if vectors.device.type == "cpu":
            return vectors.numpy()[places].astype(np.float64)
        return vectors[torch.from_numpy(places).to(vectors.device)].cpu().numpy().astype(np.float64)

    products = np.empty(len(query))
    for start in range(0, len(query), PAIRS):
        part = slice(start, start + PAIRS)
        products[part] = (float64(queries, query[part]) * float64(block, row[part])).sum(axis=1)
    return products


def _floor(scores: "torch.Tensor", k: int) -> "torch.Tensor":
    """A lower bound of each row's ``k``-th largest score, near it: the ``k``-th largest of the maxima of its parts."""
    n, m = scores.shape
    if m < k:
        return scores.new_full((n,), -float("inf"))
    n_parts = min(m, SEGMENTS * k)
    width = m // n_parts
    maxima = scores[:, : n_parts * width].unflatten(1, (width, n_parts)).amax(dim=1)
    return maxima.topk(k, dim=1).values[:, -1]


def best_of(scores: "np.ndarray", k: int) -> "tuple[np.ndarray, np.ndarray]":
    """Positions (int64) and scores of the ``k`` largest positive ``scores`` of each row.

    Args:
        scores: float32, ``(n, m)``, ``m >= k``.

    Returns:
        both ``(n, k)``, best first; of equal ones, the earlier; -1 and -inf where a row has fewer.
    """
    import numpy as np
    import torch

    tensor = torch.from_numpy(scores)
    least = torch.finfo(tensor.dtype).tiny
    row, position = _pairs(tensor >= _floor(tensor, k).clamp(min=least)[:, None])
    n = len(scores)
    none = np.full((n, k), -1, dtype=np.int64), np.full((n, k), -np.inf, dtype=scores.dtype)
    return _best(*none, row, position, scores[row, position])


def _best(positions, scores, query, candidates, candidate_scores):
    """The best of each query's pairs so far, ``(n, k)``, and the candidates: sorted by score, then by position."""
    import numpy as np

    n, k = positions.shape
    query = np.concatenate([np.repeat(np.arange(n), k), query])
    positions = np.concatenate([positions.ravel(), candidates])
    scores = np.concatenate([scores.ravel(), candidate_scores])
    order = np.lexsort((positions, -scores, query))
    starts = np.searchsorted(query[order], np.arange(n))
    kept = order[starts[:, None] + np.arange(k)]
    return positions[kept], scores[kept]


def blocks(shards: "Iterable[np.ndarray]", size: int) -> "Iterator[np.ndarray]":
    """The rows of ``shards`` again, as float32 arrays in memory of ``size`` rows; the last may have fewer."""
    import numpy as np

    waiting, n_waiting = [], 0
    for shard in shards:
        while n_waiting + len(shard) >= size:
            taken, shard = shard[: size - n_waiting], shard[size - n_waiting :]
            yield np.concatenate([*waiting, taken]).astype(np.float32, copy=False)
            waiting, n_waiting = [], 0
        waiting.append(shard)
        n_waiting += len(shard)
    if n_waiting:
        yield np.concatenate(waiting).astype(np.float32, copy=False)
