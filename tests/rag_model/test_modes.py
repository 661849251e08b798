"""Modes in lm-eval: what is asked, how often, and that what comes out is the formula of what came in."""

import json
import zlib

import numpy as np
import pytest
from lm_eval.api.model import CachingLM
from rag_doubles import ITEMS, Recorder, WordEmbedder, evaluate, instance, scores_of, task

from medtasks import mcq, option_text
from medtasks.errors import InputError
from rag_model import answering, prompts
from rag_model.index import open_index
from rag_model.lm import RAG
from rag_model.retrieval import Retrieval

ASKED = ITEMS[:8]
MODES = {
    "always": {"mode": "always"},
    "gate": {"mode": "gate", "gate_margin": 150},
    "mix": {"mode": "mix", "w": 0.3},
    "calibrate": {"mode": "calibrate"},
    "per_passage": {"mode": "per_passage"},
    "all": {"mode": "gate+per_passage+calibrate+mix", "gate_margin": 150, "calibration": 0.5, "w": 0.7},
}


def score(prompt, option):
    """What :class:`Recorder` answers."""
    return -float(zlib.crc32((prompt + option).encode()) % 1000)


def row(prompt, options=tuple(" ABCD")[1:]):
    return [score(prompt, f" {option}") for option in options]


@pytest.fixture(scope="module")
def passages(little_index):
    """Item id -> its two passages, best first, with their scores."""
    index = open_index(little_index)
    found = Retrieval(index, embedder=WordEmbedder()).find(ASKED, 2)
    return {
        item["id"]: [index.snippet(snippet_id) | {"score": value} for snippet_id, value in pairs]
        for item, pairs in zip(ASKED, found, strict=True)
    }


@pytest.fixture
def calls(monkeypatch):
    """The number of requests in each call of the inner model."""
    made, answer = [], Recorder.loglikelihood

    def counted(self, requests):
        made.append(len(requests))
        return answer(self, requests)

    monkeypatch.setattr(Recorder, "loglikelihood", counted)
    return made


def expected(item, shown, mode, render=mcq.render, options=tuple("ABCD")):
    """The options' log-probabilities, from the prompts that a mode should make."""
    parts = [[passage] for passage in shown] if mode.per_passage else [shown]
    closed = np.array(row(render(item), options))
    if not mode.opens(closed):
        return closed.tolist()
    prompt = [mcq.passage_block(part) + render(item) for part in parts]
    opened = np.array([row(text, options) for text in prompt])
    neutral = np.array([row(text.replace(item["question"], "N/A"), options) for text in prompt])
    scores = np.array([part[0]["score"] for part in parts])
    return mode.answer(closed, opened, neutral if mode.needs_neutral else None, scores).tolist()


def values(results):
    return [[value for [(value, _)] in sample] for sample in scores_of(results)]


@pytest.mark.parametrize("name", MODES)
def test_answers_are_the_modes_formula_of_what_the_inner_model_says(rag, passages, name):
    mode = answering.parse(**{"name" if k == "mode" else k: v for k, v in MODES[name].items()})
    results = evaluate("rag", rag(**MODES[name]))
    for item, found in zip(ASKED, values(results), strict=True):
        assert found == pytest.approx(expected(item, passages[item["id"]], mode)), item["id"]
    assert results["config"]["rag_mode"] == mode.name
    for setting, value in MODES[name].items():
        assert results["config"][f"rag_{setting}"] == (mode.name if setting == "mode" else value)


@pytest.mark.parametrize("name", ["mix", "calibrate", "per_passage"])
def test_options_scored_by_their_texts_are_weighed_too(rag, passages, name):
    mode = answering.parse(**{"name" if k == "mode" else k: v for k, v in MODES[name].items()})
    texts = task(doc_to_text=option_text.render, doc_to_choice=option_text.choices)
    for item, found in zip(ASKED, values(evaluate("rag", rag(**MODES[name]), texts)), strict=True):
        assert found == pytest.approx(
            expected(item, passages[item["id"]], mode, option_text.render, tuple(item["options"]))
        )


@pytest.mark.parametrize(
    ("name", "n_calls"), [("always", [32]), ("mix", [32, 32]), ("calibrate", [64]), ("per_passage", [64])]
)
def test_each_arm_is_one_call_over_all_items(rag, calls, name, n_calls):
    evaluate("rag", rag(**MODES[name]))
    assert calls == n_calls


