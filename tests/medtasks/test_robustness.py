"""Models with known habits get known figures, and every version of an item asks the same."""

import collections
import functools
import json
import math
import random

import numpy as np
import pytest
from lm_eval import evaluator
from lm_eval.models.dummy import DummyLM
from lm_eval.tasks import TaskManager

from medtasks import TASKS_DIR, benchmarks, mcq, robustness
from medtasks.errors import InputError
from rag_model import prompts

BENCHMARKS = ("medqa", "medmcqa", "pubmedqa", "mmlu_med")
KINDS = ("order", "letters", "wording")
ITEM = {
    "id": "x",
    "question": "Which gland makes insulin?",
    "options": ["Thyroid", "Pancreas", "Adrenal"],
    "answer": 1,
    "context": "",
    "subject": "",
    "rationale": "",
}
WITH_CONTEXT = ITEM | {"context": "Islets lie in it."}


@pytest.fixture(scope="module")
def loaded():
    return TaskManager(include_path=str(TASKS_DIR), include_defaults=False).load(["medadapt_robust"])


def measure(task, choose, docs=None):
    """metric -> (value, standard error) of a model that takes position ``choose(doc)``; values come in any order."""
    docs = list(task.eval_docs) if docs is None else docs
    values = collections.defaultdict(list)
    for doc in random.Random(1).sample(docs, len(docs)):
        scores = [(-1.0 - (position != choose(doc)), False) for position in range(len(doc["options"]))]
        for metric, value in task.process_results(doc, scores).items():
            values[metric].append(json.loads(json.dumps(value)))
    assert {len(column) for column in values.values()} == {len(docs)}
    aggregations = task.aggregation()
    assert set(values) == set(aggregations)
    return {m: (aggregations[m](column), aggregations[m].stderr(column)) for m, column in values.items()}


@functools.cache
def items_of(benchmark):
    return benchmarks.load(benchmark, "test")


def as_dataset(*found):
    import datasets

    return datasets.Dataset.from_list(list(found))


# Versions


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_shifts_show_every_option_once_at_every_position(loaded, benchmark):
    known = {item["id"]: item for item in items_of(benchmark)}
    docs = list(loaded["tasks"][f"{benchmark}_order"].eval_docs)
    n = len(docs[0]["options"])
    assert len(docs) == n * len(known)
    assert len({doc["id"] for doc in docs}) == len(docs)
    for start in range(0, len(docs), n):
        versions = docs[start : start + n]
        (original,) = {doc["original_id"] for doc in versions}
        item = known.pop(original)
        assert [doc["version"] for doc in versions] == [str(shift) for shift in range(n)]
        assert versions[0]["options"] == item["options"]
        for shown_together in zip(*(doc["options"] for doc in versions), strict=True):
            assert sorted(shown_together) == sorted(item["options"])
        for doc in versions:
            assert doc["options"][doc["answer"]] == item["options"][item["answer"]]
            assert doc["question"] == item["question"] and doc["context"] == item["context"]
    assert not known


@pytest.mark.parametrize(("kind", "names"), [("letters", robustness.STYLES), ("wording", robustness.WORDINGS)])
def test_letters_and_wordings_change_nothing_of_the_item(loaded, kind, names):
    known = {item["id"]: item for item in items_of("pubmedqa")}
    docs = list(loaded["tasks"][f"pubmedqa_{kind}"].eval_docs)
    assert len(docs) == len(names) * len(known)
    for number, doc in enumerate(docs):
        item = known[doc["original_id"]]
        assert doc["version"] == list(names)[number % len(names)]
        assert doc["id"] == f"{item['id']}-{doc['version']}"
        assert all(doc[field] == item[field] for field in mcq.FIELDS if field != "id")


