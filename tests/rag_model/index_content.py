"""What an index holds, so that two can be compared; and a build in small shards."""

from pathlib import Path

from rag_doubles import WordEmbedder

from rag_model.build import build
from rag_model.chroma_store import LocalChroma

SHARD_SIZE = 16


def make(corpus, out, **keywords):
    return build(
        str(corpus), out, keywords.pop("embedder", WordEmbedder()), shard_size=SHARD_SIZE, progress=False, **keywords
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of an index but the store's, by relative path."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "chroma" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def stored(folder: Path) -> dict[str, tuple]:
    """Snippet id -> (text, vector) in the Chroma store, as LlamaIndex reads them."""
    with LocalChroma(folder / "chroma").opened() as chroma:
        got = chroma.client.get(include=["embeddings"])
        texts = {node.node_id: node.text for node in chroma.get_nodes(got["ids"])}
    return {i: (texts[i], tuple(vector)) for i, vector in zip(got["ids"], got["embeddings"], strict=True)}
