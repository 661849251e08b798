"""LlamaIndex's retrievers search our index, and ours serve LlamaIndex's query engines."""

import threading

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever, VectorIndexRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from rag_doubles import ITEMS, WordEmbedder

from medtasks.errors import InputError
from rag_model.index import open_index
from rag_model.retrieval import Retrieval
from rag_model.retrieval.llama import MedadaptRetriever


class Backwards(BaseRetriever):
    """What LlamaIndex finds, the worst first, without scores."""

    thread_safe = True
    threads: set = set()  # noqa: RUF012 (shared on purpose: the retriever is made anew for each search)

    def __init__(self, index, similarity_top_k):
        super().__init__()
        self.inner = VectorIndexRetriever(index, similarity_top_k=similarity_top_k)

    def _retrieve(self, query_bundle):
        type(self).threads.add(threading.get_ident())
        return [NodeWithScore(node=found.node) for found in reversed(self.inner.retrieve(query_bundle))]


class Stranger(BaseRetriever):
    """Finds what is not in the index."""

    def __init__(self, index, similarity_top_k):
        super().__init__()

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(id_="from elsewhere", text=""), score=1.0)]


def needs_more(index, similarity_top_k, another):
    raise AssertionError


@pytest.fixture
def retrieval(little_index):
    def make(search="exact"):
        return Retrieval(open_index(little_index), search=search, embedder=WordEmbedder())

    return make


def test_llama_indexs_own_retriever_finds_what_chroma_finds(retrieval):
    own = retrieval("llama_index.core.retrievers:VectorIndexRetriever").find(ITEMS, 3)
    chroma = retrieval("chroma").find(ITEMS, 3)
    assert [[name for name, _ in row] for row in own] == [[name for name, _ in row] for row in chroma]


def test_any_other_is_taken_by_its_path_in_its_order(retrieval):
    found = retrieval(f"{__name__}:Backwards").find(ITEMS, 3)
    expected = retrieval("chroma").find(ITEMS, 3)
    assert [[name for name, _ in row] for row in found] == [[name for name, _ in reversed(row)] for row in expected]
    assert [score for _, score in found[0]] == pytest.approx([1, 1 / 2, 1 / 3])
    assert threading.get_ident() not in Backwards.threads


def test_what_cannot_be_used_is_refused(retrieval):
    with pytest.raises(InputError, match="gives 'from elsewhere', which is no snippet of"):
        retrieval(f"{__name__}:Stranger").find(ITEMS, 3)
    with pytest.raises(InputError, match="cannot be made with index= and similarity_top_k="):
        retrieval(f"{__name__}:needs_more").find(ITEMS, 3)
    for path in (f"{__name__}:Nobody", "no.such.module:Class", ":Class", "llama_index.core:"):
        with pytest.raises(InputError, match="no such LlamaIndex retriever"):
            retrieval(path)


def test_ours_is_a_retriever_of_theirs(retrieval):
    ours = MedadaptRetriever(retrieval("rrf"), k=3)
    nodes = ours.retrieve(ITEMS[0]["question"])
    [expected] = retrieval("rrf").find(ITEMS[:1], 3)
    assert [(node.node.node_id, node.score) for node in nodes] == expected
    assert "asthma" in nodes[0].node.get_content() and nodes[0].node.metadata["license"] == "CC0"
    several = ours.retrieve_all([item["question"] for item in ITEMS])
    assert [node.node.node_id for node in several[0]] == [node.node.node_id for node in nodes]


def test_their_query_engine_and_fusion_take_ours(retrieval):
    answer = RetrieverQueryEngine.from_args(MedadaptRetriever(retrieval(), k=2), llm=MockLLM()).query("gout")
    [expected] = retrieval().find([{"question": "gout"}], 2)
    assert [node.node.node_id for node in answer.source_nodes] == [name for name, _ in expected]
    both = QueryFusionRetriever(
        [MedadaptRetriever(retrieval(search), k=3) for search in ("exact", "bm25")],
        llm=MockLLM(),
        num_queries=1,
        similarity_top_k=4,
        mode="reciprocal_rerank",
        use_async=False,
    )
    assert "gout" in both.retrieve("gout")[0].node.get_content()
