"""How much memory trainings take on a GPU, against what `python -m trainers.plan` tells of them.

    python benchmarks/training_memory.py --model MODEL --texts FILE.jsonl.gz --out FILE.json [--only NAME ...]

Each set-up trains a few steps in a process of its own, on rows of exactly `max_length` tokens, all of them labelled:
the most that a recipe takes. The figures are written after each set-up; what is in the file already is kept. `peak` is
PyTorch's of what was allocated, over the whole process, which is what cost.json records. To see where a plan is wrong,
there is also what was allocated once the trainer was built (`built`), when the first loss was known (`forward`) and
after the last step (`after`), the peaks until then (`peak_built`, `peak_forward`), and what was `reserved`: captured
graphs keep their memory for themselves.

Measured (figures/training_memory_h100.json): Qwen2.5-Coder-1.5B-Instruct, or random weights of its shape, one H100
80GB, one run each of all eight set-ups. `planned` there is what the planner said on that day: within 2% of the peak,
but for the three without `weights`, for which a later planner says 25.17, 17.70 and 28.94 GB (2 to 3% below 25.65,
18.19 and 29.48).
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import train  # the neighbour, of which the rows and the trainer are

from medtasks import files
from trainers import plan, recipe

STEPS = 7
CHECKPOINTED = {"gradient_checkpointing": True}
OTHER_DATA = ("sources", "shuffle_options", "num_train_epochs")
IS_GIVEN = ("model_name_or_path", "output_dir", "packing_strategy", "save_steps")


def recipe_with_full_rows(name: str, steps: int) -> dict:
    """What a shipped recipe says, but of its data."""
    keys = recipe.read(recipe.find(name)).items()
    return {key: value for key, value in keys if key not in OTHER_DATA + IS_GIVEN} | {"max_steps": steps}


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
}
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
        files.write_json(args.out, measure(args, SETUPS[args.worker]))
        return
    found = json.loads(args.out.read_text()) if args.out.is_file() else {}
    for name in args.only:
        found[name] = in_own_process(args, name)
        files.write_json(args.out, found)
        print(f"{name}: {described(found[name])}", flush=True)


def in_own_process(args, name: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "figures.json")
        command = [sys.executable, __file__, "--model", args.model, "--texts", args.texts, "--out", str(out)]
        done = subprocess.run([*command, "--worker", name], capture_output=True, text=True)
        return json.loads(out.read_text()) if out.is_file() else {"failed": done.stderr[-2_000:]}


def described(run: dict) -> str:
    if "failed" in run:
        return "failed: " + run["failed"].strip().splitlines()[-1]
    peak, planned = run["peak"], run["planned"]
    if not peak:
        return f"no GPU here; planned {planned / 1e9:.2f} GB"
    return f"{peak / 1e9:.2f} GB, planned {planned / 1e9:.2f}, which is {planned / peak:.2f} of it"


def measure(args, settings: dict) -> dict:
    """Train for a few steps; what was allocated along the way, and what was planned, in bytes."""
    import torch

    on_gpu = torch.cuda.is_available()
    now = torch.cuda.memory_allocated if on_gpu else lambda: 0
    peak = torch.cuda.max_memory_allocated if on_gpu else lambda: 0
    with tempfile.TemporaryDirectory() as folder:
        trainer = train.ours(args, settings, folder)
        planned = plan.allocated("cpt", ["--config", str(Path(folder, train.RECIPE))])
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
        trainer.train()
    return found | {
        "after": now(),
        "peak": peak(),
        "reserved": torch.cuda.max_memory_reserved() if on_gpu else 0,
        "planned": round(planned),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "versions": {name: version(name) for name in LIBRARIES},
    }


if __name__ == "__main__":
    main()
