"""Our retrieval as LlamaIndex's retriever::

    retriever = MedadaptRetriever(Retrieval(open_index("runs/index"), search="rrf"), k=8)
    RetrieverQueryEngine.from_args(retriever, llm=...).query("...")

The other way round: :mod:`rag_model.retrieval.foreign`.
"""

from collections.abc import Sequence

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rag_model.retrieval.pipeline import Retrieval


class MedadaptRetriever(BaseRetriever):
    """A :class:`~rag_model.retrieval.Retrieval` as a LlamaIndex retriever: for its query engines, fusion, evaluation.

    Args:
        retrieval: with ``query="question"`` or one that a model writes; a query is a text, without options.
        k: snippets a query gets.
    """

    def __init__(self, retrieval: Retrieval, k: int = 8):
        super().__init__()
        self.retrieval, self.k = retrieval, k

    def retrieve_all(self, queries: Sequence[str]) -> list[list[NodeWithScore]]:
        """What ``retrieve`` gives for each query, searched for in one batch."""
        found = self.retrieval.find([{"question": query} for query in queries], self.k)
        return [[self._node(snippet_id, score) for snippet_id, score in row] for row in found]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.retrieve_all([query_bundle.query_str])[0]

    def _node(self, snippet_id: str, score: float) -> NodeWithScore:
        snippet = self.retrieval.index.snippet(snippet_id)
        metadata = {field: snippet[field] for field in ("title", "source", "license")}
        return NodeWithScore(node=TextNode(id_=snippet_id, text=snippet["text"], metadata=metadata), score=score)
