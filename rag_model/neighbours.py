"""Snippets with what stands before and after them: searched in small pieces, read in larger ones.

Small snippets are found more exactly, but a model is shown less than the passage says. Snippets found side by side
become one passage, so that nothing is shown twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_model import chunking

if TYPE_CHECKING:
    from rag_model.index import Index


@dataclass
class Stretch:
    """Snippets of a passage that follow one another.

    Attributes:
        passage: its id.
        first, last: numbers of the snippets.
        found: id of the best of those that were found.
        score: its score.
    """

    passage: str
    first: int
    last: int
    found: str
    score: float

    @property
    def ids(self) -> list[str]:
        return [chunking.snippet_id(self.passage, number) for number in range(self.first, self.last + 1)]


def stretches(index: "Index", found: Iterable[tuple[str, float]], n: int) -> list[Stretch]:
    """Each found snippet with up to ``n`` before and ``n`` after it, best first; those that meet are one, but if ``n``
    is 0.

    Args:
        found: ids and scores, best first.
    """
    made: list[Stretch] = []
    for snippet_id, score in found:
        passage, number = chunking.passage_and_number(snippet_id)
        first = last = number
        while first > number - n and chunking.snippet_id(passage, first - 1) in index.offsets:
            first -= 1
        while last < number + n and chunking.snippet_id(passage, last + 1) in index.offsets:
            last += 1
        new = Stretch(passage, first, last, snippet_id, score)
        meeting = [one for one in made if one.passage == passage and one.first <= last + 1 and first <= one.last + 1]
        if not meeting or not n:
            made.append(new)
            continue
        best, *others = meeting
        best.first = min(one.first for one in (*meeting, new))
        best.last = max(one.last for one in (*meeting, new))
        made = [one for one in made if one not in others]
    return made


def read(index: "Index", ids: Sequence[str]) -> dict:
    """The first of the snippets ``ids``, which follow one another, with the text of all."""
    snippets = [index.snippet(snippet_id) for snippet_id in ids]
    texts = [snippet["text"] for snippet in snippets]
    return snippets[0] | {"text": chunking.joined(texts, index.overlap) if len(texts) > 1 else texts[0]}