def test_a_gate_asks_with_passages_only_where_it_opens(rag, calls, tmp_path):
    results = evaluate("rag", rag(**MODES["gate"], sidecar=str(tmp_path)))
    rows = [json.loads(line) for line in (tmp_path / "little.jsonl").open()]
    opened = [row["opened"] for row in rows]
    assert 0 < sum(opened) < 8 and calls == [32, 4 * sum(opened)]
    assert results["config"]["rag_items_opened"] == sum(opened) and results["config"]["rag_items"] == 8
    for item, seen, found in zip(ASKED, rows, values(results), strict=True):
        first, second, *_ = sorted(row(mcq.render(item)), reverse=True)
        assert seen["margin"] == first - second and seen["opened"] == (first - second < 150)
        assert bool(seen["passages"]) == seen["opened"]
        if not seen["opened"]:
            assert found == row(mcq.render(item))


@pytest.mark.parametrize(("margin", "n"), [(0, 0), (1e9, 8)])
def test_a_gate_may_open_nothing_or_all(rag, margin, n):
    results = evaluate("rag", rag(mode="gate", gate_margin=margin))
    assert results["config"]["rag_items_opened"] == n
    assert scores_of(results) == scores_of(evaluate("rag", rag()) if n else evaluate("recorder", {}))


def test_neutral_prompts_lose_the_question_and_nothing_else(rag, asked, passages):
    item = ITEMS[0] | {"context": f"We asked about {ITEMS[0]['question']}"}
    model = RAG(**rag(mode="calibrate"))
    model.loglikelihood([instance("Shot.\n\n" + mcq.render(item), item)])
    whole, neutral = (args[0] for args in asked)
    assert whole == "Shot.\n\n" + mcq.render(item, passages[item["id"]])
    assert neutral == whole.replace(f"Question: {item['question']}", "Question: N/A")
    assert item["context"] in neutral


def test_greedy_flags_are_those_that_the_arms_share(rag, monkeypatch):
    def says_a(self, requests):
        return [(-1.0, request.args[1] == " A" and "Reference" not in request.args[0]) for request in requests]

    monkeypatch.setattr(Recorder, "loglikelihood", says_a)
    flags = {
        name: [flag for _, flag in RAG(**rag(**MODES[name])).loglikelihood([instance(mcq.render(ITEMS[0]), ITEMS[0])])]
        for name in ("always", "gate", "mix")
    }
    assert flags == {"always": [False], "gate": [True], "mix": [False]}


def test_an_option_by_itself_has_no_margin_and_stays_closed(rag, asked):
    RAG(**rag(mode="gate", gate_margin=5)).loglikelihood([instance(mcq.render(ITEMS[0]), ITEMS[0])])
    assert len(asked) == 1


def test_a_request_that_comes_twice_counts_once(rag):
    requests = [r for letter in "AB" for r in [_option(letter)] * 2]
    whole = RAG(**rag(**MODES["all"])).loglikelihood(requests)
    once = RAG(**rag(**MODES["all"])).loglikelihood(requests[::2])
    assert whole == [answer for answer in once for _ in range(2)]


def _option(letter, i=0):
    made = instance(mcq.render(ITEMS[i]), ITEMS[i], doc_id=i)
    made.arguments = (mcq.render(ITEMS[i]), f" {letter}")
    return made


def test_what_holds_no_question_goes_through_in_every_mode(rag, asked):
    model = RAG(**rag(**MODES["mix"]))
    answers = model.loglikelihood([_option("A"), instance("", ITEMS[0]), _option("B")])
    assert answers[1] == (score("", " A"), False) and ("", " A") in asked
    assert [answers[0], answers[2]] == RAG(**rag(**MODES["mix"])).loglikelihood([_option("A"), _option("B")])


def test_texts_are_generated_in_mode_always_alone(rag):
    generate = task(output_type="generate_until", metric_list=[{"metric": "exact_match"}], doc_to_target="answer")
    with pytest.raises(InputError, match="task little generates text, and mode=mix weighs options; give mode=always"):
        evaluate("rag", rag(**MODES["mix"]), generate)


# --use_cache


def test_no_mode_reads_anothers_answers(rag, tmp_path, asked):
    runs = MODES | {
        "wider gate": {"mode": "gate", "gate_margin": 300},
        "heavier": {"mode": "mix", "w": 0.6},
        "half": {"mode": "calibrate", "calibration": 0.5},
        "first": {"order": "best_first"},
        "cited": {"cite": True},
        "random": {"context": "random"},
        "random 1": {"context": "random", "context_seed": 1},
        "none": {"context": "none"},
        "options": {"query": "question+options"},
    }
    requests = [_option(letter, i) for i in range(8) for letter in "ABCD"]

    def answers(run):
        return CachingLM(RAG(**rag(**run)), str(tmp_path / "answers.db")).loglikelihood(requests)

    fresh = {name: RAG(**rag(**run)).loglikelihood(requests) for name, run in runs.items()}
    assert len({str(found) for found in fresh.values()}) == len(runs)
    assert {name: answers(run) for name, run in runs.items()} == fresh
    asked.clear()
    assert {name: answers(run) for name, run in runs.items()} == fresh and asked == []


