"""Build an index over a corpus: chunk, embed, store (what lies where: :mod:`rag_model.index`).

Every file appears by a rename when it is complete. A build that was killed and started again keeps what is there and
ends with the same files as one that ran through (only a store, a database, differs: in bytes, not in content).
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medtasks import corpora, files
from medtasks.errors import InputError
from rag_model import shards, snippets, store
from rag_model.chunking import Chunking
from rag_model.embedding import Embedder
from rag_model.index import (
    BUILD,
    CORPUS,
    FORMAT,
    INDEX,
    LEFT_OUT,
    LOCK,
    SNIPPETS,
    STORE,
    VECTORS,
    Index,
    damage,
    damaged_records,
    load_shard,
    open_index,
    read_account,
    read_inputs,
    read_meta,
    store_damage,
)

if TYPE_CHECKING:
    from medtasks.contamination import Overlap

SHARD_SIZE = 8_192
"""About 13 MB of MiniLM's vectors: enough texts that batches of like length need next to no padding."""
HNSW = "hnsw"
"""The folder of the store of that name."""
LIBRARIES = (
    "chromadb",
    "llama-index-core",
    "llama-index-vector-stores-chroma",
    "numpy",
    "sentence-transformers",
    "torch",
)


class Built(NamedTuple):
    """``meta``: the content of ``index.json``. ``changed``: False where the index was already complete."""

    meta: dict
    changed: bool


def build(
    corpus: str | Sequence[str],
    out: str | Path,
    embedder: Embedder,
    chunks: Chunking | None = None,
    *,
    held_out: "Overlap | None" = None,
    license: str = corpora.UNKNOWN,
    store_spec: str | None = None,
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    progress: bool = True,
) -> Built:
    """Build the index of ``corpus`` in folder ``out``, or finish one that was begun with the same inputs.

    Args:
        corpus: one or several, see :func:`medtasks.corpora.locate`.
        embedder: a :class:`rag_model.embedding.Embedder`, or what has its ``name, fingerprint, precision, similarity,
            document, encode`` and ``encode_queries`` (``replicas`` may be left out).
        held_out: items that no passage may hold, as :func:`medtasks.contamination.held_out` gives them; passages that
            do are left out and listed in ``left_out.jsonl``.
        license: of passages that say none.
        store_spec: the store to fill (:mod:`rag_model.store`); None for the one it was built with, at first Chroma.
        shard_size: snippets in a file of vectors, which is what a killed build loses at most a device (a build that
            goes on keeps the size it was begun with).
        overwrite: throw away what another build left in ``out``.
        progress: show progress bars on stderr.

    Raises:
        InputError: a bad corpus row (then nothing is written), another build is writing there, ``out`` was begun with
            other inputs, or it holds something that is not an index.
    """
    out = Path(out).expanduser()
    names = [corpus] if isinstance(corpus, str) else list(corpus)
    if store_spec is not None:
        store.check(store_spec)
    inputs = {
        "format": FORMAT,
        "corpus": snippets.version(names, license),
        "chunking": asdict(chunks or Chunking()),
        "embedder": {
            "name": embedder.name,
            "fingerprint": embedder.fingerprint,
            "precision": embedder.precision,
            "similarity": embedder.similarity,
        },
        "shard_size": shard_size,
    }
    if held_out is not None:
        inputs["held_out"] = {"items": len(held_out.items), "fingerprint": held_out.fingerprint}
    with _only_writer(out):
        if overwrite:
            _remove(out, INDEX, BUILD, LEFT_OUT, CORPUS, SNIPPETS, VECTORS, STORE, HNSW)
        before = read_meta(out)
        mended = _mend_records(out, before) if before else False
        inputs = _begin(out, inputs)
        spec = store_spec or before.get("store", store.DEFAULT)
        damaged = damage(out, before, thorough=True) if before else []
        if before and not damaged and before["store"] == spec and store_damage(Index(out, before)) is None:
            return Built(before, changed=mended)
        _remove(out, INDEX, *damaged)
        if not (out / SNIPPETS).is_file() or read_account(out) is None:
            _remove(out, VECTORS, STORE, HNSW)
            try:
                snippets.write(out, names, license, Chunking(**inputs["chunking"]), held_out)
            except InputError:
                _remove(out, BUILD)
                raise
        return Built(_finish(out, inputs, embedder, spec, progress), changed=True)


def mend_store(folder: str | Path, progress: bool = True) -> bool:
    """Fill the store of a finished index anew from its shards, if it is damaged; returns whether it was.

    Raises:
        InputError: no finished index, its shards or snippets are damaged, or another process is writing there.
    """
    index = open_index(folder)
    with _only_writer(index.folder):
        if store_damage(index) is None:
            return False
        _fill_store(index, progress)
        return True


