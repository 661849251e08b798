"""Option texts scored by log-likelihood, no letters shown: the cloze form (Brown et al. 2020, arXiv:2005.14165).

Which form suits depends on the model: those that cannot yet bind letters to options do better at this one (Robinson et
al. 2023, arXiv:2210.12353). Long options are unlikely because they are long, so beside ``acc`` there is lm-eval's
``acc_norm``, of the log-likelihood divided by the number of characters.
"""

from medtasks import mcq

NO_TEXT = "(no text)"
"""Stands for an option that is empty: nothing cannot be scored."""


def render(item: dict) -> str:
    """The prompt: the item as :func:`medtasks.mcq.render` gives it, without its options."""
    return mcq.render(item | {"options": []})


def choices(item: dict) -> list[str]:
    """The texts to score, one an option."""
    return [option if option.strip() else NO_TEXT for option in item["options"]]
