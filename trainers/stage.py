"""One stage of training, SFT or CPT: build the trainer, train or resume, save. They differ in their data alone."""

import copy
import gc
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files, models, sources
from medtasks.errors import InputError
from trainers import acceleration, adapter, batches, data, guards, merge, noise, processes, run_folder, trackers
from trainers.acceleration import AccelerationArguments
from trainers.data import Examples
from trainers.planning import retry
from trainers.run_folder import RunArguments

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig

NOT_HERE = {
    "resume_from_checkpoint": "a run resumes by itself from its output_dir",
    "save_only_model": "a run resumes from whole checkpoints",
    "load_best_model_at_end": "a lower held-out loss is no better model; compare checkpoints on tasks",
    "push_to_hub": "upload the finished adapter with `python -m trainers.push`",
    "model_init_kwargs": "models are loaded by the keys of ModelConfig",
    "data_seed": "the order of the data is drawn by seed",
    "trust_remote_code": "models are loaded by transformers' own code",
    "chat_template_path": "the model keeps its chat template",
    "eos_token": "the model keeps its tokenizer",
    "assistant_only_loss": "completions are what is learned, and nothing else",
    "torch_compile": "layers are compiled by compile_layers",
    "parallelism_config": "several GPUs train by DDP or FSDP, as accelerate's configuration says",
}
"""TRL's keys that have no place here, and why."""

LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "eval_accumulation_steps": 1,
    "max_length": 1,
    "num_train_epochs": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "max_grad_spike": 0,
    "dataloader_num_workers": 0,
}
"""The smallest number that a key may have; all of them are finite."""

SPLIT = ("per_device_train_batch_size", "gradient_accumulation_steps")
LIBRARIES = ("trl", "peft", "transformers", "torch", "accelerate", "datasets")


@dataclass
class Stage:
    """Everything that a stage of training needs, checked as far as it can be without loading the model."""

    name: str
    """``sft`` or ``cpt``."""
    out: Path
    examples: Examples
    run: RunArguments
    training: "SFTConfig"
    model: "ModelConfig"
    acceleration: AccelerationArguments
    config: dict
    """What recipe and command line set (:func:`trainers.recipe.parse`)."""
    dev: Examples | None = None
    """Held-out rows, of the shape of ``examples``: the loss on them is measured along the way."""
    compiles: bool | None = None
    """Whether layers are compiled, once that is decided."""

    @property
    def learned(self) -> Path:
        """The folder of what is learned: an adapter, or a whole model."""
        return self.out / ("model" if self.run.full_finetuning else "adapter")

    def __post_init__(self):
        if self.training.eval_strategy != "no" and self.dev is None:
            raise InputError("eval_strategy: nothing is held out; take the key out and evaluate the adapter on tasks")


def settle(training, model, run: RunArguments) -> Path:
    """Refuse settings under which a run cannot be resumed, send checkpoints to their folder; returns ``output_dir``.

    Raises:
        InputError: such a setting, a launch that cannot train, no base model, or nothing in it that could learn.
    """
    if training.output_dir in (None, "", "trainer_output"):
        raise InputError("output_dir is not set; name the folder for adapter, loss and checkpoints")
    check_keys(vars(training) | vars(run))
    model.model_name_or_path = _without_tilde(model.model_name_or_path)
    run.adapter = _without_tilde(run.adapter)
    processes.check(training, model)
    adapter.check_base(model, run.full_finetuning)
    adapter.keep_target_a_name(model)
    scales_all = run.full_finetuning or not (model.use_dora or model.lora_modules_to_save)
    if run.adapter_scale != 1 and not (scales_all and 0 < run.adapter_scale < math.inf):
        raise InputError(
            f"adapter_scale {run.adapter_scale}: it is above 0, and for LoRA (neither DoRA nor lora_modules_to_save) "
            "or all weights"
        )
    if model.lora_modules_to_save and model.dtype in ("bfloat16", "float16") and not (training.bf16 or training.fp16):
        raise InputError(
            f"lora_modules_to_save: they learn in float32, and the base computes in {model.dtype}; say 'bf16: true', "
            "or 'dtype: float32'"
        )
    out = Path(training.output_dir)
    trackers.settle(training, out)
    training.output_dir = str(out / run_folder.CHECKPOINTS)
    training.logging_nan_inf_filter = False  # it hides what the guard looks for
    training.include_num_input_tokens_seen = "all"
    training.train_sampling_strategy = "sequential"  # the rows come in the order of training
    if training.ddp_find_unused_parameters is None:
        training.ddp_find_unused_parameters = False  # every adapter weight takes part in every forward
    return out


