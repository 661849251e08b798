"""Solved questions: what becomes one, that no test item does, how they are shown, and that none answers itself."""

import json

import numpy as np
import pytest
from rag_doubles import ITEMS, Recorder, WordEmbedder, evaluate, instance, scores_of, task

from medtasks import benchmarks, contamination, mcq
from medtasks.errors import InputError
from rag_model import examples, prompts, solved
from rag_model.build import build
from rag_model.chunking import FIELDS, Chunking
from rag_model.context import Context, Passage
from rag_model.index import LEFT_OUT, open_index
from rag_model.lm import RAG
from rag_model.open_book import Layout, opened
from rag_model.retrieval import Retrieval

DOCS = {("little", i): item for i, item in enumerate(ITEMS)}
ABSTRACTS = [
    {
        "id": f"study-{i}",
        "question": f"Does exercise help in {topic}?",
        "options": ["yes", "no", "maybe"],
        "answer": i % 3,
        "context": f"We studied {topic} in {20 + i} patients.",
    }
    for i, topic in enumerate(("asthma", "gout", "sepsis", "measles"))
]


@pytest.fixture
def questions(tmp_path):
    """A file of all the items of the little task, and questions about abstracts."""
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ITEMS + ABSTRACTS), encoding="utf-8")
    return path


@pytest.fixture
def solved_index(questions, tmp_path):
    build(f"items:{questions}", tmp_path / "solved", WordEmbedder(), progress=False, store_spec="none")
    return tmp_path / "solved"


def context(folder, kind="retrieved", k=3):
    return Context(kind, Retrieval(open_index(folder), embedder=WordEmbedder()), k)


# What becomes one


def test_a_benchmark_gives_its_training_items_with_its_licence():
    found = list(solved.read(["items:medqa"]))
    items = benchmarks.load("medqa", "train")
    assert [snippet["id"] for snippet in found] == [f"{item['id']}#0" for item in items]
    assert {(snippet["source"], snippet["license"]) for snippet in found} == {("items:medqa", "MIT")}
    assert found[0]["text"] == f"{mcq.render(items[0])} {mcq.target(items[0])}"
    assert set(found[0]) == {*FIELDS, "item"} and "rationale" not in found[0]["item"]
    assert [s["id"] for s in solved.read(["items:medqa:2"])] == [f"{item['id']}#0" for item in items[:2]]
    validation = {f"{item['id']}#0" for item in benchmarks.load("mmlu_med", "validation")}
    assert {snippet["id"] for snippet in solved.read(["items:mmlu_med:validation"])} <= validation


def test_a_file_gives_rows_of_any_schema_each_once(tmp_path):
    rows = [
        {"question": "Which is a bone?", "choices": ["Ulna", "Aorta"], "answer": 0},
        {"question": "Which is a bone?", "options": {"A": "Aorta", "B": "Ulna"}, "answer_idx": "B"},
        {
            "question": "Which is a bone?",
            "opa": "Vein",
            "opb": "Ulna",
            "opc": "Nerve",
            "opd": "Skin",
            "cop": 1,
            "exp": "!",
        },
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, three = solved.read([f"items:{tmp_path / 'q.jsonl'}"], license="CC0")
    assert one["id"] == "q.jsonl:1#0" and one["text"].endswith("A. Ulna\nB. Aorta\nAnswer: A")
    assert three["text"].endswith("Answer: B") and "!" not in json.dumps(three)
    assert one["source"] == "items:q.jsonl" and one["license"] == "CC0"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["items:medqa:test"], "items:medqa:test: test items are for measuring"),
        (["items:medqa:dev"], "medqa has no split 'dev'"),
        (["items:nothing"], "items:nothing: no such questions; give a .jsonl"),
        (["items:nothing.jsonl"], "items:nothing.jsonl: no such file"),
        (["items:medqa", "sample"], "items:medqa and sample: solved questions and texts go into indexes of their own"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(names, message, tmp_path):
    with pytest.raises(InputError, match=message):
        build(names, tmp_path / "index", WordEmbedder(), progress=False)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "no question"}, "q.jsonl:1: no question with options"),
        ({"question": "Which?", "options": ["a", "b"], "answer": 7}, "q.jsonl:1: the answer 7 names none"),
    ],
)
def test_a_row_that_is_no_solved_question_is_named(row, message, tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        list(solved.read([f"items:{tmp_path / 'q.jsonl'}"]))


def test_an_id_that_two_questions_share_is_named(tmp_path):
    rows = [{"id": "1", "question": f"Which is {what}?", "options": ["a", "b"], "answer": 0} for what in ("one", "two")]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="q.jsonl:2: the id '1' comes twice"):
        list(solved.read([f"items:{tmp_path / 'q.jsonl'}"]))


# The index


