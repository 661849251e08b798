"""Kill a build of an index again and again, and see whether it ends as one that was left alone.

    python benchmarks/index_kills.py FILE.jsonl.gz:2000 --embedder .models/all-MiniLM-L6-v2 --out runs/index_kills

Builds the index once to its end in OUT/whole; a second build that is started there meanwhile must be refused with one
line. Then it builds in OUT/killed, where a SIGKILL ends the process at seeded random times: every other one while it
starts and reads the corpus, uniformly between 0 and the time that took undisturbed; the others after that, uniformly
between 0 and four times the rest of the undisturbed time over (kills + 1), so that they hit embedding and storing until
about its end (with a corpus that takes minutes; loading the model counts as embedding). At last it may run to its end;
`medadapt index verify` must find it whole. Compared: every file of both but the store's, byte by byte. Exits with 1 if
anything differs.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    arguments = _arguments()
    whole, killed = arguments.out / "whole", arguments.out / "killed"
    for folder in (whole, killed):
        if folder.exists():
            sys.exit(f"{folder} is there already; give another --out")
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    first = _start(arguments, whole)
    _embedding(arguments, first)
    ready = time.monotonic() - started
    refused = _second_writer(arguments, whole)
    _wait(first, arguments)
    undisturbed = time.monotonic() - started
    rng = random.Random(arguments.seed)
    kills, started = [], time.monotonic()
    for number in range(arguments.kills):
        process = _start(arguments, killed)
        if late := number % 2 == 1:
            _embedding(arguments, process)
        after = rng.uniform(0, 4 * (undisturbed - ready) / (arguments.kills + 1) if late else ready)
        try:
            process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills.append({"embedding": late, "after": round(after, 1), "there": _there(killed)})
    _wait(_start(arguments, killed), arguments)
    seconds = time.monotonic() - started
    verified = subprocess.run(_command("verify", str(killed)), capture_output=True, text=True, check=False)
    hashes = [_hashes(whole), _hashes(killed)]
    differing = sorted(name for name in hashes[0] | hashes[1] if hashes[0].get(name) != hashes[1].get(name))
    figures = {
        "corpus": [Path(name).name for name in arguments.corpus],
        "seed": arguments.seed,
        "kills": kills,
        "compared": sorted(hashes[0]),
        "differing": differing,
        "verified": verified.returncode == 0,
        "second_writer": refused,
        "seconds": round(undisturbed, 1),
        "seconds_with_kills": round(seconds, 1),
    }
    text = json.dumps(figures, indent=1) + "\n"
    print(text, end="")
    if arguments.report:
        arguments.report.write_text(text)
    return 1 if differing or verified.returncode or refused is None else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", help="what medadapt index build takes")
    parser.add_argument("--embedder", default=".models/all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for both indexes")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--shard-size", type=int, default=128, help="small, so that there is something to lose")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="where to write the figures too")
    return parser.parse_args()


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "medtasks.cli", "index", *words]


def _start(arguments: argparse.Namespace, out: Path) -> subprocess.Popen:
    script = (
        "import sys; from rag_model import build as room; from rag_model.commands import index; "
        "room.build.__kwdefaults__['shard_size'] = int(sys.argv[1]); sys.exit(index(sys.argv[2:]))"
    )
    words = ["build", *arguments.corpus, "--out", str(out), "--embedder", arguments.embedder, "--no-decontaminate"]
    command = [sys.executable, "-c", script, str(arguments.shard_size), *words]
    with (arguments.out / "stderr.txt").open("w") as said:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)


def _wait(process: subprocess.Popen, arguments: argparse.Namespace) -> None:
    if process.wait() != 0:
        sys.exit(f"a build ended with exit code {process.returncode}: see {arguments.out / 'stderr.txt'}")


def _embedding(arguments: argparse.Namespace, process: subprocess.Popen) -> None:
    """Wait until a build embeds, or has ended."""
    while process.poll() is None and "embedding" not in (arguments.out / "stderr.txt").read_text():
        time.sleep(0.1)


def _second_writer(arguments: argparse.Namespace, out: Path) -> str | None:
    """What a second build says while the first embeds; None if it was not refused with one line."""
    words = ["build", *arguments.corpus, "--out", str(out), "--embedder", arguments.embedder, "--no-decontaminate"]
    second = subprocess.run(_command(*words), capture_output=True, text=True, check=False)
    lines = [line for line in second.stderr.splitlines() if line.startswith("medadapt: ")]
    refused = second.returncode == 2 and len(lines) == 1 and "another process is building here" in lines[0]
    return lines[0].replace(str(out), out.name) if refused else None


def _there(out: Path) -> dict:
    """What a killed build had finished."""
    names = ("build.json", "snippets.jsonl", "chroma", "index.json")
    return {name: (out / name).exists() for name in names} | {"shards": len(list((out / "vectors").glob("*.npy")))}


def _hashes(out: Path) -> dict[str, str]:
    """The content of every file but the store's and the lock."""
    found = [path for path in out.rglob("*") if path.is_file() and not {"chroma", ".lock"} & {*path.parts}]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


if __name__ == "__main__":
    sys.exit(main())