def _without_tilde(name: str | None) -> str | None:
    """A folder's path with its ``~`` expanded; a name of the Hub has none."""
    return os.path.expanduser(name) if name else name


def check_keys(settings: dict) -> None:
    """Raise InputError where what a recipe says cannot be trained, whatever the model and the machine: keys that have
    no place here, and numbers too small for their key, infinite or none at all; None is a key left out."""
    for key, reason in NOT_HERE.items():
        if settings[key]:
            raise InputError(f"{key} has no place here: {reason}; take the key out")
    if getattr(settings["save_strategy"], "value", settings["save_strategy"]) not in ("steps", "epoch"):
        raise InputError("save_strategy must be steps or epoch: a run resumes from its checkpoints")
    if settings["packing"] and settings["max_length"] is None:
        raise InputError("max_length: packed rows need a length; give a number of tokens, or say 'packing: false'")
    if settings["full_finetuning"] and (settings["adapter"] or settings["merge"]):
        key = "adapter" if settings["adapter"] else "merge"
        raise InputError(f"{key} has no place in a full fine-tuning, which has no adapter; take the key out")
    for key, least in LEAST.items():
        if settings[key] is not None and not least <= settings[key] < math.inf:
            raise InputError(f"{key} is {settings[key]}; it must be a number from {least} on")


@contextmanager
def reserved(stage: Stage):
    """Hold ``stage.out`` for a stage that is trained after another one, on what that one makes.

    Raises:
        InputError: another process holds it, or it belongs to another run.
    """
    from accelerate import PartialState

    everyone = PartialState()
    if not everyone.is_main_process:
        yield
        return
    known = run_folder.identity(stage.config, stage=stage.name, **_of_data(stage))
    with run_folder.reserve(stage.out, known, stage.run.overwrite):
        yield


def train(stage: Stage, is_reserved: bool = False) -> None:
    """Train ``stage`` into ``stage.out``, or go on from where an earlier attempt stopped.

    Leaves ``adapter/`` (or ``model/``), ``merged/`` if asked for, ``loss.json``, ``loss.png``, ``eval.json`` if there
    is held-out data, ``cost.json``, ``data.json``, ``dropped.jsonl``, ``run.json`` and, last of all,
    ``training.json``. Every process of a distributed run calls this; the first one writes.

    Args:
        is_reserved: whether this is called within :func:`reserved`.

    Raises:
        InputError: the folder belongs to another run, files cannot be loaded, or the loss is no longer finite.
    """
    from accelerate import PartialState

    everyone = PartialState()
    out, start = stage.out, stage.run.adapter
    run_folder.check_start(out, start, stage.model.model_name_or_path)
    if start is not None:
        adapter.check_adapter(stage.model, start)
    run = run_folder.identity(
        stage.config,
        stage=stage.name,
        base_fingerprint=adapter.check_base(stage.model, stage.run.full_finetuning),
        tokenizer_fingerprint=models.tokenizer_fingerprint(stage.model.model_name_or_path, stage.model.model_revision),
        adapter_fingerprint=start and files.sha256_file(Path(start) / adapter.WEIGHTS)[:16],
        **_of_data(stage),
    )
    first = everyone.is_main_process
    with (
        files.telling_of_a_full_disk(out, "free some, and start again to go on from here"),
        run_folder.claim(out, run, stage.run.overwrite, is_reserved) if first else nullcontext(),
    ):
        if first:
            run_folder.last_checkpoint(out)  # removes half-written ones before the others look
        everyone.wait_for_everyone()
        if run_folder.finished(out):
            everyone.print(f"{out} is finished already")
        else:
            everyone.print(stage.examples)
            _train_to_last_checkpoint(stage, run)
            everyone.wait_for_everyone()
            if first:
                _publish(stage, run)
                run_folder.forget_earlier(out)  # of a run killed right after its last checkpoint
        if first:
            _merge_if_asked(stage)  # of a run that finished without
            if not stage.run.keep_checkpoints:
                shutil.rmtree(out / run_folder.CHECKPOINTS, ignore_errors=True)
        everyone.wait_for_everyone()
    everyone.print(f"{stage.learned.name}: {stage.learned}; loss: {out / 'loss.png'}")


