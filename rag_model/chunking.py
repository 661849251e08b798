"""Passages of a corpus -> snippets, the pieces that are embedded, found and shown to a model."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from medtasks.errors import InputError

FIELDS = ("id", "title", "text", "source", "license")
SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)")


@dataclass(frozen=True)
class Chunking:
    """How long texts are cut. The defaults are MedRAG's: 1,000 characters, 200 shared by neighbours
    (Xiong et al. 2024, arXiv:2402.13178; a snippet then fits into MiniLM's 256 tokens).

    Attributes:
        size: most characters in a snippet.
        overlap: most characters that a snippet repeats from the one before it; whole sentences only.
    """

    size: int = 1_000
    overlap: int = 200

    def __post_init__(self):
        if self.size < 1 or not 0 <= self.overlap < self.size:
            raise InputError(
                f"chunk size {self.size}, overlap {self.overlap}: the size must be at least 1 character "
                "and the overlap at least 0 and less than the size"
            )


def split(passages: Iterable[dict], chunking: Chunking) -> Iterator[dict]:
    """Yield the snippets of ``passages`` in their order.

    A snippet has the keys of :data:`FIELDS`; its id is ``<passage id>#<n>``, n from 0; title, source and license are
    the passage's. A passage of at most ``chunking.size`` characters stays whole and unchanged; a longer one is cut at
    paragraphs and sentences by LlamaIndex's ``SentenceSplitter``.
    """
    from llama_index.core.node_parser import SentenceSplitter

    # Sizes are counted in characters and sentences found by a pattern: the splitter's own defaults, tiktoken and nltk,
    # may want to download their data.
    splitter = SentenceSplitter(
        chunk_size=chunking.size,
        chunk_overlap=chunking.overlap,
        tokenizer=str,
        paragraph_separator="\n\n",
        chunking_tokenizer_fn=SENTENCE_END.split,
    )
    for passage in passages:
        text = passage["text"]
        pieces = [text] if len(text) <= chunking.size else splitter.split_text(text)
        for n, piece in enumerate(pieces):
            yield {field: passage[field] for field in FIELDS} | {"id": f"{passage['id']}#{n}", "text": piece}


def embedded_text(snippet: dict) -> str:
    """The text that stands for a snippet in the vector space: ``title: text``, as MedRAG embeds it."""
    return f"{snippet['title']}: {snippet['text']}" if snippet["title"] else snippet["text"]
