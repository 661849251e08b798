"""MedHallu, SciFact and BioASQ: rows from files, items, and what is said when a file is missing or wrong."""

import collections
import gzip
import json
import shutil

import pytest

from medtasks import benchmarks, mcq, medsafe, sources
from medtasks.errors import InputError


def test_medhallu_offers_the_true_and_the_hallucinated_answer_in_a_fixed_order():
    rows = benchmarks.rows("medhallu")["test"]
    items = benchmarks.load("medhallu", "test")
    for row, item in zip(rows, items, strict=True):
        assert item["options"][item["answer"]] == row["Ground Truth"]
        assert item["options"][1 - item["answer"]] == row["Hallucinated Answer"]
        assert item["context"] == ""
    assert 0 < sum(item["answer"] for item in items) < len(items)
    assert [item["answer"] for item in benchmarks.load("medhallu", "test")] == [item["answer"] for item in items]
    assert {item["subject"] for item in items} == {"easy", "medium", "hard"}


def test_medhallu_with_knowledge_shows_the_abstract():
    for without, given in zip(
        benchmarks.load("medhallu", "test"), benchmarks.load("medhallu_knowledge", "test"), strict=True
    ):
        assert given["options"] == without["options"] and given["answer"] == without["answer"]
        assert mcq.render(given).startswith(f"Abstract: {given['context']}\nQuestion: ")


def test_scifact_has_a_row_for_each_cited_abstract():
    items = {item["id"]: item for item in benchmarks.load("scifact", "test")}
    assert items["scifact-117-9004"]["answer"] == 0
    assert items["scifact-117-9007"]["answer"] == 2  # cited, without evidence in it
    assert items["scifact-101-9001"]["answer"] == 1
    item = items["scifact-104-9002"]
    assert item["options"] == ["supported", "refuted", "not enough information"]
    assert item["context"].startswith("Oral rehydration in children with mild gastroenteritis Children with mild")
    assert collections.Counter(item["answer"] for item in items.values()).keys() == {0, 1, 2}
    assert {i["id"] for i in benchmarks.load("scifact", "train")}.isdisjoint(items)


def test_scifact_reads_its_release_and_single_files(tmp_path, monkeypatch):
    """The release has ``scifact/claims_dev.jsonl``; elsewhere the abstracts come as text with prefixed ids, zipped."""
    before = benchmarks.load("scifact", "test")
    release = tmp_path / "a" / "scifact"
    release.mkdir(parents=True)
    for name in ("train", "dev"):
        shutil.copy(sources.SAMPLE_DIR / f"scifact_claims_{name}.jsonl", release / f"claims_{name}.jsonl")
    shutil.copy(sources.SAMPLE_DIR / "scifact_corpus.jsonl", release / "corpus.jsonl")
    monkeypatch.setenv("MEDTASKS_DATA", f"hub,{tmp_path / 'a'}")
    assert benchmarks.load("scifact", "test") == before
    single = tmp_path / "b"
    single.mkdir()
    for name in ("train", "dev"):
        text = (release / f"claims_{name}.jsonl").read_bytes()
        (single / f"scifact_claims_{name}.jsonl.gz").write_bytes(gzip.compress(text))
    rows = [json.loads(line) for line in (release / "corpus.jsonl").read_text().splitlines()]
    lines = [
        json.dumps({"id": f"scifact_{r['doc_id']}", "title": r["title"], "text": " ".join(r["abstract"])}) for r in rows
    ]
    (single / "scifact.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    for places in (str(single), f"{tmp_path},hub"):  # the folder itself, or the one that it lies in
        (release / "corpus.jsonl").unlink(missing_ok=True)
        monkeypatch.setenv("MEDTASKS_DATA", places)
        assert benchmarks.load("scifact", "test") == before


def test_a_claim_without_its_abstract_is_refused(tmp_path, monkeypatch):
    for name in ("scifact_claims_train.jsonl", "scifact_claims_dev.jsonl"):
        shutil.copy(sources.SAMPLE_DIR / name, tmp_path)
    first = (sources.SAMPLE_DIR / "scifact_corpus.jsonl").read_text().splitlines()[0]
    (tmp_path / "scifact_corpus.jsonl").write_text(first + "\n")
    monkeypatch.setenv("MEDTASKS_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"scifact_claims_train.jsonl:2: cites the abstract 9002"):
        benchmarks.load("scifact", "test")


def test_missing_files_are_named_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTASKS_DATA", str(tmp_path))
    with pytest.raises(InputError, match="SciFact: no file scifact/claims|SciFact: no file scifact/corpus"):
        benchmarks.load("scifact", "test")
    with pytest.raises(InputError, match="BioASQ: no file mirage/benchmark.json"):
        benchmarks.load("bioasq", "test")
    with pytest.raises(InputError, match=f"should hold the dataset {medsafe.MEDHALLU}"):
        benchmarks.load("medhallu", "test")


def test_bioasq_comes_from_mirages_file(tmp_path, monkeypatch):
    question = {"question": "Is it so?", "options": {"A": "yes", "B": "no"}, "answer": "B", "PMID": ["1"]}
    (tmp_path / "benchmark.json").write_text(json.dumps({"bioasq": {"5c": question}}))
    monkeypatch.setenv("MEDTASKS_DATA", str(tmp_path))
    (item,) = benchmarks.load("bioasq", "test")
    assert item["id"] == "bioasq-5c"
    assert (item["options"], item["answer"]) == (["yes", "no"], 1)
    (tmp_path / "benchmark.json").write_text(json.dumps({"bioasq": {"5c": {"question": "Is it so?"}}}))
    with pytest.raises(InputError, match="not MIRAGE's benchmark.json"):
        benchmarks.load("bioasq", "test")


def test_pubmedqa_star_asks_the_same_without_the_abstract():
    for star, item in zip(benchmarks.load("pubmedqa_star", "test"), benchmarks.load("pubmedqa", "test"), strict=True):
        assert item["context"]
        assert star == item | {"context": ""}


def test_several_places_are_asked_in_turn(tmp_path, monkeypatch):
    before = benchmarks.load("medqa", "test")
    monkeypatch.setenv("MEDTASKS_DATA", f"{tmp_path}, sample")
    assert benchmarks.load("medqa", "test") == before
    monkeypatch.setenv("MEDTASKS_DATA", f"{tmp_path},hub")
    assert sources.where(benchmarks.MEDQA) is None
