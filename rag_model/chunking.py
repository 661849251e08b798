"""Passages of a corpus -> snippets, the pieces that are embedded, found and shown to a model."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from medtasks.errors import InputError

FIELDS = ("id", "title", "text", "source", "license")
ITEM = "item"
"""One more key, of the snippets that are solved questions (:mod:`rag_model.solved`)."""
SEPARATOR = "#"
"""Between a passage's id and a snippet's number."""
SHORTEST_SHARED = 8
"""Characters that neighbours have in common by no chance."""
SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)")
SEPARATORS = ("\n\n", "\n", " ", "")
"""Where ``recursive`` cuts, best first: paragraphs, lines, words, anywhere."""
WAYS = ("sentences", "recursive")


@dataclass(frozen=True)
class Chunking:
    """How long texts are cut. The default sizes are MedRAG's: 1,000 characters, 200 shared by neighbours
    (Xiong et al. 2024, arXiv:2402.13178; a snippet then fits into MiniLM's 256 tokens).

    Attributes:
        size: most characters in a snippet.
        overlap: most characters that a snippet repeats from the one before it.
        by: ``sentences`` keeps sentences whole where they fit (also in the overlap); ``recursive`` is MedRAG's way,
            LangChain's recursive character splitting: at paragraphs, lines or words, wherever the size is reached.
    """

    size: int = 1_000
    overlap: int = 200
    by: str = "sentences"

    def __post_init__(self):
        if self.size < 1 or not 0 <= self.overlap < self.size:
            raise InputError(
                f"chunk size {self.size}, overlap {self.overlap}: the size must be at least 1 character "
                "and the overlap at least 0 and less than the size"
            )
        if self.by not in WAYS:
            raise InputError(f"unknown chunking '{self.by}'; there are {', '.join(WAYS)}")


def split(passages: Iterable[dict], chunking: Chunking) -> Iterator[dict]:
    """Yield the snippets of ``passages`` in their order.

    A snippet has the keys of :data:`FIELDS`; its id is ``<passage id>#<n>``, n from 0; title, source and license are
    the passage's. A passage of at most ``chunking.size`` characters stays whole and unchanged.
    """
    cut = _at_sentences(chunking) if chunking.by == "sentences" else _recursively(chunking)
    for passage in passages:
        text = passage["text"]
        pieces = [text] if len(text) <= chunking.size else cut(text)
        for n, piece in enumerate(pieces):
            yield {field: passage[field] for field in FIELDS} | {"id": snippet_id(passage["id"], n), "text": piece}


def snippet_id(passage: str, number: int) -> str:
    """The id of a passage's snippet by its place in it, from 0."""
    return f"{passage}{SEPARATOR}{number}"


def passage_and_number(identity: str) -> tuple[str, int]:
    """What :func:`snippet_id` was made of."""
    passage, _, number = identity.rpartition(SEPARATOR)
    return passage, int(number)


def joined(pieces: Sequence[str], overlap: int) -> str:
    """The text of snippets that follow one another, once what each repeats of the one before it is taken out: the
    passage's, but for blanks where it was cut, and for short repeats, which may be chance and stay.

    Args:
        overlap: most characters that a snippet repeats (:class:`Chunking`).
    """
    whole, before = "", ""
    for piece in pieces:
        longest = min(len(piece), len(before), overlap)
        shared = next((n for n in range(longest, SHORTEST_SHARED - 1, -1) if before.endswith(piece[:n])), 0)
        whole += piece[shared:] if shared or not before else f"\n{piece}"
        before = piece
    return whole


def embedded_text(snippet: dict) -> str:
    """The text that stands for a snippet in searches: ``title: text``, as MedRAG embeds it; a solved question's
    question."""
    if ITEM in snippet:
        return snippet[ITEM]["question"]
    return f"{snippet['title']}: {snippet['text']}" if snippet["title"] else snippet["text"]


def _at_sentences(chunking: Chunking) -> Callable[[str], list[str]]:
    """LlamaIndex's ``SentenceSplitter``."""
    from llama_index.core.node_parser import SentenceSplitter

    # Sizes are counted in characters and sentences found by a pattern: the splitter's own defaults, tiktoken and nltk,
    # may want to download their data.
    return SentenceSplitter(
        chunk_size=chunking.size,
        chunk_overlap=chunking.overlap,
        tokenizer=str,
        paragraph_separator="\n\n",
        chunking_tokenizer_fn=SENTENCE_END.split,
    ).split_text


def _recursively(chunking: Chunking) -> Callable[[str], list[str]]:
    def cut(text: str, separators: Sequence[str] = SEPARATORS) -> list[str]:
        place = next(i for i, separator in enumerate(separators) if separator in text)
        separator, finer = separators[place], separators[place + 1 :]
        pieces: list[str] = []
        short: list[str] = []
        for part in _parts(text, separator):
            if len(part) < chunking.size or not finer:
                short.append(part)
            else:
                pieces += _joined(short, chunking) + cut(part, finer)
                short = []
        return pieces + _joined(short, chunking)

    return cut


def _parts(text: str, separator: str) -> list[str]:
    """``text`` in parts that, but for the first, begin with the separator."""
    if not separator:
        return list(text)
    first, *others = text.split(separator)
    return [part for part in (first, *(separator + other for other in others)) if part]


def _joined(parts: Sequence[str], chunking: Chunking) -> list[str]:
    """Neighbouring parts put together while they fit; each piece opens with the last parts of the one before it, as
    many as the overlap and the next part leave room for."""
    pieces, window, length = [], [], 0
    for part in parts:
        if window and length + len(part) > chunking.size:
            pieces.append("".join(window))
            while window and (length > chunking.overlap or length + len(part) > chunking.size):
                length -= len(window.pop(0))
        window.append(part)
        length += len(part)
    pieces.append("".join(window))
    return [piece.strip() for piece in pieces if piece.strip()]
