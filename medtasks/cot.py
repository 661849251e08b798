"""Chain of thought: the model reasons in writing, and the letter that it declares at the end is scored.

The prompt asks for reasoning without showing any, as in zero-shot CoT (Kojima et al. 2022, arXiv:2205.11916); the line
that it asks for at the end stands for that paper's second prompt, which has the answer extracted. With
``--num_fewshot`` the examples show their written explanation (Wei et al. 2022, arXiv:2201.11903).

An output that declares no option is invalid, and wrong; it is never taken for a guess.
"""

import collections
import math
from collections.abc import Sequence

from medtasks import mcq, metrics
from medtasks.extraction import extract

INSTRUCTION = 'Reason step by step, then end with one line "Answer: <letter>", where <letter> is {letters}.'


def render(item: dict) -> str:
    """The prompt: the item as :func:`medtasks.mcq.render` gives it, with :data:`INSTRUCTION` for ``Answer:``."""
    *others, last = mcq.choices(item)
    letters = f"{', '.join(others)} or {last}" if others else last
    return mcq.render(item).removesuffix("Answer:") + INSTRUCTION.format(letters=letters)


def worked(item: dict) -> str:
    """What a few-shot example answers: its explanation, if it has one, and the line that the prompt asks for."""
    return f"{item['rationale'].strip()}\nAnswer: {mcq.target(item)}".lstrip()


def process_results(doc: dict, results: Sequence[str]) -> dict:
    """The metrics of one item, from the one output in ``results``.

    Returns:
        ``acc``: 1 if the declared option is the right one, else 0; ``acc_valid``: the same, None where none is
        declared; ``invalid``: 1 if none is declared, else 0; ``declared``: its letter, "" for none.
    """
    option = extract(results[0], doc["options"])
    right = int(option == doc["answer"])
    return {
        "acc": right,
        "acc_valid": None if option is None else right,
        "invalid": int(option is None),
        "declared": "" if option is None else mcq.LETTERS[option],
    }


@metrics.bootstrapped
def share_of_commonest(letters: Sequence[str]) -> float:
    """Share of the letter that is declared most often among those declared; NaN if none is.

    Near 1, a model says the same letter whatever it is asked. A benchmark whose answers are spread evenly over four
    letters gives a good model 0.25.
    """
    counts = collections.Counter(letter for letter in letters if letter)
    return max(counts.values()) / counts.total() if counts else math.nan
