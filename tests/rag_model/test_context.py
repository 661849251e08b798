"""Control arms: what items get in each, that it is the same every time, and never their own where it must not be."""

import json

import pytest
from rag_doubles import ITEMS, Recorder, WordEmbedder, evaluate, instance, scores_of, task

from medtasks import benchmarks, mcq
from medtasks.errors import InputError
from rag_model.context import Context
from rag_model.index import open_index
from rag_model.lm import RAG
from rag_model.retrieval import Retrieval

DOCS = {("little", i): item for i, item in enumerate(ITEMS)}


@pytest.fixture
def arm(little_index):
    """A context of a kind over the little index."""

    def make(kind, k=2, seed=0):
        return Context(kind, Retrieval(open_index(little_index), embedder=WordEmbedder()), k, seed)

    return make


def ids(found):
    return {key: [passage.snippet["id"] for passage in passages] for key, passages in found.items()}


def seen(folder, name="little"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").open()]


def test_none_shows_nothing_and_answers_as_the_closed_book(rag, asked, tmp_path):
    results = evaluate("rag", rag(context="none", sidecar=str(tmp_path)))
    assert scores_of(results) == scores_of(evaluate("recorder", {}))
    assert results["config"]["rag_context"] == "none" and results["config"]["rag_k"] == 0
    assert [row["passages"] for row in seen(tmp_path)] == [[]] * 8


def test_random_draws_for_each_item_by_its_question_and_the_seed(arm, little_index):
    found = ids(arm("random").of(DOCS))
    assert found == ids(arm("random").of(dict(reversed(DOCS.items()))))
    assert found != ids(arm("random", seed=1).of(DOCS))
    assert {key: found[key] for key in list(DOCS)[3:]} == ids(arm("random").of(dict(list(DOCS.items())[3:])))
    assert all(len(set(drawn)) == 2 for drawn in found.values()) and len({str(drawn) for drawn in found.values()}) > 8
    known = open_index(little_index).ids
    assert sorted(ids(arm("random", k=500).of(DOCS))["little", 0]) == sorted(known)


def test_shuffled_gives_what_was_found_for_another_question(arm):
    own, lent = ids(arm("retrieved").of(DOCS)), ids(arm("shuffled").of(DOCS))
    assert all(lent[key] != own[key] and lent[key] in own.values() for key in DOCS)
    assert sorted(map(str, lent.values())) == sorted(map(str, own.values()))  # each is lent once
    assert lent == ids(arm("shuffled").of(dict(reversed(DOCS.items()))))
    assert lent != ids(arm("shuffled", seed=1).of(DOCS))


def test_versions_of_a_question_never_borrow_from_each_other(arm):
    docs = {("little", 2 * i + j): item for i, item in enumerate(ITEMS[:3]) for j in range(2)}
    own, lent = ids(arm("retrieved").of(docs)), ids(arm("shuffled").of(docs))
    assert all(lent[key] != own[key] for key in docs)


def test_tasks_do_not_borrow_from_each_other_and_one_question_is_too_few(arm):
    docs = {("a", 0): ITEMS[0], ("a", 1): ITEMS[1], ("b", 0): ITEMS[2], ("b", 1): ITEMS[3]}
    own, lent = ids(arm("retrieved").of(docs)), ids(arm("shuffled").of(docs))
    assert lent == {key: own[key[0], 1 - key[1]] for key in docs}
    with pytest.raises(InputError, match="shuffled: task b has one question"):
        arm("shuffled").of({key: doc for key, doc in docs.items() if key != ("b", 1)})


def test_a_shuffled_item_whose_book_stays_closed_is_not_searched_for(arm):
    context = arm("shuffled")
    few = ids(context.of(DOCS, list(DOCS)[:2]))
    assert few == {key: ids(arm("shuffled").of(DOCS))[key] for key in list(DOCS)[:2]}
    assert len(context._found) == 2


def test_a_shuffled_run_goes_on_with_the_loans_it_began_with(rag, tmp_path):
    cache, arguments = str(tmp_path / "answers"), rag(context="shuffled")
    evaluate("rag", arguments | {"sidecar": str(tmp_path / "few")}, use_cache=cache, limit=3)
    whole = evaluate("rag", arguments | {"sidecar": str(tmp_path / "all")}, use_cache=cache)
    assert seen(tmp_path / "all")[:3] == seen(tmp_path / "few") and len(seen(tmp_path / "all")) == 8
    Recorder.asked = []
    again = evaluate("rag", arguments, use_cache=cache)
    assert Recorder.asked == [] and scores_of(again) == scores_of(whole)


def test_oracle_shows_the_items_own_context(rag, asked):
    item = ITEMS[0] | {"context": "We gave 12 patients asthma drug."}
    model = RAG(**rag(context="oracle"))
    model.loglikelihood([instance(mcq.render(ITEMS[0]), item)])
    assert asked[0][0] == mcq.render(ITEMS[0], [{"title": "", "text": item["context"]}])
    assert model.records.rows["little", 0]["passages"] == [{"id": f"context of {item['id']}", "score": 0.0}]


def test_oracle_finds_the_abstract_that_pubmedqa_star_hides(arm):
    hidden, [whole, *_] = benchmarks.load("pubmedqa_star", "test")[0], benchmarks.load("pubmedqa", "test")
    key = ("pubmedqa_star", 0)
    [passage] = arm("oracle").of({key: hidden})[key]
    assert not hidden["context"] and passage.snippet["text"] == whole["context"] != ""


def test_oracle_names_a_task_whose_items_have_no_context(rag):
    with pytest.raises(InputError, match="context=oracle: task little, item item-asthma has no context"):
        evaluate("rag", rag(context="oracle"))


@pytest.mark.parametrize("kind", ["random", "shuffled", "none"])
def test_every_arm_answers_in_every_mode(rag, kind):
    mode = {"mode": "gate+per_passage+calibrate+mix", "gate_margin": 200, "w": 0.5}
    results = evaluate("rag", rag(context=kind, **mode), task())
    assert len(scores_of(results)) == 8 and results["config"]["rag_context"] == kind
    assert results["config"]["rag_items_opened"] > 0
