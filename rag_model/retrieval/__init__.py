"""Items -> the passages found for them: a query made of each item, searched in one batch."""

from collections.abc import Callable, Sequence

from medtasks.errors import InputError
from rag_model import prompts
from rag_model.index import Index
from rag_model.retrieve import Retriever

QUERIES = ("question", "question+options")


class Retrieval:
    """Searches an index for items.

    Args:
        index: an opened index.
        search: see :class:`rag_model.retrieve.Retriever`.
        query: ``question``, or ``question+options``.
        embedder, device: the retriever's.
        write: writes a text for each prompt, for queries that the inner model makes.

    Raises:
        InputError: no such search, query or embedder.
    """

    def __init__(
        self,
        index: Index,
        *,
        search: str = "exact",
        query: str = "question",
        embedder=None,
        device: str | None = None,
        write: Callable[[Sequence[str]], list[str]] | None = None,
    ):
        if query not in QUERIES:
            raise InputError(f"query={query}: there are {', '.join(QUERIES)}")
        self.index, self.query = index, query
        self.retriever = Retriever(index, embedder, search, device)

    @property
    def settings(self) -> dict:
        """What changes what is found, beside the index."""
        return {"search": self.retriever.how, "query": self.query}

    def find(self, items: Sequence[dict], k: int) -> list[list[tuple[str, float]]]:
        """The ids and scores of the ``k`` nearest snippets of each item, best first."""
        queries = [prompts.question_of(item, "") for item in items]
        if self.query == "question+options":
            queries = ["\n".join([q, *item.get("options", ())]) for q, item in zip(queries, items, strict=True)]
        ids, scores = self.retriever.search(queries, k)
        return [list(zip(row, map(float, s), strict=True)) for row, s in zip(ids, scores, strict=True)]
