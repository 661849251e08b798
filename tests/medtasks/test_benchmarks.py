"""The benchmarks over the bundled sample (the whole suite's source)."""

import collections

import pytest

from medtasks import benchmarks, corpora, mcq, sources
from medtasks.errors import InputError

FAMILIES = ("medqa", "medmcqa", "pubmedqa", "mmlu_med")


@pytest.mark.parametrize("name", benchmarks.BENCHMARKS | benchmarks.VIEWS)
def test_items_are_well_formed(name):
    for split in ("train", "test"):
        items = benchmarks.load(name, split)
        assert items
        for item in items:
            assert tuple(sorted(item)) == tuple(sorted(mcq.FIELDS))
            assert item["question"] == item["question"].strip() != ""
            assert len(set(item["options"])) == len(item["options"]) >= 3
            assert 0 <= item["answer"] < len(item["options"])


@pytest.mark.parametrize("family", FAMILIES)
def test_sample_holds_thirty_test_items_a_family_with_unique_ids(family):
    items = benchmarks.load(family, "test")
    assert len(items) >= 30
    assert len({item["id"] for item in items}) == len(items)


def test_sample_train_split_is_large_explained_and_apart_from_the_test_items():
    train = [item for family in FAMILIES for item in benchmarks.load(family, "train")]
    assert len(train) >= 120
    assert sum(bool(item["rationale"]) for item in train) >= len(train) / 3
    asked = {item["question"].casefold() for family in FAMILIES for item in benchmarks.load(family, "test")}
    validation = {
        item["question"].casefold()
        for family in ("medqa", "mmlu_med")
        for item in benchmarks.load(family, "validation")
    }
    assert not {item["question"].casefold() for item in train} & (asked | validation)


def test_sample_answers_are_spread_and_not_told_by_length():
    items = [item for family in ("medqa", "medmcqa", "mmlu_med") for item in benchmarks.load(family, "test")]
    share = collections.Counter(item["answer"] for item in items)
    assert max(share.values()) / len(items) < 0.4
    longest = sum(max(item["options"], key=len) == item["options"][item["answer"]] for item in items)
    assert longest / len(items) < 0.4


def test_sample_corpus_has_the_passages_that_answer_the_items():
    passages = list(corpora.read("sample"))
    assert len(passages) >= 200
    assert all(passage["license"] == "MIT" for passage in passages)
    known = {passage["id"] for passage in passages}
    rows = sources.load_rows(benchmarks.MEDQA, None, "test")
    assert all(row["passages"] and set(row["passages"]) <= known for row in rows)
    assert all(row["source_note"] for row in rows)


def test_pubmedqa_halves_share_no_item_and_keep_the_labels_shares():
    train = benchmarks.load("pubmedqa", "train")
    test = benchmarks.load("pubmedqa", "test")
    assert not {item["id"] for item in train} & {item["id"] for item in test}
    for label in range(3):
        counts = [sum(item["answer"] == label for item in half) for half in (train, test)]
        assert abs(counts[0] - counts[1]) <= 1


def test_pubmedqa_rows_out_of_order_are_refused():
    with pytest.raises(InputError, match="official order"):
        benchmarks.pubmedqa_halves(range(1000), ["yes", "no"] * 500)


def test_published_subset_of_mmlu_keeps_its_duplicates():
    items = benchmarks.load("mmlu_med_sub", "test")
    asked = collections.Counter(item["id"] for item in items)
    assert {item["subject"] for item in items if asked[item["id"]] > 1} == {"professional_medicine"}


def test_pubmedqa_subset_takes_its_examples_outside_itself():
    assert not {i["id"] for i in benchmarks.load("pubmedqa_sub", "train")} & {
        i["id"] for i in benchmarks.load("pubmedqa_sub", "test")
    }


def test_first_items_of_pooled_mmlu_are_of_all_subjects_in_proportion():
    pooled = benchmarks.load("mmlu_med", "test")
    parts = {s: benchmarks.load(f"mmlu_med_{s}", "test") for s in benchmarks.MMLU_SUBJECTS}
    assert sorted(item["id"] for item in pooled) == sorted(item["id"] for part in parts.values() for item in part)
    for n in (6, 12, 24):
        counts = collections.Counter(item["subject"] for item in pooled[:n])
        assert all(abs(counts[s] - n * len(part) / len(pooled)) < 1 for s, part in parts.items())
    for subject, part in parts.items():  # each in its own order
        assert [item["id"] for item in pooled if item["subject"] == subject] == [item["id"] for item in part]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [("medqb", "test", "unknown benchmark 'medqb'"), ("medmcqa", "validation", "medmcqa has no split 'validation'")],
)
def test_unknown_benchmark_or_split(name, split, message):
    with pytest.raises(InputError, match=message):
        benchmarks.load(name, split)


def test_sources_name_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTASKS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="is not a folder"):
        benchmarks.load("medqa", "test")
    monkeypatch.setenv("MEDTASKS_DATA", str(tmp_path))
    with pytest.raises(InputError, match="should hold the dataset GBaker/MedQA-USMLE-4-options"):
        benchmarks.load("medqa", "test")


def test_a_folder_of_the_same_schema_replaces_the_hub(monkeypatch):
    before = benchmarks.load("medqa", "test")
    monkeypatch.setenv("MEDTASKS_DATA", str(sources.SAMPLE_DIR))
    assert benchmarks.load("medqa", "test") == before
