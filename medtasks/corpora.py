"""Read a corpus as passages: dicts with ``id, title, text, source, license``, all str.

Lives here, below both rooms that need it: ``rag_model`` indexes corpora, ``trainers.cpt`` learns from them.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from medtasks import sources
from medtasks.errors import InputError

FIELDS = ("id", "title", "text", "source", "license")
SAMPLE = sources.SAMPLE_DIR / "corpus.jsonl"
JSONL = (".jsonl", ".jsonl.gz")


def read(corpus: str) -> Iterator[dict]:
    """Yield the passages of ``corpus`` in its order.

    Args:
        corpus: ``sample``; the path of a ``.jsonl`` or ``.jsonl.gz`` file; or a Hub dataset id (split ``train``).
            A row needs ``text``, or MedRAG's ``content`` (Xiong et al. 2024, arXiv:2402.13178); ``id`` and
            ``title`` are taken where present.

    Ids are made unique: of passages that share one, the second becomes ``ID~2``, the third ``ID~3`` (in MedQuAD, the
    answers of a document about several diseases do).

    Raises:
        InputError: no such corpus, a line that is not JSON, a row without text, or a passage that comes twice: id,
            title and text.
    """
    seen: set[str] = set()
    contents: set[int] = set()
    for place, row in _rows(corpus):
        passage = _passage(row, place)
        content = hash((passage["id"], passage["title"], passage["text"]))
        if content in contents:
            raise InputError(f"{place}: the passage '{passage['id']}' comes twice; take one of them out")
        contents.add(content)
        passage["id"] = _unique(passage["id"], seen)
        seen.add(passage["id"])
        yield passage
    if not seen:
        raise InputError(f"{corpus}: the corpus is empty")


def _unique(identity: str, taken: set[str]) -> str:
    """``identity``, or the first of ``identity~2``, ``identity~3`` and so on that is not among the ``taken`` ones."""
    names = chain([identity], (f"{identity}~{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _rows(corpus: str) -> Iterator[tuple[str, dict]]:
    """Yield (a name for the row in messages, the row)."""
    path = SAMPLE if corpus == "sample" else Path(corpus).expanduser()
    if path.is_file():
        if not path.name.endswith(JSONL):
            raise InputError(f"{corpus}: a corpus file must end in {' or '.join(JSONL)}")
        yield from file_rows(path)
    elif path.exists():
        raise InputError(f"{corpus} is a folder; give a {' or '.join(JSONL)} file, a Hub dataset id, or 'sample'")
    elif corpus.count("/") == 1 and not corpus.endswith(JSONL) and not corpus.startswith((".", "/", "~")):
        for i, row in enumerate(sources.load_rows(corpus, None, "train")):
            yield f"{corpus} row {i}", row
    else:
        raise InputError(f"{corpus}: no such file; give a {' or '.join(JSONL)} file, a Hub dataset id, or 'sample'")


def file_rows(path: Path) -> Iterator[tuple[str, dict]]:
    """Yield (``file:line``, the JSON value) of each line of a ``.jsonl`` or ``.jsonl.gz`` file that is not empty.

    Raises:
        InputError: a line is not JSON, or the file is damaged.
    """
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{number}: not a JSON object ({error.msg}); each line must be one") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged after line {number} ({error}); fetch or write it again") from error


def _passage(row: dict, place: str) -> dict:
    if not isinstance(row, dict):
        raise InputError(f"{place}: not a JSON object; each line must be one")
    text = row.get("text") or row.get("content") or ""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{place}: no text; every corpus row needs a 'text' (or MedRAG's 'content') that is not empty")
    identity = row.get("id")
    return {
        "id": str(identity) if identity not in (None, "") else place.rpartition("/")[2],
        "title": str(row.get("title") or ""),
        "text": text,
        "source": str(row.get("source") or ""),
        "license": str(row.get("license") or ""),
    }
