"""Which passages an item gets: those found for it, or those of a control arm. The argument ``context`` of ``rag``.

===========  =========================================================================================
retrieved    what the search finds for the item
none         nothing: the closed book, by the same way
random       snippets of the index, drawn for the item by a seed
shuffled     what the search finds for another item of the task: good passages, of the wrong question
oracle       the item's own context (PubMedQA's abstract): what a perfect search would find
===========  =========================================================================================

An arm that gains as much as ``retrieved`` shows that it was not the content that helped. No item gets its own solution,
where the index is one of solved questions (:mod:`rag_model.solved`).
"""

import functools
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medtasks import benchmarks, catalogue
from medtasks.errors import InputError
from rag_model import examples, neighbours, prompts
from rag_model.index import Index
from rag_model.retrieval import Retrieval

KINDS = ("retrieved", "none", "random", "shuffled", "oracle")
OPEN_VIEWS = {"pubmedqa_star": "pubmedqa"}
"""Benchmark whose items hide their context -> the one that shows it, under the same ids."""

SPARE = 50
"""Solved questions that are found beyond those wanted, to take the place of those that do not suit the item."""

Key = tuple[str, int]
"""A task's name and the number of a document in it."""


@dataclass(frozen=True)
class Passage:
    """A passage for an item.

    Attributes:
        snippet: ``id, title, text`` at least.
        score: of the retrieval; 0 where nothing was searched for this item.
        shows: ids of the snippets whose text it has, where these are several.
        alone: the one of them that was found; None where it has no other.
    """

    snippet: dict
    score: float
    shows: tuple[str, ...] = ()
    alone: dict | None = None


class Context:
    """Gives items their passages, best first.

    Args:
        kind: of :data:`KINDS`.
        retrieval: what searches, and the index it searches.
        k: passages an item gets; ``oracle`` gives one.
        seed: of ``random`` and ``shuffled``.
        neighbours: how many snippets before and after each come with it (:mod:`rag_model.neighbours`).

    Raises:
        InputError: ``neighbours`` is no whole number from 0.
    """

    def __init__(self, kind: str, retrieval: Retrieval, k: int, seed: int = 0, neighbours: int = 0):
        if type(neighbours) is not int or neighbours < 0:
            raise InputError(f"neighbours={neighbours}: must be a whole number, 0 or more")
        self.kind, self.retrieval, self.k, self.seed, self.neighbours = kind, retrieval, k, seed, neighbours
        self._depth = k + SPARE * retrieval.index.is_solved
        self._found: dict[str, list[tuple[str, float]]] = {}
        self.lent: dict[Key, list[tuple[str, float]]] = {}

    @functools.cached_property
    def _suiting(self) -> examples.Suiting | None:
        """Which snippets suit an item, where they are solved questions."""
        index = self.retrieval.index
        return examples.Suiting(index.snippets()) if index.is_solved else None

    def of(self, docs: Mapping[Key, dict], wanted: Iterable[Key] | None = None) -> dict[Key, list[Passage]]:
        """The passages of the ``wanted`` items (all if None), searched in one batch.

        Args:
            docs: all items at hand; ``shuffled`` lends passages among those of a task.

        Raises:
            InputError: an item without a question (``shuffled`` and ``oracle``: without what they need).
        """
        chosen = list(docs if wanted is None else wanted)
        if self.kind == "none":
            return {key: [] for key in chosen}
        if self.kind == "oracle":
            return {key: [_own_context(docs[key], key[0])] for key in chosen}
        if self.kind == "random":
            return {key: self._opened(self._drawn(docs[key], key[0]), key, docs) for key in chosen}
        if self.kind == "shuffled":
            return {key: self._opened(pairs, key, docs) for key, pairs in self._borrowed(docs, chosen).items()}
        found = self._find({key: docs[key] for key in chosen})
        opened = {key: self._opened(found[key], key, docs) for key in chosen}
        return opened | self._deeper([key for key in chosen if len(opened[key]) < self.k], docs)

    def _opened(self, pairs: Iterable[tuple[str, float]], key: Key, docs: Mapping[Key, dict]) -> list[Passage]:
        index = self.retrieval.index
        if self._suiting is None:
            return [_read(index, stretch) for stretch in neighbours.stretches(index, pairs, self.neighbours)]
        doc, found = docs[key], []
        for snippet_id, score in self._suiting.only(pairs, doc):
            passage = Passage(index.snippet(snippet_id), score)
            if not examples.is_asked_by(passage.snippet, doc, prompts.question_of(doc, key[0])):
                found.append(passage)
            if len(found) == self.k:
                break
        return found

    def _find(self, docs: Mapping[Key, dict]) -> dict[Key, list[tuple[str, float]]]:
        """The ids and scores that the search finds for each item. Items that ask the same are searched once."""
        asked = {key: _asked(doc) for key, doc in docs.items()}
        new = {asked[key]: doc for key, doc in docs.items() if asked[key] not in self._found}
        if new:
            self._found |= zip(new, self.retrieval.find(list(new.values()), self._depth), strict=True)
        return {key: self._found[asked[key]] for key in docs}

    def _deeper(self, short: Sequence[Key], docs: Mapping[Key, dict]) -> dict[Key, list[Passage]]:
        """The passages of items for which too few of those found were solved questions that suit: of all there are."""
        whole = len(self.retrieval.index.ids)
        if not short or self._suiting is None or self._depth >= whole:
            return {}
        found = self.retrieval.find([docs[key] for key in short], whole)
        return {key: self._opened(pairs, key, docs) for key, pairs in zip(short, found, strict=True)}

    def _drawn(self, doc: dict, task: str) -> list[tuple[str, float]]:
        ids = self._suiting.ids(doc) if self._suiting else self.retrieval.index.ids
        draw = random.Random(f"{self.seed} {prompts.question_of(doc, task)}")
        return [(snippet_id, 0.0) for snippet_id in draw.sample(ids, min(self._depth, len(ids)))]

    def _borrowed(self, docs: Mapping[Key, dict], chosen: list[Key]) -> dict[Key, list[tuple[str, float]]]:
        """What is found for the donors of the ``chosen`` items."""
        new = [key for key in chosen if key not in self.lent]
        tasks = {task for task, _ in new}
        donors = self._donors({key: doc for key, doc in docs.items() if key[0] in tasks})
        found = self._find({donors[key]: docs[donors[key]] for key in new})
        self.lent |= {key: found[donors[key]] for key in new}
        return {key: self.lent[key] for key in chosen}

    def _donors(self, docs: Mapping[Key, dict]) -> dict[Key, Key]:
        """Item -> another one of its task. Questions form a ring in an order drawn by the seed, each borrowing from the
        next, so no question, in whatever versions it is asked, gets its own passages.

        Raises:
            InputError: a task asks only one question.
        """
        asking: dict[str, dict[str, list[Key]]] = defaultdict(lambda: defaultdict(list))
        for key, doc in docs.items():
            asking[key[0]][prompts.question_of(doc, key[0])].append(key)
        donors = {}
        for task, keys in asking.items():
            ring = sorted(keys, key=lambda question: hashlib.sha256(f"{self.seed} {question}".encode()).digest())
            if len(ring) < 2:
                raise InputError(f"context=shuffled: task {task} has one question here, so none to borrow from")
            for question, lender in zip(ring, ring[1:] + ring[:1], strict=True):
                donors |= dict.fromkeys(keys[question], keys[lender][0])
        return donors


def checked_kind(kind: str) -> str:
    """``kind``, if it is one of :data:`KINDS`.

    Raises:
        InputError: it is not.
    """
    if kind not in KINDS:
        raise InputError(f"context={kind}: there are {', '.join(KINDS)}")
    return kind


def _read(index: Index, stretch: neighbours.Stretch) -> Passage:
    alone = index.snippet(stretch.found)
    if len(stretch.ids) == 1:
        return Passage(alone, stretch.score)
    snippet = neighbours.read(index, stretch.ids) | {"id": stretch.found}
    return Passage(snippet, stretch.score, tuple(stretch.ids), alone)


def _asked(doc: dict) -> str:
    """Equal for documents for which a search finds the same."""
    return json.dumps([doc.get(field) for field in (*prompts.QUESTION_FIELDS, "options", "context")], default=str)


def _own_context(doc: dict, task: str) -> Passage:
    """The item's context as a passage: its own, or that of the same item where it shows one (:data:`OPEN_VIEWS`)."""
    text = doc.get("context") or _open_contexts(task).get(doc.get("id"))
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"context=oracle: task {task}, item {doc.get('id')} has no context of its own; run oracle on tasks whose "
            "items have one (pubmedqa, pubmedqa_star, scifact, medhallu_knowledge)"
        )
    return Passage({"id": f"context of {doc.get('id')}", "title": "", "text": text}, 0.0)


@functools.cache
def _open_contexts(task: str) -> dict[str, str]:
    """Item id -> context, for the items of a task of ours that hides it."""
    ours = catalogue.tasks().get(task)
    shown = OPEN_VIEWS.get(ours.benchmark) if ours else None
    return {item["id"]: item["context"] for item in benchmarks.load(shown, "test")} if shown else {}
