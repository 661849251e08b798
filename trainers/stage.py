"""One stage of training, SFT or CPT: build the trainer, train or resume, save. They differ in their data alone."""

import gc
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files, sources
from medtasks.errors import InputError
from trainers import adapter, data, run_folder
from trainers.data import Examples
from trainers.run_folder import RunArguments

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig

NOT_HERE = {
    "resume_from_checkpoint": "a run resumes by itself from its output_dir",
    "save_only_model": "a run resumes from whole checkpoints",
    "load_best_model_at_end": "nothing is held out; evaluate the adapter on tasks",
    "push_to_hub": "upload the finished adapter with `hf upload`",
    "model_init_kwargs": "models are loaded by the keys of ModelConfig",
    "trust_remote_code": "models are loaded by transformers' own code",
    "chat_template_path": "the model keeps its chat template",
}
"""TRL's keys that have no place here, and why."""

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
    config: dict
    """What recipe and command line set (:func:`trainers.recipe.parse`)."""
    dev: Examples | None = None
    """What is held out, to be looked at while training."""


def settle(training, model) -> Path:
    """Refuse settings under which a run cannot be resumed, send checkpoints to their folder; returns ``output_dir``.

    Raises:
        InputError: such a setting, or no base model.
    """
    if training.output_dir in (None, "", "trainer_output"):
        raise InputError("output_dir is not set; name the folder for adapter, loss and checkpoints")
    for key, reason in NOT_HERE.items():
        if getattr(training, key):
            raise InputError(f"{key} has no place here: {reason}; take the key out")
    if training.save_strategy not in ("steps", "epoch"):
        raise InputError("save_strategy must be steps or epoch: a run resumes from its checkpoints")
    if training.eval_strategy != "no":
        raise InputError("eval_strategy: nothing is held out here; take the key out and evaluate the adapter on tasks")
    adapter.check_base(model)
    out = Path(training.output_dir)
    training.output_dir = str(out / run_folder.CHECKPOINTS)
    training.logging_nan_inf_filter = False  # it hides what DivergenceGuard looks for
    training.include_num_input_tokens_seen = "all" if training.packing else "non_padding"
    if training.ddp_find_unused_parameters is None:
        training.ddp_find_unused_parameters = False  # every adapter weight takes part in every forward
    return out


def train(stage: Stage) -> None:
    """Train ``stage`` into ``stage.out``, or go on from where an earlier attempt stopped.

    Leaves ``adapter/``, ``merged/`` if asked for, ``loss.json``, ``loss.png``, ``cost.json``, ``data.json``,
    ``dropped.jsonl``, ``run.json`` and, last of all, ``training.json``. Every process of a distributed run calls
    this; the first one writes.

    Raises:
        InputError: the folder belongs to another run, files cannot be loaded, or the loss is no longer finite.
    """
    from accelerate import PartialState

    processes = PartialState()
    out, start = stage.out, stage.run.adapter
    if start is not None:
        adapter.check_adapter(stage.model, start)
    run = run_folder.identity(
        stage.config,
        stage=stage.name,
        base_fingerprint=adapter.check_base(stage.model),
        data_fingerprint=stage.examples.fingerprint,
        adapter_fingerprint=start and files.sha256_file(Path(start) / adapter.WEIGHTS)[:16],
        num_processes=processes.num_processes,
    )
    first = processes.is_main_process
    with run_folder.claim(out, run, stage.run.overwrite) if first else nullcontext():
        if first:
            run_folder.last_checkpoint(out)  # removes half-written ones before the others look
        processes.wait_for_everyone()
        if run_folder.finished(out):
            processes.print(f"{out} is finished already")
        else:
            processes.print(stage.examples)
            _train_to_last_checkpoint(stage, run)
            processes.wait_for_everyone()
            if first:
                _publish(stage, run)
        if first:
            _merge_if_asked(stage)  # of a run that finished without
            if not stage.run.keep_checkpoints:
                shutil.rmtree(out / run_folder.CHECKPOINTS, ignore_errors=True)
        processes.wait_for_everyone()
    processes.print(f"adapter: {out / 'adapter'}; loss: {out / 'loss.png'}")


