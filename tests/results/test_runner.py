"""Steps run once, whoever is killed when; they say why they run again or failed; a signal stops them cleanly."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import fake_steps
import pytest

from medtasks.errors import InputError
from results.commands import study as command
from results.studies import dry_run, process
from results.studies import study as studies
from results.studies.lock import locked
from results.studies.runner import Runner, environment, why
from results.studies.steps import Step
from results.studies.study import Study, Variant

ROOT = Path(__file__).parents[2]
STUDY = Study(name="s", base="b", tasks=["t"], variants={"base": Variant()})
KILLS = 10


def run(steps, out):
    with locked(out) as lock:
        runner = Runner(STUDY, out, lock)
        runner.run(steps)
    return runner


def python(name, code, out, *arguments, kind="training", depends=None, needs=()):
    """A step that is a line of Python."""
    words = [sys.executable, "-S", "-c", code, *map(str, arguments)]
    return Step(name, kind, words, out / name / "result.txt", depends or {"of": name}, needs)


def writing(name, out, text="made", **keywords):
    """A step that adds a line to its result."""
    code = "import sys, os; os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True); print(sys.argv[2]);"
    code += "open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')"
    return python(name, code, out, out / name / "result.txt", text, **keywords)


def start(out, n, **env):
    return subprocess.Popen(
        [sys.executable, fake_steps.__file__, "run", str(out), str(n)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for_the_lock(out):
    """Until the last process that holds the study's folder has ended."""
    with (out / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def made(out):
    """What a run leaves: the results, and what each was made from."""
    files = {str(file.relative_to(out)): file.read_text() for file in (out / "made").rglob("*") if file.is_file()}
    records = [json.loads(file.read_text()) for file in sorted((out / "steps").glob("*.json"))]
    return files, [{"key": record["key"], "depends": record["depends"]} for record in records]


def test_ten_random_kills_lose_nothing_and_repeat_nothing(tmp_path):
    n, whole, killed = 8, tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert start(whole, n).wait() == 0
    moments = len((whole / "moments.txt").read_text().splitlines())
    rng = random.Random(0)
    chosen = sorted(rng.sample(range(1, moments), KILLS))
    kills = ",".join(f"{number}:{rng.choice(['runner', 'all'])}" for number in chosen)
    starts = 0
    while (code := start(killed, n, FAKE_KILLS=kills).wait()) != 0:
        assert code == -signal.SIGKILL and starts < KILLS
        starts += 1
        wait_for_the_lock(killed)
    assert starts == KILLS
    assert made(killed) == made(whole)
    moments = (killed / "moments.txt").read_text().splitlines()
    for i in range(n):
        recorded = moments.index(f"train-{i}.json written")
        assert f"{i} before" not in moments[recorded:]
        assert moments.count(f"train-{i}.json written") == 1


CHILD = """
import os, sys
open(sys.argv[1], "w").write(str(os.getppid()))
open(sys.argv[2]).read()
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-S", "-c", {CHILD!r}, *sys.argv[1:]])
"""
RUNNER = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_runner
from results.studies.lock import Lock

out, ready, go, said = map(Path, sys.argv[1:])
says = Lock.says

def says_aloud(lock, step, pid):
    says(lock, step, pid)
    if step is not None:
        said.write_text(step)

Lock.says = says_aloud
test_runner.run([test_runner.python("train-x", test_runner.PARENT, out, ready, go)], out)
"""


def test_a_killed_runner_leaves_the_folder_locked_until_its_step_has_ended(tmp_path):
    out, *pipes = (tmp_path / name for name in ("out", "ready", "go", "said"))
    for pipe in pipes:
        os.mkfifo(pipe)
    ready, go, said = pipes
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, *map(str, (out, *pipes))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    assert said.read_text() == "train-x"
    step = int(ready.read_text())
    with pytest.raises(InputError, match=f"process {runner.pid} is running this study, now at train-x"):
        run([], out)
    runner.kill()
    runner.wait()
    with pytest.raises(InputError, match=rf"its step train-x still runs \(process {step}\).*kill {step}"):
        run([], out)
    os.kill(step, signal.SIGKILL)  # what it started itself lives on, and holds the lock
    with go.open("w"), pytest.raises(InputError, match="still runs"):
        run([], out)
    wait_for_the_lock(out)
    assert run([], out).failures == {}


def test_a_step_runs_once(tmp_path, capsys):
    steps = [writing("train-a", tmp_path), writing("eval-b", tmp_path, needs=("train-a",))]
    assert run(steps, tmp_path).failures == {}
    assert run(steps, tmp_path).failures == {}
    assert (tmp_path / "train-a" / "result.txt").read_text() == "made\n"
    assert capsys.readouterr().out.count("done before") == 2


@pytest.mark.parametrize(
    ("depends", "reason"),
    [
        ({"versions.torch": "2.13.0", "base": "x"}, "versions.torch changed (2.11.0 -> 2.13.0)"),
        ({"versions.torch": "2.11.0"}, "base is gone"),
        ({"versions.torch": "2.11.0", "base": "x", "data.d": "1"}, "data.d is new"),
    ],
)
def test_a_step_that_runs_again_says_why_and_begins_anew(tmp_path, capsys, depends, reason):
    run([writing("train-a", tmp_path, depends={"versions.torch": "2.11.0", "base": "x"})], tmp_path)
    run([writing("train-a", tmp_path, "again", depends=depends)], tmp_path)
    assert f"train-a: runs again, since {reason}" in capsys.readouterr().out
    assert (tmp_path / "train-a" / "result.txt").read_text() == "again\n"


def test_a_record_of_an_earlier_version_is_not_believed(tmp_path, capsys):
    run([writing("train-a", tmp_path)], tmp_path)
    (tmp_path / "steps" / "train-a.json").write_text('{"key": "99", "seconds": 4.0}')
    run([writing("train-a", tmp_path, "again")], tmp_path)
    assert "its record is of an earlier version" in capsys.readouterr().out
    assert (tmp_path / "train-a" / "result.txt").read_text() == "again\n"


def test_a_result_that_is_gone_is_made_again(tmp_path):
    step = writing("train-a", tmp_path)
    run([step], tmp_path)
    step.output.unlink()
    assert why(step, tmp_path) == "runs again, since train-a/result.txt is gone"


def test_an_unfinished_attempt_is_continued_under_its_own_key_alone(tmp_path):
    failing = "import os, sys; os.makedirs(sys.argv[1]); open(sys.argv[1] + '/part', 'w'); sys.exit(1)"
    step = python("train-a", failing, tmp_path, tmp_path / "train-a")
    run([step], tmp_path)
    same = writing("train-a", tmp_path, depends=step.depends)
    assert why(same, tmp_path) == "goes on where it was stopped"
    other = writing("train-a", tmp_path, depends={"of": "else"})
    assert why(other, tmp_path) == "starts again, since of changed (train-a -> else)"
    run([other], tmp_path)
    assert [file.name for file in (tmp_path / "train-a").iterdir()] == ["result.txt"]


def test_a_failing_step_stops_only_what_needs_it(tmp_path):
    code = "import sys; print('working'); raise ValueError('no such thing')"
    bad = python("train-bad", code, tmp_path)
    missing = Step("train-gone", "training", ["-"], tmp_path / "x", {}, problem="r.yaml: no such recipe")
    needing = writing("eval-bad", tmp_path, needs=("train-bad",))
    failures = run([bad, missing, needing, writing("train-good", tmp_path)], tmp_path).failures
    assert failures == {
        "train-bad": "exit code 1: ValueError: no such thing",
        "train-gone": "r.yaml: no such recipe",
        "eval-bad": "needs train-bad",
    }
    assert (tmp_path / "train-good" / "result.txt").is_file()
    failed = json.loads((tmp_path / "steps" / "train-bad.failed.json").read_text())
    assert failed == {"step": "train-bad", "reason": failures["train-bad"], "log": "logs/train-bad.log"}
    assert (tmp_path / "logs" / "train-bad.log").read_text().startswith("working\nTraceback")
    assert run([writing("train-bad", tmp_path)], tmp_path).failures == {}
    assert not (tmp_path / "steps" / "train-bad.failed.json").exists()


def test_a_variant_whose_step_before_it_fails_loses_its_stale_run(tmp_path):
    run([writing("train-a", tmp_path), writing("eval-a", tmp_path, needs=("train-a",))], tmp_path)
    bad = python("train-a", "raise SystemExit(1)", tmp_path, depends={"of": "something else"})
    stale = writing("eval-a", tmp_path, needs=("train-a",), depends={"steps.train-a": bad.key})
    run([bad, stale], tmp_path)
    assert not (tmp_path / "eval-a").exists() and not (tmp_path / "steps" / "eval-a.json").exists()


def test_a_finished_result_that_is_out_of_date_is_kept_aside(tmp_path, capsys):
    old = writing("train-a", tmp_path, "old")
    run([old], tmp_path)
    run([writing("train-a", tmp_path, "new", depends={"of": "something else"})], tmp_path)
    assert (tmp_path / "train-a" / "result.txt").read_text() == "new\n"
    kept = tmp_path / "replaced" / f"train-a-{old.key[:8]}"
    assert (kept / "result.txt").read_text() == "old\n"
    assert json.loads((kept / "step.json").read_text())["key"] == old.key
    assert f"its earlier result is kept in {kept}" in capsys.readouterr().out


def test_a_kill_while_a_result_is_put_aside_loses_nothing(tmp_path):
    old = writing("train-a", tmp_path, "old")
    run([old], tmp_path)
    kept = tmp_path / "replaced" / f"train-a-{old.key[:8]}"
    kept.parent.mkdir()
    (tmp_path / "train-a").rename(kept)  # and then it was killed
    run([writing("train-a", tmp_path, "new", depends={"of": "something else"})], tmp_path)
    assert (kept / "result.txt").read_text() == "old\n" and (kept / "step.json").is_file()
    assert (tmp_path / "train-a" / "result.txt").read_text() == "new\n"


def test_output_that_cannot_be_read_or_is_missing_is_the_step_s_failure(tmp_path):
    silent = python("train-x", "pass", tmp_path)
    unread = python("eval-x", "pass", tmp_path, kind="evaluation")
    failures = run([silent, unread, writing("train-good", tmp_path)], tmp_path).failures
    assert failures["train-x"] == "the command ended well but left no train-x/result.txt"
    assert failures["eval-x"].startswith("its output cannot be read: ")
    assert list(failures) == ["train-x", "eval-x"]


@pytest.mark.parametrize(
    ("code", "log", "reason"),
    [
        (2, "loading\nmedadapt: x.yaml: not YAML\nTraceback\nFooError: 3\n", "exit code 2: x.yaml: not YAML"),
        (1, "torch.OutOfMemoryError: CUDA\nsubprocess.CalledProcessError: Command\n", "torch.OutOfMemoryError: CUDA"),
        (1, " 10%|\r 20%|\rlast words\n\n", "exit code 1: last words"),
        (-9, "", "ended by SIGKILL (perhaps out of memory)"),
    ],
)
def test_the_reason_of_a_failure_is_the_last_error_line(tmp_path, code, log, reason):
    file = tmp_path / "a.log"
    file.write_text("medadapt: of an earlier attempt\n" + log)
    assert process.reason(code, file, file.stat().st_size - len(log)).endswith(reason)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_step_cleanly_and_says_how_to_go_on(tmp_path, monkeypatch, capsys, number, code):
    polite = """
import os, signal, sys
def end(number, frame):
    print("ends tidily", flush=True)
    sys.exit(1)
signal.signal(int(sys.argv[1]), end)
signal.alarm(60)  # should the signal never come
os.kill(os.getppid(), int(sys.argv[1]))
while True:
    signal.pause()
"""
    yaml = tmp_path / "s.yaml"
    yaml.write_text("name: s\nbase: b\ntasks: [t]\nvariants: {base: {}}\n")
    out = tmp_path / "out"
    planned = [python("train-a", polite, out, int(number)), writing("train-b", out)]
    monkeypatch.setattr(command.steps, "plan", lambda *_: planned)
    monkeypatch.setattr(command, "_as_run", lambda _: {})
    before = signal.signal(number, signal.SIG_DFL)  # in the background of a shell, SIGINT is ignored
    try:
        assert command.study([str(yaml), "--out", str(out)]) == code
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    shown = capsys.readouterr().out
    assert "ends tidily" in shown and f"stopped by {number.name} at train-a" in shown
    assert f"Go on with: medadapt study {out}" in shown
    assert not (out / "train-b").exists() and not (out / "steps" / "train-a.failed.json").exists()
    assert why(planned[0], out) == "goes on where it was stopped"
    with locked(out):
        pass


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A study's folder, and what `medadapt study` plans there: a step that works and one that does not."""
    out = tmp_path / "out"
    studies.save(STUDY, out, {})
    planned = [writing("train-a", out), python("train-b", "raise ValueError('no')", out)]
    asked = []
    monkeypatch.setattr(command.steps, "plan", lambda *arguments: asked.append(arguments) or planned)
    monkeypatch.setattr(command, "_as_run", lambda _: {})
    return out, planned, asked


def test_the_folder_of_a_study_is_gone_on_with(begun, capsys):
    out, planned, asked = begun
    assert command.study([str(out), "--only", "base"]) == 1
    assert asked == [(STUDY, out, ["base"])]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"train-b: exit code 1: ValueError: no (see {out}/logs/train-b.log)"
    planned[1] = writing("train-b", out)
    assert command.study([str(out)]) == 0
    shown = capsys.readouterr().out
    assert "train-a: done before" in shown and "train-b: goes on where it was stopped" in shown


def test_data_of_unknown_version_is_named(begun, capsys):
    out, planned, _ = begun
    planned[:] = [writing("train-a", out, depends={"data.cais/mmlu": "unknown", "data.x": "1"})]
    assert command.study([str(out)]) == 0
    assert capsys.readouterr().out.startswith("cais/mmlu: its version cannot be told here")


def test_a_dry_run_does_nothing(begun, monkeypatch, capsys):
    out, _, _ = begun
    monkeypatch.setattr(dry_run, "text", lambda study, steps, folder: f"{study.name}, {len(steps)} steps, {folder}")
    assert command.study([str(out), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"s, 2 steps, {out}\n"
    assert [file.name for file in out.iterdir()] == ["study.json"]


def test_an_ignored_signal_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hangs_up = python("train-a", "import os, signal; os.kill(os.getppid(), signal.SIGHUP)", tmp_path)
        assert run([hangs_up, writing("train-b", tmp_path)], tmp_path).stopped is None
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "train-b" / "result.txt").is_file()


def test_a_second_signal_kills_a_step_that_will_not_end(tmp_path):
    stubborn = """
import os, signal, sys
signal.alarm(60)
signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getppid(), signal.SIGTERM))
os.kill(os.getppid(), signal.SIGTERM)
while True:
    signal.pause()
"""
    assert run([python("train-a", stubborn, tmp_path)], tmp_path).stopped == (signal.SIGTERM, "train-a")


def test_environment_sets_the_source(monkeypatch):
    monkeypatch.setenv("MEDTASKS_DATA", "sample")
    assert environment(STUDY)["MEDTASKS_DATA"] == "sample"
    hub = Study(name="s", base="b", tasks=["t"], variants={"base": Variant()}, source="hub")
    assert "MEDTASKS_DATA" not in environment(hub)
