import pytest
import yaml

from medtasks.errors import InputError
from results import study

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
