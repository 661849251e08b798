"""Compare runs on the same items: accuracy, difference, interval, corrected p-value, calibration.

A RUN is what ``lm_eval run --log_samples --output_path`` wrote (folder or results file, of any model and task), a run
folder of a study, or a whole study, which stands for all its finished runs. Runs of different items, prompts or task
versions are refused.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from medtasks.errors import InputError
from medtasks.files import write_json, write_text
from results import comparison, runs, tables
from results.commands import listed
from results.runs import Run
from results.studies import study

FORMATS = {"text": tables.text, "markdown": tables.markdown, "csv": tables.csv, "latex": tables.latex}
FILES = {"markdown": "table.md", "csv": "table.csv", "latex": "table.tex"}


def compare(argv: list[str]) -> int:
    """``medadapt compare``. Returns 0.

    Raises:
        InputError: a run that cannot be read, or runs that cannot be compared.
    """
    args = _parser().parse_args(argv)
    read = _read(args)
    compared = comparison.compare(read, args.base or read[0].name, args.all_pairs, listed(args.allow))
    if args.format == "json":
        print(json.dumps(compared, indent=2, ensure_ascii=False))
    else:
        print(FORMATS[args.format](compared).rstrip("\n"))
    if args.format == "text":
        print("", *tables.methods(compared), sep="\n")
    if args.out:
        write_json(args.out / "table.json", compared)
        for name, file in FILES.items():
            write_text(args.out / file, FORMATS[name](compared))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medadapt compare", description=__doc__.split("\n\n")[1])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="an lm-eval output, a study's run, or a study")
    parser.add_argument("--base", metavar="NAME", help="the run that the others are compared with (default: the first)")
    parser.add_argument("--names", default="", metavar="A,B", help="what to call the runs (default: their folders)")
    parser.add_argument("--tasks", default="", metavar="T1,T2", help="only these tasks (default: all that are common)")
    parser.add_argument("--metric", help="the right-or-wrong metric to read, e.g. acc_norm (default: acc, exact_match)")
    parser.add_argument("--filter", help="the answer filter to read, where a task has several")
    parser.add_argument("--all-pairs", action="store_true", help="compare every two runs, not only with the base")
    parser.add_argument(
        "--allow", default="", metavar="prompts,versions", help="compare although the prompts or task versions differ"
    )
    parser.add_argument("--format", choices=[*FORMATS, "json"], default="text")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write table.json, table.md, table.csv and table.tex")
    return parser


def _read(args: argparse.Namespace) -> list[Run]:
    """The runs with the names and tasks that were asked for.

    Raises:
        InputError: fewer than two runs, another number of names, or a task that no run has.
    """
    folders = [folder for given in args.runs for folder in _expanded(Path(given).expanduser())]
    if len(folders) < 2:
        raise InputError(f"{folders[0]}: one run has nothing to be compared with; give two or more, or a study")
    read = runs.read_all(folders, listed(args.names), args.metric, args.filter)
    wanted, known = listed(args.tasks), {task: None for run in read for task in run.tasks}
    if unknown := [task for task in wanted if task not in known]:
        raise InputError(f"no run has the task '{unknown[0]}'; --tasks takes some of {', '.join(known)}")
    if not wanted:
        return read
    return [replace(run, tasks={task: run.tasks[task] for task in wanted if task in run.tasks}) for run in read]


def _expanded(path: Path) -> list[Path]:
    """The finished runs of a study, its base first; anything else is itself.

    Raises:
        InputError: the study's description is damaged, or its base has not been evaluated.
    """
    if not (path / study.FILE).is_file():
        return [path]
    reference, finished = study.of_folder(path).reference, study.runs_of(path)
    if reference not in finished:
        raise InputError(f"{path}: its base has not been evaluated; run the study, or give single runs of it")
    return [finished.pop(reference), *finished.values()]
