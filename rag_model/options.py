"""Which options of an item name something."""

import re

EMPTY = re.compile(r"yes|no|maybe|true|false|(all|none|any|both|neither) (of )?(the )?(above|these|following|options?)")
"""Options that name nothing to look up."""


def names_nothing(option: str) -> bool:
    """Whether there is nothing to look up in an option: ``yes``, ``none of the above``."""
    from medtasks.ngrams import normalize

    return EMPTY.fullmatch(normalize(option)) is not None
