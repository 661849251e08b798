"""The browser's data: words, passages and answers of each item, and what is said where they are missing."""

import json
import shutil

import pytest
from made_up import write_lines, write_lm_eval_output

from medtasks.errors import InputError
from results.page import evidence, item_browser, questions


def built(folder, **keywords):
    return item_browser.build(evidence.gather([folder]), **keywords)


def test_an_item_has_its_words_answers_and_passages(found):
    browser = item_browser.build(found)
    assert browser.notes == []
    data = browser.data
    assert (data["base"], data["variants"]) == ("base", ["base", "rag", "sft"])
    assert data["tasks"] == [{"name": "exam", "n": 24, "shown": 24}, {"name": "trial", "n": 12, "shown": 12}]
    item = data["items"][24 + 3]
    assert (item["t"], item["d"], item["id"], item["g"]) == (1, 3, "trial-003", 3)
    assert (item["q"], item["c"], item["o"][0]) == ("Question 3 of the trial?", "Abstract 3.", "trial option w3")
    base, rag, sft = item["a"]
    assert (base["c"], base["k"], sft["k"]) == (0, 0, 1)
    assert sum(base["p"]) == pytest.approx(1, abs=0.002) and base["p"].index(max(base["p"])) == base["c"]
    assert [data["passages"][place]["id"] for place, _ in rag["r"]] == ["p3#0", "p5#0"]
    assert (rag["r"][0][1], rag["cut"]) == (0.87, 1) and "r" not in base
    assert data["passages"][rag["r"][0][0]]["text"].startswith("Text of passage 3")
    assert len(data["passages"]) == 6, "each passage stands once"


def test_fixed_and_broken_items_come_first_and_the_choice_repeats(found):
    browser = item_browser.build(found, limit=8)
    assert browser.notes[0].startswith("Shown are 8 of 24 of exam, 8 of 12 of trial")
    items = browser.data["items"]
    assert len(items) == 16 and items == item_browser.build(found, limit=8).data["items"]
    assert all(len({answer["k"] for answer in item["a"]}) == 2 for item in items[:8])
    assert [item["d"] for item in items[:8]] == sorted(item["d"] for item in items[:8])
    assert len(item_browser.build(found, limit=None).data["items"]) == 36
    many = item_browser.build(found, limit=23).data["items"]
    assert sum(item["t"] == 0 for item in many) == 23, "others fill up"


def test_texts_can_be_left_out(found):
    browser = item_browser.build(found, texts=False)
    text = json.dumps(browser.data)
    assert "Question" not in text and "option" not in text and "Text of passage" not in text and "Title" not in text
    assert browser.notes == [
        "Questions, options and the texts of passages were left out of this page (--no-questions)."
    ]
    assert browser.data["items"][0]["a"][1]["r"], "ids and scores stay"


def test_published_folders_have_no_words(study):
    for folder in ("samples", "retrieval"):
        for found in study.glob(f"runs/*/{folder}"):
            shutil.rmtree(found)
    browser = built(study)
    assert "q" not in browser.data["items"][0] and "r" not in browser.data["items"][0]["a"][1]
    assert browser.notes[0].startswith("The questions of exam, trial are not shown, because these runs keep no samples")
    assert browser.notes[1] == "Which passages rag saw is not recorded in these runs."


def test_passages_of_an_index_that_is_gone_are_shown_by_id(study):
    shutil.rmtree(study / "indexes")
    browser = built(study)
    assert browser.data["passages"][0] == {"id": "p0#0", "title": "", "text": ""}
    assert browser.notes == ["Passages that rag saw are shown by id and score alone, because the index is not there."]


