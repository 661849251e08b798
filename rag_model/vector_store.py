"""What a store of snippets and their vectors is; which there are: :mod:`rag_model.store`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import TYPE_CHECKING

from medtasks.errors import InputError

if TYPE_CHECKING:
    import numpy as np

TOLERANCE = 1e-5
"""By which a number in a store may differ from the shards': stores may scale vectors to unit length again."""

Rows = Iterable[tuple[dict, "np.ndarray"]]
"""Pairs of a snippet and its vector: float32, ``(dimension,)``."""


class Store(ABC):
    """One store, whether it is there or not."""

    batch: int = 1_000
    """Snippets written or compared in one call."""

    @abstractmethod
    def fill(self, rows: Rows, count: int, progress: Callable[[int], object]) -> None:
        """Write ``rows``, ``count`` of them, in place of what is there; killed, it leaves nothing that looks filled.

        ``progress`` is called with the number of snippets written since its last call.
        """

    @abstractmethod
    def count(self) -> int:
        """How many snippets it holds.

        Raises:
            InputError: it is missing, damaged or does not answer.
        """

    @abstractmethod
    def vectors(self, ids: Iterable[Sequence[str]]) -> "Iterator[dict[str, np.ndarray]]":
        """For each batch of ids, the vectors of those snippets that it holds.

        Raises:
            InputError: it is missing, damaged or does not answer.
        """

    @abstractmethod
    def nearest(self, vectors: "np.ndarray", k: int) -> "tuple[list[list[str]], np.ndarray]":
        """Ids of the ``k`` snippets nearest to each vector, best first, and their scores: float32, ``(n, k)``, the
        inner product. A graph may miss a neighbour."""

    @abstractmethod
    def opened(self) -> AbstractContextManager:
        """The store as one of LlamaIndex's vector stores, which gives nodes with texts.

        Raises:
            InputError: it is missing or damaged, or holds no texts.
        """

    def is_filled(self, count: int) -> bool:
        """Whether it can be read and holds ``count`` snippets."""
        try:
            return self.count() == count
        except InputError:
            return False

    def differs(self, ids: Sequence[str], shards: "Iterable[np.ndarray]") -> str | None:
        """In what way it does not hold ``ids`` with the vectors of ``shards``; None if it does.

        Raises:
            InputError: it is missing, damaged or does not answer.
        """
        import numpy as np

        if (count := self.count()) != len(ids):
            return f"it holds {count:,} snippets, not {len(ids):,}"
        expected = (vector for shard in shards for vector in shard)
        for batch, held in zip(batches(ids, self.batch), self.vectors(batches(ids, self.batch)), strict=True):
            for snippet_id, vector in zip(batch, expected, strict=False):
                if snippet_id not in held:
                    return f"the snippet {snippet_id} is missing"
                if not np.allclose(held[snippet_id], vector, rtol=TOLERANCE, atol=TOLERANCE):
                    return f"the snippet {snippet_id} has another vector"
        return None


def batches(rows: Iterable, size: int) -> Iterator[list]:
    """Yield ``rows`` in lists of ``size``, the last one shorter."""
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch
