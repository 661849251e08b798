"""Every dev item scored once in each arm, as arrays over the items of a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from lm_eval.api.instance import Instance

from medtasks import mcq
from rag_model.arms import METHOD, Scored

if TYPE_CHECKING:
    from rag_model.lm import RAG

NEVER = -1e9
"""Log-probability of an option that an item does not have, where another of its task has more."""


@dataclass(frozen=True)
class Base:
    """What must be scored anew if it changes; all else is a formula of the scores."""

    query: str
    k: int
    per_passage: bool


@dataclass(frozen=True)
class Scores:
    """A task's items in every arm: n items, at most o options and p prompts. Log-probabilities in nats, float64.

    Attributes:
        closed: ``(n, o)``.
        opened, neutral: ``(n, p, o)``; ``neutral`` is 0 where the model's mode does not need it.
        weights: scores of the retrieval, ``(n, p)``; -inf for a prompt that an item does not have.
        gold: the right option's index, ``(n,)``.
    """

    closed: np.ndarray
    opened: np.ndarray
    neutral: np.ndarray
    weights: np.ndarray
    gold: np.ndarray


def score(items: Mapping[str, Sequence[dict]], model: "RAG") -> dict[str, Scores]:
    """Score each task's items in all arms.

    Args:
        items: task -> its items; the prompts are :func:`medtasks.mcq.render`'s, the options its letters.
        model: in a mode that needs every arm that is asked for (:meth:`rag_model.tuning.grid.Grid.every_arm`).
    """
    asked = {(task, i): _requests(task, i, item) for task, of in items.items() for i, item in enumerate(of)}
    found = model.score(asked)
    return {task: _stacked(of, [found[task, i] for i in range(len(of))]) for task, of in items.items()}


def _requests(task: str, i: int, item: dict) -> list[Instance]:
    prompt, options = mcq.render(item), enumerate(mcq.choices(item))
    return [
        Instance(METHOD, item, (prompt, f"{mcq.DELIMITER}{letter}"), j, metadata=(task, i, 1)) for j, letter in options
    ]


def _stacked(items: Sequence[dict], scored: Sequence[Scored]) -> Scores:
    n, options = len(items), max(len(item["options"]) for item in items)
    prompts = max(len(one.book.scores) for one in scored)
    closed = np.full((n, options), NEVER)
    opened = np.full((n, prompts, options), NEVER)
    neutral = np.zeros((n, prompts, options))
    weights = np.full((n, prompts), -np.inf)
    for i, one in enumerate(scored):
        p, o = one.opened.values.shape
        closed[i, :o] = one.closed.values
        opened[i, :p, :o] = one.opened.values
        if one.neutral is not None:
            neutral[i, :p, :o] = one.neutral.values
        weights[i, :p] = one.book.scores
    return Scores(closed, opened, neutral, weights, np.array([item["answer"] for item in items]))
