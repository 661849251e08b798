"""Solved questions as a corpus, ``items:SOURCE``: found like passages, and shown as worked examples
(:mod:`rag_model.examples`). SOURCE is

    medqa                    a benchmark's training items
    mmlu_med:validation      those of another split, not test
    questions.jsonl.gz       rows with a question, options (or choices) and an answer, as trainers read them
    medqa:500                the first 500

A snippet of a solved question is the question as prompts have it, with its answer (``text``), and has one more key,
:data:`rag_model.chunking.ITEM`: ``question, options, answer, context``. It is never cut, and its question alone stands
for it in searches. Explanations do not enter it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from medtasks import benchmarks, catalogue, corpora, files, item_rows, mcq
from medtasks.errors import InputError
from rag_model.chunking import ITEM

PREFIX = "items:"
KEPT = ("question", "options", "answer", "context")


def are_solved(names: Sequence[str]) -> bool:
    """Whether corpora are solved questions.

    Raises:
        InputError: some are, and others are texts.
    """
    solved = [name for name in names if name.startswith(PREFIX)]
    if solved and len(solved) < len(names):
        other = next(name for name in names if not name.startswith(PREFIX))
        raise InputError(
            f"{solved[0]} and {other}: solved questions and texts go into indexes of their own; rag takes both, "
            "index=TEXTS,examples=QUESTIONS"
        )
    return bool(solved)


def shown_name(name: str) -> str:
    """A corpus's name as records keep it: without the folder of a file."""
    source = name.removeprefix(PREFIX)
    return PREFIX + (source.rpartition("/")[2] if source.split(":")[0].endswith(corpora.JSONL) else source)


def read(names: Sequence[str], license: str = corpora.UNKNOWN) -> Iterator[dict]:
    """Yield each solved question as a snippet (:data:`rag_model.chunking.FIELDS` and ``item``). One that comes twice,
    the same question with the same options in any order, is taken once.

    Args:
        license: of questions in files; those of benchmarks have the benchmark's.

    Raises:
        InputError: no such source, a test split, no questions, or a row that is none.
    """
    seen: set[tuple] = set()
    ids: set[str] = set()
    for name in names:
        source, licence = shown_name(name), _licence(name) or license
        for place, item in _items(name):
            if (identity := (item["question"].strip(), *sorted(map(str, item["options"])))) in seen:
                continue
            if item["id"] in ids:
                raise InputError(f"{place}: the id '{item['id']}' comes twice, with different questions; rename one")
            seen.add(identity)
            ids.add(item["id"])
            about = {"id": f"{item['id']}#0", "title": "", "text": worked(item), "source": source, "license": licence}
            yield about | {ITEM: {key: item[key] for key in KEPT}}
    if not seen:
        raise InputError(f"{', '.join(names)}: no questions")


def version(names: Sequence[str]) -> str:
    """A hash of the questions, which changes when one does.

    Raises:
        InputError: as :func:`read`.
    """
    return files.sha256_json(list(read(names)))


def worked(item: dict) -> str:
    """The item as prompts have it, with its answer."""
    return mcq.render(item) + mcq.DELIMITER + mcq.target(item)


def _parts(name: str) -> tuple[str, str, int | None]:
    """Source, split ("" for the usual one) and limit."""
    source, limit = corpora.limited(name.removeprefix(PREFIX))
    if source.endswith(corpora.JSONL):
        return source, "", limit
    benchmark, _, split = source.partition(":")
    return benchmark, split, limit


def _licence(name: str) -> str | None:
    about = catalogue.abouts().get(_parts(name)[0])
    return about.licence if about else None


def _items(name: str) -> Iterator[tuple[str, dict]]:
    """(a name for messages, the item) of each question of one source."""
    source, split, limit = _parts(name)
    if source.endswith(corpora.JSONL):
        found = _of_file(name, Path(source).expanduser())
    elif split == "test":
        raise InputError(f"{name}: test items are for measuring; give another split")
    elif source not in benchmarks.BENCHMARKS:
        known = ", ".join(benchmarks.BENCHMARKS)
        raise InputError(f"{name}: no such questions; give a {' or '.join(corpora.JSONL)} file, or one of {known}")
    else:
        found = ((item["id"], item) for item in benchmarks.load(source, split or "train"))
    for number, row in enumerate(found):
        if number == limit:
            return
        yield row


def _of_file(name: str, path: Path) -> Iterator[tuple[str, dict]]:
    if not path.is_file():
        raise InputError(f"{name}: no such file")
    for place, row in corpora.file_rows(path):
        shown = place.rpartition("/")[2]
        if not isinstance(row, dict) or (options := item_rows.options_of(row)) is None:
            raise InputError(f"{place}: no question with options; a row needs question, options or choices, and answer")
        try:
            yield place, item_rows.item(row, options, shown)
        except item_rows.Faulty as fault:
            raise InputError(f"{place}: {fault}") from fault
