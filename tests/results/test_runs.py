"""From lm-eval's own output folder to a run folder, a table and leaderboard files."""

import gzip
import json

import pytest

from medtasks.errors import InputError
from results import runs
from results.boards import leaderboard


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What lm-eval leaves for two tasks with its model double, which scores at random."""
    import os
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("lm-eval")
    command = [
        sys.executable,
        "-m",
        "medtasks.cli",
        "run",
        "--model",
        "dummy",
        "--tasks",
        "medqa,pubmedqa",
        "--limit",
        "6",
    ]
    subprocess.run(
        [*command, "--log_samples", "--output_path", folder], check=True, env=os.environ, capture_output=True
    )
    return folder


def test_collect_keeps_results_samples_and_predictions(output, tmp_path):
    runs.collect(output, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "samples").iterdir()) == ["medqa.jsonl", "pubmedqa.jsonl"]
    predictions = runs.predictions(tmp_path / "run")
    assert {task: len(rows) for task, rows in predictions.items()} == {"medqa": 6, "pubmedqa": 6}
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for task, rows in predictions.items():
        assert [row["doc_id"] for row in rows] == list(range(6))
        assert sum(row["correct"] for row in rows) / 6 == pytest.approx(results["results"][task]["acc,none"])
        for row in rows:
            assert row["correct"] == (row["choice"] == row["gold"])
            assert len(row["loglikelihoods"]) == (4 if task == "medqa" else 3)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_collect_writes_no_path_of_this_machine(output, tmp_path, monkeypatch):
    file = next(output.glob("**/results_*.json"))
    monkeypatch.chdir(file.parent)
    results = json.loads(file.read_text())
    results["configs"]["medqa"]["metadata"]["config_source"] = str(file)
    altered = tmp_path / "altered"
    altered.mkdir()
    (altered / file.name).write_text(json.dumps(results))
    for samples in file.parent.glob("samples_*"):
        (altered / samples.name).write_text(samples.read_text())
    runs.collect(altered, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "results.json").read_text())
    assert kept["configs"]["medqa"]["metadata"]["config_source"] == file.name


def test_collect_refuses_an_output_without_results(tmp_path):
    with pytest.raises(InputError, match="no results_<date>.json"):
        runs.collect(tmp_path, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_damaged_predictions_are_named(tmp_path):
    with pytest.raises(InputError, match="not a finished run"):
        runs.predictions(tmp_path)
    (tmp_path / "predictions.jsonl").write_text('{"task": "a", "id": "1"}\n{"task"')
    with pytest.raises(InputError, match=r"predictions\.jsonl:2: damaged"):
        runs.predictions(tmp_path)


def test_predictions_that_were_cut_off_are_named(output, tmp_path):
    runs.collect(output, tmp_path / "run")
    assert runs.read(tmp_path / "run").name == "run"
    file = tmp_path / "run" / runs.PREDICTIONS
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="5 of 6 items of pubmedqa, so it was cut off"):
        runs.read(tmp_path / "run")
    (tmp_path / "run" / runs.RESULTS).unlink()
    with pytest.raises(InputError, match=r"results\.json: cannot be read"):
        runs.read(tmp_path / "run")


def test_predictions_may_be_packed(output, tmp_path):
    runs.collect(output, tmp_path / "run")
    plain = runs.read(tmp_path / "run")
    file = tmp_path / "run" / runs.PREDICTIONS
    packed = gzip.compress(file.read_bytes())
    file.unlink()
    (tmp_path / "run" / runs.PACKED).write_bytes(packed)
    assert runs.read(tmp_path / "run") == plain
    (tmp_path / "run" / runs.PACKED).write_bytes(packed[:-20])
    with pytest.raises(InputError, match=r"predictions\.jsonl\.gz:\d+: damaged"):
        runs.read(tmp_path / "run")


def test_leaderboard_file_has_the_format_and_is_written_once(output, tmp_path):
    runs.collect(output, tmp_path / "run")
    first = leaderboard.write(tmp_path / "board", "demo", "sft+rag", tmp_path / "run", "f" * 16)
    second = leaderboard.write(tmp_path / "board", "demo", "sft+rag", tmp_path / "run", "f" * 16)
    assert first == second
    assert first.parent.relative_to(tmp_path / "board").as_posix() == "medadapt/demo__sft-rag"
    assert first.name.startswith("results_20") and first.suffix == ".json"
    entry = json.loads(first.read_text())
    assert entry["config"] == {
        "model_dtype": "unknown",
        "model_name": "medadapt/demo__sft-rag",
        "model_sha": "f" * 16,
        "prompts": "medadapt",
    }
    assert set(entry["results"]) == {"medqa", "pubmedqa"}
    assert all(set(metrics) == {"acc,none", "acc_stderr,none"} for metrics in entry["results"].values())


def test_written_answers_are_kept_without_log_likelihoods(tmp_path):
    """Chain of thought: the declared letter is the choice, none where none was declared."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results_2026-01-01T00-00-00.json").write_text(
        json.dumps({"results": {}, "configs": {}, "versions": {}})
    )
    doc = {"id": "a", "options": ["x", "y"]}
    samples = [
        {"doc_id": 0, "doc": doc, "target": "B", "declared": "B", "filtered_resps": ["Answer: B"]},
        {"doc_id": 1, "doc": doc, "target": "A", "declared": "", "filtered_resps": ["well"]},
    ]
    hashes = {"doc_hash": "0" * 64, "prompt_hash": "1" * 64}
    text = "\n".join(json.dumps(sample | hashes | {"acc": sample["target"] == "B"}) for sample in samples)
    (tmp_path / "out" / "samples_medqa_cot_2026-01-01T00-00-00.jsonl").write_text(text)
    runs.collect(tmp_path / "out", tmp_path / "run")
    found = runs.predictions(tmp_path / "run")["medqa_cot"]
    assert [(row["gold"], row["choice"], row["correct"]) for row in found] == [(1, 1, 1), (0, None, 0)]
    assert all(row["loglikelihoods"] == [] for row in found)
