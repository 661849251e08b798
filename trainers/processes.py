"""A run in several processes: what a launch must look like, and what FSDP has to be told."""

import contextlib
import os

from medtasks.errors import InputError

NUMBERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers (torchrun, MPI) tell a process how many there are."""
NO_8_BITS = "load_in_8bit: FSDP cannot shard 8-bit weights; say 'load_in_4bit: true'"
HERE = "127.0.0.1"
"""The address that accelerate gives processes of one machine; a cluster's own is another."""


def sharded() -> bool:
    """Whether `accelerate launch` asked for FSDP: every process holds a part of the model's weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def _lacks_its_peers() -> bool:
    """Whether `accelerate launch` started one process where its number is larger: with ``--cpu``, and with neither a
    configuration nor several GPUs. It then sets the address at which several would meet, but not how many they are
    (accelerate 1.15, ``prepare_simple_launcher_cmd_env``)."""
    is_launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    return is_launched and os.environ.get("MASTER_ADDR") == HERE and not any(key in os.environ for key in NUMBERS)


def check(training, model) -> None:
    """Refuse, before anything is loaded, a launch that cannot train, or not in as many processes as were asked for.

    Raises:
        InputError: several GPUs are visible to one process, one process was started for several, or FSDP cannot shard
            what the recipe asks for.
    """
    if _lacks_its_peers():
        raise InputError(
            "accelerate started one process, and its --num_processes is larger; say '--num_processes 1', or, for more, "
            "on CPUs too, 'accelerate launch --multi_gpu --num_processes N -m trainers.sft --config RECIPE' without "
            f"--cpu (an environment's own MASTER_ADDR={HERE} looks the same: unset it)"
        )
    if training.n_gpu > 1:
        raise InputError(
            f"{training.n_gpu} GPUs are visible to one process; start one process for each ('accelerate launch "
            f"--multi_gpu --num_processes {training.n_gpu} -m trainers.sft --config RECIPE'), or show it one GPU "
            "(CUDA_VISIBLE_DEVICES=0)"
        )
    if not sharded():
        return
    if os.environ.get("FSDP_VERSION") != "2":
        raise InputError("FSDP 1 cannot shard these models with their adapter in float32; say 'fsdp_version: 2'")
    if "FULL_STATE_DICT" not in os.environ.get("FSDP_STATE_DICT_TYPE", ""):
        raise InputError("FSDP would leave no adapter behind; say 'fsdp_state_dict_type: FULL_STATE_DICT'")
    if model.load_in_8bit:
        raise InputError(NO_8_BITS)
    if model.load_in_4bit and model.bnb_4bit_quant_storage not in ("bfloat16", "float16", "float32"):
        raise InputError("FSDP shards 4-bit weights only if stored as floats; say 'bnb_4bit_quant_storage: bfloat16'")


def shard_well(trainer) -> None:
    """Let FSDP gather weights and sum gradients in the dtypes that they are stored in, as one process computes them,
    and let go of whole weights as it shards them.

    accelerate would have it cast every layer's output, the loss with it, and the adapter's float32 gradients to
    bfloat16; autocast alone decides what is computed in bfloat16. And it would hold all whole weights until the last
    is sharded, half as much again of two GPUs: it takes a state dict before, which it reads only where one process has
    loaded the weights for all (accelerate 1.15, ``fsdp2_prepare_model``).
    """
    if not trainer.is_fsdp_enabled:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from torch.nn import Module

    plugin = trainer.accelerator.state.fsdp_plugin
    plugin.mixed_precision_policy = MixedPrecisionPolicy()
    if plugin.cpu_ram_efficient_loading:
        return
    prepare = trainer.accelerator.prepare

    def prepare_and_let_go(*objects, **keywords):
        with contextlib.ExitStack() as stack:
            for model in (each for each in objects if isinstance(each, Module)):
                stack.enter_context(_without_state(model))
            return prepare(*objects, **keywords)

    trainer.accelerator.prepare = prepare_and_let_go


@contextlib.contextmanager
def _without_state(model):
    """``model`` with an empty state dict."""
    model.state_dict = dict
    try:
        yield
    finally:
        del model.state_dict
