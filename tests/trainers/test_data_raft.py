"""RAFT: items behind their passages and those of others, from the files that retrieval leaves."""

import json

import pytest

from medtasks import benchmarks, mcq
from medtasks.errors import InputError
from rag_model import prompts
from trainers import data, sft
from trainers.data import SFTDataArguments

N = 60

pytestmark = pytest.mark.usefixtures("held_out_once")


def passage(number: int, rank: int = 0) -> dict:
    return {"title": f"Title {number}", "text": f"Passage {rank} of item {number}."}


@pytest.fixture
def items(write_jsonl, make_item):
    return write_jsonl([make_item(n) for n in range(N)])


@pytest.fixture
def retrieved(write_jsonl, make_item):
    """Three passages an item, the best one first, by question."""
    lines = [
        {"question": make_item(n)["question"], "passages": [passage(n, rank) for rank in range(3)]} for n in range(N)
    ]
    return write_jsonl(lines, "retrieved.jsonl")


def learned(source, raft, seed=1, **changes):
    return data.sft_examples(SFTDataArguments([source], raft=raft, **({"decontaminate": False} | changes)), seed)


def test_the_best_passage_stands_last_among_those_of_others(items, retrieved, make_item):
    examples = learned(items, {"passages": retrieved, "oracle_share": 1.0})
    for number, row in enumerate(examples.rows):
        shown = row["prompt"].removesuffix(mcq.render(make_item(number))).strip().split("\n\n")
        assert shown[0] == "Reference passages:" and len(shown) == 5
        assert shown[-1] == f"Title {number}: Passage 0 of item {number}."
        assert all(f"item {number}." not in other for other in shown[1:-1]) and len(set(shown)) == 5
    assert examples.notes == {"with_their_best_passage": N}


def test_what_is_trained_is_what_rag_asks(items, retrieved, make_item):
    [row, *_] = learned(items, {"passages": retrieved, "oracle_share": 1, "distractors": 0, "best": 2}).rows
    item, shown = make_item(0), [passage(0, 0), passage(0, 1)]
    assert row == {"prompt": mcq.render(item, shown), "completion": " A"}
    assert row["prompt"] == prompts.insert(mcq.render(item), item, "medqa", shown)


def test_a_recipe_has_a_mapping_and_the_command_line_json(recipe_file, retrieved):
    raft = {"passages": retrieved, "distractors": 1, "oracle_share": 1.0}
    path = recipe_file(raft=raft, max_length=2000)  # over the first 16 items
    stage = sft.prepare(["--config", path])
    assert stage.config["raft"] == raft and stage.examples.notes == {"with_their_best_passage": 16}
    told = json.dumps(raft | {"oracle_share": 0.0})
    assert sft.prepare(["--config", path, "--raft", told]).examples.notes == {"with_distractors_alone": 16}


def test_a_share_of_the_items_sees_distractors_alone(items, retrieved):
    examples = learned(items, {"passages": retrieved, "oracle_share": 0.5, "best": 2, "distractors": 2})
    with_best = examples.notes["with_their_best_passage"]
    assert 15 < with_best < 45 and examples.notes["with_distractors_alone"] == N - with_best
    counted = [row["prompt"].count(f"of item {number}.") for number, row in enumerate(examples.rows)]
    assert counted.count(2) == with_best and counted.count(0) == N - with_best


def test_distractors_change_places_and_the_best_does_not(items, retrieved):
    examples = learned(items, {"passages": retrieved, "oracle_share": 1.0, "distractors": 4})
    first, second = examples.epoch(0), examples.epoch(1)
    assert first != second
    for one, other in zip(first, second, strict=True):
        ours, theirs = (row["prompt"].split("\n\n") for row in (one, other))
        assert sorted(ours) == sorted(theirs) and ours[-2:] == theirs[-2:]
    assert learned(items, {"passages": retrieved}, seed=2).rows != learned(items, {"passages": retrieved}).rows