def _train_to_last_checkpoint(stage: Stage, run: dict) -> None:
    """Train until a checkpoint of the last step is there; nothing to do where it is."""
    import torch
    from accelerate import PartialState

    checkpoint, state = run_folder.last_checkpoint(stage.out)
    if checkpoint is not None and state["global_step"] >= state["max_steps"]:
        return
    _use_all_cores(stage.training)
    trainer = _build(stage)
    if PartialState().is_main_process:
        run_folder.begin(stage.out, run)
        _write_data(stage)
    try:
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    except torch.OutOfMemoryError as error:
        raise InputError(
            "the accelerator's memory is full; lower per_device_train_batch_size or max_length, or set "
            "gradient_checkpointing or load_in_4bit"
        ) from error
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _write_data(stage: Stage) -> None:
    """Write what is learned from as ``data.json``, and what is not as ``dropped.jsonl``: places, never texts. A run
    that resumes has them already."""
    if (stage.out / run_folder.DATA).is_file():
        return
    files.write_jsonl(stage.out / run_folder.DROPPED, stage.examples.dropped)
    about = data.summary(stage.examples, adapter.load_tokenizer(stage.model), stage.training.max_length)
    files.write_json(stage.out / run_folder.DATA, about)


def _build(stage: Stage):
    """TRL's trainer over the stage's examples, its adapter in float32."""
    from datasets import Dataset
    from trl import SFTTrainer, get_peft_config

    from trainers import report

    started = time.monotonic()
    if stage.training.device.type == "cpu":
        _score_labelled_positions_alone()
    model = adapter.load_base(stage.model)
    if stage.run.adapter is not None:
        model = adapter.continue_adapter(model, stage.run.adapter)
    try:
        trainer = SFTTrainer(
            model=model,
            args=stage.training,
            train_dataset=Dataset.from_list(stage.examples.rows),
            processing_class=adapter.load_tokenizer(stage.model),
            peft_config=None if stage.run.adapter else get_peft_config(stage.model),
            callbacks=[
                report.DivergenceGuard(),
                report.LogAtCheckpoint(),
                report.CostMeter(stage.out / "cost.json", started, stage.training.device),
            ],
        )
    except ValueError as error:
        raise InputError(f"these settings do not go together: {' '.join(str(error).split())}") from error
    if not trainer.is_fsdp_enabled:  # FSDP shards one dtype, and keeps its own float32 copies
        adapter.train_in_float32(trainer.model)
    return trainer


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
        "continues": run["adapter_fingerprint"],
        "data_fingerprint": run["data_fingerprint"],
        "config": stage.config,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    adapter.publish(checkpoint, out / "adapter", about)
    report.write_loss(history, out, f"{stage.name}: {Path(stage.model.model_name_or_path).name}")
    _merge_if_asked(stage)
    counts = {"counts": stage.examples.counts, "sources": stage.examples.taken, "from": sources.kinds()}
    training = {"steps": state["global_step"], "epochs": state["epoch"], "seed": stage.training.seed}
    loss = {"final_loss": history[-1]["loss"], "first_loss": history[0]["loss"]}
    files.write_json(out / run_folder.FINISHED, about | training | loss | {"data": counts})


def _merge_if_asked(stage: Stage) -> None:
    merged = stage.out / "merged"
    if stage.run.merge and not merged.is_dir():
        adapter.merge(stage.model, stage.out / "adapter", merged)


def _score_labelled_positions_alone() -> None:
    """Spare the CPU the vocabulary's scores at positions that have no label, half of the time of a letter's SFT.

    TRL 1.16 scores every position where there is no Triton, since Neuron compiles anew for each shape. A CPU does not.
    """
    from trl.trainer import utils

    utils._use_triton = lambda device: True


def _use_all_cores(training) -> None:
    """Undo the OMP_NUM_THREADS=1 that `accelerate launch` without `--cpu` sets, where the CPU does the training."""
    import torch

    launched_without_cpu = os.environ.get("ACCELERATE_USE_CPU") == "False"
    if training.device.type == "cpu" and launched_without_cpu and os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