def test_a_limit_takes_items_from_the_whole_set(loaded):
    subjects = [doc["subject"] for doc in loaded["tasks"]["mmlu_med_order"].eval_docs]
    assert len(set(subjects[: len(subjects) // 4])) > 3


def test_different_numbers_of_options_are_refused():
    found = as_dataset(ITEM, ITEM | {"id": "y", "options": ["a", "b"]})
    with pytest.raises(InputError, match="item y has 2 options, the first one has 3"):
        robustness.by_order(found)


# Prompts


def test_the_first_style_and_wording_are_the_usual_prompt(loaded):
    for benchmark in BENCHMARKS:
        for kind, version in (("letters", "upper"), ("wording", "plain")):
            task = loaded["tasks"][f"{benchmark}_{kind}"]
            docs = [doc for doc in task.eval_docs if doc["version"] == version]
            assert docs
            for doc in docs:
                assert task.doc_to_text(doc) == mcq.render(doc)
                assert task.doc_to_choice(doc) == mcq.choices(doc)


@pytest.mark.parametrize(
    ("style", "options", "choices"),
    [
        ("upper", "A. Thyroid\nB. Pancreas\nC. Adrenal", ["A", "B", "C"]),
        ("paren", "(A) Thyroid\n(B) Pancreas\n(C) Adrenal", ["(A)", "(B)", "(C)"]),
        ("lower", "a) Thyroid\nb) Pancreas\nc) Adrenal", ["a", "b", "c"]),
        ("number", "1. Thyroid\n2. Pancreas\n3. Adrenal", ["1", "2", "3"]),
    ],
)
def test_prompt_of_each_style(style, options, choices):
    doc = ITEM | {"version": style}
    assert robustness.letters_prompt(doc) == f"Question: Which gland makes insulin?\n{options}\nAnswer:"
    assert robustness.letters_choices(doc) == choices


OPTIONS = "A. Thyroid\nB. Pancreas\nC. Adrenal\n"
PROMPTS = {
    "plain": "Abstract: Islets lie in it.\nQuestion: Which gland makes insulin?\n" + OPTIONS + "Answer:",
    "instruction": "Read the medical question below and reply with the letter of the best option.\n\n"
    "Abstract: Islets lie in it.\nQuestion: Which gland makes insulin?\n" + OPTIONS + "Answer:",
    "exam": "Medical examination, one right answer per item.\n\n"
    "Excerpt: Islets lie in it.\nItem: Which gland makes insulin?\nOptions:\n" + OPTIONS + "Right answer:",
    "closing": "Text: Islets lie in it.\nQ: Which gland makes insulin?\n" + OPTIONS + "Which option is correct? Option",
}


@pytest.mark.parametrize("name", robustness.WORDINGS)
def test_prompt_of_each_wording(name):
    assert robustness.wording_prompt(WITH_CONTEXT | {"version": name}) == PROMPTS[name]


@pytest.mark.parametrize("item", [ITEM, WITH_CONTEXT], ids=["question", "context"])
@pytest.mark.parametrize("name", [*robustness.STYLES, *robustness.WORDINGS])
@pytest.mark.parametrize("before", ["", "<|im_start|>user\n", "[INST] "])
def test_rag_puts_passages_between_opening_and_item(item, name, before):
    doc = item | {"version": name}
    prompt = robustness.letters_prompt(doc) if name in robustness.STYLES else robustness.wording_prompt(doc)
    opening = robustness.WORDINGS[name].opening if name in robustness.WORDINGS else ""
    passages = [{"title": "Best", "text": "beta cells"}]
    expected = before + opening + mcq.passage_block(passages) + prompt.removeprefix(opening)
    assert prompts.insert(before + prompt, doc, "t", passages) == expected


# Figures of models with known habits


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_model_that_always_takes_the_first_position(loaded, benchmark):
    task = loaded["tasks"][f"{benchmark}_order"]
    answers = [item["answer"] for item in items_of(benchmark)]
    n = len(task.eval_docs[0]["options"])
    shares = [answers.count(position) / len(answers) for position in range(n)]
    found = measure(task, lambda doc: 0)
    assert found["acc"] == pytest.approx((1 / n, 0))
    assert found["acc_spread"][0] == pytest.approx(max(shares) - min(shares))
    assert found["consistency"] == (0, 0)
    assert found["position_bias"] == pytest.approx(((n - 1) / n, 0))
    assert found["recall_std"] == pytest.approx((math.sqrt(n - 1) / n, 0))
    assert found["choice_A"] == (1, 0) and found["choice_B"] == (0, 0)
    assert math.isnan(found["choice_D"][0]) == (n == 3)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_knows(loaded, benchmark, kind):
    found = measure(loaded["tasks"][f"{benchmark}_{kind}"], lambda doc: doc["answer"])
    biases = {
        name: value for name, (value, _) in found.items() if name in ("acc_spread", "position_bias", "recall_std")
    }
    assert biases == pytest.approx(dict.fromkeys(biases, 0))
    assert found["consistency"] == (1, 0)
    assert {value for name, (value, _) in found.items() if name.startswith("acc") and name != "acc_spread"} == {1}


def test_a_model_that_decides_by_content_is_consistent_however_wrong(loaded):
    found = measure(loaded["tasks"]["medqa_order"], lambda doc: -int(doc["version"]) % 4)  # the item's option 0
    assert 0 < found["acc"][0] < 0.5
    assert found["consistency"] == (1, 0)
    assert found["acc_spread"][0] == found["position_bias"][0] == found["recall_std"][0] == 0
    assert [found[f"choice_{p}"][0] for p in "ABCD"] == [0.25] * 4


@pytest.mark.parametrize(("kind", "good"), [("letters", "lower"), ("wording", "exam")])
def test_a_model_that_answers_in_one_version_only(loaded, kind, good):
    task = loaded["tasks"][f"medmcqa_{kind}"]
    answers = [item["answer"] for item in items_of("medmcqa")]
    first = answers.count(0) / len(answers)  # what taking the first option scores
    found = measure(task, lambda doc: doc["answer"] if doc["version"] == good else 0)
    names = robustness.STYLES if kind == "letters" else robustness.WORDINGS
    assert {name: found[f"acc_{name}"][0] for name in names} == dict.fromkeys(names, pytest.approx(first)) | {good: 1}
    assert found["acc"][0] == pytest.approx((1 + 3 * first) / 4)
    assert found["acc_spread"][0] == pytest.approx(1 - first)
    assert found["consistency"][0] == pytest.approx(first)


def test_equal_option_texts_are_told_apart_by_their_place(loaded):
    docs = list(robustness.by_order(as_dataset(ITEM | {"options": ["same", "same", "other"]}, ITEM | {"id": "y"})))
    by_content = measure(loaded["tasks"]["pubmedqa_order"], lambda doc: doc["answer"], docs)
    assert by_content["consistency"][0] == by_content["acc"][0] == 1
    other_twin = measure(loaded["tasks"]["pubmedqa_order"], lambda doc: (doc["answer"] - 1) % 3, docs)
    assert other_twin["consistency"][0] == 1 and other_twin["acc"][0] == 0


def test_the_first_of_equally_likely_options_is_chosen():
    doc = ITEM | {"original_id": "x", "version": "1"}
    assert robustness.order_results(doc, [(-1.0, False), (-1.0, False), (-2.0, False)])["position_bias"].number == 0


# Items that lack versions


def test_incomplete_items_count_for_accuracy_alone(loaded):
    task = loaded["tasks"]["medqa_order"]
    docs = list(task.eval_docs)[:10]  # two items, and two of four versions of a third
    third = docs[8]["original_id"]
    found = measure(task, lambda doc: 0 if doc["original_id"] == third else doc["answer"], docs)
    assert found["consistency"][0] == 1 and found["acc_spread"][0] == found["position_bias"][0] == 0
    right = 8 + [doc["answer"] for doc in docs[8:]].count(0)
    assert found["acc"][0] == pytest.approx(right / 10)


def test_no_complete_item_gives_nan(loaded):
    task = loaded["tasks"]["medqa_order"]
    found = measure(task, lambda doc: 0, list(task.eval_docs)[:2])
    for name in ("acc_spread", "consistency", "position_bias", "recall_std"):
        assert all(map(math.isnan, found[name]))
    assert 0 <= found["acc"][0] <= 1
    assert math.isnan(found["acc"][1])  # one item has no standard error


# The group in lm-eval


def test_lm_eval_runs_the_group(loaded):
    found = evaluator.evaluate(DummyLM(), loaded, limit=12)
    assert set(loaded["tasks"]) == {f"{benchmark}_{kind}" for benchmark in BENCHMARKS for kind in KINDS}
    assert set(found["groups"]) == {f"medadapt_{kind}" for kind in KINDS}
    assert {task.get_config("num_fewshot") for task in loaded["tasks"].values()} == {0}  # lm-eval then refuses another
    for kind in KINDS:
        group = found["groups"][f"medadapt_{kind}"]
        for metric in ("acc", "acc_spread", "consistency"):
            leaves = [found["results"][f"{benchmark}_{kind}"] for benchmark in BENCHMARKS]
            assert group[f"{metric},none"] == pytest.approx(np.mean([leaf[f"{metric},none"] for leaf in leaves]))
            errors = np.array([leaf[f"{metric}_stderr,none"] for leaf in leaves])
            assert group[f"{metric}_stderr,none"] == pytest.approx(np.sqrt((errors**2).sum()) / 4)
    json.dumps(found["samples"]["medqa_order"][0]["acc"])