def test_questions_stay_whole_and_are_searched_by_the_question_alone(solved_index):
    index = open_index(solved_index)
    assert index.is_solved and len(index.ids) == len(ITEMS) + len(ABSTRACTS)
    own = WordEmbedder().encode([item["question"] for item in ITEMS + ABSTRACTS])
    assert np.array_equal(np.concatenate(list(index.shards())), own)
    long = ITEMS[0] | {"id": "long", "context": "It was tried. " * 300}
    (solved_index.parent / "long.jsonl").write_text(json.dumps(long))
    build(
        f"items:{solved_index.parent / 'long.jsonl'}", solved_index.parent / "long", WordEmbedder(), Chunking(100, 10)
    )
    [snippet] = open_index(solved_index.parent / "long").snippets()
    assert len(snippet["text"]) > 4_000


def test_a_test_item_is_left_out(questions, tmp_path):
    held_out = contamination.Overlap([ITEMS[3]])
    build(
        f"items:{questions}", tmp_path / "index", WordEmbedder(), held_out=held_out, progress=False, store_spec="none"
    )
    ids = open_index(tmp_path / "index").ids
    assert f"{ITEMS[3]['id']}#0" not in ids and len(ids) == len(ITEMS) + len(ABSTRACTS) - 1
    [left_out] = map(json.loads, (tmp_path / "index" / LEFT_OUT).open())
    assert left_out == {"id": f"{ITEMS[3]['id']}#0", "item": ITEMS[3]["id"], "kind": "exact"}


def test_an_index_is_built_anew_when_a_question_changes(questions, tmp_path):
    out = tmp_path / "index"
    how = {"progress": False, "store_spec": "none"}
    assert build(f"items:{questions}", out, WordEmbedder(), **how).changed
    assert not build(f"items:{questions}", out, WordEmbedder(), **how).changed
    questions.write_text(questions.read_text().replace("aspirin", "ibuprofen"))
    with pytest.raises(InputError, match="was begun with corpus items:questions.jsonl"):
        build(f"items:{questions}", out, WordEmbedder(), **how)


# What items are shown


@pytest.mark.parametrize("kind", ["retrieved", "random", "shuffled"])
def test_no_item_is_shown_its_own_solution(solved_index, kind):
    found = context(solved_index, kind, k=9).of(DOCS)
    for key, passages in found.items():
        own = f"{DOCS[key]['id']}#0"
        assert len(passages) == 9 and own not in [passage.snippet["id"] for passage in passages]


def test_an_item_in_another_order_of_its_options_is_not_shown_its_solution_either(solved_index):
    turned = ITEMS[0] | {"id": "other", "options": ITEMS[0]["options"][::-1]}
    [shown] = context(solved_index).of({("little", 0): turned}).values()
    assert f"{ITEMS[0]['id']}#0" not in [passage.snippet["id"] for passage in shown]


@pytest.mark.parametrize("kind", ["retrieved", "random"])
def test_yes_or_no_questions_get_yes_or_no_examples_and_others_the_others(solved_index, kind):
    asked = {("little", 0): ITEMS[0], ("little", 1): ABSTRACTS[0] | {"id": "new", "question": "Does tea help in gout?"}}
    exam, study = context(solved_index, kind).of(asked).values()
    assert all(passage.snippet["id"].startswith("item-") for passage in exam) and len(exam) == 3
    assert all(passage.snippet["id"].startswith("study-") for passage in study) and len(study) == 3


def test_where_few_of_the_nearest_suit_it_is_searched_on(solved_index, monkeypatch):
    """The question shares its words with the exam questions, which do not suit it."""
    monkeypatch.setattr("rag_model.context.SPARE", 0)
    asked = {("little", 0): ABSTRACTS[0] | {"id": "new", "question": "Which drug is given first for gout, any?"}}
    arm = context(solved_index, k=3)
    assert not any("study" in snippet_id for snippet_id, _ in arm.retrieval.find(list(asked.values()), 3)[0])
    [found] = arm.of(asked).values()
    assert len(found) == 3 and all(passage.snippet["id"].startswith("study") for passage in found)


def test_without_questions_of_its_kind_an_item_gets_others(solved_index):
    asked = {("little", 0): {"id": "x", "question": "Is gout a disease?", "options": ["true", "false"]}}
    [shown] = context(solved_index).of(asked).values()
    assert len(shown) == 3


def shown(item, doc, *passages):
    snippets = [{"id": "p", "title": "", "text": text} for text in passages]
    return examples.block([*snippets, {"id": "e", "text": "", "item": item}], doc)


def test_an_example_shows_its_context_as_the_item_is_shown_its_own():
    study = ABSTRACTS[0]
    bare = study | {"context": ""}
    answer = f" {mcq.target(study)}\n\n"
    assert shown(study, {"context": "We asked."}) == mcq.render(study) + answer
    assert shown(study, {"context": ""}) == mcq.render(bare) + answer
    as_passage = mcq.render(bare, [{"text": study["context"]}]) + answer
    assert shown(study, {}, "Found text.") == as_passage + mcq.passage_block([{"text": "Found text."}])


