"""Texts that say almost all of what an earlier one says.

A row is compared with earlier ones by the share of its n-grams that stand in one of them (its containment, Broder 1997,
doi:10.1109/SEQUEN.1997.666900), estimated from the n-grams whose hash is a multiple of :data:`SAMPLED`, as there. Meant
for texts: of two exam questions that differ in a word, each has its own answer.
"""

from collections import Counter

import numpy as np

from medtasks.contamination import texts
from medtasks.ngrams import Vocabulary, ngram_hashes, words

NGRAM = 8
"""Words in an n-gram."""
SAMPLED = 4
"""One of so many n-grams is looked at."""
LEAST = 5
"""Sampled n-grams of a row that is judged; about 27 words. Of shorter rows only exact duplicates are found."""


MOST_ROWS = 16
"""Rows that are kept for one n-gram; what more rows share is said by many, and tells little of one."""
CANDIDATES = 3
"""Rows that are compared whole."""


class NearDuplicates:
    """Remembers rows, and finds those that an earlier one contains."""

    def __init__(self, share: float):
        """``share``: of a row's sampled n-grams, in (0, 1], from which it counts as contained in an earlier row."""
        self._share = share
        self._vocabulary = Vocabulary()
        self._places: list[str] = []
        self._grams: list[np.ndarray] = []
        self._rows: dict[int, list[int]] = {}

    def find(self, row: dict, place: str) -> str | None:
        """The place of an earlier row that holds this one; None, and the row is remembered, where there is none.

        The rows that are compared are those with most of its n-grams, each counting less the more rows have it.
        """
        told = [text for name, value in row.items() if name not in ("id", "license", "source") for text in texts(value)]
        grams = ngram_hashes(self._vocabulary.add(word for text in told for word in words(text)), NGRAM)
        sampled = np.unique(grams[grams % SAMPLED == 0])
        if len(sampled) < LEAST:
            return None
        votes: Counter[int] = Counter()
        for rows in (self._rows[gram] for gram in sampled.tolist() if gram in self._rows):
            votes.update(dict.fromkeys(rows, 1 / len(rows)))
        for number, _ in votes.most_common(CANDIDATES):
            shared = len(np.intersect1d(sampled, self._grams[number], assume_unique=True))
            if shared >= self._share * len(sampled):
                return self._places[number]
        self._remember(sampled, place)
        return None

    def _remember(self, sampled: np.ndarray, place: str) -> None:
        for gram in sampled.tolist():
            rows = self._rows.setdefault(gram, [])
            if len(rows) < MOST_ROWS:
                rows.append(len(self._places))
        self._places.append(place)
        self._grams.append(sampled)