def _of_data(stage: Stage) -> dict:
    """What of a run's identity its data and their division say."""
    from accelerate import PartialState

    parts = {"data_fingerprint": stage.examples.fingerprint, "num_processes": PartialState().num_processes}
    return parts | ({"dev_fingerprint": stage.dev.fingerprint} if stage.dev else {})


def _train_to_last_checkpoint(stage: Stage, run: dict) -> None:
    """Train until a checkpoint of the last step is there; nothing to do where it is."""
    import torch
    from accelerate import PartialState

    checkpoint, state = run_folder.last_checkpoint(stage.out)
    if checkpoint is not None and state["global_step"] >= state["max_steps"]:
        return
    _use_all_cores(stage.training)
    number = PartialState().num_processes
    retry.until_it_fits(stage.training, lambda: _attempt(stage, run), lambda: _next_knob(stage), number)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _attempt(stage: Stage, run: dict) -> None:
    """Build the trainer, and train from the last checkpoint on.

    Raises:
        InputError: settings that do not go together, some of which show when training begins: nothing is left then,
            since the mended recipe is another run.
    """
    from accelerate import PartialState

    from trainers import report

    first = PartialState().is_main_process
    checkpoint, _ = run_folder.last_checkpoint(stage.out)
    if checkpoint is not None:
        stage.training.eval_on_start = False  # the start is in the checkpoint's history
    trainer = _build(stage)
    trainer.add_callback(report.AtCheckpoint(lambda: _keep(stage, run)))
    if first:
        run_folder.begin(stage.out, run)
        _write_data(stage)
        (stage.out / guards.DIVERGED).unlink(missing_ok=True)
    try:
        one_curve = trackers.one_curve(stage.training.report_to, Path(stage.training.output_dir))
        with one_curve, _blaming_settings(until=lambda: trainer.has_begun):
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except Exception:
        if first and checkpoint is None and not trainer.has_begun:
            run_folder.clear(stage.out)
        raise
    trainer.accelerator.free_memory()


def _keep(stage: Stage, run: dict) -> None:
    """See at a checkpoint that the folder is this run's, though it was removed meanwhile; a run it replaces may go."""
    run_folder.keep(stage.out, run)
    _write_data(stage)
    run_folder.forget_earlier(stage.out)


@contextmanager
def _blaming_settings(until: Callable[[], bool] = lambda: False):
    """Make one line of what libraries say of settings: of optimizer, schedule, loaders and kernels, which they make
    when training begins. What fails later, when ``until`` holds, is a fault of the code and keeps its traceback."""
    try:
        yield
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        if until():
            raise
        raise InputError(f"these settings do not go together: {' '.join(str(error).split())}") from error


def _next_knob(stage: Stage) -> str:
    """What to change where memory is full."""
    from trainers.planning import knobs, workload

    settings = vars(stage.model) | vars(stage.training) | vars(stage.acceleration) | vars(stage.run)
    if "activation_checkpointing" not in stage.config:
        settings["activation_checkpointing"] = None  # transformers fills in both of its names
    if stage.compiles is not None:
        settings["compile_layers"] = stage.compiles
    return knobs.advice(
        settings,
        gpus=stage.training.world_size,
        sharded=processes.sharded(),
        on_cpu=stage.training.device.type == "cpu",
        by_letter=workload.are_letters(stage.examples.drafts),
    )


