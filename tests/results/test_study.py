from pathlib import Path

import pytest
import yaml

from medtasks.errors import InputError
from results.studies import study

GOOD = {
    "name": "s",
    "base": "b",
    "tasks": ["medqa"],
    "trainings": {"sft": {"stage": "sft", "recipe": "r.yaml"}},
    "indexes": {"i": {"corpus": "sample"}},
    "variants": {"base": {}, "rag": {"index": "i", "rag": {"k": 3}}, "both": {"training": "sft", "index": "i"}},
}


def load(tmp_path, monkeypatch, **changes):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
    return study.load("s.yaml")


def test_a_study_file_becomes_a_study(tmp_path, monkeypatch):
    loaded = load(tmp_path, monkeypatch)
    assert loaded.reference == "base"
    assert list(loaded.variants) == ["base", "rag", "both"]
    assert loaded.variants["both"] == study.Variant(training="sft", index="i")
    assert loaded.indexes["i"].embedder == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "unknown key 'epochs'; there are name, base"),
        ({"tasks": None}, "'tasks' must be a list"),
        ({"variants": {"base": {}, "rag": {"index": "j"}}}, "variants.rag: no index 'j'"),
        ({"variants": {"base": {}, "x": {"training": "y"}}}, "variants.x: no training 'y'"),
        ({"variants": {"base": {}, "x": {"retrieval": 1}}}, "variants.x: unknown key 'retrieval'"),
        ({"variants": {"x": {"index": "i"}}}, "exactly one variant must add nothing"),
        ({"variants": {"base": {}, "x": {"rag": {"k": 1}}}}, "variants.x: 'rag' settings need an 'index'"),
        ({"trainings": {"sft": {"stage": "sft"}}}, "trainings.sft: the key 'recipe' is missing"),
        ({"trainings": {"sft": {"stage": "dpo", "recipe": "r.yaml"}}}, "unknown stage 'dpo'"),
        ({"trainings": {"sft": {"stage": "sft", "recipe": "q.yaml"}}}, "no recipe file q.yaml"),
        (
            {"trainings": {"sft": {"stage": "sft", "recipe": "r.yaml", "overrides": {"max_length": None}}}},
            "trainings.sft: overrides.max_length is null",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, changes, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, monkeypatch, **changes)


def test_missing_key_and_broken_yaml(tmp_path):
    (tmp_path / "s.yaml").write_text("name: s\n")
    with pytest.raises(InputError, match="the key 'base' is missing"):
        study.load(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_text("name: [")
    with pytest.raises(InputError, match="not YAML"):
        study.load(tmp_path / "s.yaml")


@pytest.mark.parametrize("name", ["demo", "published_subsets"])
def test_shipped_studies_load(name):
    loaded = study.load(f"studies/{name}.yaml")
    assert list(loaded.variants) == ["base", "rag", "sft", "msft", "sft+rag"]


@pytest.mark.parametrize("name", ["rag_arms_1.5b", "rag_abstracts_1.5b"])
def test_studies_of_passages_have_the_closed_book_and_a_control_arm_of_each_index(name):
    loaded = study.load(f"studies/{name}.yaml")
    assert loaded.reference == "none" and loaded.variants["none"] == study.Variant()
    controls = [variant.indexes for variant in loaded.variants.values() if variant.rag.get("context") == "random"]
    assert {index for indexes in controls for index in indexes} == set(loaded.indexes)


def test_a_study_names_the_indexes_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = "name: s\nbase: m\ntasks: [medqa]\nindexes: {texts: {corpus: [a.jsonl, b.jsonl]}}\nvariants:\n  base: {}\n"
    for line, message in (
        ("  one: {index: texts, examples: questions}", "variants.one: no index 'questions'"),
        ("  one: {examples: texts}", "variants.one: 'examples' need an 'index'"),
        ("  one: {rag: {k: 2}}", "variants.one: 'rag' settings need an 'index'"),
    ):
        (tmp_path / "s.yaml").write_text(head + line + "\n")
        with pytest.raises(InputError, match=message):
            study.load(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_text(head + "  one: {index: texts, examples: texts}\n")
    loaded = study.load(tmp_path / "s.yaml")
    assert loaded.variants["one"].indexes == ["texts", "texts"]
    assert loaded.indexes["texts"].corpora == ["a.jsonl", "b.jsonl"]


def test_a_study_s_folder_holds_the_whole_study(tmp_path, monkeypatch):
    loaded = load(tmp_path, monkeypatch)
    study.save(loaded, tmp_path / "out", {"base_fingerprint": "f"})
    (tmp_path / "s.yaml").unlink(), (tmp_path / "r.yaml").unlink()
    assert study.of_folder(tmp_path / "out") == loaded
    assert list(study.of_folder(tmp_path / "out").variants) == list(loaded.variants)


def test_finished_runs_are_found_in_the_study_s_order(tmp_path, monkeypatch):
    study.save(load(tmp_path, monkeypatch), tmp_path / "out", {})
    for name in ("both", "base", "foreign"):
        (tmp_path / "out" / "runs" / name).mkdir(parents=True)
        (tmp_path / "out" / "runs" / name / "predictions.jsonl").write_text("")
    (tmp_path / "out" / "runs" / "rag").mkdir()
    assert study.runs_of(tmp_path / "out") == {name: tmp_path / "out" / "runs" / name for name in ("base", "both")}


def test_the_committed_folders_are_read():
    for folder in sorted(Path("results/runs").glob("*/")):
        loaded = study.of_folder(folder)
        assert loaded.name == folder.name and loaded.variants[loaded.reference] == study.Variant()
        assert list(study.runs_of(folder)) == list(loaded.variants) and len(loaded.variants) > 1


def test_a_folder_that_is_none_of_a_study_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no study\.json, so not the folder of a study"):
        study.of_folder(tmp_path)
    (tmp_path / "study.json").write_text('{"name": ')
    with pytest.raises(InputError, match=r"study\.json: damaged"):
        study.of_folder(tmp_path)
    (tmp_path / "study.json").write_text("[]")
    with pytest.raises(InputError, match="must be a mapping"):
        study.of_folder(tmp_path)
