"""From items to passages: each step does its part, and what was found is kept for the same settings alone."""

import json
import logging

import numpy as np
import pytest
from rag_doubles import ITEMS, TOPICS, WordEmbedder

from medtasks.errors import InputError
from rag_model.build import build
from rag_model.index import open_index
from rag_model.retrieval import Retrieval, pipeline
from rag_model.retrieval.bm25 import BM25
from rag_model.retrieval.dense import Exact
from rag_model.retrieval.fusion import reciprocal_rank_fusion

QUESTIONS = [item["question"] for item in ITEMS]


class LastNumber:
    """A cross-encoder that prefers passages with a large drug number; counts the pairs it scored."""

    name, fingerprint, pairs = "last number", "0123456789abcdef", 0

    def score(self, pairs):
        self.pairs += len(pairs)
        self.asked = {query for query, _ in pairs}
        return np.array([int(text.split("Drug number ")[1].split()[0]) for _, text in pairs], dtype=np.float32)


@pytest.fixture
def index(little_index):
    return open_index(little_index)


@pytest.fixture
def retrieval(index):
    def make(**arguments):
        return Retrieval(index, **{"embedder": WordEmbedder()} | arguments)

    return make


def ids(found):
    return [[snippet_id for snippet_id, _ in row] for row in found]


@pytest.mark.parametrize("search", ["exact", "bm25"])
def test_without_more_it_is_the_search(index, retrieval, search):
    searcher = Exact(index, WordEmbedder()) if search == "exact" else BM25(index)
    own, scores = searcher.search(QUESTIONS, 4)
    found = retrieval(search=search).find(ITEMS, 4)
    assert ids(found) == own
    assert [[score for _, score in row] for row in found] == [list(map(float, row)) for row in scores]


def test_passages_are_the_snippets_of_what_was_found(retrieval):
    words = retrieval(search="bm25")
    for topic, row in zip(TOPICS, words.find(ITEMS, 2), strict=True):
        passages = words.passages(row)
        assert [passage["id"] for passage in passages] == [name for name, _ in row]
        assert all(topic in passage["text"] for passage in passages)


def test_the_store_is_asked_under_either_name(retrieval):
    found = retrieval(search="store").find(ITEMS, 3)
    assert found == retrieval(search="chroma").find(ITEMS, 3)
    exact = retrieval().find(ITEMS, 3)
    assert [[score for _, score in row] for row in found] == [
        pytest.approx([score for _, score in row], abs=1e-5) for row in exact
    ]


def test_an_index_without_a_store_has_none_to_ask(corpus, tmp_path):
    build(str(corpus), tmp_path / "index", WordEmbedder(), store_spec="none", progress=False)
    for search in ("store", "llama_index.core.retrievers:VectorIndexRetriever"):
        with pytest.raises(InputError, match="was built without a store; take search=exact"):
            Retrieval(open_index(tmp_path / "index"), search=search, embedder=WordEmbedder()).find(ITEMS, 3)


def test_mmr_over_vectors_of_any_length_is_that_over_unit_vectors(retrieval, corpus, tmp_path):
    class Long(WordEmbedder):
        """Vectors of several lengths, compared by their inner product."""

        def __init__(self):
            super().__init__()
            self.similarity, self.fingerprint = "dot", "long"

        def encode(self, texts, progress=lambda n: None):
            return super().encode(texts, progress) * np.float32(7)

    build(str(corpus), tmp_path / "index", Long(), progress=False)
    found = Retrieval(open_index(tmp_path / "index"), embedder=Long(), mmr=0.0).find(ITEMS, 4)
    assert ids(found) == ids(retrieval(mmr=0.0).find(ITEMS, 4))
    assert all(score > 1 for row in found for _, score in row[:1])


