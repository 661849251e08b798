"""Recipes: the command line over the YAML, every key known, and one line for whatever is wrong."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medtasks.errors import InputError
from trainers import cpt, msft, recipe, sft


def test_the_command_line_overrides_the_recipe(recipe_file, tmp_path):
    stage = sft.prepare(["--config", recipe_file(), "--max_steps", "9", "--shuffle_options"])
    assert stage.training.max_steps == 9 and stage.training.learning_rate == 0.01
    assert stage.config["shuffle_options"] is True and stage.config["max_steps"] == 9
    assert stage.config.keys() <= recipe.read(recipe.find(recipe_file())).keys() | {"shuffle_options"}
    assert not (tmp_path / "out").exists()


def test_a_number_in_scientific_notation_is_a_number(recipe_file):
    assert sft.prepare(["--config", recipe_file(learning_rate="2e-4")]).training.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lerning_rate": 1}, "unknown key 'lerning_rate' .did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "invalid float value: 'fast'"),
        ({"max_steps": 1.5}, "invalid int value"),
        ({"max_steps": [1]}, "one value expected"),
        ({"packing_strategy": "x"}, "none of bfd"),
        ({"shuffle_options": "perhaps"}, "shuffle_options"),
        ({"answer_style": "song"}, "none of letter, rationale"),
        ({"fp16": True, "bf16": True}, "fp16 and bf16"),
        ({"model_name_or_path": "/no/such"}, "/no/such: no such model folder"),
        ({"model_name_or_path": None}, "model_name_or_path is not set"),
        ({"model_name_or_path": "medadapt/no-such-model"}, "medadapt/no-such-model: neither a folder here nor a model"),
        ({"use_peft": None}, "use_peft is not set.*full_finetuning"),
        ({"full_finetuning": True}, "full_finetuning trains all weights and use_peft an adapter"),
        ({"full_finetuning": True, "use_peft": False, "load_in_4bit": True}, "quantized weights cannot learn"),
        ({"full_finetuning": True, "use_peft": False, "dtype": "bfloat16"}, "rounds most updates to nothing"),
        ({"full_finetuning": True, "use_peft": False, "merge": True}, "merge has no place in a full fine-tuning"),
        ({"lora_target_modules": None}, "all-linear"),
        ({"output_dir": None}, "output_dir is not set"),
        ({"save_strategy": "no"}, "save_strategy must be"),
        ({"eval_strategy": "steps"}, "eval_strategy"),
        ({"sources": None}, "no sources"),
        ({"resume_from_checkpoint": "x"}, "resume_from_checkpoint has no place here: a run resumes by itself"),
        ({"eos_token": "<|im_end|>"}, "eos_token has no place here: the model keeps its tokenizer"),
        ({"assistant_only_loss": True}, "assistant_only_loss has no place here: completions are what is learned"),
        ({"completion_only_loss": False}, "completion_only_loss: completions are what is learned"),
        ({"sources": ["nowhere.jsonl"]}, "nowhere.jsonl: no such file"),
        ({"env": "x"}, "'env' must be a mapping"),
        ({"torch_compile": True}, "torch_compile has no place here: layers are compiled by compile_layers"),
        ({"torch_compile_mode": "default"}, "torch_compile has no place here"),
        ({"parallelism_config": {"tp_size": 2}}, "parallelism_config has no place here: several GPUs train by DDP"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0; it must be a number from 1 on"),
        ({"per_device_eval_batch_size": -2}, "per_device_eval_batch_size is -2; it must be a number from 1 on"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0; it must be a number from 1 on"),
        ({"max_length": 0}, "max_length is 0; it must be a number from 1 on"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be a number from 0 on"),
        ({"learning_rate": -1}, "learning_rate is -1.0"),
        ({"max_steps": None, "num_train_epochs": float("nan")}, "num_train_epochs is nan"),
        ({"max_steps": None, "num_train_epochs": float("inf")}, "num_train_epochs is inf"),
        ({"max_grad_spike": float("nan")}, "max_grad_spike is nan"),
        ({"dataloader_num_workers": -1}, "dataloader_num_workers is -1"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(recipe_file, tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        sft.prepare(["--config", recipe_file(**changes)])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_cpt_refuses_to_cut_passages_off(recipe_file):
    with pytest.raises(InputError, match="bfd_split"):
        cpt.prepare(["--config", recipe_file(corpus=["sample"], packing_strategy="bfd")])


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (sft, {"packing": True}),
        (sft, {"packing": True, "packing_strategy": "bfd_split"}),
        (cpt, {"corpus": ["sample"]}),
    ],
)
def test_packed_rows_need_a_length(recipe_file, stage, changes):
    path = Path(recipe_file(**changes))
    path.write_text(yaml.safe_dump(recipe.read(path) | {"max_length": None}))
    with pytest.raises(InputError, match="max_length: packed rows need a length; give a number of tokens"):
        stage.prepare(["--config", str(path)])


@pytest.mark.parametrize("text", ["- a\n", "a: [b\n", ""])
def test_a_recipe_is_a_mapping(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match="bad.yaml"):
        sft.prepare(["--config", str(tmp_path / "bad.yaml")])


def test_an_unknown_recipe_is_told_the_shipped_ones():
    with pytest.raises(InputError, match="demo_zft: no such recipe.*demo_sft"):
        sft.prepare(["--config", "demo_zft"])


def test_an_unknown_argument_is_refused(recipe_file):
    with pytest.raises(InputError, match="--lerning_rate"):
        sft.prepare(["--config", recipe_file(), "--lerning_rate", "1"])


def test_from_a_shell_bad_input_is_one_line_and_exit_code_2(recipe_file, tmp_path):
    path = recipe_file(lerning_rate=1)
    done = subprocess.run(
        [sys.executable, "-m", "trainers.sft", "--config", path], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if "kernels" not in line]  # bitsandbytes' own remark
    assert len(said) == 1 and said[0].startswith(f"medadapt: {path}: unknown key 'lerning_rate' (did you mean")
    assert not (tmp_path / "out").exists()


SHIPPED = sorted(recipe.RECIPES.glob("*.yaml"))
CONFIGURATIONS = sorted(recipe.RECIPES.glob("accelerate/*.yaml"))


def _head(path: Path) -> str:
    """The comment that a file begins with, less its signs."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_have_known_keys_and_a_launch_line(path, base, monkeypatch):
    stage = path.stem.rpartition("_")[2]
    assert f"-m trainers.{stage} --config trainers/recipes/{path.name}" in _head(path)
    monkeypatch.setattr("trainers.data.sft_examples", lambda *_: _no_examples())
    monkeypatch.setattr("trainers.data.cpt_examples", lambda *_: _no_examples())
    on_cpu = ["--model_name_or_path", base, "--fp16", "false", "--bf16", "false", "--optim", "adamw_torch"]
    {"sft": sft, "cpt": cpt, "msft": msft}[stage].prepare(["--config", str(path), *on_cpu])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_needs_what_was_measured_and_writes_into_its_own_folder(path):
    head = _head(path)
    assert all(word in head for word in ("\nHardware: ", "Needs ", "\nMeasured")), head
    assert yaml.safe_load(path.read_text())["output_dir"] == f"runs/{path.stem}"


