"""How long `medadapt --help` takes, against lm-eval's own `--help` in the same run.

    python benchmarks/startup.py

Prints the median of 7 runs of each after one to warm up, and their ratio. On two cores of an AMD EPYC, Python 3.11:
0.12 s against 0.40 s, ratio 0.30.
"""

import statistics
import subprocess
import sys
import time

RUNS = 7
COMMANDS = {"medadapt --help": ["medtasks.cli", "--help"], "lm_eval --help": ["lm_eval", "--help"]}


def seconds(module: list[str]) -> float:
    """Wall seconds of one run."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *module], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    medians = {}
    for name, module in COMMANDS.items():
        seconds(module)
        medians[name] = statistics.median(seconds(module) for _ in range(RUNS))
        print(f"{name}: {medians[name]:.2f} s")
    ours, theirs = medians.values()
    print(f"ratio: {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
