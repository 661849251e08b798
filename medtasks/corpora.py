"""Read a corpus as passages: dicts with ``id, title, text, source, license``, all str.

Lives here, below both rooms that need it: ``rag_model`` indexes corpora, ``trainers.cpt`` learns from them.
"""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

from medtasks import documents, files, sources
from medtasks.errors import InputError

FIELDS = ("id", "title", "text", "source", "license")
TEXTS = ("text", "content")
"""Where a row has its text, first choice first."""
SAMPLE = sources.SAMPLE_DIR / "corpus.jsonl"
JSONL = (".jsonl", ".jsonl.gz")
SUFFIXES = (*JSONL, *documents.SUFFIXES)
UNKNOWN = "unknown"
"""The licence of a passage that says none."""
_NOT_TEXT = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
"""Types of JSON, in words."""
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
        with self._on_hub():
            for i, row in enumerate(sources.stream_rows(self.name, "train")):
                yield f"{self.name} row {i}", row

    def version(self) -> str:
        """What changes when its rows do: a hash of its files' contents, or the commit on the Hub."""
        if self.path is None:
            with self._on_hub():
                return sources.version(self.name)
        if self.path.is_file():
            return files.sha256_file(self.path)
        return files.sha256_json(
            {str(file.relative_to(self.path)): files.sha256_file(file) for file in _files(self.path)}
        )

    @contextmanager
    def _on_hub(self) -> Iterator[None]:
        """Where a name could have meant a path, a Hub dataset that is not there may be a path that is not there."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.name}: no such file or folder, and as a dataset: {error}") from error


def locate(corpus: str) -> Corpus:
    """Find a corpus.

    Args:
        corpus: ``sample``; a ``.jsonl``, ``.jsonl.gz``, ``.txt``, ``.md`` or ``.pdf`` file; a folder of such files; or
            a Hub dataset id (split ``train``). ``:N`` behind it takes its first N rows.

    Raises:
        InputError: there is no such corpus.
    """
    if not files.is_unicode(corpus):
        raise InputError(f"{corpus!a}: the name is not UTF-8; rename it")
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
    for corpus in corpora:
        for place, passage in passages(corpus, license):
            content = hashlib.blake2b(
                json.dumps([passage[key] for key in FIELDS[:3]]).encode(), digest_size=16
            ).digest()
            if content in contents:
                raise InputError(f"{place}: the passage '{passage['id']}' comes twice; take one of them out")
            contents.add(content)
            passage["id"] = _unique(passage["id"], seen)
            seen.add(passage["id"])
            yield passage


def passages(corpus: str, license: str = UNKNOWN) -> Iterator[tuple[str, dict]]:
    """Yield (place, passage) for each row of a corpus as :func:`read` makes it, but ids and passages may come twice.

    Raises:
        InputError: as :func:`read`, repetitions aside.
    """
    found, place = locate(corpus), None
    for place, row in found.rows():
        yield place, _passage(row, place, found.name, license)
    if place is None:
        raise InputError(f"{found.name}: the corpus is empty")


def _unique(identity: str, taken: set[str]) -> str:
    """``identity``, or the first of ``identity~2``, ``identity~3`` and so on that is not among the ``taken`` ones."""
    names = chain([identity], (f"{identity}~{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _files(folder: Path) -> list[Path]:
    """The corpus files of a folder and those below, hidden ones left out, sorted by path.

    Raises:
        InputError: the name of one is not UTF-8.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(SUFFIXES)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if wrong := [path for path in found if not files.is_unicode(str(path))]:
        raise InputError(f"{str(wrong[0])!a}: the name is not UTF-8; rename it")
    return found


def _document_rows(file: Path, folder: Path) -> Iterator[tuple[str, dict]]:
    if file.name.lower().endswith(JSONL):
        return file_rows(file)
    return documents.rows(file, file.relative_to(folder).as_posix())


def file_rows(path: Path, checked: bool = True) -> Iterator[tuple[str, dict]]:
    """Yield (``file:line``, the JSON value) of each line of a ``.jsonl`` or ``.jsonl.gz`` file that is not empty.

    Args:
        checked: refuse texts that are not Unicode; else the caller does.

    Raises:
        InputError: a line is not JSON or not Unicode, or the file is damaged.
    """
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    yield f"{path}:{number}", _value(line, f"{path}:{number}", checked)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 after line {number} ({error}); write it in UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged after line {number} ({error}); fetch or write it again") from error


def _value(line: str, place: str, checked: bool):
    """The JSON value of a line, if its texts are Unicode, where that is ``checked``."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        array = ", and the file no array of them" if line.lstrip().startswith("[") else ""
        raise InputError(f"{place}: not a JSON object ({reason}); each line must be one{array}") from error
    if checked and "\\u" in line:
        _check_characters(json.dumps(value, ensure_ascii=False), place)
    return value


def _check_characters(text: str, place: str) -> None:
    if half := files.lone_surrogate(text):
        raise InputError(
            f"{place}: holds half of a character (the lone surrogate {half!a}); replace it, or take the row out"
        )


def _passage(row: dict, place: str, source: str, license: str) -> dict:
    if not isinstance(row, dict):
        raise InputError(f"{place}: not a JSON object; each line must be one")
    if "exp" in row:
        raise InputError(
            f"{place}: has a field 'exp', where MedMCQA explains the answers of its questions; exam questions and "
            "their explanations are no corpus"
        )
    given = ((name, row[name]) for name in TEXTS if row.get(name) not in (None, ""))
    name, text = next(given, (TEXTS[0], ""))
    if not isinstance(text, str):
        kind = _NOT_TEXT.get(type(text), f"a {type(text).__name__}")
        raise InputError(f"{place}: '{name}' is {kind}, not a string; put the passage's text there")
    if not text.strip():
        raise InputError(f"{place}: no text; every corpus row needs a 'text' (or MedRAG's 'content') that is not empty")
    _check_characters(text, place)
    identity = row.get("id")
    return {
        "id": str(identity) if identity not in (None, "") else place.rpartition("/")[2],
        "title": str(row.get("title") or ""),
        "text": text,
        "source": str(row.get("source") or source),
        "license": str(row.get("license") or license),
    }
