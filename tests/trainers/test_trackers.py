"""Reporting a run while it goes: nowhere unless asked, to what is installed, into a folder that stays."""

import json
import sys

import pytest

from medtasks.errors import InputError
from trainers import sft

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
