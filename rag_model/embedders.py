"""What an embedder wants to be given: which encoder, pooling and prefix for queries, and which for documents."""

from dataclasses import dataclass
from pathlib import Path

BGE = "Represent this sentence for searching relevant passages: "
"""The instruction before queries; passages get none (Xiao et al. 2023, arXiv:2309.07597, and the models' cards)."""


@dataclass(frozen=True)
class Profile:
    """How one model is used. The defaults are those of a sentence-transformers model, whose own settings then count.

    Attributes:
        hub_id: where the model lies on the Hub.
        query_model: name of the encoder of queries, which lies beside the one of documents; None if it is the same.
        cls: the vector is the last layer's first token's; for models that come without modules of
            sentence-transformers.
        query_prompt: what stands before a query; None for what the model's configuration says.
        pairs: a document is given as a pair of title and text.
        similarity: ``cosine`` (vectors are made unit vectors) or ``dot`` (they stay as they are).
    """

    hub_id: str
    query_model: str | None = None
    cls: bool = False
    query_prompt: str | None = None
    pairs: bool = False
    similarity: str = "cosine"


PROFILES = {
    "all-MiniLM-L6-v2": Profile("sentence-transformers/all-MiniLM-L6-v2"),
    "multi-qa-MiniLM-L6-cos-v1": Profile("sentence-transformers/multi-qa-MiniLM-L6-cos-v1"),
    "bge-small-en-v1.5": Profile("BAAI/bge-small-en-v1.5", query_prompt=BGE),
    "bge-base-en-v1.5": Profile("BAAI/bge-base-en-v1.5", query_prompt=BGE),
    # Jin et al. 2023, arXiv:2307.00589
    "MedCPT-Article-Encoder": Profile(
        "ncbi/MedCPT-Article-Encoder", "MedCPT-Query-Encoder", cls=True, pairs=True, similarity="dot"
    ),
}
ALIASES = {"MedCPT": "MedCPT-Article-Encoder"}
NAMES = (*(name for name in PROFILES if name not in ALIASES.values()), *ALIASES)


def known(name: str) -> tuple[str, Profile]:
    """The place of an embedder (a folder or Hub id) and its profile, by a name of :data:`NAMES`, a Hub id or a folder.

    A folder is known by its own name: ``.models/all-MiniLM-L6-v2`` is that model.
    """
    short = ALIASES.get(name, name)
    if short in PROFILES and not Path(short).is_dir():
        return PROFILES[short].hub_id, PROFILES[short]
    return name, PROFILES.get(Path(name).expanduser().name, Profile(name))


def beside(place: str, model: str) -> str:
    """The folder or Hub id of another model of the same parent folder or organization."""
    return f"{place.rstrip('/').rpartition('/')[0]}/{model}" if "/" in place else model
