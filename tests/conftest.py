"""Fixtures of the whole suite: the sample as source, small real models, and the loopback Hub where it is present."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

os.environ["MEDTASKS_DATA"] = "sample"
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may reach a network; the loopback Hub is asked by subprocesses
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["ANONYMIZED_TELEMETRY"] = "False"


@pytest.fixture(scope="session")
def language_model() -> Path:
    """SmolLM2-135M-Instruct, as `make` puts it."""
    return _model("SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def embedder() -> Path:
    """all-MiniLM-L6-v2, as `make` puts it."""
    return _model("all-MiniLM-L6-v2")


def _model(name: str) -> Path:
    folder = ROOT / ".models" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}; `make test` makes it")
    return folder


@pytest.fixture(scope="session")
def hub() -> str:
    """The address of a loopback Hub that serves the real datasets."""
    server = SHARED / "hub" / "serve.py"
    if not server.is_file():
        pytest.skip("no loopback Hub beside this checkout (../shared/hub)")
    port = _free_port()
    process = subprocess.Popen([sys.executable, server, "--port", str(port)], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/api/datasets/cais/mmlu").close()
            break
        except OSError:
            time.sleep(0.1)
    yield address
    process.terminate()


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """(address of a loopback Hub that takes uploads, the folder it puts them into)."""
    if not (server := SHARED / "hub" / "serve.py").is_file():
        pytest.skip("no loopback Hub beside this checkout (../shared/hub)")
    folder = tmp_path_factory.mktemp("uploads")
    address = f"http://127.0.0.1:{(port := _free_port())}"
    process = subprocess.Popen(
        [sys.executable, server, "--port", str(port), "--uploads", folder], stdout=subprocess.DEVNULL
    )
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/api/whoami-v2").close()
            break
        except OSError:
            time.sleep(0.1)
    yield address, folder
    process.terminate()


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    return _free_port()


@pytest.fixture
def on(tmp_path):
    """Run a script in a fresh process whose Hub is at ``address``; returns its standard output."""

    def run(address, script, *arguments, token="any", code=0):
        env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": token}
        env.pop("HF_HUB_OFFLINE", None)
        if token is None:
            env.pop("HF_TOKEN")
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={name: value for name, value in env.items() if value is not None},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture
def shared_data() -> Path:
    """The folder with evaluation sets and corpora that come as files."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("no data beside this checkout (../shared/data)")
    return folder


@pytest.fixture
def on_hub(hub, tmp_path_factory):
    """Run a Python script in a fresh process whose Hub is the loopback one; returns its standard output."""

    def run(script: str, *arguments: str, **environment: str) -> str:
        env = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path_factory.getbasetemp() / "hf")}
        for name in ("MEDTASKS_DATA", "HF_HUB_OFFLINE"):
            env.pop(name, None)
        env |= environment
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture
def medadapt():
    """Run the `medadapt` command in a fresh process: ``medadapt("run", ..., cwd=..., MEDTASKS_DATA=...)``."""

    def run(*arguments, cwd=ROOT, **environment):
        return subprocess.run(
            [sys.executable, "-m", "medtasks.cli", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def refused(medadapt):
    """Run `medadapt` and check that it refuses in one line, with exit code 2 and no traceback; returns the line."""

    def run(*arguments, **keywords) -> str:
        done = medadapt(*arguments, **keywords)
        assert done.returncode == 2, (done.returncode, done.stdout[-500:], done.stderr[-2000:])
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("medadapt: ")]
        assert len(lines) == 1, done.stderr[-2000:]
        return lines[0]

    return run


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
