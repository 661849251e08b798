"""A build that is killed, wherever and whenever, goes on to the same passages and vectors, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_content import files_of, make, stored
from rag_doubles import WordEmbedder

from medtasks.errors import InputError
from rag_model.index import open_index

ROOT = Path(__file__).parents[2]

KILLED_BUILD = """
import os, signal, sys
from rag_doubles import WordEmbedder
from rag_model import build as room

def die(*_): os.kill(os.getpid(), signal.SIGKILL)

def at_call(function, n):
    calls = []
    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == n: die()
        return function(*args, **kwargs)
    return counted

corpus, out, place = sys.argv[1:]
if place == "reading the corpus":
    room.snippets.chunking.split = at_call(room.snippets.chunking.split, 1)
if place == "first shard": WordEmbedder.encode = at_call(WordEmbedder.encode, 1)
if place == "third shard": WordEmbedder.encode = at_call(WordEmbedder.encode, 3)
if place == "inside the write of a shard":
    import numpy as np
    def half(f, vectors):
        f.write(vectors.tobytes()[:100]); f.flush(); die()
    np.save = half
if place == "filling Chroma":
    from chromadb import Collection
    from rag_model.chroma_store import LocalChroma
    LocalChroma.batch = 20
    Collection.add = at_call(Collection.add, 2)
if place == "before index.json":
    write = room.files.write_json
    room.files.write_json = lambda path, value: die() if path.name == "index.json" else write(path, value)
room.build(corpus, out, WordEmbedder(), shard_size=16, progress=False)
"""

RANDOM_KILLS = """
import json, os, random, signal, sys, time
import chromadb
from rag_doubles import WordEmbedder
from rag_model.build import build

corpus, out, seed = sys.argv[1:]

def start(folder):
    child = os.fork()
    if child == 0:
        build(corpus, folder, WordEmbedder(), shard_size=16, progress=False)
        os._exit(0)
    return child

started = time.monotonic()
os.waitpid(start(out + "-timed"), 0)
seconds = time.monotonic() - started
rng, kills = random.Random(int(seed)), 0
for _ in range(5):
    child = start(out)
    time.sleep(rng.uniform(0, seconds / 3))  # together they take about as long as a whole build
    os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
_, status = os.waitpid(start(out), 0)
print(json.dumps({"kills": kills, "status": status}))
"""
PLACES = [
    "reading the corpus",
    "first shard",
    "third shard",
    "inside the write of a shard",
    "filling Chroma",
    "before index.json",
]


def run(script, *arguments):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, check=False, text=True)


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_build_goes_on_to_the_same_files(corpus, tmp_path, place):
    make(corpus, tmp_path / "whole")
    out = tmp_path / "killed"
    done = run(KILLED_BUILD, corpus, out, place)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    with pytest.raises(InputError, match="unfinished; run the same"):
        open_index(out)
    finished = {path.name: path.stat().st_mtime_ns for path in (out / "vectors").glob("*.npy")}
    n_embedded = sum(len(np.load(out / "vectors" / name)) for name in finished)
    embedder = WordEmbedder()
    meta, changed = make(corpus, out, embedder=embedder)
    assert changed
    assert embedder.n_texts == meta["snippets"]["count"] - n_embedded
    assert finished == {name: (out / "vectors" / name).stat().st_mtime_ns for name in finished}
    assert files_of(out) == files_of(tmp_path / "whole")
    assert stored(out) == stored(tmp_path / "whole")
    assert not (out / "chroma.tmp").exists()


def test_kills_at_random_moments_lose_nothing(corpus, tmp_path):
    make(corpus, tmp_path / "whole")
    done = run(RANDOM_KILLS, corpus, tmp_path / "killed", 20)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["kills"] > 0 and told["status"] == 0
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert stored(tmp_path / "killed") == stored(tmp_path / "whole")
    assert not make(corpus, tmp_path / "killed").changed