@pytest.mark.parametrize(("fuse", "weights"), [("rrf", (1, 1)), ("rrf:0.75", (0.75, 0.25))])
def test_rrf_fuses_words_and_vectors(index, retrieval, fuse, weights):
    vectors, words = Exact(index, WordEmbedder()).search(QUESTIONS, 99)[0], BM25(index).search(QUESTIONS, 99)[0]
    rankings = zip(vectors, words, strict=True)
    expected = [[name for name, _ in reciprocal_rank_fusion(both, weights)[:5]] for both in rankings]
    assert ids(retrieval(search="rrf", fuse=fuse).find(ITEMS, 5)) == expected


def test_words_alone_need_no_embedder(index):
    assert Retrieval(index, search="bm25").find(ITEMS[:1], 2)[0]


def test_each_option_gets_its_share_and_no_passage_comes_twice(retrieval):
    item = {"question": "Which is treated?", "options": ["gout", "sepsis", "measles", "none of these"]}
    own = [retrieval().find([{"question": f"{option}\nWhich is treated?"}], 6)[0] for option in item["options"][:3]]
    [found] = retrieval(query="per_option").find([item], 6)
    assert len(found) == 6 == len(set(ids([found])[0]))
    assert found[:3] == [row[0] for row in own]


def test_the_cross_encoder_orders_candidates_by_the_question(retrieval, monkeypatch):
    monkeypatch.setattr(pipeline, "CANDIDATES", 6)
    reranker = LastNumber()
    candidates = retrieval().find(ITEMS, 6)
    found = retrieval(rerank=reranker).find(ITEMS, 3)
    assert reranker.pairs == 6 * len(ITEMS) and reranker.asked == set(QUESTIONS)
    for row, before in zip(found, candidates, strict=True):
        scores = [score for _, score in row]
        assert scores == sorted(scores, reverse=True) and len(row) == 3
        assert set(dict(row)) <= set(dict(before))
        numbers = sorted((int(name[1:].split("#")[0]) for name, _ in before), reverse=True)
        assert scores == numbers[:3]


def test_the_filter_drops_passages_and_may_leave_none(retrieval):
    reranker = LastNumber()
    assert all(score >= 20 for row in retrieval(rerank=reranker, filter=20).find(ITEMS, 9) for _, score in row)
    assert retrieval(rerank=reranker, filter=1e6).find(ITEMS[:2], 3) == [[], []]


def test_what_a_model_wrote_is_searched_for_but_not_reranked_by(retrieval):
    reranker = LastNumber()
    written = retrieval(query="hyde", write=lambda prompts: ["gout"] * len(prompts), rerank=reranker)
    written.find(ITEMS, 2)
    assert reranker.asked == set(QUESTIONS)
    plain = retrieval(query="hyde", write=lambda prompts: ["gout"] * len(prompts)).find(ITEMS[:1], 2)
    assert plain == retrieval().find([{"question": "gout"}], 2)


@pytest.mark.parametrize("search", ["exact", "bm25", "rrf"])
def test_mmr_chooses_variety_from_the_candidates(index, retrieval, search):
    assert retrieval(search=search, mmr=1.0).find(ITEMS, 4) == retrieval(search=search).find(ITEMS, 4)
    vector = dict(zip(index.ids, np.concatenate(list(index.shards())), strict=True))

    def likeness(found):
        return np.mean([vector[row[0][0]] @ vector[name] for row in found for name, _ in row[1:]])

    varied = retrieval(search=search, mmr=0.3).find(ITEMS, 4)
    assert likeness(varied) < likeness(retrieval(search=search).find(ITEMS, 4)) - 0.05


def test_an_item_is_searched_for_once_and_then_found_on_disk(retrieval, tmp_path, monkeypatch):
    embedder = WordEmbedder()
    first = retrieval(embedder=embedder, cache=tmp_path).find([*ITEMS, *ITEMS], 3)
    assert embedder.n_texts == len(ITEMS)
    assert retrieval(embedder=embedder, cache=tmp_path).find([*ITEMS, *ITEMS], 3) == first
    assert embedder.n_texts == len(ITEMS)
    retrieval(embedder=embedder, cache=tmp_path).find([*ITEMS, {"question": "gout?"}], 3)
    assert embedder.n_texts == len(ITEMS) + 1


