"""The store of an index: a copy of its snippets and vectors for other programs and for approximate search.

The shards of :mod:`rag_model.index` are the truth, from which a store can be filled again at any time. Which one is
said by one word::

    chroma               Chroma in the index's folder, through LlamaIndex; the default
    hnsw                 the same graph without texts: quicker to fill, smaller; texts come from snippets.jsonl
    chroma-server=URL    a Chroma server
    qdrant=URL_OR_PATH   a Qdrant server, or a folder of its local mode (needs medadapt[qdrant])
    none                 no store: search is exact
"""

from pathlib import Path
from urllib.parse import urlsplit

from medtasks.errors import InputError
from rag_model.vector_store import Store

FOLDER = "chroma"
"""Of the default store, in the index's folder."""
DEFAULT = "chroma"
KINDS = ("chroma", "none", "hnsw", "chroma-server=URL", "qdrant=URL_OR_PATH")


def check(spec: str) -> str:
    """``spec`` itself, one of :data:`KINDS`.

    Raises:
        InputError: it is none, or needs a package that is not installed.
    """
    from importlib.util import find_spec

    kind, _, place = spec.partition("=")
    if spec not in ("chroma", "none", "hnsw") and not (kind in ("chroma-server", "qdrant") and place):
        raise InputError(f"unknown store '{spec}'; there are {', '.join(KINDS)}")
    if kind == "chroma-server" and not urlsplit(place).hostname:
        raise InputError(f"store '{spec}': not an address; give chroma-server=http://HOST:PORT")
    if kind == "qdrant" and find_spec("qdrant_client") is None:
        raise InputError(f"store '{spec}' needs one more package; pip install \"medadapt[qdrant]\"")
    return spec


def of(folder: Path, meta: dict) -> Store | None:
    """The store of the index in ``folder``; None for none.

    Args:
        meta: with ``store`` (:data:`KINDS`), ``fingerprint``, ``embedder``.
    """
    kind, _, place = check(meta["store"]).partition("=")
    similarity, name = meta["embedder"]["similarity"], f"medadapt-{meta['fingerprint']}"
    if kind == "none":
        return None
    if kind == "qdrant":
        from rag_model.qdrant_store import Qdrant

        return Qdrant(place, name, similarity)
    from rag_model.chroma_store import ChromaServer, LocalChroma

    if kind == "chroma-server":
        return ChromaServer(place, name, similarity)
    return LocalChroma(folder / (FOLDER if kind == "chroma" else kind), similarity, with_texts=kind == "chroma")