def test_the_best_example_stands_nearest_to_the_question(solved_index):
    model = RAG(str(solved_index), Recorder(), k=2, embedder=WordEmbedder())
    doc = ITEMS[0] | {"id": "new", "question": "Which drug is given first for adults with gout?"}
    Recorder.asked = []
    model.loglikelihood([instance(mcq.render(doc), doc)])
    best, second = (passage["id"] for passage in model.records.rows["little", 0]["passages"])
    [(prompt, _)] = Recorder.asked
    by_id = {f"{item['id']}#0": item for item in ITEMS}
    assert best == "item-gout#0"
    assert prompt == f"{solved.worked(by_id[second])}\n\n{solved.worked(by_id[best])}\n\n{mcq.render(doc)}"


def test_an_example_is_no_source_to_cite():
    snippets = [{"id": "p", "title": "", "text": "Found."}, {"id": "e", "text": "x", "item": ABSTRACTS[0]}]
    passage, example = prompts.arranged(snippets, prompts.BEST_LAST, cite=True)
    assert passage["text"] == "[1] Found." and example == snippets[1]


# With passages


@pytest.fixture
def both(rag, solved_index):
    """Model arguments of `rag` with passages and examples."""

    def arguments(**changes):
        return rag(examples=str(solved_index), shots=2) | changes

    return arguments


def test_examples_stand_before_passages(both, asked):
    results = evaluate("rag", both())
    assert len(scores_of(results)) == 8
    prompt = asked[0][0]
    first, second, passages, item = prompt.split("\n\nQuestion: ")[0], *prompt.rsplit("\n\n", 3)[-3:]
    assert prompt.startswith("Question: Which drug") and prompt.count("Answer:") == 3
    assert prompt.index("Reference passages:") > prompt.index("Answer: ") and item == mcq.render(ITEMS[0])
    assert first != second and "Reference passages:" not in first and passages
    config = results["config"]
    assert config["rag_examples"]["shots"] == 2 and config["rag_examples"]["index"] != config["rag_index"]
    assert evaluate("rag", both(shots=1))["config"]["rag_fingerprint"] != config["rag_fingerprint"]


@pytest.mark.parametrize("kind", ["none", "random"])
def test_control_arms_are_those_of_the_examples_too(both, asked, kind):
    evaluate("rag", both(context=kind))
    n_examples = {prompt.count("Answer:") - 1 for prompt, _ in asked}
    assert n_examples == ({0} if kind == "none" else {2})


class Words:
    """A budget of so many words a prompt."""

    def __init__(self, most):
        self.most = most

    def window(self, method, group):
        return lambda prompt: len(prompt.split()) <= self.most

    def allows(self, passages, doc):
        return True


def test_examples_are_left_out_first_where_room_is_short():
    doc = ABSTRACTS[0]
    passage = Passage({"id": "p", "title": "", "text": "Found text."}, 0.9)
    worked = [Passage({"id": f"e{i}", "text": "", "item": ABSTRACTS[i]}, 0.5) for i in (1, 2)]
    whole = len(f"{examples.block([one.snippet for one in (passage, *worked)], doc)}{mcq.render(doc)}".split())
    for most, ids in ((whole, ["p", "e1", "e2"]), (whole - 1, ["p", "e1"]), (24, ["p"]), (22, [])):
        asked = [instance(mcq.render(doc), doc)]
        book = opened(Layout(), Words(most), "loglikelihood", ("little", 0), asked, [passage, *worked])
        assert [one.snippet["id"] for one in book.shown] == ids and book.n_cut == 3 - len(ids), most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": None}, "shots=2 needs examples=DIR"),
        ({"shots": 0}, "shots=0: the number of examples must be a whole number, 1 or more"),
        ({"k": 0}, "k=0 gives none"),
        ({"context": "shuffled"}, "cannot be given with context=shuffled"),
        ({"mode": "per_passage"}, "cannot be given with mode=per_passage"),
    ],
)
def test_what_examples_cannot_be_given_with_is_said(both, changes, message):
    with pytest.raises(InputError, match=message):
        RAG(**both(**changes))


def test_an_index_of_texts_gives_no_examples(both, little_index):
    with pytest.raises(InputError, match="holds texts, not solved questions"):
        RAG(**both(examples=str(little_index)))


def test_worked_examples_have_no_neighbours(rag, solved_index):
    with pytest.raises(InputError, match="neighbours=1: .* holds solved questions, which have none; take it out"):
        RAG(**rag(index=str(solved_index), neighbours=1))


def test_an_index_of_questions_answers_a_whole_task(solved_index, asked):
    how = {"inner": "recorder", "index": str(solved_index), "embedder": WordEmbedder(), "k": 2}
    results = evaluate("rag", how | {"mode": "gate+calibrate+mix", "gate_margin": 500, "w": 0.5}, task())
    assert len(scores_of(results)) == 8 and results["config"]["rag_items_opened"] > 0