def test_a_passage_shown_with_its_neighbours_has_their_text(study):
    texts = ("One. Two is more.", "Two is more. Three.")
    snippets = [{"id": f"j#{n}", "title": "Joints", "text": text} for n, text in enumerate(texts)]
    write_lines(study / "indexes" / "books" / "snippets.jsonl", snippets)
    for file in study.glob("runs/rag/retrieval/*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        shown = {"passages": [{"id": "j#1", "score": 0.5, "shows": ["j#0", "j#1"]}]}
        write_lines(file, (row | shown for row in rows))
    assert built(study).data["passages"] == [{"id": "j#1", "title": "Joints", "text": "One. Two is more. Three."}]


def test_passages_and_examples_are_found_each_in_its_index(study):
    books = study / "indexes" / "books"
    lines = (books / "snippets.jsonl").read_text().splitlines(keepends=True)
    shutil.copytree(books, study / "indexes" / "questions")
    (books / "snippets.jsonl").write_text("".join(lines[:2]))
    (study / "indexes" / "questions" / "snippets.jsonl").write_text("".join(lines[2:]))
    about = json.loads((study / "study.json").read_text())
    about["indexes"]["questions"] = {"corpus": "items:medqa"}
    about["variants"]["rag"]["examples"] = "questions"
    (study / "study.json").write_text(json.dumps(about))
    browser = built(study)
    assert browser.notes == [] and len(browser.data["passages"]) > 2
    assert all(passage["text"].startswith("Text of passage") for passage in browser.data["passages"])


def test_items_whose_book_a_gate_left_closed_show_no_passages(study):
    file = study / "runs" / "rag" / "retrieval" / "exam.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    closed = [row | ({"passages": [], "opened": False} if row["doc_id"] % 2 else {"opened": True}) for row in rows]
    write_lines(file, closed)
    answers = [item["a"][1] for item in built(study, limit=None).data["items"] if item["t"] == 0]
    assert len([answer for answer in answers if "r" in answer]) == len(rows) / 2 == len(answers) / 2


def test_runs_in_another_order_are_joined_on_their_items(study):
    file = study / "runs" / "sft" / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    exam = [row for row in rows if row["task"] == "exam"]
    turned = [row | {"doc_id": 23 - row["doc_id"]} for row in reversed(exam)]
    expected = built(study).data["items"]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*turned, *rows[24:]]))
    assert built(study).data["items"] == expected


def test_plain_lm_eval_output_is_shown_too(tmp_path):
    for variant in ("base", "sft"):
        write_lm_eval_output(tmp_path / variant, variant)
    data = item_browser.build(evidence.gather([tmp_path / "base", tmp_path / "sft"])).data
    assert data["items"][1]["q"] == "Question 1 of the exam?" and data["items"][1]["a"][1]["k"] == 1


def test_arguments_of_earlier_versions_are_lists(tmp_path):
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps({"doc_id": 0, "doc": {}, "arguments": [["the prompt", " A"], ["the prompt", " B"]]}))
    assert questions.read(file, [0]) == {0: {"q": "the prompt", "c": "", "o": ["A", "B"]}}


def line(tmp_path, doc):
    arguments = {f"gen_args_{k}": {"arg_0": "the whole prompt", "arg_1": f" {letter}"} for k, letter in enumerate("AB")}
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps({"doc_id": 7, "doc": doc, "arguments": arguments}))
    return questions.read(file, [7])[7]


@pytest.mark.parametrize(
    ("doc", "words"),
    [
        ({"question": "Why?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}, ("Why?", ["x", "y"])),
        ({"sent1": "Why?", "options": {"A": "x", "B": "y"}}, ("Why?", ["x", "y"])),
        ({"question": "Why?", "endings": ["x"]}, ("the whole prompt", ["A", "B"])),
        ({"unknown": 1}, ("the whole prompt", ["A", "B"])),
        ("no mapping", ("the whole prompt", ["A", "B"])),
    ],
)
def test_words_of_other_peoples_tasks(tmp_path, doc, words):
    found = line(tmp_path, doc)
    assert (found["q"], found["o"]) == words


def test_written_answers_have_no_probabilities():
    assert item_browser.probabilities([]) == []
    assert item_browser.probabilities([-1000.0, -1000.0]) == [0.5, 0.5]


def test_damaged_files_are_named(study):
    (study / "runs" / "rag" / "retrieval" / "exam.jsonl").write_text("{}")
    with pytest.raises(InputError, match=r"retrieval/exam\.jsonl:1: damaged"):
        built(study)
    (study / "runs" / "base" / "samples" / "exam.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"samples/exam\.jsonl:1: damaged"):
        built(study)
