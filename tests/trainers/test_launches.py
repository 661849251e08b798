"""Two processes leave what one leaves, by DDP, on two nodes and by FSDP, also after a kill. Gloo stands in for NCCL."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import launched
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing import errors as multiprocessing_errors

from medtasks.errors import InputError
from trainers import recipe, sft

NF4 = {"load_in_4bit": True, "use_bnb_nested_quant": True, "bnb_4bit_quant_storage": "bfloat16"}


def read_json(path):
    return json.loads(Path(path).read_text())


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def processes():
    """multiprocessing, with libraries imported before the fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(launched.PRELOAD)
    return context


@pytest.fixture
def start(processes, tmp_path):
    """A function that starts two processes as `accelerate launch` with a shipped configuration would: of one machine,
    or, with ``nodes``, one on each of two.

    ``start("ddp", argv, argv)`` returns the processes and the files in which they say what they do.
    """
    started = []

    def start(name: str, *argvs: list[str], dies_at: int | None = None):
        environment = environment_of(name)
        logs = [tmp_path / f"process{rank}.log" for rank in range(2)]
        for rank, (argv, log) in enumerate(zip(argvs, logs, strict=True)):
            here, number = ("0", "1") if name == "nodes" else (str(rank), "2")
            ours = {"RANK": str(rank), "LOCAL_RANK": here, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": number}
            ours["TORCHELASTIC_ERROR_FILE"] = str(tmp_path / f"error{rank}.json")
            started.append(processes.Process(target=launched.run, args=(str(log), environment | ours, argv, dies_at)))
            started[-1].start()
        return started[-2:], logs

    yield start
    for process in started:
        process.kill()
        process.join()


def environment_of(name: str) -> dict:
    """What `accelerate launch` with a shipped configuration adds to the environment of its processes."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = str(recipe.find(f"accelerate/{name}"))
    arguments = launch.launch_command_parser().parse_args(["--config_file", file, "script.py"])
    arguments, *_ = launch._validate_launch_command(arguments)
    after = prepare_multi_gpu_env(arguments)
    made = {key: value for key, value in after.items() if os.environ.get(key) != value}
    return made | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}


def finish(processes_and_logs) -> list[str]:
    """Wait for a run that must succeed; returns what its processes said."""
    processes, logs = processes_and_logs
    for process in processes:
        process.join(120)
    said = [log.read_text() for log in logs]
    assert [process.exitcode for process in processes] == [0, 0], said[0][-3000:] + said[1][-3000:]
    return said


def assert_same_run(ours: Path, theirs: Path, tolerance: float) -> None:
    """The same losses and the same adapter, within a relative tolerance."""
    losses = [[entry["loss"] for entry in read_json(out / "loss.json")] for out in (ours, theirs)]
    assert len(losses[0]) == 6 and losses[0] == pytest.approx(losses[1], rel=tolerance)
    adapters = [load_file(out / "adapter" / "adapter_model.safetensors") for out in (ours, theirs)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, weight in adapters[1].items():
        assert weight.dtype == adapters[0][name].dtype == torch.float32
        assert (adapters[0][name] - weight).norm() <= tolerance * weight.norm(), name


@pytest.fixture
def by_one_process(recipe_file, tmp_path):
    """A function that writes a recipe for two processes; it is already trained, by one with twice the batch."""

    def train(**changes) -> tuple[str, Path]:
        settings = {"lora_dropout": 0.0} | changes
        alone = tmp_path / "alone"
        sft.main(["--config", recipe_file("alone.yaml", output_dir=str(alone), **settings)])
        return recipe_file(per_device_train_batch_size=2, **settings), alone

    return train


@pytest.mark.parametrize("name", ["ddp", "nodes"])
def test_ddp_leaves_what_one_process_leaves_and_the_first_alone_writes(start, by_one_process, tmp_path, name):
    path, alone = by_one_process()
    said = finish(start(name, ["--config", path], ["--config", path]))
    assert_same_run(tmp_path / "out", alone, 1e-4)
    cost = read_json(tmp_path / "out" / "cost.json")
    assert cost["device"] == "2 x cpu" and cost["tokens_seen"] == read_json(alone / "cost.json")["tokens_seen"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in alone.iterdir()}
    assert ["adapter: " in text for text in said] == [True, name == "nodes"]  # the first of each machine speaks
    assert [line for line in said[1].splitlines() if line.startswith(f"writes {tmp_path / 'out'}")] == []


def test_rows_that_fill_no_batch_are_learned_and_measured_once(start, by_one_process, write_jsonl, make_item, tmp_path):
    sources = [write_jsonl([make_item(n) for n in range(7)], "seven.jsonl")]
    dev = [write_jsonl([make_item(n) for n in range(20, 23)], "three.jsonl")]
    settings = {"max_steps": -1, "num_train_epochs": 1, "save_steps": 1, "logging_steps": 1}
    path, alone = by_one_process(sources=sources, dev_sources=dev, eval_strategy="epoch", **settings)
    finish(start("ddp", ["--config", path], ["--config", path]))
    ours, theirs = ([read_json(out / name) for name in ("loss.json", "eval.json")] for out in (tmp_path / "out", alone))
    assert [entry["loss"] for entry in ours[0]] == pytest.approx([entry["loss"] for entry in theirs[0]], rel=1e-4)
    assert len(ours[0]) == 2 and ours[1][-1]["eval_loss"] == pytest.approx(theirs[1][-1]["eval_loss"], rel=1e-4)
    tokens = [read_json(out / "cost.json")["tokens_seen"] for out in (tmp_path / "out", alone)]
    assert tokens[0] == tokens[1]


def test_fsdp_of_a_4_bit_base_leaves_what_one_process_leaves(start, by_one_process, build_base, tmp_path):
    path, alone = by_one_process(model_name_or_path=build_base(64), **NF4)
    said = finish(start("fsdp_qlora", ["--config", path], ["--config", path]))
    assert_same_run(tmp_path / "out", alone, 1e-4)
    for text in said:  # what is sharded is let go of at once: 2 layers of 7 maps, then embeddings, head and the rest
        told = [line for line in text.splitlines() if line.startswith("whole: ")]
        assert told == ["whole: 0 of 7", *["whole: 0 of 14"] * 4]


@pytest.mark.parametrize(("name", "changes"), [("ddp", {}), ("fsdp_qlora", NF4)])
def test_a_killed_run_of_two_processes_resumes_to_the_same_bits(
    start, recipe_file, build_base, tmp_path, name, changes
):
    changes = changes | {"lora_dropout": 0.2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}
    changes["model_name_or_path"] = build_base(64)
    whole, killed = (
        ["--config", recipe_file(f"{out}.yaml", output_dir=str(tmp_path / out), **changes)]
        for out in ("whole", "killed")
    )
    finish(start(name, whole, whole))
    processes, _ = start(name, killed, killed, dies_at=5)
    for process in processes:
        process.join(120)
    assert -9 in [process.exitcode for process in processes]  # the other one may miss its peer before it dies
    out = tmp_path / "killed"
    assert (out / "checkpoints" / "checkpoint-4").is_dir() and not (out / "training.json").exists()
    # and the newest checkpoint lacks what the second process knew of it
    (out / "checkpoints" / "checkpoint-4" / "rng_state_1.pth").unlink()
    said = finish(start(name, killed, killed))
    assert "'loss'" in said[0]
    for file in ("adapter/adapter_model.safetensors", "loss.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    assert read_json(out / "cost.json")["attempts"] == 2


def test_what_is_wrong_in_one_process_alone_is_said_by_it_and_told_to_the_launcher(start, recipe_file, tmp_path):
    good = ["--config", recipe_file()]
    (first, second), logs = start("ddp", good, [*good, "--lerning_rate", "1"])
    second.join(120)
    assert second.exitcode == 2 and first.exitcode is None
    lines = [line for line in logs[1].read_text().splitlines() if line.startswith("medadapt: ")]
    assert len(lines) == 1 and lines[0].startswith("medadapt: process 1: ") and "lerning_rate" in lines[0]
    told = multiprocessing_errors.ProcessFailure(1, second.pid, 2, str(tmp_path / "error1.json"))
    assert lines[0] == f"medadapt: {told.message}"


def test_what_is_wrong_in_all_processes_is_said_by_the_first(start, recipe_file):
    bad = ["--config", recipe_file(), "--lerning_rate", "1"]
    (first, second), logs = start("ddp", bad, bad)
    first.join(120)
    second.kill()  # as the launcher does when one has failed
    assert first.exitcode == 2
    assert [log.read_text().count("medadapt: ") for log in logs] == [1, 0]


def test_several_gpus_in_one_process_are_refused_with_the_line_to_launch(recipe_file, monkeypatch, tmp_path):
    from trl import SFTConfig

    monkeypatch.setattr(SFTConfig, "n_gpu", 4)
    monkeypatch.setattr("trainers.adapter.load_tokenizer", lambda _: pytest.fail("loaded"))
    with pytest.raises(InputError, match="4 GPUs are visible.*accelerate launch --multi_gpu --num_processes 4 -m"):
        sft.main(["--config", recipe_file()])
    assert not (tmp_path / "out").exists()


def launched_alone(*arguments) -> dict:
    """What `accelerate launch` adds to the environment of a process that it starts alone, without a configuration."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    parsed = launch.launch_command_parser().parse_args([*arguments, "-m", "trainers.sft"])
    parsed, *_ = launch._validate_launch_command(parsed)
    _, after = prepare_simple_launcher_cmd_env(parsed)
    return {key: value for key, value in after.items() if os.environ.get(key) != value}


@pytest.mark.parametrize("device", [["--cpu"], []])
def test_one_process_of_several_that_were_asked_for_is_refused(recipe_file, monkeypatch, device):
    for key, value in launched_alone(*device, "--num_processes", "1").items():
        monkeypatch.setenv(key, value)
    sft.prepare(["--config", recipe_file()])
    for key, value in launched_alone(*device, "--num_processes", "2").items():
        monkeypatch.setenv(key, value)
    with pytest.raises(InputError, match="started one process.*accelerate launch --multi_gpu --num_processes N -m"):
        sft.prepare(["--config", recipe_file()])
    monkeypatch.setenv("WORLD_SIZE", "1")  # a launcher that counts knows what it does
    sft.prepare(["--config", recipe_file()])


@pytest.mark.parametrize(
    ("environment", "changes", "complaint"),
    [
        ({"FSDP_VERSION": "1"}, {}, "fsdp_version: 2"),
        ({"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, {}, "fsdp_state_dict_type: FULL_STATE_DICT"),
        ({}, {"load_in_4bit": True}, "bnb_4bit_quant_storage: bfloat16"),
        ({}, {"load_in_8bit": True}, "8-bit"),
    ],
)
def test_what_fsdp_cannot_shard_is_refused_before_loading(recipe_file, monkeypatch, environment, changes, complaint):
    usual = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
    for key, value in (usual | environment).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(InputError, match=complaint):
        sft.prepare(["--config", recipe_file(**changes)])
