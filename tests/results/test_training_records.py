"""Which stages a training had, as its files tell."""

import json

import pytest

from medtasks.errors import InputError
from results.cards import training_records


def write(folder, **changes):
    about = {
        "stage": "sft",
        "base_fingerprint": "b",
        "data_fingerprint": "d",
        "config": {},
        "base": "m",
        "versions": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training.json").write_text(json.dumps(about | {"continues": None} | changes))


@pytest.mark.parametrize(
    ("last", "stages"),
    [
        ({"continues": "a"}, ["cpt", "sft"]),
        ({"base_fingerprint": "merged"}, ["cpt", "sft"]),
        ({}, ["sft"]),  # what lies in cpt/ is none of it
    ],
)
def test_cpt_is_the_first_stage_of_what_goes_on_from_it(tmp_path, last, stages):
    write(tmp_path, **last)
    write(tmp_path / "cpt", stage="cpt")
    assert [stage.name for stage in training_records.read(tmp_path).stages] == stages


def test_a_full_fine_tuning_is_no_adapter(tmp_path):
    write(tmp_path, config={"full_finetuning": True})
    with pytest.raises(InputError, match="all weights were trained here"):
        training_records.read(tmp_path)
