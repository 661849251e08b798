import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from medtasks import models
from medtasks.errors import InputError


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8, "_name_or_path": "here"}))
    (folder / "model.safetensors").write_bytes(b"0" * 100)
    return folder


def adapter(tmp_path, width):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    name = "base_model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: np.zeros((4, width), dtype="float32")}, folder / "adapter_model.safetensors")
    return folder


def test_fingerprint_follows_weights_and_architecture_not_the_name(base):
    first = models.fingerprint(base)
    (base / "config.json").write_text(json.dumps({"hidden_size": 8, "_name_or_path": "elsewhere"}))
    assert models.fingerprint(base) == first
    (base / "model.safetensors").write_bytes(b"0" * 99 + b"1")
    assert models.fingerprint(base) != first
    second = models.fingerprint(base)
    (base / "config.json").write_text(json.dumps({"hidden_size": 16}))
    assert models.fingerprint(base) not in (first, second)


def test_a_tokenizers_fingerprint_follows_what_changes_tokens(base):
    def changed(name, content) -> bool:
        before = models.tokenizer_fingerprint(base)
        (base / name).write_text(json.dumps(content) if isinstance(content, dict) else content)
        return models.tokenizer_fingerprint(base) != before

    weights = models.fingerprint(base)
    assert changed("tokenizer.json", "{}") and changed("chat_template.jinja", "{{ messages }}")
    assert changed("tokenizer_config.json", {"eos_token": "<|im_end|>"})
    assert not changed("tokenizer_config.json", {"eos_token": {"content": "<|im_end|>"}, "is_local": True})
    assert changed("tokenizer_config.json", {"eos_token": "<|endoftext|>"})
    assert models.fingerprint(base) == weights


def test_an_adapter_made_elsewhere_is_checked_by_width(base, tmp_path):
    models.check_adapter(adapter(tmp_path, 8), base)
    (base / "config.json").write_text(json.dumps({"hidden_size": 16}))
    with pytest.raises(InputError, match=r"was made for org/base \(width 8\), not for .*base \(width 16\)"):
        models.check_adapter(tmp_path / "adapter", base)


def test_our_adapter_is_checked_by_fingerprint(base, tmp_path):
    folder = adapter(tmp_path, 99)
    card = {"base": "x", "base_fingerprint": models.fingerprint(base)}
    (folder / models.ADAPTER_CARD).write_text(json.dumps(card))
    models.check_adapter(folder, base)
    (base / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="was trained on x"):
        models.check_adapter(folder, base)


def test_a_revision_of_a_base_is_not_its_main_one(base, tmp_path, monkeypatch):
    from trainers import merge

    first = shutil.copytree(base, tmp_path / "first")
    (base / "model.safetensors").write_bytes(b"of main")
    monkeypatch.setattr(
        models, "folder", lambda model, revision=None: {"v1": first, "main": base, None: base}[revision]
    )
    trained = adapter(tmp_path, 99)
    config = {"model_name_or_path": "org/base", "model_revision": "v1"}
    card = {"base": "org/base", "base_fingerprint": models.fingerprint("org/base", "v1"), "config": config}
    (trained / models.ADAPTER_CARD).write_text(json.dumps(card))
    models.check_adapter(trained, "org/base", "v1")
    with pytest.raises(InputError, match="and its revision"):
        models.check_adapter(trained, "org/base")
    assert merge.trained_on(trained).model_revision == merge.trained_on(trained, "org/base").model_revision == "v1"


def test_what_is_no_model_or_adapter_is_named(tmp_path, base):
    with pytest.raises(InputError, match=r"no config\.json"):
        models.folder(tmp_path)
    with pytest.raises(InputError, match="no such model folder"):
        models.folder("a/b/c")
    with pytest.raises(InputError, match="not an adapter folder"):
        models.check_adapter(base, base)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        models.check_adapter(tmp_path, base)
