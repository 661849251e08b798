"""Will it fit, and how long will it take? The memory and time of a recipe, before any weight is loaded.

    python -m trainers.plan --config trainers/recipes/published_sft.yaml --vram 8
    python -m trainers.plan --config RECIPE --gpu "RTX 4060" --KEY VALUE ...

Reads the model's config.json and the recipe (sft, cpt, or both of msft), and says what memory holds at its highest,
item by item; whether it fits; the largest micro-batch that does, at the same rows a step; what else to turn, in order,
with what each alone would save; and how long the data will take, from measured tokens a second. Every key of a recipe
can be given after it (--max_length 512), as in training; --use_peft false plans full fine-tuning, in float32.

  --vram GB      memory of one device, in 10^9 bytes; default: the GPU's that is here or named, else 8
  --gpu NAME     the GPU to tell the time for, if not the one here: H200, H100, A100, L40S, L4, 4090, ...
  --cpu          the CPU trains, and memory is the process's (as `use_cpu: true` says, unless a GPU is named)
  --gpus N       devices that train together (DDP: each has everything but the data)
  --sharded      with --gpus: weights, gradients and moments are divided among them (FSDP)
  --tokens N     tokens in all epochs, where the data cannot be read
  --json         for machines: bytes and seconds

Two figures are told apart: what PyTorch allocates (torch.cuda.max_memory_allocated, peak_memory_bytes in cost.json),
and what nvidia-smi shows, with CUDA's context and what the allocator reserves beyond. Rows are taken to be full
(max_length); shorter ones take less. Exits with 1 where it does not fit.
"""

import argparse
import dataclasses
import json
import math

from medtasks.errors import InputError
from trainers import recipe

GB = 1e9
SHOWN = 0.05 * GB
"""Bytes from which an item has a line of its own."""
USUAL_VRAM = 8.0
START = 30
"""Seconds for imports, loading and data, about."""
SHARED = ("cpt", "sft", "output_dir", "join")
"""Keys of an msft recipe that are of neither stage."""


def main(argv: list[str]) -> int:
    """Print the plan of a recipe; returns 0 where all its stages fit, else 1.

    Raises:
        InputError: something in recipe or arguments is wrong.
    """
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    options, rest = _options(argv)
    stages = {name: _stage(name, settings, options) for name, settings in _recipes(rest).items()}
    if options.json:
        print(json.dumps(stages, indent=2))
    else:
        print("\n\n".join(_text(name, stage) for name, stage in stages.items()))
    return 0 if all(stage["fits"] for stage in stages.values()) else 1


def allocated(stage: str, argv: list[str], gpus: int = 1, sharded: bool = False) -> float:
    """The planned peak of what PyTorch allocates on one device, in bytes.

    Args:
        stage: ``sft`` or ``cpt``.
        argv: of the stage's script: ``--config RECIPE`` and further keys.
        gpus: devices that train together.
        sharded: whether they divide weights, gradients and moments among them (FSDP).

    Raises:
        InputError: something in recipe or arguments is wrong, or cannot be planned.
    """
    from trainers.planning import memory, setup, shape, workload

    settings = _settings(stage, argv)
    model = shape.of(settings["model_name_or_path"], settings["model_revision"])
    seen = workload.of(stage, settings, gpus)
    return memory.plan(model, setup.of(settings, gpus, sharded, tokens=seen.tokens, by_letter=seen.by_letter)).allocated


