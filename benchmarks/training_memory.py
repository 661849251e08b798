"""How much memory trainings take on a GPU, against what `python -m trainers.plan` tells of them.

    python benchmarks/training_memory.py --model MODEL --texts FILE.jsonl.gz --out FILE.json [--only NAME ...]

Each set-up trains a few steps in a process of its own, on rows of exactly `max_length` tokens, all of them labelled:
the most that a recipe takes. The figures are written after each set-up; what is in the file already is kept. `peak` is
PyTorch's of what was allocated, over the whole process, which is what cost.json records. To see where a plan is wrong,
there is also what was allocated once the trainer was built (`built`), when the first loss was known (`forward`) and
after the last step (`after`), the peaks until then (`peak_built`, `peak_forward`), and what was `reserved`: captured
graphs keep their memory for themselves.

Set-ups of several GPUs are launched by accelerate; memory is the first one's. For recipes of other models give random
weights of their shape. `tokens_per_second` is of the steps after the first two, by the median.

Measured (figures/training_memory_h100.json): one H100 80GB, one run each: Qwen2.5-Coder-1.5B-Instruct, or where
`weights` says so random weights of its shape, of Qwen2.5-7B's (the clinical recipe) and of DeepSeek-R1-Distill-
Qwen-1.5B's (the published ones). `planned` there is what the planner said on that day: within 2% of the peak, but for
the three without `weights`, for which a later planner says 25.17, 17.70 and 28.94 GB (2 to 3% below 25.65, 18.19 and
29.48). The two of two GPUs were not measured.
"""

import argparse
import functools
import itertools
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import train  # the neighbour, of which the rows and the trainer are

from medtasks import files
from trainers import plan, recipe

STEPS = 7
CHECKPOINTED = {"gradient_checkpointing": True}
OTHER_DATA = ("sources", "shuffle_options", "num_train_epochs", "chat", "corpus", "shuffle_dataset")
IS_GIVEN = ("model_name_or_path", "output_dir", "packing_strategy", "save_steps")


def recipe_with_full_rows(name: str, steps: int) -> dict:
    """What a shipped recipe says, but of its data."""
    keys = recipe.read(recipe.find(name)).items()
    kept = {key: value for key, value in keys if key not in OTHER_DATA + IS_GIVEN}
    return {"bf16": False} | kept | {"max_steps": steps, "packing": True}


def rows(number: int, length: int) -> dict:
    return {"per_device_train_batch_size": number, "max_length": length}


SETUPS = {
    "NF4, r 16, 8 x 1024": {**train.NF4, **rows(8, 1024)},
    "NF4, r 16, 2 x 1024, checkpointing": {**train.NF4, **rows(2, 1024), **CHECKPOINTED},
    "NF4, r 32, 1 x 4096, dropout .05": {**train.NF4, **rows(1, 4096), "lora_r": 32, "lora_dropout": 0.05},
    "bf16, r 64, 4 x 2048": {**rows(4, 2048), "lora_r": 64},
    "bf16, r 16, 4 x 1024, checkpointing": {**rows(4, 1024), **CHECKPOINTED},
    "full fine-tuning, 2 x 1024, checkpointing": {
        **rows(2, 1024),
        **CHECKPOINTED,
        "use_peft": False,
        "full_finetuning": True,
        "dtype": "float32",
    },
    "compiled, dequantized, r 16, 8 x 1024": {**train.SIDES["ours"], **rows(8, 1024)},
    "8 GB recipe": recipe_with_full_rows("qlora_8gb_sft", steps=3),
    "24 GB clinical recipe": recipe_with_full_rows("clinical_24gb_sft", steps=5),
    "published SFT recipe": recipe_with_full_rows("published_sft", steps=5),
    "published CPT recipe": recipe_with_full_rows("published_cpt", steps=5),
    "FSDP recipe, two GPUs": recipe_with_full_rows("fsdp_qlora_sft", steps=5) | {"launch": ("fsdp_qlora.yaml", 2)},
    "DDP recipe, two GPUs": recipe_with_full_rows("ddp_sft", steps=8) | {"launch": ("ddp.yaml", 2)},
}
WARM_UP = 2
"""Steps that are not timed."""
LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", required=True, help=".jsonl or .jsonl.gz of rows with `text`")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", nargs="+", default=list(SETUPS), choices=SETUPS, metavar="NAME")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.steps = STEPS
    if args.worker:
        measured = measure(args, SETUPS[args.worker])
        if int(os.environ.get("RANK", 0)) == 0:
            files.write_json(args.out, measured)
        return
    found = json.loads(args.out.read_text()) if args.out.is_file() else {}
    for name in args.only:
        found[name] = in_own_process(args, name)
        files.write_json(args.out, found)
        print(f"{name}: {described(found[name])}", flush=True)


def in_own_process(args, name: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "figures.json")
        launch = SETUPS[name].get("launch")
        command = [*train.launched(launch), __file__, "--model", args.model, "--texts", args.texts]
        command += ["--out", str(out), "--worker", name]
        done = subprocess.run(command, capture_output=True, text=True, env=train.seeing(launch))
        return json.loads(out.read_text()) if out.is_file() else {"failed": done.stderr[-2_000:]}


def described(run: dict) -> str:
    if "failed" in run:
        return "failed: " + run["failed"].strip().splitlines()[-1]
    peak, planned = run["peak"], run["planned"]
    if not peak:
        return f"no GPU here; planned {planned / 1e9:.2f} GB"
    told = f"{peak / 1e9:.2f} GB, planned {planned / 1e9:.2f}, which is {planned / peak:.2f} of it"
    return f"{told}; {run['tokens_per_second']:,.0f} tokens/s"


def measure(args, settings: dict) -> dict:
    """Train for a few steps; what was allocated along the way, and what was planned, in bytes, and tokens a second."""
    import torch
    from transformers import TrainerCallback

    on_gpu = torch.cuda.is_available()
    now = torch.cuda.memory_allocated if on_gpu else lambda: 0
    peak = torch.cuda.max_memory_allocated if on_gpu else lambda: 0
    ends = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            if on_gpu:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    keys = {key: value for key, value in settings.items() if key != "launch"}
    config, gpus = settings.get("launch", ("", 1))
    with tempfile.TemporaryDirectory() as folder:
        trainer = train.ours(args, keys, folder)
        given = ["--config", str(Path(folder, train.RECIPE))]
        planned = plan.allocated("cpt", given, gpus, sharded=config.startswith("fsdp"))
        found = {"built": now(), "peak_built": peak()}
        compute = trainer.compute_loss

        @functools.wraps(compute)
        def note(*args, **keywords):
            loss = compute(*args, **keywords)
            found.setdefault("forward", now())
            found.setdefault("peak_forward", peak())
            return loss

        trainer.compute_loss = note
        trainer._save_checkpoint = lambda *_: None
        trainer.add_callback(Clock())
        trainer.train()
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size")
    tokens = keys["max_length"] * math.prod(getattr(trainer.args, size) for size in sizes)
    seconds = statistics.median(after - before for before, after in itertools.pairwise(ends[WARM_UP - 1 :]))
    return found | {
        "after": now(),
        "peak": peak(),
        "reserved": torch.cuda.max_memory_reserved() if on_gpu else 0,
        "planned": round(planned),
        "tokens_per_second": tokens / seconds,
        "model": Path(args.model).name,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "versions": {name: version(name) for name in LIBRARIES},
    }


if __name__ == "__main__":
    main()