def _write_data(stage: Stage) -> None:
    """Write what is learned from as ``data.json``, and what is not as ``dropped.jsonl``: places, never texts. A run
    that resumes has them already."""
    if (stage.out / run_folder.DATA).is_file():
        return
    files.write_jsonl(stage.out / run_folder.DROPPED, stage.examples.dropped)
    about = data.summary(stage.examples, adapter.load_tokenizer(stage.model), stage.training.max_length)
    files.write_json(stage.out / run_folder.DATA, about)


def _build(stage: Stage):
    """The trainer over the stage's examples, packed in the order of training."""
    tokenizer = adapter.load_tokenizer(stage.model)
    return build(stage, tokenizer, _pack(stage, tokenizer))


def build(stage: Stage, tokenizer, packed: batches.Packed):
    """TRL's trainer over ``packed`` rows, its adapter in float32, accelerated as far as it goes.

    Raises:
        InputError: the model cannot be loaded, or settings do not go together.
    """
    from datasets import Dataset
    from trl import get_peft_config

    from trainers import isolation, report
    from trainers.trainer import Trainer

    started = time.monotonic()
    training = stage.training
    chosen = acceleration.decide(stage.acceleration, training, stage.model, packed, shards=processes.sharded())
    stage.compiles = chosen.compiles
    model = adapter.load_base(stage.model, chosen.attention, chosen.dequantizes)
    if stage.run.adapter is not None:
        model = adapter.continue_adapter(model, stage.run.adapter, stage.model)
    arguments = copy.copy(training)
    arguments.num_train_epochs, arguments.packing, arguments.max_length = 1, False, None
    arguments.neftune_noise_alpha = None  # ours knows documents from rows
    arguments.dataset_kwargs = {"skip_prepare_dataset": True}
    arguments.accelerator_config = copy.copy(training.accelerator_config)
    arguments.accelerator_config.non_blocking = training.device.type == "cuda"  # of pinned memory
    meter = report.CostMeter(stage.out / "cost.json", started, training.device)
    with _blaming_settings():
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(packed.rows),
            eval_dataset=Dataset.from_list(_held_out(stage, tokenizer)) if stage.dev else None,
            processing_class=tokenizer,
            peft_config=None if stage.run.adapter or stage.run.full_finetuning else get_peft_config(stage.model),
            guard=guards.Guard(stage.out, stage.examples.place, training.fp16, stage.run.max_grad_spike),
            epochs=packed.epochs,
            callbacks=[
                report.AtEpochEnds({math.ceil(rows / _rows_a_step(training)) for rows in packed.ends[:-1]}),
                report.LogAtCheckpoint(),
                report.EvaluateAtEnd(),
                meter,
            ],
        )
    adapter.demand_targets(trainer.model, stage.model.lora_target_modules)
    adapter.demand_untied(trainer.model)
    if training.neftune_noise_alpha is not None:
        trainer.on_documents = noise.add(trainer.model, training.neftune_noise_alpha)
    trackers.keep(trainer, stage.out)
    adapter.train_in_float32(trainer.model)
    processes.shard_well(trainer)
    if packed.most_documents(training.per_device_train_batch_size) > 1 or (
        stage.dev and training.per_device_eval_batch_size > 1
    ):
        isolation.demand(trainer)
    built = time.monotonic()
    with _blaming_settings():
        acceleration.apply(chosen, trainer)
    meter.capturing = time.monotonic() - built
    return trainer


