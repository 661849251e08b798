"""An index on disk: what lies in its folder, how it is opened, and what counts as damage.

In the order in which :mod:`rag_model.build` writes it::

    .lock            held by the one process that builds
    build.json       the inputs; a build that was stopped goes on only with the same ones
    left_out.jsonl   passages that hold a test item, where these are left out: ``id, item, kind``
    corpus.json      what was read: passages and snippets of each source and licence, how many were left out
    snippets.jsonl   the snippets in corpus order: ``id, title, text, source, license``
    vectors/*.npy    shards of their vectors in the same order: float32, (snippets in the shard, dimension)
    chroma/          the same again in a store (:mod:`rag_model.store`; another one lies elsewhere, or is a server)
    index.json       counts, hashes, versions; written last, so an index without it is unfinished

Vectors are float32, twice the bytes of float16, so that a search multiplies the memory-mapped files as they lie: numpy
has no fast product of float16.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files
from medtasks.errors import InputError
from rag_model import store
from rag_model.chunking import Chunking

if TYPE_CHECKING:
    import numpy as np

FORMAT = 2
LOCK = ".lock"
BUILD = "build.json"
LEFT_OUT = "left_out.jsonl"
CORPUS = "corpus.json"
SNIPPETS = "snippets.jsonl"
VECTORS = "vectors"
STORE = store.FOLDER
INDEX = "index.json"

INPUTS = {
    "format": int,
    "corpus": {"name": str, "sha256": str},
    "chunking": {"size": int, "overlap": int, "by": str},
    "embedder": {"name": str, "fingerprint": str, "precision": str, "similarity": str},
    "shard_size": int,
}
"""What ``build.json`` holds, of what type. ``held_out`` may be there too."""
ACCOUNT = {"passages": int, "left_out": int, "sources": [{"source": str, "license": str, "snippets": int}]}
"""What ``corpus.json`` holds."""
META = INPUTS | {
    "corpus": INPUTS["corpus"] | {"passages": int},
    "sources": ACCOUNT["sources"],
    "fingerprint": str,
    "dimension": int,
    "snippets": {"count": int, "bytes": int, "sha256": str},
    "vectors": dict,
    "store": str,
}
"""What ``index.json`` holds; ``versions`` too, and with ``held_out`` also ``left_out``."""
HELD_OUT = {"held_out": {"items": int, "fingerprint": str}, "left_out": int}


@dataclass
class Index:
    """A finished index, opened for reading.

    Attributes:
        folder: where it lies.
        meta: the content of ``index.json``.
    """

    folder: Path
    meta: dict

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Snippet id -> where its line begins in ``snippets.jsonl``, in bytes; in index order."""
        offsets, position = {}, 0
        with (self.folder / SNIPPETS).open("rb") as f:
            for line in f:
                offsets[json.loads(line)["id"]] = position
                position += len(line)
        return offsets

    @property
    def is_solved(self) -> bool:
        """Whether its snippets are solved questions (:mod:`rag_model.solved`)."""
        return self.meta["corpus"].get("solved", False)

    @property
    def overlap(self) -> int:
        """Most characters that a snippet repeats from the one before it."""
        return self.meta.get("chunking", asdict(Chunking()))["overlap"]

    @cached_property
    def ids(self) -> list[str]:
        """Snippet ids by position."""
        return list(self.offsets)

    def snippet(self, snippet_id: str) -> dict:
        """The snippet with this id (keys: :data:`rag_model.chunking.FIELDS`)."""
        with (self.folder / SNIPPETS).open("rb") as f:
            f.seek(self.offsets[snippet_id])
            return json.loads(f.readline())

    def snippets(self) -> Iterator[dict]:
        """Yield every snippet in index order."""
        with (self.folder / SNIPPETS).open(encoding="utf-8") as f:
            yield from map(json.loads, f)

    def shards(self) -> "Iterator[np.ndarray]":
        """Yield the vectors in index order, memory-mapped: float32, ``(snippets in the shard, dimension)``."""
        for name in sorted(self.meta["vectors"]):  # opened one by one: each holds a file descriptor
            yield load_shard(self.folder / VECTORS / name)

    def store(self) -> store.Store | None:
        """The store that the index was built with; None for none."""
        return store.of(self.folder, self.meta)


def open_index(folder: str | Path) -> Index:
    """Open the finished index in ``folder``.

    Raises:
        InputError: there is none, it is unfinished, or a file of it is missing or damaged.
    """
    folder = Path(folder).expanduser()
    meta = finished(folder)
    if damaged := damage(folder, meta):
        raise InputError(
            f"{folder}: {', '.join(damaged)} missing or damaged; run medadapt index build again to mend it"
        )
    return Index(folder, meta)


