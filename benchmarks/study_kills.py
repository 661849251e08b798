"""Kill a study again and again, and see whether it ends as one that was left alone.

    python benchmarks/study_kills.py studies/demo.yaml --out runs/kills --kills 10 --report FILE.json

Runs the study once to its end in OUT/whole, then in OUT/killed, where at seeded random times a SIGKILL ends either
everything that the study started (as a machine that stops) or its runner alone (whose step then runs on, and keeps the
folder locked until it has ended). Compared at the end: every variant's predictions, every adapter's weights, the table.
A step is lost if it had been recorded as done and its record was not the same at the end. Exits with 1 if anything
differs or is lost.

The times are drawn uniformly between 0 and twice the undisturbed time over (kills + 1).

Measured (figures/study_kills.json): the demo study, 8 steps, 10 kills, 3 of them of the runner alone, on two CPU
cores with other work on the machine: no step lost, nothing differing; 741 s undisturbed, 1,079 s with the kills.
"""

import argparse
import fcntl
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

COMPARED = ("runs/*/predictions.jsonl", "trainings/**/adapter/adapter_model.safetensors", "table.json", "table.md")


def main() -> int:
    arguments = _arguments()
    whole, killed = arguments.out / "whole", arguments.out / "killed"
    for folder in (whole, killed):
        if folder.exists():
            sys.exit(f"{folder} is there already; give another --out")
    started = time.monotonic()
    if (code := _start(arguments.study, whole).wait()) != 0:
        sys.exit(f"the undisturbed run ended with exit code {code}")
    undisturbed = time.monotonic() - started
    rng = random.Random(arguments.seed)
    times = [rng.uniform(0, 2 * undisturbed / (arguments.kills + 1)) for _ in range(arguments.kills)]
    kills, lost, seconds = _run_with_kills(arguments.study, killed, times, rng)
    differing = _differing(whole, killed)
    figures = {
        "study": str(arguments.study),
        "seed": arguments.seed,
        "kills": kills,
        "steps": len(_records(whole)),
        "steps_lost": lost,
        "compared": sorted(_hashes(whole)),
        "differing": differing,
        "seconds": round(undisturbed, 1),
        "seconds_with_kills": round(seconds, 1),
        "overhead": round(seconds / undisturbed - 1, 3),
    }
    text = json.dumps(figures, indent=1) + "\n"
    print(text, end="")
    if arguments.report:
        arguments.report.write_text(text)
    return 1 if lost or differing else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a study's YAML file")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for both runs")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="where to write the figures too")
    return parser.parse_args()


def _start(study: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "medtasks.cli", "study", str(study), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _run_with_kills(
    study: Path, out: Path, times: list[float], rng: random.Random
) -> tuple[list[dict], list[str], float]:
    """Run to the end, killed after each of ``times``: (the kills, the steps lost, seconds in all)."""
    kills, done, lost = [], {}, set()
    started = time.monotonic()
    for after in [*times, None]:
        process = _start(study, out)
        try:
            code = process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            who = rng.choice(["everything", "the runner"])
            _kill(process, who)
            _wait_for_the_lock(out)
            kills.append({"after": round(after, 1), "who": who, "at": _unfinished(out)})
            now = _records(out)
            lost |= {step for step, record in done.items() if now.get(step) != record}
            done = now
            continue
        if code != 0:
            sys.exit(f"the killed run ended with exit code {code}; see {out}/logs")
        break
    now = _records(out)
    lost |= {step for step, record in done.items() if now.get(step) != record}
    return kills, sorted(lost), time.monotonic() - started


def _kill(process: subprocess.Popen, who: str) -> None:
    """Kill the runner, and with ``everything`` all processes of its session."""
    process.kill()
    process.wait()
    while who == "everything" and (members := _session(process.pid)):
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _session(session: int) -> list[int]:
    """The living processes of a session."""
    import psutil

    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


def _wait_for_the_lock(out: Path) -> None:
    """Until nothing that the study started runs any more."""
    if (out / ".lock").exists():
        with (out / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


def _unfinished(out: Path) -> list[str]:
    return [file.name.removesuffix(".attempt.json") for file in sorted((out / "steps").glob("*.attempt.json"))]


def _records(out: Path) -> dict[str, bytes]:
    """Step -> its record, of the steps that are done."""
    files = sorted((out / "steps").glob("*.json"))
    return {file.stem: file.read_bytes() for file in files if file.stem.count(".") == 0}


def _hashes(out: Path) -> dict[str, str]:
    files = [file for pattern in COMPARED for file in out.glob(pattern)]
    return {file.relative_to(out).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _differing(whole: Path, killed: Path) -> list[str]:
    one, other = _hashes(whole), _hashes(killed)
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


if __name__ == "__main__":
    sys.exit(main())
