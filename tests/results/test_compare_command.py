"""`medadapt compare` on what plain lm-eval wrote, on studies, and on what it must refuse."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medtasks.errors import InputError
from results import runs
from results.commands.compare import compare

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "results" / "runs" / "published_subsets"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Runs of lm-eval's model double, which answers at random: one by lm-eval's own command alone, two by ours."""
    folder = tmp_path_factory.mktemp("plain")
    theirs = ["lm_eval", "run", "--include_path", "medtasks"]
    for name, command in (("one", theirs), ("two", ["medtasks.cli", "run"])):
        options = ["--model", "dummy", "--tasks", "medqa,medqa_order", "--limit", "8", "--seed", str(len(command))]
        options += ["--log_samples", "--output_path", str(folder / name)]
        done = subprocess.run([sys.executable, "-m", *command, *options], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def compared(arguments, capsys):
    assert compare([*map(str, arguments), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_of_plain_lm_eval_are_compared(plain, capsys):
    found = compared([plain / "one", plain / "two"], capsys)
    assert found["base"] == "one" and found["left_out"] == {}
    sizes = {row["task"]: (row["n"], row["n_distinct"]) for row in found["comparisons"]}
    assert sizes["medqa"] == (8, 8)
    assert sizes["medqa_order"][0] == 8 > sizes["medqa_order"][1]  # versions of the same questions
    for name in ("one", "two"):
        results = runs.read(plain / name).results["results"]
        for row in found["estimates"]:
            if row["variant"] == name and row["task"] == "medqa":
                assert row["accuracy"] == pytest.approx(results["medqa"]["acc,none"])
                assert row["ece"] == pytest.approx(results["medqa"]["ece,none"])
                assert row["brier"] == pytest.approx(results["medqa"]["brier,none"])


def test_names_tasks_base_and_files(plain, capsys, tmp_path):
    file = next((plain / "one").rglob("results_*.json"))
    chosen = ["--names", "a, b", "--tasks", "medqa", "--base", "b", "--out", tmp_path / "out"]
    assert compare([*map(str, [file, plain / "two", *chosen])]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == "medqa, 8 items" and shown[2].startswith("  a ") and shown[3].startswith("  b ")
    assert shown[-2].startswith("Intervals are of 95%") and shown[-1].startswith("p: McNemar")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "table.csv",
        "table.json",
        "table.md",
        "table.tex",
    ]
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [(row["variant"], row["base"]) for row in table["comparisons"]] == [("a", "b")]
    with (tmp_path / "out" / "table.csv").open() as f:
        assert [row["kind"] for row in csv.DictReader(f)] == ["estimate", "estimate", "comparison"]


@pytest.mark.parametrize("form", ["markdown", "csv", "latex"])
def test_a_format_prints_what_it_writes(plain, capsys, tmp_path, form):
    assert compare([str(plain / "one"), str(plain / "two"), "--format", form, "--out", str(tmp_path)]) == 0
    file = {"markdown": "table.md", "csv": "table.csv", "latex": "table.tex"}[form]
    assert capsys.readouterr().out.rstrip("\n") == (tmp_path / file).read_text().rstrip("\n")


def test_the_same_runs_give_the_same_bytes(plain, tmp_path):
    for name in ("first", "second"):
        compare([str(plain / "one"), str(plain / "two"), "--out", str(tmp_path / name)])
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()


def test_a_study_stands_for_its_finished_runs_base_first(capsys, tmp_path):
    study = shutil.copytree(STUDY, tmp_path / "study")
    shutil.rmtree(study / "runs" / "msft")
    found = compared([study, "--tasks", "medqa_sub"], capsys)
    assert [row["variant"] for row in found["estimates"]] == ["base", "rag", "sft", "sft+rag"]
    assert found["base"] == "base"
    pairs = compared([STUDY / "runs" / "sft", STUDY / "runs" / "rag", "--tasks", "medqa_sub"], capsys)
    assert [(row["variant"], row["base"]) for row in pairs["comparisons"]] == [("rag", "sft")]
    shutil.rmtree(study / "runs" / "base")
    with pytest.raises(InputError, match="its base has not been evaluated"):
        compare([str(study)])


def test_all_pairs_of_a_study(capsys):
    found = compared([STUDY, "--tasks", "medqa_sub", "--all-pairs"], capsys)
    assert len(found["comparisons"]) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base"], "one run has nothing to be compared with"),
        (["base", "base"], "2 runs are named 'base'; .*--names"),
        (["base", "sft", "--names", "a"], "--names holds 1 names, but there are 2 runs"),
        (["base", "sft", "--base", "rag"], "no run is named 'rag'"),
        (
            ["base", "sft", "--tasks", "medqa"],
            "no run has the task 'medqa'; --tasks takes some of medmcqa_sub",
        ),
        (["base", "sft", "--allow", "items"], "'items' cannot be allowed"),
        (["base", "nothing"], "no such file or folder"),
    ],
)
def test_mistakes_are_named(arguments, message):
    named = ("base", "sft", "nothing")
    given = [
        str(STUDY / "runs" / a) if a in named and before != "--base" else a
        for before, a in zip(["", *arguments], arguments, strict=False)
    ]
    with pytest.raises(InputError, match=message):
        compare(given)


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.json").write_text('{"variants": {"base": {"adapter": 1}}}')
    with pytest.raises(InputError, match=r"study\.json: the key 'name' is missing"):
        compare([str(tmp_path)])


def test_another_metric_is_read(tmp_path, capsys):
    hashes = {"doc_hash": "0" * 64, "prompt_hash": "1" * 64}
    sample = {"doc_id": 0, "doc": {}, "target": "42", "filtered_resps": ["42"], "filter": "none", **hashes}
    for name, strict in (("a", 1.0), ("b", 0.0)):
        (tmp_path / name).mkdir()
        results = {"results": {}, "configs": {}, "versions": {}}
        (tmp_path / name / "results_2026-01-01T00-00-00.json").write_text(json.dumps(results))
        samples = [sample | {"acc": 1.0, "strict": strict}, sample | {"acc": 1.0, "strict": 0.0, "filter": "other"}]
        lines = "\n".join(map(json.dumps, samples))
        (tmp_path / name / "samples_exam_2026-01-01T00-00-00.jsonl").write_text(lines)
    runs_given = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(InputError, match="--filter none|other"):
        compare([*map(str, runs_given)])
    found = compared([*runs_given, "--metric", "strict", "--filter", "none"], capsys)
    assert [row["accuracy"] for row in found["estimates"]] == [1.0, 0.0]
    assert compared([*runs_given, "--filter", "none"], capsys)["comparisons"][0]["difference"] == 0