def _mend_records(out: Path, meta: dict) -> bool:
    """Write ``build.json`` and ``corpus.json`` of a finished index anew, where they are missing or damaged; returns
    whether one was."""
    damaged = damaged_records(out, meta)
    for name, content in damaged.items():
        _remove(out, name)
        files.write_json(out / name, content)
    return bool(damaged)


def _finish(out: Path, inputs: dict, embedder: Embedder, spec: str, progress: bool) -> dict:
    """Embed and store the snippets, and write ``index.json``; returns its content."""
    from importlib.metadata import version

    with (out / SNIPPETS).open("rb") as f:
        n_snippets = sum(1 for _ in f)
    written = shards.embed(out, embedder, n_snippets, inputs["shard_size"], progress)
    account = read_account(out)
    sha256 = files.sha256_file(out / SNIPPETS)
    meta = inputs | {
        "corpus": inputs["corpus"] | {"passages": account["passages"]},
        "sources": account["sources"],
        "fingerprint": _fingerprint(inputs, sha256),
        **({"left_out": account["left_out"]} if "held_out" in inputs else {}),
        "dimension": load_shard(written[0]).shape[1],
        "snippets": {"count": n_snippets, "bytes": (out / SNIPPETS).stat().st_size, "sha256": sha256},
        "vectors": {shard.name: files.sha256_file(shard) for shard in written},
        "store": spec,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    index = Index(out, meta)
    if store_damage(index) is not None:
        _fill_store(index, progress)
    files.write_json(out / INDEX, meta)
    return meta


def _fill_store(index: Index, progress: bool) -> None:
    from tqdm import tqdm

    count, written = index.meta["snippets"]["count"], sorted((index.folder / VECTORS).glob("*.npy"))
    spec = index.meta["store"].partition("=")[0]
    with tqdm(total=count, desc=f"filling {spec}", unit="snippet", disable=not progress) as bar:
        index.store().fill(shards.rows(index.folder, written), count, bar.update)


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the lock of ``out``; the system gives it back when the process ends, however it ends."""
    from filelock import FileLock, Timeout

    if out.is_dir() and not (out / BUILD).is_file() and not read_meta(out):
        foreign = [path.name for path in out.iterdir() if not path.name.startswith(".")]
        if foreign:
            raise InputError(f"{out}: holds '{foreign[0]}', which is not part of an index; give a new or empty folder")
    is_new = not out.is_dir()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot make this folder ({error.strerror}); give another --out") from error
    try:
        with FileLock(out / LOCK, timeout=0):
            try:
                yield
            finally:
                if is_new and [path.name for path in out.iterdir()] == [LOCK]:
                    shutil.rmtree(out)
    except Timeout as error:
        raise InputError(f"{out}: another process is building here; wait for it, or give another --out") from error


def _begin(out: Path, inputs: dict) -> dict:
    """Record the inputs of a new build; of one begun before, return those recorded, if they are the same."""
    for unfinished in (*out.glob(".*.json*.tmp"), *(out / VECTORS).glob(".*.npy.*.tmp")):
        unfinished.unlink()
    if not (out / BUILD).is_file():
        files.write_json(out / BUILD, inputs)
        return inputs
    if (begun := read_inputs(out)) is None:
        raise InputError(
            f"{out / BUILD}: damaged, or of another format than {FORMAT}: give another --out, or --overwrite"
        )
    if begun["format"] != inputs["format"]:
        raise InputError(
            f"{out} was begun in format {begun['format']}, now {FORMAT}: give another --out or --overwrite"
        )
    then, now = _shown(begun), _shown(inputs)
    changed = [f"{what} {then[what]}, now {now[what]}" for what in now if then[what] != now[what]]
    if changed:
        raise InputError(
            f"{out} was begun with {'; '.join(changed)}: give the same again, another --out, or --overwrite"
        )
    return begun


def _shown(inputs: dict) -> dict[str, str]:
    """What must be the same for a build to go on, as words for a message."""
    chunking, embedder = inputs["chunking"], inputs["embedder"]
    return {
        "corpus": f"{inputs['corpus']['name']} (sha256 {inputs['corpus']['sha256'][:16]})",
        "chunking": f"size {chunking['size']} overlap {chunking['overlap']} by {chunking['by']}",
        "embedder": f"fingerprint {embedder['fingerprint']}",
        "precision": embedder["precision"],
        "held-out items": "none" if "held_out" not in inputs else f"fingerprint {inputs['held_out']['fingerprint']}",
    }


def _fingerprint(inputs: dict, snippets_sha256: str) -> str:
    """16 hex digits that change with anything that changes what an exact search finds."""
    content = {
        "format": inputs["format"],
        "snippets": snippets_sha256,
        "embedder": inputs["embedder"]["fingerprint"],
        "precision": inputs["embedder"]["precision"],
    }
    return files.sha256_json(content)[:16]


def _remove(out: Path, *names: str) -> None:
    for name in names:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