def _options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What concerns the machine, and the rest, which concerns the recipe."""
    from trainers.planning import speed

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = _refuse
    parser.add_argument("--vram", type=float)
    parser.add_argument("--gpu")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--tokens", type=int)
    for flag in ("--cpu", "--sharded", "--json"):
        parser.add_argument(flag, action="store_true")
    options, rest = parser.parse_known_args(argv)
    for name in ("vram", "gpus", "tokens"):
        if (value := getattr(options, name)) is not None and not 0 < value < math.inf:
            raise InputError(f"--{name} {value}: a number above 0 expected")
    if options.sharded and options.gpus == 1:
        raise InputError("--sharded: one device has nothing to share with; say --gpus N too")
    if options.gpu and speed.gpu(options.gpu) is None:
        if several := speed.candidates(options.gpu):
            raise InputError(f"--gpu {options.gpu}: may be {' or '.join(several)}; say which")
        raise InputError(f"--gpu {options.gpu}: no datasheet here; known are {', '.join(speed.GPUS)}")
    return options, rest


def _refuse(message: str):
    raise InputError(message)


def _device(options, on_cpu: bool) -> tuple[float, str | None]:
    """(bytes of memory to fit into, datasheet key of the GPU or None where none is known)."""
    from trainers.planning import speed

    if on_cpu:
        import psutil

        return (options.vram * GB if options.vram else float(psutil.virtual_memory().total)), None
    if options.gpu:
        known = speed.gpu(options.gpu)
        return (options.vram * GB if options.vram else speed.GPUS[known].memory), known
    import torch

    if torch.cuda.is_available():
        here = torch.cuda.get_device_properties(0)
        return (options.vram * GB if options.vram else float(here.total_memory)), speed.gpu(here.name)
    return (options.vram or USUAL_VRAM) * GB, None


def _recipes(argv: list[str]) -> dict[str, dict]:
    """Stage (``sft``, ``cpt``) -> its settings: of one recipe, or of both that an msft recipe names."""
    config, rest = recipe.take("config", argv)
    if config is None:
        raise InputError("no --config; give a recipe")
    path = recipe.find(config)
    content = recipe.read(path)
    if (stage := recipe.kind(content)) != "msft":
        return {stage: _settings(stage, ["--config", str(path), *rest])}
    _, rest = recipe.take("join", rest)
    shared = {key: value for key, value in content.items() if key not in SHARED}
    files = {stage: str(recipe.find(str(path.parent / str(content[stage])))) for stage in ("cpt", "sft")}
    return {stage: _settings(stage, ["--config", file, *rest], shared) for stage, file in files.items()}


def _settings(stage: str, argv: list[str], overrides: dict | None = None) -> dict:
    """Every key of a stage's recipe, defaults included; of a base that is stored in 4 or 8 bits, as it is stored."""
    from trl import ModelConfig, SFTConfig

    from trainers import data
    from trainers import stage as training
    from trainers.acceleration import AccelerationArguments
    from trainers.planning import shape
    from trainers.run_folder import RunArguments

    kind = data.SFTDataArguments if stage == "sft" else data.CPTDataArguments
    kinds = (ModelConfig, SFTConfig, RunArguments, AccelerationArguments, kind)
    found = recipe.settings(kinds, argv, __doc__, overrides)
    if not found["model_name_or_path"]:
        raise InputError("model_name_or_path is not set; give a model folder or a Hub id")
    training.check_keys(found)
    return found | shape.stored_as(found["model_name_or_path"], found["model_revision"])


def _stage(name: str, settings: dict, options) -> dict:
    """The plan of one stage, as JSON has it: bytes and seconds."""
    from trainers.planning import knobs, memory, setup, shape, speed, workload

    model = shape.of(settings["model_name_or_path"], settings["model_revision"])
    on_cpu = options.cpu or (settings["use_cpu"] and not options.gpu)
    vram, gpu = _device(options, on_cpu)
    seen = workload.of(name, settings, options.gpus, options.tokens)
    now = setup.of(settings, options.gpus, options.sharded, on_cpu, seen.tokens, seen.by_letter, seen.grows_with_length)
    plan = memory.plan(model, now)
    largest = knobs.largest_that_fits(model, now, vram)
    fullness = seen.fullness(now.length)
    rate = None if now.on_cpu else speed.of(model, now, gpu or "H100", speed.measurements(), fullness)
    found = {
        "model": settings["model_name_or_path"],
        "kind": model.kind,
        "is_counted": model.kind in shape.COUNTED,
        "parameters": model.parameters,
        "trained": memory.trained(model, now),
        "setup": dataclasses.asdict(now) | {"fuses": now.fuses, "captures": now.captures},
        "items": plan.items,
        "moment": plan.moment,
        "allocated": plan.allocated,
        "shown": plan.shown,
        "memory": vram,
        "fits": plan.shown <= vram,
        "largest": largest and {"micro_batch": largest.micro_batch, "accumulation": largest.accumulation},
        "knobs": [
            {"keys": knob.keys, "costs": knob.costs, "saves": knob.saved, "fits": plan.shown - knob.saved <= vram}
            for knob in knobs.knobs(model, now)
        ],
        "all_knobs": knobs.together(model, now),
        "tokens": seen.tokens,
        "gpu": gpu,
        "speed": rate and dataclasses.asdict(rate),
    }
    if rate and seen.tokens:
        found["seconds"] = [START + seen.tokens / (bound * now.gpus) for bound in (rate.high, rate.low)]
    return found


