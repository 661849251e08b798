"""Reporting a run while it goes: nowhere unless asked, to what is installed, into a folder that stays."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from medtasks.errors import InputError
from trainers import sft, trackers

WRITER = """
import json, pathlib
class SummaryWriter:
    def __init__(self, log_dir):
        self.folder = pathlib.Path(log_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
    def add_scalar(self, name, value, step):
        with open(self.folder / "scalars.jsonl", "a") as f:
            f.write(json.dumps([name, value, step]) + "\\n")
    def add_text(self, name, text): pass
    def flush(self): pass
    def close(self): pass
"""


def test_a_run_is_reported_nowhere_by_default(recipe_file):
    assert sft.prepare(["--config", recipe_file()]).training.report_to == []


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_there_is_named_with_the_mend(recipe_file, tmp_path, monkeypatch, tracker):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"report_to: {tracker} is not installed; `pip install {tracker}`"):
        sft.prepare(["--config", recipe_file(report_to=tracker)])
    assert not (tmp_path / "out").exists()


def test_loss_norm_and_tokens_are_reported_into_a_folder_that_stays(recipe_file, tmp_path, monkeypatch):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tensorboardX.py").write_text(WRITER)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as where TensorBoard itself is not there
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    path = recipe_file(report_to="tensorboard", max_steps=2, save_steps=2)
    assert sft.prepare(["--config", path]).training.run_name == "out"
    sft.main(["--config", path])
    out = tmp_path / "out"
    rows = [json.loads(line) for line in (out / "tensorboard" / "scalars.jsonl").read_text().splitlines()]
    reported = {name: value for name, value, step in rows if step == 1}
    assert {"train/loss", "train/grad_norm", "train/learning_rate", "train/num_input_tokens_seen"} <= reported.keys()
    [first, _] = json.loads((out / "loss.json").read_text())
    assert reported["train/loss"] == first["loss"] and reported["train/num_input_tokens_seen"] > 4 * 40
    assert not (out / "checkpoints").exists()
    sft.main(["--config", path, "--overwrite", "--max_steps", "1"])
    again = [json.loads(line) for line in (out / "tensorboard" / "scalars.jsonl").read_text().splitlines()]
    assert max(step for *_, step in again) == 1  # what another run reported is gone with it


@pytest.fixture
def wandb(monkeypatch):
    """In the place of Weights & Biases: a run is begun by ``init``, and ``ended`` gathers what ``finish`` was told."""
    made = SimpleNamespace(run=None, ended=[], seen=[])

    def init():
        made.run = object()
        made.seen.append((os.environ.get("WANDB_RUN_ID"), os.environ.get("WANDB_RESUME")))

    def finish(exit_code):
        made.run = None
        made.ended.append(exit_code)

    made.init, made.finish = init, finish
    monkeypatch.setitem(sys.modules, "wandb", made)
    for name in ("WANDB_RUN_ID", "WANDB_RESUME"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    return made


def test_weights_and_biases_goes_on_with_a_resumed_run_and_begins_another_for_the_next(wandb, tmp_path):
    with pytest.raises(KeyboardInterrupt), trackers.one_curve(["wandb"], tmp_path / "cpt"):
        wandb.init()
        raise KeyboardInterrupt
    for stage in ("cpt", "sft"):
        with trackers.one_curve(["wandb"], tmp_path / stage):
            wandb.init()
    (first, resumed, other), ways = zip(*wandb.seen, strict=True)
    assert first == resumed != other and first and other and set(ways) == {"allow"}
    assert wandb.ended == [1, 0, 0] and "WANDB_RUN_ID" not in os.environ


def test_a_user_s_own_run_of_weights_and_biases_is_left_alone(wandb, tmp_path, monkeypatch):
    wandb.init()
    with trackers.one_curve(["wandb"], tmp_path):
        assert "WANDB_RUN_ID" not in os.environ
    assert wandb.run is not None
    wandb.run = None
    with trackers.one_curve([], tmp_path):
        wandb.init()
    assert wandb.run is not None
    wandb.run = None
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    with trackers.one_curve(["wandb"], tmp_path):
        wandb.init()
    assert wandb.seen[-1][0] == "mine" and wandb.run is not None and not wandb.ended and not list(tmp_path.iterdir())
