"""A study's steps without models and clocks, and a runner for them. Both count moments, and die at those they are told.

    python fake_steps.py run OUT N     runs N steps into OUT
    python fake_steps.py step OUT I    is the I-th of them

A moment is a line of ``OUT/moments.txt``. ``FAKE_KILLS`` holds ``NUMBER:WHO`` with commas between: at that moment, die.
WHO is ``runner`` (the runner alone) or ``all`` (the whole session).
"""

import os
import signal
import sys
from pathlib import Path

STAGES = ("index", "training", "training", "training")


def moment(out: Path, what: str) -> None:
    """Note a moment; die if it is the last of somebody."""
    with (out / "moments.txt").open("a+") as f:
        f.write(f"{what}\n")
        f.flush()
        f.seek(0)
        number = sum(1 for _ in f)
    kills = dict(kill.split(":") for kill in os.environ.get("FAKE_KILLS", "").split(",") if kill)
    who = kills.get(str(number))
    runner = os.getsid(0)
    if who is not None and runner != os.getpid():
        os.kill(runner, signal.SIGKILL)
    if who == "all" or (who is not None and runner == os.getpid()):
        os.killpg(0, signal.SIGKILL)


def step(out: Path, number: int) -> None:
    """Write one file in two halves, put in place by a rename."""
    target = out / "made" / f"{number}" / "result.txt"
    target.parent.mkdir(parents=True, exist_ok=True)
    moment(out, f"{number} before")
    temporary = target.with_suffix(".tmp")
    with temporary.open("w") as f:
        f.write(f"half of {number},")
        f.flush()
        moment(out, f"{number} during")
        f.write(" and all of it\n")
    os.replace(temporary, target)
    print(f"made {number}", flush=True)
    moment(out, f"{number} after")


def steps(out: Path, n: int) -> list:
    """Steps of which every fourth is an index that the three after it need."""
    from results.studies.steps import Step

    made, keys = [], {}
    for i in range(n):
        kind, first = STAGES[i % 4], f"train-{i - i % 4}"
        needs = (first,) if i % 4 else ()
        depends = {"number": str(i)} | {f"steps.{need}": keys[need] for need in needs}
        command = [sys.executable, "-S", __file__, "step", str(out), str(i)]
        made.append(Step(f"train-{i}", kind, command, out / "made" / str(i) / "result.txt", depends, needs))
        keys[made[-1].name] = made[-1].key
    return made


def run(out: Path, n: int) -> int:
    """Run ``n`` steps; every write of the runner has a moment before and after it."""
    from results.studies import runner
    from results.studies.lock import locked
    from results.studies.study import Study, Variant

    write = runner.write_json

    def counted(path: Path, value) -> None:
        moment(out, f"{path.name} before")
        write(path, value)
        moment(out, f"{path.name} written")

    runner.write_json = counted
    with locked(out) as lock:
        made = runner.Runner(Study("s", "b", ["t"], {"base": Variant()}), out, lock)
        made.run(steps(out, n))
    return 1 if made.failures else 0


if __name__ == "__main__":
    what, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    sys.exit(step(folder, number) if what == "step" else run(folder, number))
