"""What several commands' arguments are checked by."""

import argparse
from collections.abc import Sequence

from medtasks import files
from medtasks.errors import InputError


def check_characters(argv: Sequence[str]) -> None:
    """Check that arguments are UTF-8, as whatever is written is.

    Raises:
        InputError: one is not.
    """
    if wrong := [argument for argument in argv if not files.is_unicode(argument)]:
        raise InputError(f"the argument {wrong[0]!a} is not UTF-8; rename the file, or type it again")


def positive(text: str) -> int:
    """A whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: it is less.
    """
    return _from(1, text)


def natural(text: str) -> int:
    """A whole number from 0 on.

    Raises:
        argparse.ArgumentTypeError: it is less.
    """
    return _from(0, text)


def _from(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is not at least {least}")
    return number
