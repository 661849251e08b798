"""Read a corpus as passages: dicts with ``id, title, text, source, license``, all str.

Lives here, below both rooms that need it: ``rag_model`` indexes corpora, ``trainers.cpt`` learns from them.
"""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

from medtasks import documents, files, sources
from medtasks.errors import InputError

FIELDS = ("id", "title", "text", "source", "license")
SAMPLE = sources.SAMPLE_DIR / "corpus.jsonl"
JSONL = (".jsonl", ".jsonl.gz")
SUFFIXES = (*JSONL, *documents.SUFFIXES)
UNKNOWN = "unknown"
"""The licence of a passage that says none."""
_LIMIT = re.compile(r"(?P<name>.+):(?P<limit>\d+)")
_WHAT = f"give 'sample', a {', '.join(SUFFIXES)} file, a folder of them, or a Hub dataset id"


@dataclass(frozen=True)
class Corpus:
    """Where a corpus lies.

    Attributes:
        name: as given, a path without its folder.
        path: the file or folder; None for a Hub dataset.
        limit: how many of its rows to read; None for all.
    """

    name: str
    path: Path | None
    limit: int | None = None

    def rows(self) -> Iterator[tuple[str, dict]]:
        """Yield (a name for the row in messages, the row) of each row.

        Raises:
            InputError: one cannot be read.
        """
        if self.path is None:
            read = self._hub_rows()
        elif self.path.is_dir():
            read = chain.from_iterable(_document_rows(file, self.path) for file in _files(self.path))
        else:
            read = _document_rows(self.path, self.path.parent)
        return islice(read, self.limit)

    def _hub_rows(self) -> Iterator[tuple[str, dict]]:
        for i, row in enumerate(sources.stream_rows(self.name, "train")):
            yield f"{self.name} row {i}", row

    def version(self) -> str:
        """What changes when its rows do: a hash of its files' contents, or the commit on the Hub."""
        if self.path is None:
            return sources.version(self.name)
        if self.path.is_file():
            return files.sha256_file(self.path)
        return files.sha256_json(
            {str(file.relative_to(self.path)): files.sha256_file(file) for file in _files(self.path)}
        )


def locate(corpus: str) -> Corpus:
    """Find a corpus.

    Args:
        corpus: ``sample``; a ``.jsonl``, ``.jsonl.gz``, ``.txt``, ``.md`` or ``.pdf`` file; a folder of such files; or
            a Hub dataset id (split ``train``). ``:N`` behind it takes its first N rows.

    Raises:
        InputError: there is no such corpus.
    """
    name, limit = limited(corpus)
    path = SAMPLE if name == "sample" else Path(name).expanduser()
    if path.is_file():
        if not path.name.lower().endswith(SUFFIXES):
            raise InputError(f"{name}: a corpus file must end in {', '.join(SUFFIXES)}")
        return Corpus("sample" if name == "sample" else path.name, path, limit)
    if path.is_dir():
        if not _files(path):
            raise InputError(f"{name}: no {', '.join(SUFFIXES)} file in this folder; {_WHAT}")
        return Corpus(path.resolve().name, path, limit)
    if name.count("/") != 1 or name.lower().endswith(SUFFIXES) or name.startswith((".", "/", "~")):
        raise InputError(f"{name}: no such file; {_WHAT}")
    return Corpus(name, None, limit)


def limited(corpus: str) -> tuple[str, int | None]:
    """``NAME:N`` as NAME and N; a name without a limit, or that is a path here, and None."""
    found = None if Path(corpus).expanduser().exists() else _LIMIT.fullmatch(corpus)
    return (found["name"], int(found["limit"])) if found else (corpus, None)


def read(*corpora: str, license: str = UNKNOWN) -> Iterator[dict]:
    """Yield the passages of one or several corpora (:func:`locate`) in their order.

    A row needs ``text``, or MedRAG's ``content`` (Xiong et al. 2024, arXiv:2402.13178); ``id``, ``title``, ``source``
    and ``license`` are taken where present. Else the source is the corpus.

    Ids are made unique: of passages that share one, the second becomes ``ID~2``, the third ``ID~3`` (in MedQuAD, the
    answers of a document about several diseases do).

    Args:
        license: of passages that say none.

    Raises:
        InputError: no such corpus, a line that is not JSON, a row without text, a row of MedMCQA (``exp``), or a
            passage that comes twice: id, title and text.
    """
    seen: set[str] = set()
    contents: set[bytes] = set()
    for corpus in map(locate, corpora):
        place = None
        for place, row in corpus.rows():
            passage = _passage(row, place, corpus.name, license)
            content = hashlib.blake2b(
                json.dumps([passage[key] for key in FIELDS[:3]]).encode(), digest_size=16
            ).digest()
            if content in contents:
                raise InputError(f"{place}: the passage '{passage['id']}' comes twice; take one of them out")
            contents.add(content)
            passage["id"] = _unique(passage["id"], seen)
            seen.add(passage["id"])
            yield passage
        if place is None:
            raise InputError(f"{corpus.name}: the corpus is empty")


def _unique(identity: str, taken: set[str]) -> str:
    """``identity``, or the first of ``identity~2``, ``identity~3`` and so on that is not among the ``taken`` ones."""
    names = chain([identity], (f"{identity}~{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _files(folder: Path) -> list[Path]:
    """The corpus files of a folder and those below, hidden ones left out, sorted by path."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(SUFFIXES)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _document_rows(file: Path, folder: Path) -> Iterator[tuple[str, dict]]:
    if file.name.lower().endswith(JSONL):
        return file_rows(file)
    return documents.rows(file, file.relative_to(folder).as_posix())


def file_rows(path: Path) -> Iterator[tuple[str, dict]]:
    """Yield (``file:line``, the JSON value) of each line of a ``.jsonl`` or ``.jsonl.gz`` file that is not empty.

    Raises:
        InputError: a line is not JSON, or the file is damaged.
    """
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{number}: not a JSON object ({error.msg}); each line must be one") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged after line {number} ({error}); fetch or write it again") from error


def _passage(row: dict, place: str, source: str, license: str) -> dict:
    if not isinstance(row, dict):
        raise InputError(f"{place}: not a JSON object; each line must be one")
    if "exp" in row:
        raise InputError(
            f"{place}: has a field 'exp', where MedMCQA explains the answers of its questions; exam questions and "
            "their explanations are no corpus"
        )
    text = row.get("text") or row.get("content") or ""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{place}: no text; every corpus row needs a 'text' (or MedRAG's 'content') that is not empty")
    identity = row.get("id")
    return {
        "id": str(identity) if identity not in (None, "") else place.rpartition("/")[2],
        "title": str(row.get("title") or ""),
        "text": text,
        "source": str(row.get("source") or source),
        "license": str(row.get("license") or license),
    }
