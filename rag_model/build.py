"""Build an index over a corpus: chunk, embed, store (what lies where: :mod:`rag_model.index`).

Every file appears by a rename when it is complete. A build that was killed and started again keeps what is there and
ends with the same files as one that ran through (only the store, a SQLite database, differs: in bytes, not in content).
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medtasks import corpora, files
from medtasks.errors import InputError
from rag_model import chunking, store
from rag_model.chunking import Chunking
from rag_model.embedding import Embedder
from rag_model.index import (
    BUILD,
    FORMAT,
    INDEX,
    LEFT_OUT,
    LOCK,
    SNIPPETS,
    STORE,
    VECTORS,
    damage,
    is_shard,
    load_shard,
    read_meta,
)

if TYPE_CHECKING:
    from medtasks.contamination import Overlap

SHARD_SIZE = 512
BLOCK = 128
"""Snippets embedded between two moves of the progress bar."""
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
    corpus: str,
    out: str | Path,
    embedder: Embedder,
    chunks: Chunking | None = None,
    *,
    held_out: "Overlap | None" = None,
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    progress: bool = True,
) -> Built:
    """Build the index of ``corpus`` in folder ``out``, or finish one that was begun with the same inputs.

    Args:
        corpus: see :func:`medtasks.corpora.read`.
        embedder: anything with ``name``, ``fingerprint`` and ``encode(texts) -> (n, dimension) float32 unit vectors``.
        held_out: items that no passage may hold, as :func:`medtasks.contamination.held_out` gives them; passages that
            do are left out and listed in ``left_out.jsonl``.
        shard_size: snippets in a file of vectors, which is what a killed build loses at most (a build that goes on
            keeps the size it was begun with).
        overwrite: throw away what another build left in ``out``.
        progress: show progress bars on stderr.

    Raises:
        InputError: a bad corpus row (then nothing is written), another build is writing there, ``out`` was begun with
            other inputs, or it holds something that is not an index.
    """
    from importlib.metadata import version

    out = Path(out).expanduser()
    inputs = {
        "format": FORMAT,
        "corpus": _corpus(corpus),
        "chunking": asdict(chunks or Chunking()),
        "embedder": {"name": embedder.name, "fingerprint": embedder.fingerprint},
        "shard_size": shard_size,
    }
    if held_out is not None:
        inputs["held_out"] = {"items": len(held_out.items), "fingerprint": held_out.fingerprint}
    with _only_writer(out):
        if overwrite:
            _remove(out, INDEX, BUILD, LEFT_OUT, SNIPPETS, VECTORS, STORE)
        inputs = _begin(out, inputs)
        if (out / INDEX).is_file():
            meta = read_meta(out)
            damaged = damage(out, meta, thorough=True)
            if not damaged:
                return Built(meta, changed=False)
            _remove(out, INDEX, *damaged)

        if not (out / SNIPPETS).is_file():
            _remove(out, VECTORS, STORE)
            passages = corpora.read(corpus) if held_out is None else _without(held_out, corpora.read(corpus), out)
            files.write_jsonl(out / SNIPPETS, chunking.split(passages, Chunking(**inputs["chunking"])))
        n_snippets = _lines(out / SNIPPETS)
        shards = _embed(out, embedder, n_snippets, inputs["shard_size"], progress)
        if not store.is_filled(out / STORE, n_snippets):
            _fill_store(out, shards, n_snippets, progress)
        meta = inputs | {
            "fingerprint": _fingerprint(inputs),
            **({"left_out": _lines(out / LEFT_OUT)} if held_out is not None else {}),
            "dimension": load_shard(shards[0]).shape[1],
            "snippets": {
                "count": n_snippets,
                "bytes": (out / SNIPPETS).stat().st_size,
                "sha256": files.sha256_file(out / SNIPPETS),
            },
            "vectors": {shard.name: files.sha256_file(shard) for shard in shards},
            "versions": {library: version(library) for library in LIBRARIES},
        }
        files.write_json(out / INDEX, meta)
        return Built(meta, changed=True)


def _lines(file: Path) -> int:
    with file.open("rb") as f:
        return sum(1 for _ in f)


def _without(held_out: "Overlap", passages: Iterator[dict], out: Path) -> list[dict]:
    """The passages that hold no item; the others are listed in ``left_out.jsonl``, each with the first item it holds.

    Raises:
        InputError: all hold one.
    """
    from medtasks import contamination

    kept, left_out = [], []
    for passage in passages:
        found = [finding for finding in held_out.find(passage) if finding.kind in contamination.LEAKS]
        if found:
            item = held_out.items[found[0].position]
            left_out.append({"id": passage["id"], "item": item["id"], "kind": found[0].kind})
        else:
            kept.append(passage)
    if not kept:
        raise InputError(f"{out}: all {len(left_out)} passages hold a test item, so nothing is left to index")
    files.write_jsonl(out / LEFT_OUT, left_out)
    return kept


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the lock of ``out``; the system gives it back when the process ends, however it ends."""
    from filelock import FileLock, Timeout

    if out.is_dir() and not (out / BUILD).is_file():
        foreign = [path.name for path in out.iterdir() if not path.name.startswith(".")]
        if foreign:
            raise InputError(f"{out}: holds '{foreign[0]}', which is not part of an index; give a new or empty folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot make this folder ({error.strerror}); give another --out") from error
    try:
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"{out}: another process is building here; wait for it, or give another --out") from error


