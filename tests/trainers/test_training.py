"""A run from recipe to adapter: it learns, from the answer alone, and comes out the same after a kill."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medtasks import models
from medtasks.errors import InputError
from trainers import cpt, merge, run_folder, sft, stage


def read_json(path):
    return json.loads(Path(path).read_text())


def train(path, *arguments) -> Path:
    assert sft.main(["--config", path, *arguments]) == 0
    return Path(read_json(path)["output_dir"])


def test_it_learns_what_it_is_shown(recipe_file, base):
    out = train(recipe_file(max_steps=60, save_steps=30, lora_dropout=0.0, learning_rate=0.02))
    losses = [entry["loss"] for entry in read_json(out / "loss.json")]
    assert len(losses) == 60 and losses[0] > 3 and max(losses[-4:]) < 0.6
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "adapter",
        "loss.json",
        "loss.png",
        "cost.json",
        "data.json",
        "dropped.jsonl",
        "run.json",
        "training.json",
    }
    done = read_json(out / "training.json")
    assert done["steps"] == 60 and done["final_loss"] == losses[-1] and done["data"]["counts"]["used"] == 16
    assert done["data"]["from"] == "sample"
    card = read_json(out / "adapter" / models.ADAPTER_CARD)
    assert card["base_fingerprint"] == models.fingerprint(base) and card["stage"] == "sft"
    models.check_adapter(str(out / "adapter"), base)
    cost = read_json(out / "cost.json")
    assert cost["attempts"] == 1 and cost["tokens_seen"] > 60 * 4 * 40 and cost["device"] == "1 x cpu"
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("chat", [False, True])
def test_only_the_answer_counts(recipe_file, chat):
    prepared = sft.prepare(["--config", recipe_file(chat=chat)])
    trainer = stage._build(prepared)
    tokenizer = trainer.processing_class
    seen = [number for row in trainer.train_dataset for number in row["examples"]]
    assert sorted(seen[:16]) == list(range(16)) and sorted(seen[16:]) != list(range(16))  # six steps of four
    for encoded in trainer.train_dataset:
        row = prepared.examples.rows[encoded["examples"][0]]
        learned = [token for token in encoded["labels"] if token != -100]
        assert encoded["labels"][-len(learned) :] == learned == encoded["input_ids"][-len(learned) :]
        answer = row["completion"][0]["content"] + "<|im_end|>\n" if chat else row["completion"] + "<|endoftext|>"
        assert tokenizer.decode(learned) == answer


def test_passages_are_packed_without_loss(recipe_file, write_jsonl, make_item):
    passages = [{"id": n, "title": f"Title {n}", "text": make_item(n)["question"] * (1 + n)} for n in range(6)]
    path = recipe_file(corpus=[write_jsonl(passages, "corpus.jsonl")], max_steps=None, num_train_epochs=1)
    prepared = cpt.prepare(["--config", path])
    trainer = stage._build(prepared)
    packed = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    tokenizer = trainer.processing_class
    assert packed == sum(len(tokenizer(row["text"])["input_ids"]) + 1 for row in prepared.examples.rows)
    assert max(len(row["input_ids"]) for row in trainer.train_dataset) <= 64


def test_the_adapter_learns_in_float32(recipe_file):
    trainer = stage._build(sft.prepare(["--config", recipe_file(dtype="bfloat16")]))
    kinds = {str(p.dtype) for p in trainer.model.parameters() if p.requires_grad}
    assert kinds == {"torch.float32"} and list(trainer.model.peft_config) == ["default"]


@pytest.fixture
def interrupted(monkeypatch):
    """A function that trains until step ``step`` begins and is then interrupted, as by Ctrl-C."""
    from trainers import report

    def train(path: str, step: int) -> None:
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(report.LogAtCheckpoint, "on_step_begin", on_step_begin)
            sft.main(["--config", path])

    return train


def test_what_ends_an_epoch_is_done_at_each_end(recipe_file, write_jsonl, make_item, interrupted, tmp_path):
    """Five rows a step: the first of two and a half epochs of 16 ends within the fourth step."""
    every = dict.fromkeys(("save_strategy", "eval_strategy", "logging_strategy"), "epoch")
    held_out = [write_jsonl([make_item(n) for n in range(20, 24)], "dev.jsonl")]
    settings = {"max_steps": None, "num_train_epochs": 2.5, "per_device_train_batch_size": 5, "dev_sources": held_out}
    settings |= every | {"shuffle_options": True, "keep_checkpoints": True}
    whole = train(recipe_file("whole.yaml", output_dir=str(tmp_path / "whole"), **settings))
    path, out = recipe_file(**settings), tmp_path / "out"
    interrupted(path, 5)
    assert run_folder.last_checkpoint(out)[1]["global_step"] == 4
    train(path)
    for folder in (whole, out):
        steps = [int(found.name.split("-")[1]) for found in (folder / "checkpoints").glob("checkpoint-*")]
        assert sorted(steps) == [4, 7, 8]
        assert [entry["step"] for entry in read_json(folder / "loss.json")] == [4, 7, 8]
        assert [entry["step"] for entry in read_json(folder / "eval.json")] == [4, 7, 8]
    for name in ("adapter/adapter_model.safetensors", "loss.json", "eval.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_packed_questions_resume_to_the_same_bits(recipe_file, write_jsonl, make_item, interrupted, tmp_path):
    held_out = [write_jsonl([make_item(n) for n in range(20, 24)], "dev.jsonl")]
    settings = {"max_steps": None, "num_train_epochs": 6, "packing": True, "max_length": 128, "shuffle_options": True}
    settings |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "lora_dropout": 0.2}
    settings |= {"dev_sources": held_out, "eval_strategy": "steps", "eval_steps": 4, "save_steps": 5}
    whole = train(recipe_file("whole.yaml", output_dir=str(tmp_path / "whole"), **settings))
    path, out = recipe_file(**settings), tmp_path / "out"
    interrupted(path, 13)
    assert run_folder.last_checkpoint(out)[1]["global_step"] == 10
    train(path)
    for name in ("adapter/adapter_model.safetensors", "loss.json", "eval.json", "loss.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    losses = read_json(out / "loss.json")
    epochs = [entry["epoch"] for entry in losses]
    steps = len(losses)
    assert epochs == pytest.approx([6 * step / steps for step in range(1, steps + 1)], rel=0.02)
    done = read_json(out / "training.json")
    assert done["epochs"] == epochs[-1] == 6 and done["steps"] == steps > 13


@pytest.mark.parametrize(
    ("length", "steps", "epochs"),
    [
        ({"max_steps": 6}, 6, 1.5),
        ({"max_steps": 3}, 3, 0.75),
        ({"num_train_epochs": 2}, 8, 2),
        ({"num_train_epochs": 0.5}, 2, 0.5),
    ],
)
def test_epochs_are_counted_as_the_recipe_counts_them(recipe_file, length, steps, epochs):
    out = train(recipe_file(**{"max_steps": None} | length))
    done = read_json(out / "training.json")
    assert (done["steps"], done["epochs"]) == (steps, epochs)
    assert [entry["epoch"] for entry in read_json(out / "loss.json")] == [
        pytest.approx(epochs * step / steps) for step in range(1, steps + 1)
    ]


def test_a_killed_run_resumes_to_the_same_bits(recipe_file, tmp_path):
    settings = {"max_steps": 24, "save_steps": 5, "logging_steps": 3, "gradient_accumulation_steps": 2}
    whole = train(recipe_file("whole.yaml", output_dir=str(tmp_path / "whole"), **settings))
    path = recipe_file("killed.yaml", output_dir=str(tmp_path / "killed"), **settings)
    out = tmp_path / "killed"
    program = "import sys, time; from trainers import report, sft\n"
    program += "report.LogAtCheckpoint.on_step_begin = lambda *a, **k: time.sleep(0.2)\n"
    program += f"sft.main(['--config', {path!r}])"
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "checkpoint-10" / "trainer_state.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "training.json").exists() and not (out / "adapter").exists()
    # and the newest checkpoint is one that was being written
    broken = out / "checkpoints" / "checkpoint-20"
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(out / "checkpoints" / "checkpoint-10", broken)
    weights = broken / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    train(path)
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "loss.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert read_json(out / "cost.json")["attempts"] == 2
    assert read_json(out / "cost.json")["tokens_seen"] == read_json(whole / "cost.json")["tokens_seen"]
    ours, theirs = (read_json(folder / "training.json") for folder in (out, whole))
    for record in (ours, theirs):
        record["config"].pop("output_dir")
    assert ours == theirs


def test_a_run_killed_before_its_adapter_was_written_needs_no_training(recipe_file, monkeypatch):
    path = recipe_file(keep_checkpoints=True)
    out = train(path)
    before = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    (out / "training.json").unlink()
    shutil.rmtree(out / "adapter")
    monkeypatch.setattr(stage, "_build", lambda _: pytest.fail("trained again"))
    train(path)
    assert (out / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_a_tilde_is_the_users_folder(recipe_file, base, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(base, tmp_path / "models" / "tiny")
    out = train(recipe_file(model_name_or_path="~/models/tiny", max_steps=1))
    recipe = recipe_file(model_name_or_path="~/models/tiny", max_steps=1, adapter="~/out/adapter", output_dir="~/on")
    assert sft.main(["--config", recipe]) == 0
    assert read_json(tmp_path / "on" / "adapter" / models.ADAPTER_CARD)["base"] == str(tmp_path / "models" / "tiny")
    assert merge.main(["~/out/adapter", "--out", "~/merged"]) == 0
    assert (out.parent / "merged" / merge.REPORT).is_file()


def test_a_finished_run_says_so(recipe_file, capsys, monkeypatch):
    path = recipe_file()
    train(path)
    monkeypatch.setattr(stage, "_build", lambda _: pytest.fail("trained again"))
    train(path, "--save_total_limit", "1")
    assert "is finished already" in capsys.readouterr().out


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_run_that_begins_with_what_it_would_replace_is_refused(recipe_file, tmp_path, overwrite):
    path = recipe_file(max_steps=2)
    train(path)
    adapter = tmp_path / "out" / "adapter"
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    with pytest.raises(InputError, match="lies in this run's own output_dir"):
        train(path, "--adapter", str(adapter), *overwrite)
    assert (adapter / "adapter_model.safetensors").read_bytes() == weights


def test_another_configuration_is_refused_unless_it_may_overwrite(recipe_file, capsys):
    path = recipe_file()
    out = train(path)
    with pytest.raises(InputError, match="another run .max_steps was 6, now 3"):
        train(path, "--max_steps", "3")
    train(path, "--max_steps", "3", "--overwrite")
    assert read_json(out / "training.json")["steps"] == 3 and not (out / run_folder.EARLIER).exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "changes", [["--lora_target_modules", "no_such"], ["--max_steps", "2", "--optim", "galore_adamw"]], ids=str
)
def test_a_run_that_never_begins_replaces_nothing(recipe_file, changes):
    path = recipe_file()
    before = contents(train(path))
    with pytest.raises(InputError):
        train(path, "--overwrite", *changes)
    assert contents(Path(read_json(path)["output_dir"])) == before


def test_a_run_replaces_another_once_it_has_a_checkpoint(recipe_file, monkeypatch, capsys):
    from trainers.trainer import Trainer

    path = recipe_file()
    out = train(path)
    before, save = contents(out), Trainer._save_checkpoint

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train(path, "--seed", "7", "--overwrite")
    assert {name for name in contents(out / run_folder.EARLIER)} == set(before) - {".lock"}
    monkeypatch.setattr(Trainer, "_save_checkpoint", save)
    capsys.readouterr()
    train(path, "--overwrite")  # the earlier one is what is wanted after all
    assert "is finished already" in capsys.readouterr().out and contents(out) == before

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_save_checkpoint", killed)
        train(path, "--seed", "7", "--overwrite")
    train(path, "--seed", "7")
    assert not (out / run_folder.EARLIER).exists() and read_json(out / "training.json")["seed"] == 7


def test_a_replaced_run_that_was_removed_by_half_does_not_come_back(recipe_file, monkeypatch):
    path = recipe_file()
    train(path)

    def cut(folder, **_):
        if folder.name == run_folder.FORGOTTEN:
            (folder / "run.json").unlink()
            raise KeyboardInterrupt
        return remove(folder)

    remove = shutil.rmtree
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_folder.shutil, "rmtree", cut)
        train(path, "--seed", "7", "--overwrite")
    out = train(path, "--seed", "7")
    assert read_json(out / "training.json")["seed"] == 7 and read_json(out / "cost.json")["attempts"] == 2
    assert not any((out / name).exists() for name in (run_folder.EARLIER, run_folder.FORGOTTEN))


def test_a_replaced_run_goes_though_the_last_checkpoint_was_the_last_thing_done(recipe_file, monkeypatch):
    path = recipe_file(save_steps=6)
    train(path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "_keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(path, "--seed", "7", "--overwrite")
    monkeypatch.setattr(stage, "_build", lambda _: pytest.fail("trained again"))
    out = train(path, "--seed", "7")
    assert read_json(out / "training.json")["seed"] == 7 and not (out / run_folder.EARLIER).exists()


@pytest.mark.parametrize("cut_at", range(5))
def test_a_run_whose_setting_aside_was_cut_short_is_whole_again(tmp_path, monkeypatch, cut_at):
    out, rename, moved = tmp_path / "out", Path.rename, []
    with run_folder.claim(out, {"config": {"seed": 1}}, False):
        run_folder.begin(out, {"config": {"seed": 1}})
        for name in ("adapter", "checkpoints"):
            (out / name).mkdir()
            (out / name / "weights").write_text(name)
        (out / "training.json").write_text("{}")
    before = contents(out)

    def cut(source, target):
        if len(moved) == cut_at:
            raise KeyboardInterrupt
        moved.append(source.name)
        return rename(source, target)

    monkeypatch.setattr(run_folder, "_bring_back", lambda _: None)  # as a killed process leaves it
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", cut)
        with run_folder.claim(out, {"config": {"seed": 2}}, True):
            raise KeyboardInterrupt
    assert len(moved) == min(cut_at, 4) and (not moved or contents(out) != before)
    monkeypatch.undo()
    with run_folder.claim(out, {"config": {"seed": 1}}, False):
        assert contents(out) == before


def test_a_folder_that_is_removed_while_training_is_made_again(recipe_file, monkeypatch, capsys):
    from trainers import report

    path = recipe_file()
    out = Path(read_json(path)["output_dir"])

    def remove(self, args, state, control, **keywords):
        if state.global_step == 3:
            shutil.rmtree(out)

    monkeypatch.setattr(report.LogAtCheckpoint, "on_step_begin", remove)
    train(path)
    assert "was removed while training" in capsys.readouterr().out
    assert read_json(out / "training.json")["steps"] == 6 and (out / "data.json").is_file()
    train(path)
    assert "is finished already" in capsys.readouterr().out


def test_a_folder_that_is_another_runs_by_now_is_not_written_into(recipe_file, monkeypatch):
    from trainers import report

    path = recipe_file()
    out = Path(read_json(path)["output_dir"])

    def take(self, args, state, control, **keywords):
        if state.global_step == 3:
            run_folder.begin(out, read_json(out / "run.json") | {"stage": "cpt"})

    monkeypatch.setattr(report.LogAtCheckpoint, "on_step_begin", take)
    with pytest.raises(InputError, match="belongs to another run .stage was cpt, now sft"):
        train(path)
    assert not (out / "adapter").exists()


def test_other_data_is_another_run(recipe_file, write_jsonl, make_item):
    path = recipe_file()
    train(path)
    write_jsonl([make_item(n) for n in range(12)])
    with pytest.raises(InputError, match="data_fingerprint was"):
        train(path)


def test_another_end_of_texts_is_another_run(recipe_file, build_base):
    base = build_base()
    path = recipe_file(model_name_or_path=base)
    train(path)
    file = Path(base, "tokenizer_config.json")
    config = read_json(file)
    file.write_text(json.dumps(config | {"eos_token": "<pad>" if config["eos_token"] != "<pad>" else "<unk>"}))
    with pytest.raises(InputError, match="tokenizer_fingerprint was"):
        train(path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        Exception("No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
    ids=repr,
)
def test_a_full_disk_is_said_in_one_line_and_what_was_saved_is_gone_on_from(recipe_file, monkeypatch, error):
    from trainers.trainer import Trainer

    path, save = recipe_file(), Trainer._save_checkpoint

    def fill(self, *args):
        if self.state.global_step > 2:
            raise error
        save(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", fill)
        with pytest.raises(InputError, match="the disk is full; free some, and start again"):
            train(path)
    out = train(path)
    assert read_json(out / "cost.json")["attempts"] == 2


def test_a_disk_that_is_full_when_the_adapter_is_written_needs_no_training_again(recipe_file, monkeypatch):
    from trainers import adapter

    path, publish = recipe_file(), adapter.publish

    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapter, "publish", fill)
    with pytest.raises(InputError, match="the disk is full; free some, and start again"):
        train(path)
    monkeypatch.setattr(adapter, "publish", publish)
    monkeypatch.setattr(stage, "_build", lambda _: pytest.fail("trained again"))
    assert (train(path) / "adapter" / "adapter_model.safetensors").is_file()


def test_two_writers_are_refused(recipe_file, tmp_path):
    path = recipe_file()
    with run_folder.claim(tmp_path / "out", {"config": {}}, False):
        with pytest.raises(InputError, match="another process is training into it"):
            train(path)
        assert (tmp_path / "out" / ".lock").exists()
    assert not (tmp_path / "out").exists()


def test_a_folder_of_someone_else_is_left_alone(recipe_file, tmp_path):
    (tmp_path / "out" / "adapter").mkdir(parents=True)
    (tmp_path / "out" / "adapter" / "adapter_config.json").touch()
    with pytest.raises(InputError, match="not a run of ours"):
        train(recipe_file())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["adapter"]


def test_one_target_is_a_name_as_several_are(recipe_file):
    trainer = stage._build(sft.prepare(["--config", recipe_file(lora_target_modules=["q_proj"])]))
    learned = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert len(learned) == 4 and all(".q_proj.lora_" in name for name in learned)


def test_whole_modules_of_a_base_in_16_bits_need_autocast(recipe_file, tmp_path):
    whole = {"dtype": "bfloat16", "lora_modules_to_save": ["lm_head"], "lora_target_modules": ["q_proj"]}
    with pytest.raises(InputError, match="lora_modules_to_save: they learn in float32.*say 'bf16: true'"):
        train(recipe_file(**whole))
    assert not (tmp_path / "out").exists()
    assert (train(recipe_file(bf16=True, max_steps=1, **whole)) / "adapter").is_dir()


def test_settings_that_do_not_go_together_leave_nothing(recipe_file, tmp_path):
    with pytest.raises(InputError, match="do not go together.*no_such_layer"):
        train(recipe_file(lora_target_modules="no_such_layer"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr or min_lr_rate should be set"),
        ({"lr_scheduler_kwargs": {"speed": 1}}, "unexpected keyword argument 'speed'"),
        ({"adam_beta1": 2}, "Invalid beta parameter"),
        ({"dataloader_persistent_workers": True}, "persistent_workers option needs num_workers"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"speed": 1}}, "keyword arguments: speed"),
        ({"attn_implementation": "packed"}, "attn_implementation: packed learns on a GPU alone"),
        (
            {"per_device_train_batch_size": 17, "max_steps": None, "dataloader_drop_last": True, "num_train_epochs": 1},
            "dataloader_drop_last: 16 rows are fewer than a batch of 17",
        ),
    ],
)
def test_what_shows_when_training_begins_is_one_line_and_leaves_nothing(recipe_file, tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        train(recipe_file(**changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("package", "changes"), [("galore_torch", {"optim": "galore_adamw"}), ("liger_kernel", {"use_liger_kernel": True})]
)
def test_a_package_that_is_lacking_is_named(recipe_file, tmp_path, package, changes):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is here")
    with pytest.raises(InputError, match=f"do not go together.*{package.replace('_', '.')}"):
        train(recipe_file(**changes))
    assert not (tmp_path / "out").exists()


def test_what_fails_after_training_has_begun_is_no_fault_of_settings(recipe_file, monkeypatch, tmp_path):
    from trainers.trainer import Trainer

    honest = Trainer.compute_loss

    def fail(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise ValueError("a fault of the code")
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "compute_loss", fail)
    with pytest.raises(ValueError, match="a fault of the code"):
        train(recipe_file())
    assert run_folder.last_checkpoint(tmp_path / "out")[1]["global_step"] == 2


def test_a_loss_that_is_no_number_stops_the_run_at_its_step(recipe_file, monkeypatch):
    from trainers.trainer import Trainer

    honest = Trainer.compute_loss

    def explode(self, *args, **kwargs):
        loss = honest(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step == 3 else loss

    path = recipe_file(logging_steps=100)
    monkeypatch.setattr(Trainer, "compute_loss", explode)
    with pytest.raises(InputError, match="the loss is not finite at step 4 .*lower learning_rate"):
        train(path)
    out = Path(read_json(path)["output_dir"])
    assert not (out / "training.json").exists() and run_folder.last_checkpoint(out)[1]["global_step"] == 2
    monkeypatch.undo()
    train(path)
    assert read_json(out / "training.json")["steps"] == 6


def test_the_loss_is_the_mean_over_answer_tokens(recipe_file):
    import torch

    trainer = stage._build(sft.prepare(["--config", recipe_file(lora_dropout=0.0)]))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, dict(batch))
    losses = []
    bounds = batch["cu_seq_lens_q"].tolist()
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):  # each example on its own
        logits = trainer.model(input_ids=batch["input_ids"][:, start:end]).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits[-2:], batch["input_ids"][0, end - 2 : end]))
    assert len(losses) == 4 and len(batch["scored"]) == 8  # a letter and the end, each
    torch.testing.assert_close(loss, torch.stack(losses).mean())
