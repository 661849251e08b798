"""Say how well passages are found, fit how they are used, and write those of training items."""

import argparse

from rag_model import training_passages
from rag_model.arguments import check_characters
from rag_model.evaluation import command as evaluation
from rag_model.tuning import command as tuning

PARTS = (evaluation, tuning, training_passages)
"""Modules with ``add_to(commands)``, which adds a subcommand whose ``run`` takes the options and gives an exit code."""


def rag(argv: list[str]) -> int:
    """The command ``medadapt rag``: its arguments in, the exit code out.

    Raises:
        medtasks.errors.InputError: bad input; the message says what and the mend.
    """
    check_characters(argv)
    parser = argparse.ArgumentParser(prog="medadapt rag", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for part in PARTS:
        part.add_to(commands)
    options = parser.parse_args(argv)
    return options.run(options)
