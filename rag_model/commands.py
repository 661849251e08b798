"""Build, inspect, check and query a retrieval index over a corpus."""

import argparse
from pathlib import Path

from medtasks import corpora
from medtasks.errors import InputError
from rag_model import chunking, embedders, embedding, settings, statpearls, store
from rag_model.arguments import check_characters, positive
from rag_model.build import build, mend_store
from rag_model.chunking import Chunking
from rag_model.index import Index, damage, finished, open_index, store_damage
from rag_model.retrieval import SEARCHES, Retrieval


def index(argv: list[str]) -> int:
    """The command ``medadapt index``: its arguments in, the exit code out.

    Raises:
        medtasks.errors.InputError: bad input; the message says what and the mend.
    """
    check_characters(argv)
    options = _parser().parse_args(argv)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medadapt index", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _build_arguments(commands)

    info = commands.add_parser("info", help="say what an index holds")
    info.set_defaults(run=_info)
    info.add_argument("dir", metavar="DIR")

    verify = commands.add_parser("verify", help="compare everything in an index with what its build recorded")
    verify.set_defaults(run=_verify)
    verify.add_argument("dir", metavar="DIR")
    verify.add_argument("--mend", action="store_true", help="fill a damaged store anew from the vectors")

    query = commands.add_parser(
        "query", help="show the snippets nearest to a text", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    query.set_defaults(run=_query)
    query.add_argument("dir", metavar="DIR")
    query.add_argument("text", metavar="TEXT")
    query.add_argument("-k", type=positive, default=3, metavar="N", help="snippets to show")
    query.add_argument(
        "--embedder",
        default=argparse.SUPPRESS,
        help="where the index's embedder lies, if not where it lay at the build",
    )
    query.add_argument(
        "--search", default="exact", metavar="HOW", help=f"{', '.join(SEARCHES)} or package.module:Class"
    )

    fetch = commands.add_parser("statpearls", help="download StatPearls and write it as a corpus, on this machine")
    fetch.set_defaults(run=_statpearls)
    fetch.add_argument("--out", required=True, metavar="FILE.jsonl.gz", help="the corpus to write")
    fetch.add_argument(
        "--archive", metavar="FILE.tar.gz", help="where the archive lies or is to lie (default: beside --out)"
    )
    return parser


def _build_arguments(commands) -> None:
    make = commands.add_parser(
        "build",
        help="chunk, embed and store a corpus; started again, goes on where it stopped",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    make.set_defaults(run=_build)
    make.add_argument(
        "corpus",
        metavar="CORPUS",
        nargs="+",
        help=f"'sample', a {', '.join(corpora.SUFFIXES)} file, a folder of them, or a Hub dataset id; "
        "solved questions: 'items:' before a benchmark (its training items), BENCHMARK:SPLIT or a file of questions; "
        "':N' behind it takes the first N rows",
    )
    make.add_argument("--out", required=True, metavar="DIR", help="folder of the index", default=argparse.SUPPRESS)
    make.add_argument(
        "--embedder",
        default=embedding.DEFAULT,
        help=f"{', '.join(embedders.NAMES)}, or Hub id or folder of a sentence-transformers model",
    )
    make.add_argument("--license", default=corpora.UNKNOWN, help="licence of passages that say none")
    make.add_argument("--chunking", choices=chunking.WAYS, default=Chunking.by, help="where long passages are cut")
    make.add_argument("--chunk-size", type=int, default=Chunking.size, metavar="N", help="most characters in a snippet")
    make.add_argument(
        "--chunk-overlap", type=int, default=Chunking.overlap, metavar="N", help="most characters shared by neighbours"
    )
    make.add_argument(
        "--store",
        metavar="|".join(store.KINDS),
        default=argparse.SUPPRESS,
        help=f"what else to fill with the snippets (default: {store.DEFAULT}, or what DIR was built with)",
    )
    make.add_argument(
        "--precision",
        choices=embedding.PRECISIONS,
        default="auto",
        help="of the embedder; auto: bfloat16 where it is fast",
    )
    make.add_argument(
        "--batch-size", type=positive, metavar="N", default=argparse.SUPPRESS, help="most texts embedded at once"
    )
    make.add_argument(
        "--batch-tokens", type=positive, metavar="N", default=argparse.SUPPRESS, help="most tokens embedded at once"
    )
    make.add_argument(
        "--decontaminate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave out passages that hold a test item of any benchmark, or MedMCQA's explanation of one "
        "(`medadapt contamination` shows which)",
    )
    make.add_argument(
        "--evidence-of",
        nargs="+",
        metavar="BENCHMARK",
        default=[],
        help="benchmarks whose items the corpus may hold, as PubMed holds the abstracts that pubmedqa asks about",
    )
    make.add_argument("--overwrite", action="store_true", help="throw away what another build left in DIR")


def _build(options: argparse.Namespace) -> int:
    meta, changed = build(
        options.corpus,
        options.out,
        embedding.Embedder(
            options.embedder,
            batch_size=getattr(options, "batch_size", None),
            batch_tokens=getattr(options, "batch_tokens", None),
            precision=options.precision,
        ),
        Chunking(options.chunk_size, options.chunk_overlap, options.chunking),
        held_out=_held_out(options.evidence_of) if options.decontaminate else None,
        license=options.license,
        store_spec=getattr(options, "store", None),
        overwrite=options.overwrite,
    )
    print(f"{options.out}: {'index built' if changed else 'the index is already complete, nothing to do'}")
    print(_described(meta))
    print(f'look something up: medadapt index query {options.out} "first-line treatment of asthma"')
    k = settings.SHOTS if meta["corpus"].get("solved") else settings.DEFAULTS["k"]
    print(f"answer with it:    --model rag --model_args pretrained=MODEL,index={options.out},k={k}")
    return 0


def _held_out(evidence_of: list[str]):
    from medtasks import contamination

    try:
        return contamination.held_out(without=evidence_of, explanations=True)
    except InputError as error:
        raise InputError(f"{error}; --no-decontaminate builds without them") from error


def _info(options: argparse.Namespace) -> int:
    print(_described(open_index(options.dir).meta))
    return 0


def _verify(options: argparse.Namespace) -> int:
    folder = Path(options.dir).expanduser()
    opened = Index(folder, finished(folder))
    if damaged := damage(folder, opened.meta, thorough=True):
        raise InputError(
            f"{folder}: {', '.join(damaged)} missing or damaged; run the same medadapt index build again to mend it"
        )
    if options.mend and mend_store(opened.folder):
        print(f"{options.dir}: the store was damaged and has been filled anew")
    elif (reason := store_damage(opened)) is not None:
        raise InputError(
            f"{options.dir}: the store is damaged: {reason}; medadapt index verify {options.dir} --mend fills it anew"
        )
    count, spec = opened.meta["snippets"]["count"], opened.meta["store"]
    print(f"{folder}: {count:,} snippets, their vectors and the store ({spec}) are whole")
    return 0


def _query(options: argparse.Namespace) -> int:
    retrieval = Retrieval(
        open_index(options.dir), search=options.search, embedder=getattr(options, "embedder", None), cache="none"
    )
    [found] = retrieval.find([{"question": options.text}], options.k)
    for (snippet_id, score), snippet in zip(found, retrieval.passages(found), strict=True):
        print(f"{score:.3f}  {snippet_id}  {snippet['title']}\n{snippet['text']}\n")
    return 0


def _statpearls(options: argparse.Namespace) -> int:
    count = statpearls.write(options.out, options.archive)
    print(f"{options.out}: {count:,} passages ({statpearls.LICENSE}; not to be passed on)")
    print(f"index them: medadapt index build {options.out} --out DIR")
    return 0


def _described(meta: dict) -> str:
    corpus, cut, embedder = meta["corpus"], meta["chunking"], meta["embedder"]
    left_out = []
    if "held_out" in meta:
        left_out = [
            f"  left out     {meta['left_out']:,} passages that hold one of {meta['held_out']['items']:,} items"
        ]
    return "\n".join(
        [
            f"  corpus       {corpus['name']}, {corpus['passages']:,} passages (sha256 {corpus['sha256'][:16]})",
            *left_out,
            f"  snippets     {meta['snippets']['count']:,} "
            + (
                "solved questions"
                if corpus.get("solved")
                else f"of at most {cut['size']:,} characters, overlap {cut['overlap']:,}, cut by {cut['by']}"
            ),
            *(
                f"    {of['snippets']:>9,}  {of['source']}, licence: {of['license']}"
                for of in sorted(meta["sources"], key=lambda of: -of["snippets"])
            ),
            f"  embedder     {embedder['name']} ({embedder['fingerprint']}), {meta['dimension']} dimensions, "
            f"{embedder['precision']}",
            f"  store        {meta['store']}",
            f"  fingerprint  {meta['fingerprint']}",
        ]
    )
