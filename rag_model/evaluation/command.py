"""``medadapt rag eval``: how well passages are found, for each of several retrievers."""

import argparse
from pathlib import Path

from medtasks import files
from medtasks.errors import InputError
from rag_model import embedding
from rag_model.arguments import positive
from rag_model.build import build
from rag_model.evaluation import sets
from rag_model.evaluation.measuring import measure, table
from rag_model.index import INDEX, open_index
from rag_model.retrieval import SEARCHES, Retrieval
from rag_model.retrieval.dense import embedder_of

NUMBERS = ("filter", "mmr")
ARGUMENTS = ("query", "rerank", "fuse", *NUMBERS)


def add_to(commands) -> None:
    """Add the subcommand ``eval`` to argparse's ``commands``."""
    parser = commands.add_parser(
        "eval",
        help="recall, nDCG and MRR on PubMedQA and SciFact, answers in passages on exams, a row a retriever",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=evaluate)
    parser.add_argument("--index", required=True, metavar="DIR", help="the index", default=argparse.SUPPRESS)
    parser.add_argument(
        "--corpus",
        metavar="FILE.jsonl",
        help="write the abstracts of PubMedQA-labelled and SciFact there, and build the index of them, where DIR has "
        "none",
    )
    parser.add_argument(
        "--search",
        nargs="+",
        default=["exact", "bm25", "rrf"],
        metavar="HOW",
        help=f"{', '.join(SEARCHES)} or package.module:Class, each with {', '.join(ARGUMENTS)} if wanted: "
        "'rrf,rerank=ncbi/MedCPT-Cross-Encoder,query=per_option'",
    )
    parser.add_argument("--sets", default="pubmedqa,scifact", metavar="SET,...", help=f"of {', '.join(sets.SETS)}")
    parser.add_argument("--split", choices=sets.SPLITS, default="test", help="test to measure, dev to choose settings")
    parser.add_argument("-k", nargs="+", type=positive, default=[1, 5, 10], metavar="N", help="passages looked at")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="the first N questions of each set", default=argparse.SUPPRESS
    )
    parser.add_argument(
        "--embedder",
        metavar="MODEL",
        help="Hub id or folder of the index's embedder, if not where it lay at the build",
        default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--cache", metavar="DIR", help="keeps what was found; 'none' for no such", default=argparse.SUPPRESS
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write retrieval.md and retrieval.json there", default=argparse.SUPPRESS
    )


def evaluate(options: argparse.Namespace) -> int:
    """Measure and show; the exit code.

    Raises:
        InputError: an index, set or retriever that cannot be used.
    """
    given = vars(options)
    out = files.output_folder(given["out"]) if "out" in given else None
    folder, embedder = Path(options.index).expanduser(), given.get("embedder")
    question_sets = sets.load(options.sets.split(","), options.split)
    if limit := given.get("limit"):
        question_sets = [
            sets.QuestionSet(name, items[:limit], right and right[:limit]) for name, items, right in question_sets
        ]
    if options.corpus and not (folder / INDEX).is_file():
        files.write_jsonl(files.output_file(options.corpus), sets.abstracts())
        build(options.corpus, folder, embedding.Embedder(embedder or embedding.DEFAULT))
    index = open_index(folder)
    arguments = {how: _arguments(how) for how in options.search}
    if any(own["search"] != "bm25" or "mmr" in own for own in arguments.values()):
        embedder = embedder_of(index, embedder, None)  # one for all, loaded once
    retrievals = {
        how: Retrieval(index, embedder=embedder, cache=given.get("cache"), **own) for how, own in arguments.items()
    }
    rows = measure(retrievals, question_sets, options.k)
    shown = table(rows)
    print(shown, end="")
    if out is not None:
        files.write_text(out / "retrieval.md", shown)
        files.write_json(out / "retrieval.json", {"split": options.split, "rows": rows})
    return 0


def _arguments(how: str) -> dict:
    """``rrf,mmr=0.5`` as keyword arguments of :class:`Retrieval`."""
    search, *others = how.split(",")
    arguments = {"search": search}
    for other in others:
        name, equals, value = other.partition("=")
        if name not in ARGUMENTS or not equals:
            raise InputError(f"--search {how}: '{other}' is none of {', '.join(f'{a}=' for a in ARGUMENTS)}")
        try:
            arguments[name] = float(value) if name in NUMBERS else value
        except ValueError as error:
            raise InputError(f"--search {how}: {name} must be a number, not '{value}'") from error
    return arguments
