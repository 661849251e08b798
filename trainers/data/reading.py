"""Rows of a source as they stand there, each with a name for messages."""

from collections.abc import Iterator
from pathlib import Path

from medtasks import benchmarks, corpora, sources
from medtasks.errors import InputError
from trainers.data import schemas
from trainers.data.mixture import Source


def rows(source: Source) -> Iterator[tuple[str, dict | schemas.Faulty]]:
    """(place, row in a shape of :mod:`trainers.data.schemas`, or what is wrong with it) for each row of a source.

    Raises:
        InputError: there is no such source.
    """
    if source.source in benchmarks.BENCHMARKS:
        for item in benchmarks.load(source.source, source.split):
            yield item["id"], item
        return
    for place, row in _raw(source):
        try:
            yield place, schemas.example(row, place, source.columns)
        except schemas.Faulty as fault:
            yield place, fault


def _raw(source: Source) -> Iterator[tuple[str, object]]:
    name = source.source
    path = Path(name).expanduser()
    if name.endswith(corpora.JSONL):
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        if source.split != "train":
            raise InputError(f"{name}: a file has no split; take 'split: {source.split}' out")
        yield from corpora.file_rows(path, checked=False)  # a row that cannot be written is a faulty one
    elif name.count("/") in (1, 2) and not name.startswith((".", "/", "~")) and not path.exists():
        organization, dataset, *config = name.split("/")
        loaded = sources.load_rows(f"{organization}/{dataset}", config[0] if config else None, source.split)
        for number, row in enumerate(loaded):
            yield f"{name} row {number}", row
    else:
        known = ", ".join(benchmarks.BENCHMARKS)
        raise InputError(f"{name}: not a source; give a {' or '.join(corpora.JSONL)} file, ORG/NAME, or one of {known}")
