"""Steps run once, resume after a kill, and run again when what they depend on changes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medtasks.errors import InputError
from results import steps
from results.study import Index, Study, Training, Variant

ROOT = Path(__file__).parents[2]
STUDY = Study(name="s", base="b", tasks=["t"], variants={"base": Variant()})

WRITE = """
import sys, time
from pathlib import Path
from medtasks.files import write_text
target, log = Path(sys.argv[1]), Path(sys.argv[2])
with log.open("a") as f:
    f.write(target.name + "\\n")
time.sleep(0.05)
write_text(target, target.name)
"""

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_steps
out = Path(sys.argv[1])
with test_steps.steps.locked(out):
    test_steps.steps.run(test_steps.fake(out), test_steps.STUDY, out)
"""


def fake(out, n=8, key="k"):
    """Steps that each take a moment and write one file; log.txt says which began."""
    made = []
    for i in range(n):
        target = out / "made" / f"{i}.txt"
        command = [sys.executable, "-c", WRITE, str(target), str(out / "log.txt")]
        made.append(steps.Step(f"train-{i}", "training", command, f"{key}{i}", target))
    return made


def test_each_step_runs_once(tmp_path, capsys):
    assert steps.run(fake(tmp_path, 3), STUDY, tmp_path) == {}
    assert steps.run(fake(tmp_path, 3), STUDY, tmp_path) == {}
    assert (tmp_path / "log.txt").read_text() == "0.txt\n1.txt\n2.txt\n"
    assert capsys.readouterr().out.count("done before") == 3


def test_a_changed_key_runs_the_step_again(tmp_path):
    steps.run(fake(tmp_path, 1), STUDY, tmp_path)
    steps.run(fake(tmp_path, 1, key="other"), STUDY, tmp_path)
    assert (tmp_path / "log.txt").read_text() == "0.txt\n0.txt\n"


def test_a_failing_step_stops_only_what_needs_it(tmp_path):
    bad = steps.Step("train-bad", "training", [sys.executable, "-c", "raise SystemExit(3)"], "k", tmp_path / "never")
    needs = steps.Step("eval-x", "evaluation", [sys.executable, "-c", "1/0"], "k", tmp_path / "never", ("train-bad",))
    failures = steps.run([bad, needs, *fake(tmp_path, 1)], STUDY, tmp_path)
    assert failures == {"train-bad": "exit code 3", "eval-x": "needs train-bad"}
    assert (tmp_path / "made" / "0.txt").is_file()


def test_a_step_that_leaves_nothing_is_an_error(tmp_path):
    empty = steps.Step("train-x", "training", [sys.executable, "-c", ""], "k", tmp_path / "never")
    with pytest.raises(InputError, match="left no"):
        steps.run([empty], STUDY, tmp_path)


def test_ten_random_kills_lose_no_finished_step(tmp_path):
    script = RUN.format(tests=str(Path(__file__).parent))
    rng = random.Random(0)

    def start(out):
        return subprocess.Popen(
            [sys.executable, "-c", script, str(out)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    for _ in range(10):
        process = start(tmp_path / "killed")
        time.sleep(rng.uniform(0.1, 0.9))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait() == 0
    assert start(tmp_path / "whole").wait() == 0

    def files(out):
        return {str(f.relative_to(out)): f.read_text() for f in (out / "made").rglob("*.txt")}

    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    begun = (tmp_path / "killed" / "log.txt").read_text().splitlines()
    assert [begun.index(f"{i}.txt") for i in range(8)] == sorted(begun.index(f"{i}.txt") for i in range(8))
    assert len(begun) <= 8 + 10  # each kill repeats at most the step that it hit


def test_a_second_process_is_refused(tmp_path):
    refused = pytest.raises(InputError, match="another process is running this study")
    with steps.locked(tmp_path), refused, steps.locked(tmp_path):
        pass


def test_plan_orders_the_steps_and_keys_follow_their_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    Path("model/model.safetensors").write_bytes(b"weights")
    Path("sft.yaml").write_text("learning_rate: 1e-4\n")
    study = Study(
        name="s",
        base="model",
        tasks=["medqa", "medmcqa"],
        variants={"base": Variant(), "rag": Variant(index="i", rag={"k": 5}), "both": Variant("sft", "i")},
        indexes={"i": Index("sample"), "unused": Index("sample")},
        trainings={"sft": Training("sft", "sft.yaml", {"max_steps": 3})},
        source="sample",
        run_args={"limit": 2, "apply_chat_template": True, "num_fewshot": None},
    )
    planned = {step.name: step for step in steps.plan(study, Path("out"))}
    assert list(planned) == ["index-i", "train-sft", "eval-base", "eval-rag", "eval-both"]
    assert planned["eval-both"].needs == ("train-sft", "index-i")
    training = planned["train-sft"].command
    assert training[-2:] == ["--max_steps", "3"] and "model" in training
    rag = planned["eval-rag"].command
    assert {"k=5", "inner=hf-mcq", "pretrained=model", "--apply_chat_template"} <= set(
        rag
    ) and "--num_fewshot" not in rag
    assert rag[rag.index("--tasks") + 1] == "medqa,medmcqa"
    again = {step.name: step.key for step in steps.plan(study, Path("out"))}
    assert again == {name: step.key for name, step in planned.items()}
    Path("sft.yaml").write_text("learning_rate: 2e-4\n")
    changed = {name for name, key in ((s.name, s.key) for s in steps.plan(study, Path("out"))) if key != again[name]}
    assert changed == {"train-sft", "eval-both"}
    Path("model/model.safetensors").write_bytes(b"others!")
    changed = {s.name for s in steps.plan(study, Path("out")) if s.key != again[s.name]}
    assert changed == {"train-sft", "eval-base", "eval-rag", "eval-both"}


def test_environment_sets_the_source(monkeypatch):
    monkeypatch.setenv("MEDTASKS_DATA", "sample")
    assert steps.environment(STUDY)["MEDTASKS_DATA"] == "sample"
    hub = Study(name="s", base="b", tasks=["t"], variants={"base": Variant()}, source="hub")
    assert "MEDTASKS_DATA" not in steps.environment(hub)


def test_records_are_json(tmp_path):
    steps.run(fake(tmp_path, 1), STUDY, tmp_path)
    assert json.loads((tmp_path / "steps" / "train-0.json").read_text())["key"] == "k0"
