"""``medadapt rag tune``: fit how ``rag`` answers on dev splits, and write it down."""

import argparse
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files
from medtasks.errors import InputError
from rag_model.arguments import positive
from rag_model.settings import NOT_PART_OF_THE_ANSWER, OF_LAYOUT, OF_RETRIEVAL

if TYPE_CHECKING:
    from rag_model.tuning.dev import Dev
    from rag_model.tuning.grid import Grid

DEFAULT_GRID = {
    "k": [1, 3, 5],
    "query": ["question", "question+options"],
    "gate_margin": [0.25, 0.5, 1.0, 2.0, 4.0],
    "calibration": [0.5, 1.0],
    "w": [0.25, 0.5, 0.75],
}
GIVEN_APART = ("index", "inner", "context", "context_seed", "mode", "per_passage", "sidecar", "tuned", *DEFAULT_GRID)
"""Arguments of ``rag`` that ``--model_args`` may not hold here: what is tuned, and what has an option of its own."""
RULE = (
    "the simplest setting whose mean accuracy over tasks lies within one standard error, of the paired difference, of "
    "the best one's (Breiman et al. 1984): fewer steps, then fewer passages, then the plainer query"
)


def add_to(commands) -> None:
    """Add the subcommand ``tune`` to argparse's ``commands``."""
    parser = commands.add_parser(
        "tune",
        help="fit how `rag` answers (k, query, gate, mix, calibration) on dev splits, never on test",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=tune)
    parser.add_argument("--index", required=True, metavar="DIR", help="the index", default=argparse.SUPPRESS)
    parser.add_argument(
        "--model_args",
        required=True,
        metavar="NAME=VALUE,...",
        help="the inner model's arguments, and those of `rag` that stay as they are (search=rrf,order=best_first)",
        default=argparse.SUPPRESS,
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write", default=argparse.SUPPRESS)
    parser.add_argument("--inner", default="hf-mcq", metavar="MODEL", help="lm-eval's name of the inner model")
    parser.add_argument("--tasks", default="medqa,medmcqa,mmlu_med,pubmedqa", metavar="BENCHMARK,...")
    parser.add_argument(
        "--splits",
        metavar="SPLIT,...",
        help="to choose by; a benchmark's validation split, or else its training one",
        default=argparse.SUPPRESS,
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="most dev items a task", default=argparse.SUPPRESS)
    for name, values in DEFAULT_GRID.items():
        kind = positive if name == "k" else type(values[0])
        what = "values to try; none: the step is not tried" if kind is float else "values to try, the plainest first"
        parser.add_argument(f"--{name}", nargs="*", type=kind, default=values, metavar="VALUE", help=what)
    parser.add_argument("--per_passage", action="store_true", help="try passages apart, too")
    parser.add_argument(
        "--use_cache", metavar="FILE", help="keeps what the model answered, for a next time", default=argparse.SUPPRESS
    )


def tune(options: argparse.Namespace) -> int:
    """Score, search, write and show; the exit code.

    Raises:
        InputError: a benchmark, split, index, model or value that cannot be used.
    """
    from lm_eval.utils import simple_parse_args_string

    from rag_model.tuning import choice, dev
    from rag_model.tuning.grid import Grid

    out = files.output_file(options.out)
    tried = Grid(**{name: getattr(options, name) for name in (*DEFAULT_GRID, "per_passage")})
    if not tried.k or not tried.query:
        raise InputError("--k and --query: give at least one value each")
    given = simple_parse_args_string(options.model_args)
    if taken := [name for name in GIVEN_APART if name in given]:
        raise InputError(f"--model_args {taken[0]}: is tuned, or has an option of its own, --{taken[0]}")
    splits = [split for split in getattr(options, "splits", "").split(",") if split]
    data = dev.load(options.tasks.split(","), splits, getattr(options, "limit", None))
    outcomes, reference, about = _searched(options, given, tried, data)

    def simplicity(one):
        return tried.simplicity(one.base, one.mode)

    rows = [choice.row(outcome, reference) for outcome in outcomes]
    closed = choice.row(reference, reference)
    best = choice.row(choice.best(outcomes, simplicity), reference)
    chosen = choice.row(choice.chosen(outcomes, simplicity), reference)
    as_given = {name: given[name] for name in (*OF_RETRIEVAL, *OF_LAYOUT) if name in given}
    found = {"chosen": chosen | {"settings": chosen["settings"] | as_given}, "best": best, "closed": closed}
    found |= {"rule": RULE, "grid": rows, "data": {task: own.record for task, own in data.items()}}
    files.write_json(out, found | about)
    print(shown(rows, closed, best, chosen))
    print(f"use it: --model rag --model_args {options.model_args},index={options.index},tuned={options.out}")
    return 0


def _searched(options: argparse.Namespace, given: Mapping[str, object], tried: "Grid", data: "Mapping[str, Dev]"):
    """What every setting makes of the dev items, and the closed book; and of what index and model that is."""
    from rag_model.inner import make
    from rag_model.lm import ARGUMENTS, RAG
    from rag_model.tuning import grid
    from rag_model.tuning.scores import score

    of_rag = {name: value for name, value in given.items() if name in ARGUMENTS}
    inner_args = {name: value for name, value in given.items() if name not in ARGUMENTS}
    inner = make(options.inner, inner_args, ARGUMENTS)
    about = {"inner": options.inner} | {n: v for n, v in inner_args.items() if n not in NOT_PART_OF_THE_ANSWER}
    items = {task: own.items for task, own in data.items()}
    outcomes, reference = [], None
    with _table(getattr(options, "use_cache", None), about) as table:
        for base in tried.bases:
            print(f"scoring {base}", flush=True)
            how = {"k": base.k, "query": base.query, "mode": tried.every_arm(base), "w": 0.5}
            model = RAG(options.index, inner, **how, **of_rag)
            model.answers.file_in(table)
            scores = score(items, model)
            reference = reference or grid.closed(scores)
            outcomes += [grid.outcome(base, mode, scores) for mode in tried.modes(base)]
    return outcomes, reference, {"index": model.meta["fingerprint"], "corpus": model.meta["corpus"], "model": about}


@contextmanager
def _table(file: str | None, about: Mapping[str, object]) -> Iterator[MutableMapping]:
    """Where answers of the model ``about`` are filed: in memory, or in its own table of ``file``."""
    if file is None:
        yield {}
        return
    from sqlitedict import SqliteDict

    from rag_model.cache import own_table

    with SqliteDict(str(_checked_database(files.output_file(file))), autocommit=True) as table:
        own_table(table, f"tune_{files.sha256_json(about)[:16]}")
        yield table


def _checked_database(file: Path) -> Path:
    """``file``, if it is a database, or can be made one. SqliteDict finds out in a thread, which prints a traceback."""
    import sqlite3

    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise InputError(f"--use_cache {file}: {error}; give another file, or remove this one") from error
    return file


def shown(rows: Sequence[dict], closed: dict, best: dict, chosen: dict) -> str:
    """A table of accuracies in %, with the mean's difference to the closed book and its standard error: closed book,
    each base in mode ``always``, the best setting of each other mode, the best of all, and the chosen one."""
    named = [("closed book", closed)]
    named += [(_name(row["settings"]), row) for row in rows if row["settings"]["mode"] == "always"]
    modes = dict.fromkeys(row["settings"]["mode"] for row in rows if row["settings"]["mode"] != "always")
    for mode in modes:
        top = max((row for row in rows if row["settings"]["mode"] == mode), key=lambda row: row["acc"])
        named.append((_name(top["settings"]), top))
    named += [("best: " + _name(best["settings"]), best), ("chosen: " + _name(chosen["settings"]), chosen)]
    lines = [f"| setting | {' | '.join(closed['tasks'])} | mean | difference | opened |"]
    lines.append("|---" * (len(closed["tasks"]) + 4) + "|")
    for name, row in named:
        accuracies = " | ".join(f"{100 * task['acc']:.1f}" for task in row["tasks"].values())
        change = f"{100 * row['difference']:+.1f} ± {100 * row['difference_stderr']:.1f}"
        opened = 100 * sum(task["opened"] for task in row["tasks"].values()) / len(row["tasks"])
        lines.append(f"| {name} | {accuracies} | {100 * row['acc']:.1f} | {change} | {opened:.0f}% |")
    if chosen["difference"] <= chosen["difference_stderr"]:
        lines.append("\nWhat was chosen does not beat the closed book by one standard error here.")
    return "\n".join(lines)


def _name(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
