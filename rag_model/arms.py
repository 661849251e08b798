"""The options of items, scored in arms: closed book, open book, and open book with a content-free question."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm_eval.api.instance import Instance

from rag_model.answering import Mode, margin
from rag_model.cache import Answers
from rag_model.context import Key
from rag_model.open_book import OpenBook

if TYPE_CHECKING:
    import numpy as np

METHOD = "loglikelihood"


@dataclass(frozen=True)
class Arm:
    """Options as one or several prompts scored them.

    Attributes:
        values: log-probabilities in nats, float64; ``(options,)`` closed book, ``(prompts, options)`` otherwise.
        greedy: whether greedy decoding gives them; bool, the same shape.
    """

    values: "np.ndarray"
    greedy: "np.ndarray"


@dataclass(frozen=True)
class Scored:
    """One item's arms; None for one that the mode does not need, or that stayed closed.

    Attributes:
        book: what the item was shown.
    """

    closed: Arm | None
    opened: Arm | None = None
    neutral: Arm | None = None
    book: OpenBook | None = None

    def answers(self, mode: Mode) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether greedy decoding gives it) of each option, by ``mode``."""
        import numpy as np

        if self.opened is None:
            values, greedy = self.closed.values, self.closed.greedy
        else:
            closed, neutral = self.closed or Arm(None, None), self.neutral or Arm(None, None)
            values = mode.answer(closed.values, self.opened.values, neutral.values, np.array(self.book.scores))
            greedy = mode.is_greedy(closed.greedy, self.opened.greedy, values)
        return list(zip(values.tolist(), greedy.tolist(), strict=True))

    def gated(self, mode: Mode) -> dict[str, float | bool]:
        """The closed-book ``margin`` in nats, and whether it ``opened`` the book; {} where ``mode`` has no gate."""
        if "gate" not in mode.steps:
            return {}
        found = float(margin(self.closed.values))
        return {"margin": round(found, 6), "opened": found < mode.gate_margin}


def score(
    items: Mapping[Key, Sequence[Instance]],
    mode: Mode,
    answers: Answers,
    open_books: Callable[[Sequence[Key]], Mapping[Key, OpenBook]],
) -> dict[Key, Scored]:
    """Score the options of all ``items``, a request each, in one call of the inner model for the closed book and one
    for the open book: whichever ``mode`` needs.

    Args:
        open_books: gives the requests with passages of the items whose book is opened; called once.
    """
    closed: dict[Key, Arm] = {}
    if mode.needs_closed:
        flat = _asked(answers, [[group] for group in items.values()])
        closed = {key: Arm(arm.values[0], arm.greedy[0]) for key, arm in zip(items, flat, strict=True)}
    wanted = [key for key in items if key not in closed or mode.opens(closed[key].values)]
    books = open_books(wanted)
    arms = _asked(answers, [books[key].requests for key in wanted] + [books[key].neutral for key in wanted])
    found = {key: Scored(closed.get(key)) for key in items}
    for key, opened, neutral in zip(wanted, arms, arms[len(wanted) :], strict=False):
        found[key] = Scored(closed.get(key), opened, neutral, books[key])
    return found


def _asked(answers: Answers, books: Sequence[Sequence[Sequence[Instance]]]) -> list[Arm | None]:
    """An arm for each list of lists of requests, of a prompt each; None for an empty one. All are asked at once."""
    import numpy as np

    given = iter(answers.ask(METHOD, [request for rows in books for row in rows for request in row]))
    arms: list[Arm | None] = []
    for rows in books:
        found = [[next(given) for _ in row] for row in rows]
        values = np.array([[value for value, _ in row] for row in found], dtype=np.float64)
        greedy = np.array([[flag for _, flag in row] for row in found], dtype=bool)
        arms.append(Arm(values, greedy) if found else None)
    return arms