def finished(folder: Path) -> dict:
    """``index.json`` of the finished index in ``folder``, whose other files are not looked at.

    Raises:
        InputError: there is none, or it is unfinished, damaged or of another format.
    """
    if not (folder / INDEX).is_file():
        if (folder / BUILD).is_file():
            raise InputError(f"{folder}: the index is unfinished; run the same medadapt index build again to finish it")
        raise InputError(f"{folder}: no index here; build one with medadapt index build CORPUS --out {folder}")
    meta = _json(folder / INDEX)
    if has_shape(meta, {"format": int}) and meta["format"] != FORMAT:
        raise InputError(
            f"{folder}: an index of format {meta['format']}, not {FORMAT}; build it again with --overwrite"
        )
    if not _is_meta(meta):
        raise InputError(f"{folder / INDEX}: damaged; run the same medadapt index build again to mend it")
    return meta


def read_meta(folder: Path) -> dict:
    """The content of ``index.json``; {} where it is missing, damaged or of another format."""
    meta = _json(folder / INDEX)
    return meta if _is_meta(meta) and meta["format"] == FORMAT else {}


def read_inputs(folder: Path) -> dict | None:
    """The content of ``build.json``; None where it is missing or damaged."""
    return _of_shape(folder / BUILD, INPUTS)


def read_account(folder: Path) -> dict | None:
    """The content of ``corpus.json``; None where it is missing or damaged."""
    return _of_shape(folder / CORPUS, ACCOUNT)


def damaged_records(folder: Path, meta: dict) -> dict[str, dict]:
    """Those of ``build.json`` and ``corpus.json`` that are not as ``index.json`` says: name -> what it must hold."""
    inputs = {name: meta[name] for name in (*INPUTS, "held_out") if name in meta}
    inputs["corpus"] = {name: value for name, value in meta["corpus"].items() if name != "passages"}
    account = {"passages": meta["corpus"]["passages"], "left_out": meta.get("left_out", 0), "sources": meta["sources"]}
    return {name: of for name, of in {BUILD: inputs, CORPUS: account}.items() if _json(folder / name) != of}


def has_shape(value, shape) -> bool:
    """Whether a JSON value is of the type ``shape``, or, where that is a mapping, has its keys with values of their
    shapes, or, where it is a list of one shape, is a list of such."""
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(key in value and has_shape(value[key], shape[key]) for key in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(has_shape(one, shape[0]) for one in value)
    return isinstance(value, shape)


def _is_meta(value) -> bool:
    return has_shape(value, META) and ("held_out" not in value or has_shape(value, HELD_OUT))


def _of_shape(file: Path, shape: dict) -> dict | None:
    value = _json(file)
    return value if has_shape(value, shape) else None


def _json(file: Path):
    """The value in a JSON file; None where it is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def load_shard(shard: Path) -> "np.ndarray":
    """A shard, memory-mapped.

    Raises:
        OSError, ValueError, EOFError: it is missing, truncated or no such file.
    """
    import numpy as np

    return np.load(shard, mmap_mode="r")


def is_shard(path: Path, rows: int) -> bool:
    """Whether ``path`` is a whole shard of ``rows`` vectors."""
    try:
        vectors = load_shard(path)
    except (OSError, ValueError, EOFError):
        return False
    return vectors.ndim == 2 and len(vectors) == rows and vectors.dtype == "float32"


def damage(folder: Path, meta: dict, thorough: bool = False) -> list[str]:
    """Names of the files that are not as ``index.json`` says.

    Compares sizes, which costs milliseconds; if ``thorough``, contents as well, and those of ``build.json`` and
    ``corpus.json``, which only a build reads. ``left_out.jsonl`` is for people, and read by nothing. Of the store:
    :func:`store_damage`.
    """
    damaged = list(damaged_records(folder, meta)) if thorough else []
    snippets, n_snippets, shard_size = folder / SNIPPETS, meta["snippets"]["count"], meta["shard_size"]
    whole = snippets.is_file() and snippets.stat().st_size == meta["snippets"]["bytes"]
    if not whole or (thorough and files.sha256_file(snippets) != meta["snippets"]["sha256"]):
        damaged.append(SNIPPETS)
    for number, (name, sha256) in enumerate(sorted(meta["vectors"].items())):
        shard = folder / VECTORS / name
        whole = is_shard(shard, min(shard_size, n_snippets - number * shard_size))
        if not whole or (thorough and files.sha256_file(shard) != sha256):
            damaged.append(f"{VECTORS}/{name}")
    return damaged


def store_damage(index: Index) -> str | None:
    """Why the store does not hold the snippets and vectors of the index; None if it does, or there is no store.

    Compares every id and vector.
    """
    opened = index.store()
    if opened is None:
        return None
    try:
        return opened.differs(index.ids, index.shards())
    except InputError as error:
        return str(error)
