"""Rank any number of leaderboard files, ours or anyone's, with intervals and shared ranks.

``medadapt leaderboard PATH ... [--format text|markdown|csv|json] [--sort TASK]`` takes leaderboard files, folders
of them (a study's, say) and dataset repositories on the Hub (ORG/NAME). Files of the same tasks make one board.
Rank = 1 + the number of models whose 95% interval lies wholly above. Models that lack a task are listed apart.
"""

import argparse
import re
import sys
from pathlib import Path

from medtasks import hub
from medtasks.errors import InputError
from results.boards import ranking, ranking_tables


def leaderboard(argv: list[str]) -> int:
    """``medadapt leaderboard``. Returns 0, or 1 if some file was left out, which is said on standard error.

    Raises:
        InputError: a path or repository that is not there, no usable file at all, or no board with ``--sort``'s task.
    """
    parser = argparse.ArgumentParser(prog="medadapt leaderboard", description=__doc__.split("\n\n")[1])
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder, or a Hub dataset ORG/NAME")
    parser.add_argument("--format", choices=list(ranking_tables.FORMATS), default="text")
    parser.add_argument("--sort", metavar="TASK", help="order by this task's accuracy; ranks stay those of the mean")
    args = parser.parse_args(argv)
    entries, problems = [], []
    for file in dict.fromkeys(file for path in args.paths for file in ranking.find(_local(path))):
        try:
            entries.append(ranking.read(file))
        except InputError as error:
            problems.append(error)
            print(f"medadapt: left out: {error}", file=sys.stderr)
    if not entries:
        raise InputError(f"{', '.join(args.paths)}: none of {len(problems)} files is a leaderboard file")
    boards = ranking_tables.sort(ranking.boards(entries), args.sort)
    print(ranking_tables.FORMATS[args.format](boards), end="")
    return 1 if problems else 0


def _local(path: str) -> Path:
    """The path itself, or where the Hub repository of that name has been downloaded to."""
    if Path(path).expanduser().exists():
        return Path(path).expanduser()
    if re.fullmatch(hub.ID, path):
        return hub.download(path, "*.json")
    raise InputError(f"{path}: no such file or folder, and no ORG/NAME of a Hub dataset repository")