def _pack(stage: Stage, tokenizer) -> batches.Packed:
    """The stage's examples in the order of training."""
    training = stage.training
    packed = batches.pack(
        stage.examples.epoch,
        tokenizer,
        epochs=training.num_train_epochs,
        seed=training.seed,
        most_rows=training.max_steps * _rows_a_step(training) if training.max_steps > 0 else None,
        max_length=training.max_length,
        strategy=training.packing_strategy if training.packing else None,
    )
    batch = training.per_device_train_batch_size * training.world_size
    if training.dataloader_drop_last and len(packed.rows) < batch:
        raise InputError(
            f"dataloader_drop_last: {len(packed.rows)} rows are fewer than a batch of {batch}, and none would be "
            "learned; take the key out"
        )
    if training.dataloader_drop_last:
        return packed
    return replace(packed, rows=_shared(packed.rows, training.per_device_train_batch_size, training, tokenizer))


def _shared(rows: list[dict], each: int, training, tokenizer) -> list[dict]:
    """``rows`` as several processes share them, ``each`` of them at a time; one process takes them as they are."""
    number = training.world_size
    return batches.fill_up(rows, each * number, tokenizer.eos_token_id) if number > 1 else rows


def _rows_a_step(training) -> int:
    return training.per_device_train_batch_size * training.gradient_accumulation_steps * training.world_size


def _held_out(stage: Stage, tokenizer) -> list[dict]:
    """The held-out examples, one a row."""
    rows = batches.pack(stage.dev.epoch, tokenizer, epochs=1, seed=stage.training.seed).rows
    return _shared(rows, stage.training.per_device_eval_batch_size, stage.training, tokenizer)


def _publish(stage: Stage, run: dict) -> None:
    """Write adapter, loss and, last of all, ``training.json`` from the checkpoint of the last step."""
    from trainers import report

    out = stage.out
    checkpoint, state = run_folder.last_checkpoint(out)
    history = report.loss_history(state["log_history"])
    about = {
        "stage": stage.name,
        "base": stage.model.model_name_or_path,
        "base_fingerprint": run["base_fingerprint"],
        "tokenizer_fingerprint": run["tokenizer_fingerprint"],
        "continues": run["adapter_fingerprint"],
        "data_fingerprint": run["data_fingerprint"],
        "config": stage.config,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    if stage.run.full_finetuning:
        base, revision = stage.model.model_name_or_path, stage.model.model_revision
        adapter.publish_model(checkpoint, stage.learned, base, revision, about, stage.run.adapter_scale)
    else:
        adapter.publish(checkpoint, stage.learned, about)
        if stage.run.adapter_scale != 1:
            adapter.scale(stage.learned, stage.learned, stage.run.adapter_scale)
    evaluations = report.eval_history(state["log_history"])
    report.write_loss(history, evaluations, out, f"{stage.name}: {Path(stage.model.model_name_or_path).name}")
    _merge_if_asked(stage)
    counts = {"counts": stage.examples.counts, "sources": stage.examples.taken, "from": sources.kinds()}
    training = {"steps": state["global_step"], "epochs": history[-1]["epoch"], "seed": stage.training.seed}
    training |= {key: getattr(stage.training, key) for key in SPLIT}  # as it was in the end, if memory was full
    loss = {"final_loss": history[-1]["loss"], "first_loss": history[0]["loss"]}
    if evaluations:
        loss |= {"final_eval_loss": evaluations[-1]["eval_loss"], "first_eval_loss": evaluations[0]["eval_loss"]}
    files.write_json(out / run_folder.FINISHED, about | training | loss | {"data": counts})


def _merge_if_asked(stage: Stage) -> None:
    merged = stage.out / "merged"
    if stage.run.merge and not merged.is_dir():
        report = merge.merge(stage.learned, merged, base=stage.model.model_name_or_path)
        print(f"{merged}: {merge.describe(report)}")


def _use_all_cores(training) -> None:
    """Undo the OMP_NUM_THREADS=1 that `accelerate launch` without `--cpu` sets, where the CPU does the training."""
    import torch

    launched_without_cpu = os.environ.get("ACCELERATE_USE_CPU") == "False"
    if training.device.type == "cpu" and launched_without_cpu and os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