@pytest.mark.parametrize(
    "changed",
    [
        {"search": "bm25"},
        {"search": "rrf"},
        {"query": "question+options"},
        {"query": "per_option"},
        {"mmr": 0.2},
        {"rerank": LastNumber()},
        {"rerank": LastNumber(), "filter": 20.0},
    ],
)
def test_what_was_found_with_other_settings_is_not_taken(retrieval, tmp_path, changed):
    retrieval(cache=tmp_path).find(ITEMS, 3)
    assert retrieval(cache=tmp_path, **changed).find(ITEMS, 3) == retrieval(**changed).find(ITEMS, 3)
    assert ids(retrieval(cache=tmp_path).find(ITEMS, 2)) == [row[:2] for row in ids(retrieval().find(ITEMS, 3))]


def test_a_damaged_cache_is_searched_anew(retrieval, tmp_path, caplog):
    expected = retrieval(cache=tmp_path).find(ITEMS, 3)
    [file] = tmp_path.iterdir()
    file.write_bytes(b"nothing of use " * 999)
    with caplog.at_level(logging.WARNING):
        assert retrieval(cache=tmp_path).find(ITEMS, 3) == expected
    assert "thrown away" in caplog.text


def test_written_texts_are_kept_only_under_the_name_of_who_wrote_them(retrieval, tmp_path):
    class Writer:
        def __init__(self, fingerprint=None):
            self.prompts = []
            if fingerprint:
                self.fingerprint = fingerprint

        def __call__(self, prompts):
            self.prompts += prompts
            return ["gout" for _ in prompts]

    def asked(writer):
        retrieval(cache=tmp_path, query="hyde", write=writer).find([*ITEMS, ITEMS[0]], 2)
        return len(writer.prompts)

    assert [asked(Writer("one")), asked(Writer("one")), asked(Writer("other"))] == [len(ITEMS), 0, len(ITEMS)]
    assert [asked(Writer()), asked(Writer())] == [len(ITEMS)] * 2


def test_settings_are_json_that_changes_with_what_is_found(retrieval):
    variants = [{}, {"search": "rrf"}, {"search": "rrf", "fuse": "rrf:0.6"}, {"mmr": 0.5}, {"rerank": LastNumber()}]
    texts = [json.dumps(retrieval(**variant).settings, sort_keys=True) for variant in variants]
    assert len(set(texts)) == len(variants)
    assert json.dumps(retrieval().settings, sort_keys=True) == texts[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": "nearby"}, "unknown search 'nearby'; there are exact, store, bm25, rrf, chroma, and package"),
        ({"query": "options"}, "unknown query 'options'"),
        ({"query": "hyde"}, "query=hyde needs a model that writes"),
        ({"filter": 0.5}, "give rerank=MODEL with it"),
        ({"mmr": 1.5}, "mmr=1.5: must lie between 0"),
        ({"mmr": "abc"}, "mmr=abc: must be a number"),
        ({"mmr": True}, "mmr=True: must be a number"),
        ({"rerank": "model", "filter": "abc"}, "filter=abc: must be a number"),
        ({"fuse": 1}, "fuse=1: must be a text"),
        ({"search": 3}, "search=3: must be a text"),
        ({"fuse": "sum"}, "fuse=sum: must be rrf, or rrf:W"),
        ({"fuse": "rrf:2"}, "fuse=rrf:2: must be rrf, or rrf:W"),
        ({"fuse": "rrf:much"}, "fuse=rrf:much: must be rrf, or rrf:W"),
        ({"rerank": "/no/such/model"}, "/no/such/model: no such model folder"),
        ({"search": "nowhere.at_all:Retriever"}, "search=nowhere.at_all:Retriever: no such LlamaIndex retriever"),
    ],
)
def test_bad_arguments_are_refused(retrieval, arguments, message):
    with pytest.raises(InputError, match=message):
        retrieval(**arguments)