def _begin(out: Path, inputs: dict) -> dict:
    """Record the inputs of a new build; of one begun before, return those recorded, if they are the same."""
    for unfinished in (*out.glob(".*.json*.tmp"), *(out / VECTORS).glob(".*.npy.*.tmp")):
        unfinished.unlink()
    if not (out / BUILD).is_file():
        files.write_json(out / BUILD, inputs)
        return inputs
    begun = json.loads((out / BUILD).read_text(encoding="utf-8"))
    then, now = _shown(begun), _shown(inputs)
    changed = [f"{what} {then[what]}, now {now[what]}" for what in now if then[what] != now[what]]
    if changed:
        raise InputError(
            f"{out} was begun with {'; '.join(changed)}: give the same again, another --out, or --overwrite"
        )
    return begun


def _shown(inputs: dict) -> dict[str, str]:
    """What must be the same for a build to go on, as words for a message."""
    return {
        "format": str(inputs["format"]),
        "corpus": f"{inputs['corpus']['passages']} passages, sha256 {inputs['corpus']['sha256'][:16]}",
        "chunking": f"size {inputs['chunking']['size']} overlap {inputs['chunking']['overlap']}",
        "embedder": f"fingerprint {inputs['embedder']['fingerprint']}",
        "held-out items": "none" if "held_out" not in inputs else f"fingerprint {inputs['held_out']['fingerprint']}",
    }


def _fingerprint(inputs: dict) -> str:
    """16 hex digits that change with anything that changes what a search finds."""
    content = {
        "format": inputs["format"],
        "corpus": inputs["corpus"]["sha256"],
        "chunking": inputs["chunking"],
        "embedder": inputs["embedder"]["fingerprint"],
    } | ({"held_out": inputs["held_out"]["fingerprint"]} if "held_out" in inputs else {})
    return files.sha256_json(content)[:16]


def _corpus(corpus: str) -> dict:
    """Name, size and content hash of a corpus; reads, and so checks, every row."""
    digest = hashlib.sha256()
    n_passages = 0
    for passage in corpora.read(corpus):
        digest.update(json.dumps(passage, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        n_passages += 1
    path = Path(corpus).expanduser()
    return {"name": path.name if path.is_file() else corpus, "sha256": digest.hexdigest(), "passages": n_passages}


def _embed(out: Path, embedder: Embedder, n_snippets: int, shard_size: int, progress: bool) -> list[Path]:
    """Write the shards that are not there yet; return the paths of all of them."""
    import numpy as np
    from tqdm import tqdm

    shards = []
    with (
        (out / SNIPPETS).open(encoding="utf-8") as f,
        tqdm(total=n_snippets, desc="embedding", unit="snippet", disable=not progress) as bar,
    ):
        for number in count():
            texts = [chunking.embedded_text(json.loads(line)) for line in islice(f, shard_size)]
            if not texts:
                return shards
            shard = out / VECTORS / f"{number:05d}.npy"
            shards.append(shard)
            if is_shard(shard, len(texts)):
                bar.update(len(texts))
                continue
            by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
            blocks = []
            for start in range(0, len(texts), BLOCK):
                block = by_length[start : start + BLOCK]
                blocks.append(embedder.encode([texts[i] for i in block]))
                bar.update(len(block))
            vectors = np.concatenate(blocks)[np.argsort(by_length)]
            if not np.isfinite(vectors).all():
                raise InputError(f"{embedder.name}: gives vectors that are not finite numbers; use another embedder")
            with files.atomic_write(shard, "wb") as g:
                np.save(g, vectors)


def _fill_store(out: Path, shards: list[Path], n_snippets: int, progress: bool) -> None:
    """Fill the Chroma store from the snippets and their vectors."""
    from tqdm import tqdm

    with (
        (out / SNIPPETS).open(encoding="utf-8") as f,
        tqdm(total=n_snippets, desc="filling Chroma", unit="snippet", disable=not progress) as bar,
    ):
        vectors = (vector.tolist() for shard in shards for vector in load_shard(shard))
        store.fill(out / STORE, zip(map(json.loads, f), vectors, strict=True), n_snippets, bar.update)


def _remove(out: Path, *names: str) -> None:
    for name in names:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