def test_recipes_for_fsdp_store_4_bit_weights_as_floats():
    for path in SHIPPED:
        if "accelerate/fsdp" in _head(path):
            assert yaml.safe_load(path.read_text())["bnb_4bit_quant_storage"] == "bfloat16", path


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_accelerate_knows_every_key_of_a_configuration_and_its_launch_line(path):
    from accelerate.commands import launch
    from accelerate.commands.config.config_args import load_config_from_file

    load_config_from_file(str(path))
    [line] = re.findall(r"accelerate launch.*?--config RECIPE", _head(path), re.S)
    line = line.replace("\\\n", " ").replace("RECIPE", str(recipe.RECIPES / "demo_sft.yaml"))
    words = [str(path) if word == f"trainers/recipes/accelerate/{path.name}" else word for word in line.split()]
    assert str(path) in words
    arguments, _, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(words[2:]))
    assert arguments.training_script == "trainers.sft" and arguments.mixed_precision == "no"
    assert arguments.use_fsdp is path.stem.startswith("fsdp")


def test_a_recipe_is_found_by_name_from_any_folder(tmp_path):
    env = os.environ | {"PYTHONPATH": str(Path(recipe.__file__).parents[1])}
    done = [
        subprocess.run(
            [sys.executable, "-m", "trainers.recipe", name], capture_output=True, text=True, env=env, cwd=tmp_path
        )
        for name in ("accelerate/ddp", "accelerate/dpd")
    ]
    assert done[0].stdout.strip() == str(recipe.RECIPES / "accelerate" / "ddp.yaml")
    assert done[1].returncode == 2 and done[1].stderr.startswith("medadapt: accelerate/dpd: no such recipe")


def _no_examples():
    from trainers.data import Examples

    return Examples([{"prompt": "a", "completion": "b"}], {"used": 1}, {}, ["a row"])


def test_recipes_set_the_environment(recipe_file, monkeypatch):
    monkeypatch.delenv("TRAINERS_TEST", raising=False)
    sft.prepare(["--config", recipe_file(env={"TRAINERS_TEST": 1})])
    assert os.environ["TRAINERS_TEST"] == "1"


def test_demo_recipes_read_the_sample():
    for path in recipe.RECIPES.glob("demo_[sc]*.yaml"):
        assert yaml.safe_load(path.read_text())["env"] == {"MEDTASKS_DATA": "sample"}, path
