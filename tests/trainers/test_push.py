"""Uploads through the Hub's real client, against the loopback Hub: what comes back down is what was trained."""

import json

import pytest

from medtasks import models
from medtasks.errors import InputError
from trainers import push, sft

PUSH = "import sys; from trainers import push; sys.exit(push.main(sys.argv[1:]))"
LOAD = """
import sys
from peft import PeftConfig
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer
adapter, merged = sys.argv[1:]
print(PeftConfig.from_pretrained(adapter).base_model_name_or_path)
print(AutoModelForCausalLM.from_pretrained(merged).num_parameters(), len(AutoTokenizer.from_pretrained(merged)))
"""


@pytest.fixture
def trained(recipe_file, tmp_path):
    """The output_dir of a short training, with a merged model."""
    sft.main(["--config", recipe_file(max_steps=2, save_steps=2, merge=True)])
    return tmp_path / "out"


def test_adapters_and_merged_models_load_from_the_hub(trained, uploads, on, tmp_path):
    address, folder = uploads
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\n---\nA card.\n")
    adapter = [trained / "adapter", "clinic/doctor", "--base_model", "clinic/base", "--card", card, "--private"]
    assert "/commit/" in on(address, PUSH, *adapter)
    assert "/commit/" in on(address, PUSH, trained / "merged", "clinic/doctor-merged")
    there = folder / "models" / "clinic"
    names = {path.name for path in (trained / "adapter").iterdir()}
    assert {path.name for path in (there / "doctor").iterdir()} == names | {"README.md"}
    for name in names - {"adapter_config.json", "medadapt.json"}:
        assert (there / "doctor" / name).read_bytes() == (trained / "adapter" / name).read_bytes(), name
    told = push.contents(trained / "adapter", base_model="clinic/base")["medadapt.json"]
    assert (there / "doctor" / "medadapt.json").read_bytes() == told
    assert (there / "doctor" / "README.md").read_bytes() == card.read_bytes()
    base, sizes = on(address, LOAD, "clinic/doctor", "clinic/doctor-merged").splitlines()
    assert base == "clinic/base" and all(int(n) > 100 for n in sizes.split())
    assert (there / "doctor-merged" / models.ADAPTER_CARD).is_file()


def test_a_base_that_only_this_machine_has_is_not_named_to_others(trained):
    with pytest.raises(InputError, match="its base is '/.*', which the Hub does not know; say --base_model"):
        push.contents(trained / "adapter")
    found = push.contents(trained / "adapter", base_model="clinic/base")
    assert json.loads(found["adapter_config.json"])["base_model_name_or_path"] == "clinic/base"
    card = json.loads(found["medadapt.json"])
    there = json.loads((trained / "adapter" / "medadapt.json").read_text())
    assert there["base"].startswith("/") and card["base"] == there["base"].rpartition("/")[2]
    assert there["config"]["learning_rate"] == card["config"]["learning_rate"] and b"/tmp" not in found["medadapt.json"]
    assert found["adapter_model.safetensors"] == trained / "adapter" / "adapter_model.safetensors"
    with pytest.raises(InputError, match="needs no base"):
        push.contents(trained / "merged", base_model="clinic/base")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/home/Dr Jane Roe/ward 3/items.jsonl:5000", "items.jsonl:5000"),
        ("/srv/base/", "base"),
        ("~/jane/base", "base"),
        ("../jane/base", "base"),
        ("file:///home/jane/base", "base"),
        ("C:\\Users\\jane\\base", "base"),
        ('{"source": "/home/jane/a.jsonl"}', '{"source": "a.jsonl"}'),
        ("org/name", "org/name"),
        ("data/items.jsonl", "data/items.jsonl"),
    ],
)
def test_no_folder_of_this_machine_is_told(tmp_path, path, told):
    (tmp_path / "medadapt.json").write_text(json.dumps({"base": path, "config": {"sources": [path, {"source": path}]}}))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text(f"base_model: {path}")
    found = push.contents(tmp_path)
    assert json.loads(found["medadapt.json"]) == {"base": told, "config": {"sources": [told, {"source": told}]}}


def test_a_card_that_names_this_machine_stays_here(trained):
    (trained / "adapter" / "README.md").write_text("---\nbase_model: /srv/models/base\n---\n")
    assert "README.md" not in push.contents(trained / "adapter", base_model="clinic/base")


@pytest.mark.parametrize("left", push.OF_CHECKPOINTS)
def test_neither_checkpoints_nor_folders_without_weights_go_up(trained, left):
    merged = trained / "merged"
    (merged / left).write_bytes(b"")
    with pytest.raises(InputError, match=f"a checkpoint .{left}."):
        push.contents(merged)
    (merged / left).unlink()
    (merged / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights in it"):
        push.contents(merged)


def test_what_cannot_be_uploaded_is_named(tmp_path, trained):
    with pytest.raises(InputError, match="neither an adapter"):
        push.main([str(tmp_path), "clinic/doctor"])
    with pytest.raises(InputError, match="no such card"):
        push.main([str(trained / "merged"), "clinic/doctor", "--card", str(tmp_path / "none.md")])
    with pytest.raises(InputError, match="doctor: not a Hub repository"):
        push.main([str(trained / "merged"), "doctor"])
    for name in ("clinic/a--b", "clinic/doctor.git", "clinic/a..b"):
        with pytest.raises(InputError, match=f"^{name}: the Hub takes no such name"):
            push.main([str(trained / "merged"), name])