def test_the_sidecar_of_rag_and_its_index_are_read(items, write_jsonl, make_item, tmp_path):
    (tmp_path / "index").mkdir()
    snippets = [
        passage(n, rank) | {"id": f"p{n}#{rank}", "source": "", "license": ""} for n in range(N) for rank in (0, 1)
    ]
    write_jsonl(snippets, "index/snippets.jsonl")
    lines = [
        {
            "task": "medqa",
            "doc_id": n,
            "item": make_item(n)["id"],
            "query": "asked otherwise",
            "passages": [{"id": f"p{n}#{rank}", "score": 0.5} for rank in (0, 1)],
            "n_cut": 0,
            "rag": "0",
        }
        for n in range(N)
    ]
    raft = {"passages": write_jsonl(lines, "medqa.jsonl"), "snippets": str(tmp_path / "index"), "oracle_share": 1.0}
    rows = learned(items, raft).rows
    assert all(f"Title {n}: Passage 0 of item {n}.\n\nQuestion" in row["prompt"] for n, row in enumerate(rows))
    with pytest.raises(InputError, match="name the index that they are of as 'snippets'"):
        learned(items, raft | {"snippets": None})
    write_jsonl(snippets[1:], "index/snippets.jsonl")
    with pytest.raises(InputError, match="has no snippet 'p0#0'; is it the same index"):
        learned(items, raft)


def test_items_without_passages_are_told_or_left_out(items, write_jsonl, make_item):
    lines = [{"id": make_item(n)["id"], "passages": [passage(n)]} for n in range(2, N)]
    raft = {"passages": write_jsonl(lines, "some.jsonl")}
    with pytest.raises(InputError, match=f"2 of {N} rows cannot be learned from: .*items.jsonl:1: no passages"):
        learned(items, raft)
    examples = learned(items, raft, skip_faulty=True)
    assert examples.counts["no_passages"] == 2 and examples.counts["used"] == N - 2


def test_an_id_that_items_of_two_sources_share_is_told_by_the_question(write_jsonl, make_item):
    one, other = make_item(0) | {"id": "0"}, make_item(5) | {"id": "0"}
    lines = [{"id": "0", "passages": [{"title": "", "text": "Of the one."}]}]
    lines.append({"question": other["question"], "passages": [{"title": "", "text": "Of the other."}]})
    asked = {"passages": write_jsonl(lines, "passages.jsonl"), "oracle_share": 1.0, "distractors": 0}
    sources = [write_jsonl([one], "one.jsonl"), write_jsonl([other], "other.jsonl")]
    rows = data.sft_examples(SFTDataArguments(sources, raft=json.dumps(asked), decontaminate=False), seed=1).rows
    assert "Of the one." in rows[0]["prompt"] and "Of the other." in rows[1]["prompt"]


def test_open_questions_and_replay_need_none(items, retrieved, write_jsonl, make_item):
    general = write_jsonl([make_item(99), {"question": "Why?", "answer": "So."}], "general.jsonl")
    entry = json.dumps({"source": general, "replay": True})
    args = SFTDataArguments([items, entry], raft=json.dumps({"passages": retrieved}), decontaminate=False)
    rows = data.sft_examples(args, 1).rows
    assert rows[N]["prompt"] == mcq.render(make_item(99)) and rows[N + 1]["prompt"] == "Question: Why?\nAnswer:"


def test_passages_that_hold_a_test_question_are_left_out(items, write_jsonl, make_item):
    question = max((item["question"] for item in benchmarks.load("medqa", "test")), key=len)
    lines = [{"id": make_item(n)["id"], "passages": [passage(n, 0), passage(n, 1)]} for n in range(N)]
    lines[0]["passages"][0]["text"] = f"Quiz: {question}"
    examples = learned(items, {"passages": write_jsonl(lines, "r.jsonl"), "oracle_share": 1.0}, decontaminate=True)
    assert not any(question in row["prompt"] for row in examples.rows)
    assert examples.notes["contaminated_passages"] == 1
    assert "Passage 1 of item 0." in examples.rows[0]["prompt"]


