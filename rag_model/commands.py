"""Build, inspect and query a retrieval index over a corpus."""

import argparse

from rag_model import embedding
from rag_model.build import build
from rag_model.chunking import Chunking
from rag_model.index import open_index
from rag_model.retrieval import Retrieval


def index(argv: list[str]) -> int:
    """The command ``medadapt index``: its arguments in, the exit code out.

    Raises:
        medtasks.errors.InputError: bad input; the message says what and the mend.
    """
    options = _parser().parse_args(argv)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medadapt index", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = argparse.ArgumentDefaultsHelpFormatter

    make = commands.add_parser(
        "build", help="chunk, embed and store a corpus; started again, goes on where it stopped", formatter_class=add
    )
    make.set_defaults(run=_build)
    make.add_argument("corpus", metavar="CORPUS", help="'sample', a .jsonl or .jsonl.gz file, or a Hub dataset id")
    make.add_argument("--out", required=True, metavar="DIR", help="folder of the index", default=argparse.SUPPRESS)
    make.add_argument("--embedder", default=embedding.DEFAULT, help="Hub id or folder of a sentence-transformers model")
    make.add_argument("--chunk-size", type=int, default=Chunking.size, metavar="N", help="most characters in a snippet")
    make.add_argument(
        "--chunk-overlap", type=int, default=Chunking.overlap, metavar="N", help="most characters shared by neighbours"
    )
    make.add_argument(
        "--batch-size", type=_positive, default=embedding.BATCH_SIZE, metavar="N", help="texts embedded at once"
    )
    make.add_argument(
        "--decontaminate",
        action="store_true",
        help="leave out passages that hold a test item of any benchmark (`medadapt contamination` shows which)",
    )
    make.add_argument("--overwrite", action="store_true", help="throw away what another build left in DIR")

    info = commands.add_parser("info", help="say what an index holds")
    info.set_defaults(run=_info)
    info.add_argument("dir", metavar="DIR")

    query = commands.add_parser("query", help="show the snippets nearest to a text", formatter_class=add)
    query.set_defaults(run=_query)
    query.add_argument("dir", metavar="DIR")
    query.add_argument("text", metavar="TEXT")
    query.add_argument("-k", type=_positive, default=3, metavar="N", help="snippets to show")
    query.add_argument(
        "--embedder",
        default=argparse.SUPPRESS,
        help="where the index's embedder lies, if not where it lay at the build",
    )
    query.add_argument(
        "--search", default="exact", metavar="HOW", help="exact, chroma, bm25, rrf or package.module:Class"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _build(options: argparse.Namespace) -> int:
    from medtasks import contamination

    meta, changed = build(
        options.corpus,
        options.out,
        embedding.Embedder(options.embedder, batch_size=options.batch_size),
        Chunking(options.chunk_size, options.chunk_overlap),
        held_out=contamination.held_out() if options.decontaminate else None,
        overwrite=options.overwrite,
    )
    print(f"{options.out}: {'index built' if changed else 'the index is already complete, nothing to do'}")
    print(_described(meta))
    print(f'look something up: medadapt index query {options.out} "first-line treatment of asthma"')
    print(f"answer with it:    --model rag --model_args pretrained=MODEL,index={options.out},k=3")
    return 0


def _info(options: argparse.Namespace) -> int:
    print(_described(open_index(options.dir).meta))
    return 0


def _query(options: argparse.Namespace) -> int:
    retrieval = Retrieval(
        open_index(options.dir), search=options.search, embedder=getattr(options, "embedder", None), cache="none"
    )
    [found] = retrieval.find([{"question": options.text}], options.k)
    for (snippet_id, score), snippet in zip(found, retrieval.passages(found), strict=True):
        print(f"{score:.3f}  {snippet_id}  {snippet['title']}\n{snippet['text']}\n")
    return 0


def _described(meta: dict) -> str:
    corpus, chunking, embedder = meta["corpus"], meta["chunking"], meta["embedder"]
    left_out = []
    if "held_out" in meta:
        left_out = [
            f"  left out     {meta['left_out']:,} passages that hold one of {meta['held_out']['items']:,} items"
        ]
    return "\n".join(
        [
            f"  corpus       {corpus['name']}, {corpus['passages']:,} passages (sha256 {corpus['sha256'][:16]})",
            *left_out,
            f"  snippets     {meta['snippets']['count']:,} of at most {chunking['size']:,} characters, "
            f"overlap {chunking['overlap']:,}",
            f"  embedder     {embedder['name']} ({embedder['fingerprint']}), {meta['dimension']} dimensions",
            f"  fingerprint  {meta['fingerprint']}",
        ]
    )
