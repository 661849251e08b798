"""Which test items stand in a text: whole questions, the same options in another order, or shared word 13-grams.

Words are compared, not characters (:func:`medtasks.ngrams.words`). A row of a training set or corpus may hold a test
item in five ways, worst first (:data:`KINDS`):

    exact      the question, and its options in the same order
    reordered  the question, and its options in another order
    stem       the whole question, with other options or none
    ngram      at least 30% of the item's 13-grams (:data:`SUBSTANTIAL`)
    partial    at least 10% of them (:data:`TRACE`): a quotation or a shared source; reported, never filtered

13-grams, and 8 words at least for a match inside a longer text, are the choices of Brown et al. 2020 (appendix C,
arXiv:2005.14165); to judge by the share of an item's n-grams is that of Chowdhery et al. 2022 (PaLM, arXiv:2204.02311).
A 13-gram of more than :data:`BOILERPLATE` different questions is a set phrase of exams and counts for nothing.
A question of fewer than 8 words is found as a whole field of the row, with its options; from 4 words on also without.

As a filter of training rows, or of passages to index::

    held_out = contamination.held_out()
    rows = [row for row in rows if not held_out.is_contaminated(row)]
"""

import ast
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from medtasks import benchmarks, mcq
from medtasks.errors import InputError
from medtasks.files import sha256_json
from medtasks.ngrams import NgramIndex, Vocabulary, normalize, words

NGRAM = 13
"""Words in an n-gram."""
WHOLE = 8
"""A question of this many words is found wherever it stands inside a text."""
FIELD = 4
"""A question of this many words is found as a whole field of a row that lists no options ("The pleura" is also a title,
and "What is cardiac output?" with other options is another question)."""
SUBSTANTIAL = 0.3
"""Share of an item's n-grams from which a text counts as holding it. Among MedQA's validation and training questions,
pairs from 0.17 up are one vignette retold; MedMCQA's have a training pair of 0.25 that only shares options."""
TRACE = 0.1
"""Share of an item's n-grams from which an overlap is reported. Of 438 overlaps between MedQA's validation and training
questions, 435 have less: vital signs and phrases ("because of a 3 day history of"); three share a vignette."""
BOILERPLATE = 2
"""An n-gram of more different questions than this is a set phrase ("... most appropriate next step in management")."""
EXCERPT = 25
"""Words of overlapping text that a finding quotes."""

EXPLAINED = ("medmcqa",)
"""Benchmarks whose test items come with explanations that no corpus may hold."""

KINDS = ("exact", "reordered", "stem", "ngram", "partial")
LEAKS = KINDS[:-1]
"""The kinds that :meth:`Overlap.is_contaminated` answers to."""


class Finding(NamedTuple):
    """One item found in one row."""

    position: int
    """Of the item among those that :class:`Overlap` was given."""
    kind: str
    """One of :data:`KINDS`."""
    share: float
    """Found share of the item's 13-grams, in (0, 1]: the greatest of those of its context, its question, and its
    question with its options (lettered or not). 1 for a whole question whose item has none."""
    text: str
    """The longest stretch in common, normalized, its first :data:`EXCERPT` words."""


def held_out(without: Collection[str] = (), explanations: bool = False) -> "Overlap":
    """The test items of every benchmark here, the published 200-question subsets included.

    Args:
        without: benchmarks whose items do not count (their ``_sub`` neither): those that a corpus is the evidence of.
        explanations: also MedMCQA's explanations of its test items (``exp``), each as an item of its own without
            options.

    Raises:
        InputError: they cannot be loaded, or there is no such benchmark.
    """
    if unknown := set(without) - benchmarks.BENCHMARKS.keys():
        raise InputError(f"no benchmark '{min(unknown)}'; there are {', '.join(benchmarks.BENCHMARKS)}")
    left = [name for name in benchmarks.BENCHMARKS if not {name, name.removesuffix("_sub")} & set(without)]
    try:
        items = [item for name in left for item in benchmarks.load(name, "test")]
        if explanations:
            items += [explanation for name in EXPLAINED for explanation in _explanations(benchmarks.load(name, "test"))]
        return Overlap(items)
    except InputError as error:
        raise InputError(f"{error} (test questions are needed to keep them out of training)") from error


def _explanations(items: Iterable[dict]) -> Iterator[dict]:
    for item in items:
        if item["rationale"]:
            yield {"id": f"{item['id']} explanation", "question": item["rationale"], "options": []}


