"""What a process of a distributed run does in the tests: the script's own command line, with gloo and no GPU."""

import gc
import os
import signal
import sys

PRELOAD = [
    *("trl.trainer.sft_trainer", "peft.tuners.lora.bnb", "transformers.models.llama.modeling_llama", "datasets"),
    *(
        "torch.distributed.fsdp",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "trainers.sft",
        "trainers.report",
    ),
]
"""Imported once, by the server that these processes are forked from."""


def run(log: str, environment: dict, argv: list[str], dies_at: int | None) -> None:
    """Train as `python -m trainers.sft ARGV` does in ``environment``, saying everything into the file ``log``.

    At step ``dies_at`` the process kills itself.
    """
    gc.freeze()  # what was imported is not looked through again and again
    os.environ.update(environment)
    with open(log, "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    import torch

    from trainers import recipe, report, sft

    torch.set_num_threads(1)
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        _shard_without_gpus()
        _tell_of_whole_weights()
    if dies_at is not None:
        report.LogAtCheckpoint.on_step_begin = _die_at(dies_at)
    if environment.get("RANK") == "1":
        sys.addaudithook(_tell_of_files)
    sys.argv = ["sft", *argv]
    recipe.command(sft.main)


def _die_at(step: int):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_step_begin


def _shard_without_gpus() -> None:
    """accelerate 1.15 gives FSDP to GPUs alone; torch shards on a CPU as well."""
    from accelerate import state
    from accelerate.utils import DistributedType

    begin = state.AcceleratorState.__init__

    def as_on_gpus(self, *args, **kwargs):
        if not state.AcceleratorState._shared_state:
            state.PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU
        begin(self, *args, **kwargs)

    state.AcceleratorState.__init__ = as_on_gpus


def _tell_of_whole_weights() -> None:
    """Say, when a module was sharded, how many 4-bit weights of it and of those before are still whole in memory."""
    import weakref

    from torch.distributed import fsdp

    shard, storages = fsdp.fully_shard, []

    def tell(module, **keywords):
        modules = module if isinstance(module, list) else [module]
        weights = [weight for each in modules for weight in each.parameters()]
        storages.extend(weakref.ref(weight.untyped_storage()) for weight in weights if hasattr(weight, "quant_state"))
        del weights
        done = shard(module, **keywords)
        whole = [storage for storage in storages if storage() is not None]
        os.write(1, f"whole: {len(whole)} of {len(storages)}\n".encode())
        return done

    fsdp.fully_shard = tell


def _tell_of_files(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        os.write(1, f"writes {arguments[0]}\n".encode())