@pytest.mark.parametrize(
    ("raft", "complaint"),
    [
        ({"pasages": "x"}, "a mapping with 'passages'"),
        ({"passages": "x.jsonl", "distractor": 1}, "no key 'distractor' .did you mean 'distractors'"),
        ({"passages": "x.jsonl", "oracle_share": 2}, "oracle_share is 2"),
        ({"passages": "x.jsonl", "best": 0}, "best is 0; it must be a whole number from 1"),
        ({"passages": "nowhere.jsonl"}, "nowhere.jsonl: no such"),
        ("{passages}", "raft: not JSON"),
    ],
)
def test_bad_mappings_are_refused(items, raft, complaint):
    with pytest.raises(InputError, match=complaint):
        learned(items, raft)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({"passages": [1], "id": "a"}, "a passage needs a text"),
        ({"passages": [{"text": None}], "id": "a"}, "a passage needs a text"),
        ({"passages": [{"text": " "}], "id": "a"}, "a passage needs a text"),
        ({"passages": [{"text": 5}], "id": "a"}, "a passage needs a text"),
        ({"passages": [{"text": "x", "title": ["y"]}], "id": "a"}, "the title of a passage is not a text"),
        ({"passages": [{"text": "\ud83d"}], "id": "a"}, "holds half of a character"),
        ({"passages": [{"id": ["p1"]}], "id": "a"}, "an id is neither"),
        ({"passages": [], "id": {"a": 1}}, "an id is neither"),
        ({"passages": [], "question": ["Why?"]}, "the question is not a text"),
        ({"passages": [], "id": "a", "query": 7}, "the question is not a text"),
        ({"id": "a"}, "no list of passages"),
        ({"passages": {"text": "x"}, "id": "a"}, "no list of passages"),
        ({"passages": []}, "neither id nor question"),
    ],
)
def test_bad_lines_are_named(items, write_jsonl, line, complaint):
    with pytest.raises(InputError, match=f"bad.jsonl:1: {complaint}"):
        learned(items, {"passages": write_jsonl([line], "bad.jsonl")})


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": "x"}, "no id"),
        (["p1"], "no id"),
        ({"id": "p1", "text": None}, "a passage needs a text"),
    ],
)
def test_bad_snippets_are_named(items, write_jsonl, row, complaint):
    lines = write_jsonl([{"id": "item-0", "passages": [{"id": "p1", "text": None}]}], "lines.jsonl")
    with pytest.raises(InputError, match=f"snippets.jsonl:1: {complaint}"):
        learned(items, {"passages": lines, "snippets": write_jsonl([row], "snippets.jsonl")})


def test_what_medadapt_rag_passages_writes_is_learned_from(items, make_item, tmp_path, monkeypatch):
    from rag_model import rag_command
    from rag_model.build import build

    monkeypatch.setenv("MEDADAPT_CACHE", "none")
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": f"p{n}", "text": f"About {make_item(n)['options'][0]}, number {n}."} for n in range(N)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(str(corpus), tmp_path / "index", Nowhere(), progress=False)
    out = tmp_path / "passages.jsonl"
    arguments = ["passages", items, "--index", str(tmp_path / "index"), "--search", "bm25", "-k", "2"]
    assert rag_command.rag([*arguments, "--out", str(out)]) == 0
    examples = learned(items, {"passages": str(out), "oracle_share": 1.0, "distractors": 1})
    best = [json.loads(line)["passages"][0]["text"] for line in out.open()]
    assert examples.notes == {"with_their_best_passage": N}
    for number, row in enumerate(examples.rows):
        shown = row["prompt"].removesuffix(mcq.render(make_item(number))).strip().split("\n\n")
        assert len(shown) == 3 and shown[-1] == best[number]


class Nowhere:
    """An embedder for an index that is searched by words alone."""

    name = fingerprint = "nowhere"
    precision, similarity = "float32", "cosine"

    def document(self, snippet):
        return snippet["text"]

    def encode(self, texts, progress):
        import numpy as np

        progress(len(texts))
        return np.ones((len(texts), 2), dtype=np.float32) / np.sqrt(2, dtype=np.float32)
