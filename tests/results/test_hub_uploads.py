"""Uploads and downloads through the Hub's real client, against the loopback Hub; what it refuses is one line."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from board_files import harness_results, nine, write_board_file, write_results

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from results.commands.{0} import {0}; sys.exit({0}(sys.argv[1:]))"
REFUSED = """
import sys
from medtasks.errors import InputError
from results.commands.{0} import {0}
try:
    {0}(sys.argv[1:])
except InputError as error:
    print(error)
"""


REASON = b"no licence of this name"


@pytest.fixture
def refusing(request):
    """The address of a Hub that answers every request with one status, 403 if no other is asked for."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(getattr(request, "param", 403))
            self.send_header("Content-Length", str(len(REASON)))
            self.end_headers()
            self.wfile.write(REASON)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_submission_is_uploaded_and_ranked_from_there(uploads, on, tmp_path):
    address, folder = uploads
    run = write_results(tmp_path / "run", harness_results())
    pushed = on(address, MAIN.format("submit"), run, "--out", tmp_path / "board", "--push", "clinic/results")
    assert f"{address}/" in pushed.splitlines()[-1]
    [file] = (folder / "datasets" / "clinic" / "results").rglob("*.json")
    assert file.relative_to(folder / "datasets").as_posix() == (
        "clinic/results/acme/doctor-1b/results_2024-04-24T23-06-40.250000.json"
    )
    [written] = (tmp_path / "board").rglob("*.json")
    assert file.read_bytes() == written.read_bytes()
    on(address, MAIN.format("submit"), run, "--out", tmp_path / "board", "--push", "clinic/results")  # again, no harm
    local = write_board_file(tmp_path / "mine", "me/mine", nine(0.9))
    table = on(address, MAIN.format("leaderboard"), "clinic/results", local, "--format", "json")
    [board] = json.loads(table)
    assert [entry["model"] for entry in board["entries"]] == ["me/mine", "acme/doctor-1b"]


def test_what_keeps_an_upload_from_happening_is_one_line(uploads, refusing, on, free_port, tmp_path):
    address, folder = uploads
    run = write_results(tmp_path / "run", harness_results())
    arguments = (REFUSED.format("submit"), run, "--out", tmp_path / "board", "--push")

    def line(address, repo, **keywords):
        shown = on(address, *arguments, repo, **keywords).splitlines()
        assert shown[0].endswith(": valid") and len(shown) == 2, shown
        return shown[1]

    assert line(address, "clinic/none", token=None) == (
        "clinic/none: no token to upload with; run `hf auth login` or set HF_TOKEN"
    )
    assert line(refusing, "other/results").startswith("other/results: no permission to upload to it; check the token")
    closed = line(f"http://127.0.0.1:{free_port}", "clinic/none")
    assert closed.startswith("clinic/none: the Hub cannot be reached (")
    assert line(address, "results") == "results: not a Hub repository; give ORG/NAME"
    assert not (folder / "datasets" / "clinic" / "none").exists()


def test_a_repository_that_is_not_there(uploads, on):
    shown = on(uploads[0], REFUSED.format("leaderboard"), "clinic/nothing")
    assert shown.startswith("clinic/nothing: no such repository on the Hub, or no permission to read it")
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("refusing", [400], indirect=True)
def test_a_card_that_the_hub_does_not_take_is_not_uploaded(refusing, on, tmp_path):
    training = ROOT / "results" / "runs" / "published_subsets_1.5b" / "trainings" / "sft"
    shown = on(refusing, REFUSED.format("card"), training, "--out", tmp_path / "card.md", "--push", "clinic/doctor-sft")
    assert shown.splitlines()[1:] == [f"{tmp_path}/card.md: the Hub refuses its metadata ({REASON.decode()})"]


def test_a_card_is_uploaded_and_loads_from_there(uploads, on, tmp_path):
    address, folder = uploads
    training = ROOT / "results" / "runs" / "published_subsets_1.5b" / "trainings" / "sft"
    out = tmp_path / "README.md"
    on(address, MAIN.format("card"), training, "--license", "mit", "--out", out, "--push", "clinic/doctor-sft")
    assert (folder / "models" / "clinic" / "doctor-sft" / "README.md").read_bytes() == out.read_bytes()
    load = "import sys; from huggingface_hub import ModelCard; print(ModelCard.load(sys.argv[1]).data.license)"
    assert on(address, load, "clinic/doctor-sft").strip() == "mit"
    assert "hf download clinic/doctor-sft --local-dir adapter" in out.read_text()
