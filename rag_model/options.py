"""Which options of an item name something."""

import re

from medtasks.ngrams import normalize

EMPTY = re.compile(r"yes|no|maybe|true|false|(all|none|any|both|neither) (of )?(the )?(above|these|following|options?)")
"""Options that name nothing to look up."""


def names_nothing(option: str) -> bool:
    """Whether there is nothing to look up in an option: ``yes``, ``none of the above``."""
    return EMPTY.fullmatch(normalize(option)) is not None
