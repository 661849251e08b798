"""Training does today what it did yesterday, and packed rows learn what their texts alone would teach.

The losses of every stage on a tiny model stand in golden_losses.json. All weights, the adapter's too, are computed by a
formula, so the losses are the same with every version of torch. A change that is meant to change them (the order of
rows, say) records them anew:

    RECORD_GOLDEN_LOSSES=1 python -m pytest tests/trainers/test_golden_losses.py

The diff of golden_losses.json then belongs into the commit that explains it.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainers import cpt, msft, sft

GOLDEN = Path(__file__).parent / "golden_losses.json"


def read_json(path):
    return json.loads(Path(path).read_text())


def by_formula(weights: dict, scale: float) -> dict:
    """Weights of the same shapes whose n-th element is a sine of n, norms 1."""
    made = {}
    for name in sorted(weights):
        if "norm" in name:
            made[name] = torch.ones_like(weights[name])
            continue
        n = torch.arange(weights[name].numel(), dtype=torch.float64)
        made[name] = (scale * torch.sin(1 + 1.7 * n + 0.3 * len(made))).view(weights[name].shape).float()
    return made


def overwrite(file: Path, scale: float) -> None:
    save_file(by_formula(load_file(file), scale), file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def known_base(build_base):
    """A tiny Llama whose weights are computed by a formula."""
    base = build_base()
    overwrite(Path(base) / "model.safetensors", 0.3)
    return base


@pytest.fixture(scope="module")
def known_adapter(known_base, tmp_path_factory):
    """An adapter for it, of the shape of the recipes here, whose weights are computed by a formula."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(known_base), settings).save_pretrained(folder)
    overwrite(folder / "adapter_model.safetensors", 0.1)
    return str(folder)


@pytest.fixture
def recipe(recipe_file, known_base, tmp_path):
    """A function that writes a recipe over the known base; its output_dir has the recipe's name."""

    def write(name: str, **changes) -> str:
        settings = {"model_name_or_path": known_base, "lora_dropout": 0.0, "output_dir": str(tmp_path / name)}
        return recipe_file(f"{name}.yaml", **settings | changes)

    return write


@pytest.fixture
def passages(write_jsonl, make_item):
    """A corpus of eight passages of 33 to 64 tokens each."""
    return write_jsonl([{"id": n, "title": "", "text": make_item(n)["question"] * 3} for n in range(8)], "corpus.jsonl")


def check_golden(name: str, history: Path) -> None:
    """Compare a run's losses with the recorded ones, or record them."""
    losses = [entry["loss"] for entry in read_json(history)]
    if "RECORD_GOLDEN_LOSSES" in os.environ:
        golden = read_json(GOLDEN) if GOLDEN.is_file() else {}
        GOLDEN.write_text(json.dumps(golden | {name: losses}, indent=1, sort_keys=True) + "\n")
    assert losses == pytest.approx(read_json(GOLDEN)[name], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sft_letter", {}),
        ("sft_letter_shuffled_packed", {"shuffle_options": True, "packing": True, "per_device_train_batch_size": 1}),
        ("sft_rationale_chat", {"answer_style": "rationale", "chat": True, "gradient_accumulation_steps": 2}),
    ],
)
def test_sft_losses_are_as_recorded(recipe, known_adapter, tmp_path, name, changes):
    sft.main(["--config", recipe(name, adapter=known_adapter, **changes)])
    check_golden(name, tmp_path / name / "loss.json")


def test_cpt_and_msft_losses_are_as_recorded(recipe, known_adapter, passages, tmp_path):
    changes = {"corpus": [passages], "per_device_train_batch_size": 2}
    recipe("cpt", adapter=known_adapter, output_dir=None, **changes)
    recipe("sft", output_dir=None)
    both = {"cpt": "cpt.yaml", "sft": "sft.yaml", "output_dir": str(tmp_path / "msft"), "learning_rate": 0.005}
    (tmp_path / "msft.yaml").write_text(json.dumps(both))
    msft.main(["--config", str(tmp_path / "msft.yaml")])
    check_golden("cpt_packed", tmp_path / "msft" / "cpt" / "loss.json")
    check_golden("msft", tmp_path / "msft" / "loss.json")


ONE_STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 1e9}
"""With these, what a step adds to the adapter is its negative gradient."""


def step_of(train, path: str, out: Path, start: str) -> tuple[dict, dict]:
    """(the log of the only step, name -> gradient) of a recipe with ONE_STEP."""
    train(["--config", path])
    before, after = (load_file(Path(folder) / "adapter_model.safetensors") for folder in (start, out / "adapter"))
    return read_json(out / "loss.json")[0], {name: before[name] - after[name] for name in before}


def assert_same_step(ours, theirs) -> None:
    assert theirs[0]["grad_norm"] > 0.1
    for key in ("loss", "grad_norm"):
        assert ours[0][key] == pytest.approx(theirs[0][key], rel=1e-5)
    for name, gradient in theirs[1].items():
        # 1e-5 is seen where processors round differently; attention across documents makes it .7 and more
        assert (ours[1][name] - gradient).norm() < 1e-4 * gradient.norm(), name


def test_packed_questions_teach_what_they_teach_alone(recipe, known_adapter, write_jsonl, make_item, tmp_path):
    items = write_jsonl([make_item(n) for n in range(8)], "eight.jsonl")
    shapes = {
        "packed": {"packing": True, "max_length": 512, "per_device_train_batch_size": 1},
        "side_by_side": {"per_device_train_batch_size": 8},
        "one_by_one": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    }
    steps = {}
    for name, shape in shapes.items():
        path = recipe(name, sources=[items], adapter=known_adapter, **ONE_STEP, **shape)
        steps[name] = step_of(sft.main, path, tmp_path / name, known_adapter)
    assert_same_step(steps["packed"], steps["one_by_one"])
    assert_same_step(steps["side_by_side"], steps["one_by_one"])


def test_packed_passages_teach_what_they_teach_alone(recipe, known_adapter, passages, tmp_path):
    shapes = {
        "packed": {"max_length": 512, "per_device_train_batch_size": 1},
        "one_by_one": {"max_length": 64, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    }
    steps = {}
    for name, shape in shapes.items():
        path = recipe(name, corpus=[passages], adapter=known_adapter, **ONE_STEP, **shape)
        steps[name] = step_of(cpt.main, path, tmp_path / name, known_adapter)
    assert_same_step(steps["packed"], steps["one_by_one"])