class Overlap:
    """Finds items in rows, one row at a time; memory grows with the items, not with what is searched."""

    def __init__(self, items: Iterable[dict]):
        """``items``: dicts with ``question``, ``options`` and optionally ``context`` (:data:`medtasks.mcq.FIELDS`)."""
        self.items = list(items)
        self._options = [[normalize(option) for option in item["options"]] for item in self.items]
        self._vocabulary = Vocabulary()
        by_question: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for position, item in enumerate(self.items):
            by_question[tuple(words(item["question"]))].append(position)
        self._questions = list(by_question)
        self._askers = list(by_question.values())
        self._short = {question: i for i, question in enumerate(by_question) if 0 < len(question) < WHOLE}
        self._encoded = [self._vocabulary.add(question) for question in by_question]
        self._openings = NgramIndex([question[:WHOLE] for question in self._encoded], WHOLE)
        self._ngrams = self._index_ngrams()

    def _index_ngrams(self) -> NgramIndex:
        """Of four views an item: context, question, question and options, question and lettered options."""
        views, self._viewed, numbers = [], [], []
        for number, (question, askers) in enumerate(zip(self._questions, self._askers, strict=True)):
            for position in askers:
                options = [option.split() for option in self._options[position]]
                lettered = [(letter.lower(), *option) for letter, option in zip(mcq.LETTERS, options, strict=False)]
                context = words(self.items[position].get("context") or "")
                for view in (context, question, chain(question, *options), chain(question, *lettered)):
                    views.append(self._vocabulary.add(view))
                    self._viewed.append(position)
                    numbers.append(number)
        return NgramIndex(views, NGRAM, groups=numbers, most_groups=BOILERPLATE)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the words of any item."""
        return sha256_json([*self._questions, *self._options, *(item.get("context") for item in self.items)])[:16]

    def is_contaminated(self, row: dict | str) -> bool:
        """Whether ``row`` holds an item in one of the ways of :data:`LEAKS`."""
        return any(finding.kind in LEAKS for finding in self.find(row))

    def find(self, row: dict | str) -> list[Finding]:
        """The items that ``row`` holds: at most one finding an item, in the order of the items.

        Every text of the row counts, whatever its column, joined in their order (nested lists and dicts too).
        ``exact`` and ``reordered`` are told where the row lists its options: ``options`` or ``choices`` (a list,
        a dict by letter, or the text of a list) or ``opa`` to ``opd``.
        """
        fields = [words(text) for text in texts(row)]
        text = list(chain.from_iterable(fields))
        encoded = self._vocabulary.encode(text)
        asked = self._whole_questions(encoded, fields)
        shares = self._shares(encoded)
        options = _options(row) if asked else None
        findings = []
        for position in sorted(asked.keys() | shares.keys()):
            share, start, stop = shares.get(position, (0.0, 0, 0))
            excerpt = text[start:stop]
            kind = self._kind(asked[position], position, options) if position in asked else None
            if kind:
                excerpt = asked[position]
            elif share >= TRACE:
                kind = "ngram" if share >= SUBSTANTIAL else "partial"
            if kind:
                findings.append(Finding(position, kind, share or 1.0, " ".join(excerpt[:EXCERPT])))
        return findings

    def _kind(self, question: tuple[str, ...], position: int, options: list[str] | None) -> str | None:
        """How an item stands in a row with these options that holds its whole ``question``; None: it does not."""
        if options == self._options[position]:
            return "exact"
        if options and sorted(options) == sorted(self._options[position]):
            return "reordered"
        return "stem" if len(question) >= WHOLE or (options is None and len(question) >= FIELD) else None

    def _whole_questions(self, text: np.ndarray, fields: list[list[str]]) -> dict[int, tuple[str, ...]]:
        """item -> its question, for the items whose whole question stands in the row."""
        found = {self._short[tuple(field)] for field in fields if len(field) < WHOLE and tuple(field) in self._short}
        for start, question, _ in self._openings.matches(text):
            encoded = self._encoded[question]
            if np.array_equal(text[start : start + len(encoded)], encoded):
                found.add(question)
        return {position: self._questions[question] for question in found for position in self._askers[question]}

    def _shares(self, text: np.ndarray) -> dict[int, tuple[float, int, int]]:
        """item -> (share of its n-grams that stand in the text, start and stop of the longest stretch in common)."""
        matched: dict[int, dict[int, None]] = defaultdict(dict)
        for start, view, _ in self._ngrams.matches(text):
            matched[view][start] = None
        found: dict[int, tuple[float, int, int]] = {}
        for view, starts in matched.items():
            grams = {text[start : start + NGRAM].tobytes() for start in starts}
            share = len(grams) / int(self._ngrams.sizes[view])
            position = self._viewed[view]
            if share > found.get(position, (0.0,))[0]:
                found[position] = (share, *_longest_run(list(starts)))
        return found


def texts(row: dict | str) -> Iterator[str]:
    """Every text in a row, in order, nested ones too."""
    if isinstance(row, str):
        yield row
    elif isinstance(row, dict | list | tuple):
        for value in row.values() if isinstance(row, dict) else row:
            yield from texts(value)


def _options(row: dict | str) -> list[str] | None:
    """The normalized options that a row lists, or None."""
    if not isinstance(row, dict):
        return None
    options = row.get("options", row.get("choices"))
    if options is None and "opa" in row:
        options = [row.get(f"op{letter}") for letter in "abcd"]
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError):
            return None
    if isinstance(options, dict):
        options = [options[letter] for letter in sorted(options)]
    return [normalize(str(option)) for option in options] if isinstance(options, list | tuple) else None


def _longest_run(starts: list[int]) -> tuple[int, int]:
    """Start and stop, in words, of the longest run of n-grams that begin at consecutive ``starts`` (rising)."""
    best, length, begin = starts[0], 1, starts[0]
    for before, start in zip(starts, starts[1:], strict=False):
        begin = begin if start == before + 1 else start
        if start - begin + 1 > length:
            best, length = begin, start - begin + 1
    return best, best + length - 1 + NGRAM
