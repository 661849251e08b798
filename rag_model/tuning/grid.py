"""The settings that are tried, and what each of them makes of the scores."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag_model.answering import Mode, parse
from rag_model.tuning.scores import Base, Scores


@dataclass(frozen=True)
class Grid:
    """Values to try. Beside each of the last four, that its step is left out is tried too.

    Attributes:
        query, k: how passages are found, and how many. The plainest query is named first.
        gate_margin, calibration, w: settings of steps (:mod:`rag_model.answering`).
        per_passage: whether to try passages apart.
    """

    query: Sequence[str]
    k: Sequence[int]
    gate_margin: Sequence[float] = ()
    calibration: Sequence[float] = ()
    w: Sequence[float] = ()
    per_passage: bool = False

    @property
    def bases(self) -> list[Base]:
        """What must be scored, the plainest first."""
        apart = (False, True) if self.per_passage else (False,)
        return [Base(query, k, p) for p in apart for query in self.query for k in self.k if k > 1 or not p]

    def every_arm(self, base: Base) -> str:
        """A mode that needs every arm that is tried with a base."""
        steps = ["per_passage"] * base.per_passage + ["calibrate"] * bool(self.calibration) + ["mix"]
        return "+".join(steps)

    def modes(self, base: Base) -> Iterator[Mode]:
        """The modes that are tried with a base."""
        choices = itertools.product((None, *self.gate_margin), (None, *self.calibration), (None, *self.w))
        for gate_margin, calibration, w in choices:
            given = {"gate": gate_margin, "calibrate": calibration, "mix": w}
            steps = ["per_passage"] * base.per_passage + [step for step, value in given.items() if value is not None]
            yield parse("+".join(steps) or "always", gate_margin, calibration, w)

    def simplicity(self, base: Base, mode: Mode) -> tuple:
        """Smaller is simpler: fewer steps, then fewer passages, then the query that is named earlier."""
        return len(mode.steps), base.k, list(self.query).index(base.query)


@dataclass(frozen=True)
class Outcome:
    """What a setting makes of the dev items.

    Attributes:
        base, mode: the setting; both None for the closed book.
        correct: task -> 1.0 where an item is answered right, else 0.0; ``(n,)``.
        opened: task -> share of the items whose book is opened.
    """

    base: Base | None
    mode: Mode | None
    correct: Mapping[str, np.ndarray]
    opened: Mapping[str, float]

    @property
    def settings(self) -> dict:
        """The arguments of ``rag`` that it stands for."""
        if self.base is None:
            return {}
        return {"query": self.base.query, "k": self.base.k, "mode": self.mode.name} | self.mode.settings


def closed(scores: Mapping[str, Scores]) -> Outcome:
    """Without passages."""
    correct = {task: _is_right(own.closed, own.gold) for task, own in scores.items()}
    return Outcome(None, None, correct, dict.fromkeys(scores, 0.0))


def outcome(base: Base, mode: Mode, scores: Mapping[str, Scores]) -> Outcome:
    """What ``mode`` makes of the scores with ``base``, as ``rag`` would with the same settings."""
    correct, opened = {}, {}
    for task, own in scores.items():
        answers = mode.answer(own.closed, own.opened, own.neutral if mode.needs_neutral else None, own.weights)
        is_opened = mode.opens(own.closed)
        correct[task] = _is_right(np.where(is_opened[:, None], answers, own.closed), own.gold)
        opened[task] = float(is_opened.mean())
    return Outcome(base, mode, correct, opened)


def _is_right(values: np.ndarray, gold: np.ndarray) -> np.ndarray:
    return (values.argmax(axis=-1) == gold).astype(float)
