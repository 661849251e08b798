"""Words as they are compared, and an index that finds n-grams of known word sequences in other texts, exactly."""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

WORD = re.compile(r"[^\W_]+")
TAG = re.compile(r"</?(?:b|i|u|em|strong|sub|sup|span|small|font|a)(?:\s[^<>]*)?/?>", re.IGNORECASE)
BREAK = re.compile(r"</?(?:p|br|div|li|ul|ol|tr|td|th|table|h[1-6])(?:\s[^<>]*)?/?>", re.IGNORECASE)
"""HTML's tags that stand inside a line, and may inside a word; and those that part words."""
SIGNS = re.compile(r"[<>≤≥=+±%~^↑↓→←⇒×÷−]|(?<=\w)-(?!\w)")
"""Signs that make another statement of the same words; of hyphens those behind a word (Rh-)."""
INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
"""Soft hyphens and zero-width characters, which extraction from PDF and HTML leaves inside words."""
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Of the polynomial hash: odd, its bits well mixed (2^64 divided by the golden ratio)."""


def words(text: str) -> list[str]:
    """The words of ``text`` as they are compared: of HTML what a reader sees, Unicode NFKC, lower case, letters and
    digits only."""
    if "<" in text:
        text = BREAK.sub(" ", TAG.sub("", text))
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(INVISIBLE))
    return WORD.findall(text.lower())


def normalize(text: str) -> str:
    """:func:`words` with one space between: equal where a reader would call two texts the same."""
    return " ".join(words(text))


def exactly(text: str) -> tuple[str, ...]:
    """:func:`normalize`, and the signs that make another statement of the same words: pH < 7.35, Rh-, 5 %. A text
    without words stands for itself."""
    found = normalize(text)
    return (found, *SIGNS.findall(text)) if found else (text.strip(),)


class Vocabulary:
    """Numbers words: from 1 for those that were added, 0 for all others."""

    def __init__(self):
        self._numbers: dict[str, int] = {}

    def add(self, text: Iterable[str]) -> np.ndarray:
        """The numbers of the words of ``text``, new ones for new words; (words,) uint64."""
        numbers = self._numbers
        return np.array([numbers.setdefault(word, len(numbers) + 1) for word in text], dtype=np.uint64)

    def encode(self, text: Iterable[str]) -> np.ndarray:
        """The numbers of the words of ``text``; (words,) uint64."""
        numbers = self._numbers
        return np.array([numbers.get(word, 0) for word in text], dtype=np.uint64)


class NgramIndex:
    """Every n-gram of some encoded sequences, to be found in other texts.

    N-grams are looked up by a 64-bit hash in a sorted array and then compared number by number: no match rests on a
    hash. 12 to 20 bytes an n-gram, whatever is searched.
    """

    def __init__(self, sequences: Sequence[np.ndarray], n: int, groups: Sequence[int] = (), most_groups: int = 0):
        """Index the n-grams of ``sequences`` ((words,) uint64 each).

        With ``groups`` (an int from 0 for each sequence), an n-gram of more than ``most_groups`` different groups is
        left out.
        """
        self.n = n
        self._sequences = sequences
        hashed = [ngram_hashes(sequence, n) for sequence in sequences]
        sizes = [len(h) for h in hashed]
        hashes = np.concatenate([np.zeros(0, np.uint64), *hashed])
        owner = np.repeat(np.arange(len(sizes)), sizes)
        offset = np.concatenate([np.zeros(0, np.int32), *(np.arange(size, dtype=np.int32) for size in sizes)])
        order = np.argsort(hashes, kind="stable")
        hashes, owner, offset = hashes[order], owner[order], offset[order]
        gram = np.cumsum(np.concatenate([np.zeros(min(1, len(hashes)), bool), hashes[1:] != hashes[:-1]]))
        if len(groups) and len(gram):
            kept = _distinct(gram, np.asarray(groups)[owner], gram[-1] + 1)[gram] <= most_groups
            hashes, owner, offset, gram = hashes[kept], owner[kept], offset[kept], gram[kept]
        self._hashes, self._owner, self._offset = hashes, owner, offset
        self.sizes = _distinct(owner, gram, len(sizes))
        """(sequences,) int: different n-grams of each sequence that are in the index."""

    def matches(self, text: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """(word of ``text``, sequence, word of the sequence) for every n-gram in common, in the order of ``text``."""
        hashes = ngram_hashes(text, self.n)
        if not len(hashes) or not len(self._hashes):
            return
        first = np.searchsorted(self._hashes, hashes)
        hits = np.flatnonzero(self._hashes[np.minimum(first, len(self._hashes) - 1)] == hashes)
        if not len(hits):
            return
        stop = np.searchsorted(self._hashes, hashes[hits], side="right")
        for start, low, high in zip(hits.tolist(), first[hits].tolist(), stop.tolist(), strict=True):
            gram = text[start : start + self.n]
            owners, offsets = self._owner[low:high].tolist(), self._offset[low:high].tolist()
            for owner, offset in zip(owners, offsets, strict=True):
                if np.array_equal(self._sequences[owner][offset : offset + self.n], gram):
                    yield start, owner, offset


def ngram_hashes(text: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit polynomial hash of each ``n`` consecutive numbers of ``text``; (len(text) - n + 1,) uint64."""
    size = max(len(text) - n + 1, 0)
    hashes = np.zeros(size, dtype=np.uint64)
    for i in range(n if size else 0):
        hashes *= MULTIPLIER
        hashes += text[i : i + size]
    return hashes


def _distinct(groups: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """How many different ``values`` (ints from 0) each of the groups 0 to ``n_groups`` - 1 has; (n_groups,) int."""
    width = int(values.max()) + 1 if len(values) else 1
    return np.bincount(np.unique(groups * width + values) // width, minlength=n_groups)