@pytest.mark.parametrize("name", ["gate", "all"])
def test_a_run_that_was_killed_inside_an_item_ends_as_one_that_was_not(rag, tmp_path, monkeypatch, name):
    cache, seen = str(tmp_path / "answers"), tmp_path / "seen"
    whole = values(evaluate("rag", rag(**MODES[name])))

    def dies(self, requests):
        model, table = self.lm, self.dbdict
        for request, answer in list(zip(requests, model.loglikelihood(requests), strict=True))[:6]:
            model.cache_hook.add_partial("loglikelihood", request.args, answer)
        table.commit()
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(CachingLM, "__getattr__", lambda self, name: _dying(self, name, dies))
        with pytest.raises(KeyboardInterrupt):
            evaluate("rag", rag(**MODES[name]), use_cache=cache)
    Recorder.asked = []
    again = evaluate("rag", rag(**MODES[name], sidecar=str(seen)), use_cache=cache)
    assert values(again) == whole and Recorder.asked == []
    assert len((seen / "little.jsonl").read_text().splitlines()) == again["config"]["rag_items"] == 8


def _dying(caching, name, dies):
    return (lambda requests: dies(caching, requests)) if name == "loglikelihood" else getattr(caching.lm, name)


def test_what_the_inner_model_had_said_before_the_kill_is_not_asked_again(rag, tmp_path, monkeypatch):
    cache, answer = str(tmp_path / "answers"), Recorder.loglikelihood
    whole = values(evaluate("rag", rag(**MODES["mix"])))

    def dies_in_the_second_arm(self, requests):
        if "Reference" not in requests[0].args[0]:
            return answer(self, requests)
        answer(self, requests[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(Recorder, "loglikelihood", dies_in_the_second_arm)
        with pytest.raises(KeyboardInterrupt):
            evaluate("rag", rag(**MODES["mix"]), use_cache=cache)
    Recorder.asked = []
    assert values(evaluate("rag", rag(**MODES["mix"]), use_cache=cache)) == whole
    assert len(Recorder.asked) == 32 - 10


# Layout


def test_the_best_passage_stands_first_where_that_is_wanted(rag, asked, passages):
    evaluate("rag", rag(order="best_first"))
    assert asked[0][0] == mcq.render(ITEMS[0], passages[ITEMS[0]["id"]][::-1])


def test_citations_become_ids(rag, asked, passages, tmp_path, monkeypatch):
    generate = task(
        output_type="generate_until",
        doc_to_target="answer",
        generation_kwargs={"until": ["\n"]},
        metric_list=[{"metric": "exact_match"}],
    )
    texts = ["By [2], and [2, 1].", "None.", "See [7]."] + [""] * 5
    monkeypatch.setattr(Recorder, "generate_until", lambda self, requests: texts)
    evaluate("rag", rag(cite=True, sidecar=str(tmp_path)), generate)
    rows = [json.loads(line) for line in (tmp_path / "little.jsonl").open()]
    best, second = (passage["id"] for passage in passages[ITEMS[0]["id"]])
    assert [row["cited"] for row in rows] == [[second, best], [], []] + [[]] * 5
    assert [passage["id"] for passage in rows[0]["passages"]] == [best, second]


def test_numbers_are_ranks_wherever_a_passage_stands(passages):
    best, second = passages[ITEMS[0]["id"]]
    for order in prompts.ORDERS:
        block = mcq.passage_block(prompts.arranged([best, second], order, cite=True))
        for rank, passage in enumerate((best, second), 1):
            text = f"{passage['title']}: {passage['text']}" if passage["title"] else passage["text"]
            assert f"\n\n[{rank}] {text}" in block
        assert (block.index("[1]") < block.index("[2]")) == (order == "best_first")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": "best"}, "order=best: there are best_last, best_first"),
        ({"cite": "yes"}, "cite=yes"),
        ({"context": "some"}, "context=some: there are retrieved, none"),
        ({"max_context_tokens": 100}, "max_context_tokens: the inner model has no tokenizer"),
        ({"mode": "gate"}, "mode=gate needs gate_margin"),
        ({"w": 0.5}, "w=0.5 is for mode=mix, not for mode=always"),
    ],
)
def test_bad_arguments_are_refused(rag, changes, message):
    with pytest.raises(InputError, match=message):
        RAG(**rag(**changes))