def _text(name: str, stage: dict) -> str:
    """The plan of one stage, to read."""
    setup = stage["setup"]
    learns = f"LoRA r {setup['rank']}" if setup["rank"] else "all weights"
    devices = f", {setup['gpus']} devices" if setup["gpus"] > 1 else ""
    lines = [
        f"{name}: {stage['model']}, {_count(stage['parameters'])} parameters, {learns} ({_count(stage['trained'])})",
        f"{setup['micro_batch']} x {setup['length']} tokens, accumulated {setup['accumulation']} times{devices}, "
        f"checkpointing {setup['checkpointing']}{_acceleration(setup)}",
        "",
        f"memory, highest {stage['moment']}:",
        *(f"  {_gb(size)}  {item}" for item, size in stage["items"].items() if size >= SHOWN),
    ]
    if small := sum(size for size in stage["items"].values() if size < SHOWN):
        lines.append(f"  {_gb(small)}  smaller items")
    whole = "as nvidia-smi shows it: with CUDA's context and reserves"
    whole = "the whole process" if setup["on_cpu"] else whole + (", and the graphs'" if setup["captures"] else "")
    added = "in all" if setup["on_cpu"] else "allocated peak, as cost.json records it"
    lines += [f"  {_gb(stage['allocated'])}  {added}", f"  {_gb(stage['shown'])}  {whole}"]
    if not stage["is_counted"]:
        lines.append(f"  activations are counted as Llama's; {stage['kind']} may keep up to 1.7 times as much")
    lines += ["", *_fit(stage)]
    return "\n".join([*lines, "", *_time(stage)])


def _acceleration(setup: dict) -> str:
    """What makes the training faster, and changes its memory."""
    words = {"fuses": "fused LoRA", "compiled": "layers compiled", "captures": "captured as graphs"}
    return "".join(f", {word}" for key, word in words.items() if setup[key])


def _fit(stage: dict) -> list[str]:
    """Whether it fits, with which micro-batch, and what else would save memory."""
    setup, room = stage["setup"], stage["memory"]
    lines = [f"{'fits' if stage['fits'] else 'does not fit'} into {room / GB:.1f} GB"]
    if largest := stage["largest"]:
        same = largest["micro_batch"] == setup["micro_batch"]
        now = ", which is the recipe's" if same else ""
        lines.append(
            f"largest micro-batch that fits, at the same rows a step: per_device_train_batch_size "
            f"{largest['micro_batch']}, gradient_accumulation_steps {largest['accumulation']}{now}"
        )
    else:
        lines.append("no micro-batch fits; turn these, in this order, together if need be:")
    for knob in stage["knobs"]:
        if knob["saves"] < SHOWN:
            continue
        fits = "" if stage["fits"] else "fits" if knob["fits"] else "not enough alone"
        lines.append(f"  {_gb(-knob['saves'])}  {knob['keys']}  [{'; '.join(filter(None, (knob['costs'], fits)))}]")
    if not (stage["fits"] or largest):
        least = stage["all_knobs"]
        mend = "" if least <= room else ", and it does not fit; take a smaller model or a larger accelerator"
        lines.append(f"  {_gb(least)}  is left where all are turned as far as they go{mend}")
    return lines


def _time(stage: dict) -> list[str]:
    if stage["setup"]["on_cpu"]:
        return ["time: `medadapt study --dry-run` estimates that of a CPU, from a product that it times"]
    if not stage["tokens"]:
        return ["time: not told, since the data cannot be read here; give --tokens N"]
    if not stage["speed"]:
        return ["time: not told, since nothing was measured"]
    low, high = (_duration(seconds) for seconds in stage["seconds"])
    span = low if low == high else f"{low} to {high}"
    where = stage["gpu"] or "H100"
    perfect = ", if devices lose no time to each other" if stage["setup"]["gpus"] > 1 else ""
    return [f"time: about {span} on {where} for {stage['tokens']:,} tokens{perfect}", f"  {stage['speed']['source']}"]


def _gb(size: float) -> str:
    return f"{size / GB:7.1f} GB"


def _count(weights: int) -> str:
    return f"{weights / 1e9:.2f} billion" if weights >= 1e9 else f"{weights / 1e6:.1f} million"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    recipe.command(main)
