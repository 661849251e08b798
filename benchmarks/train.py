"""How fast QLoRA trains, and in how much memory: `trainers` against plain `SFTTrainer`, in the same run.

    python benchmarks/train.py --model MODEL --texts FILE.jsonl.gz --out FILE.json

Both sides train the same rows of exactly 1,024 tokens in the same order, 8 to a step, all tokens labelled, with the
same adapter (r 16, alpha 32, all linear maps), AdamW, learning rate 2e-4 and seed; each in a process of its own, one
after the other, over and over (--repeats). `plain` is TRL as it comes: NF4 with double quantization, bf16, no
checkpointing, its fused head. Time is that of the steps after the first ten, without waiting in between; memory is
torch's peak of what was allocated, and of what was reserved, which counts captured graphs too. Sides on two GPUs are
launched by accelerate with the shipped configurations; each GPU has 8 rows to a step, and memory is the first one's.

Measured (figures/train_h100.json): Qwen2.5-Coder-1.5B-Instruct on textbooks, one H100 80GB, torch 2.11, transformers
5.17, TRL 1.16, PEFT 0.21, four runs of 40 steps in turn: `plain` 22,746 tokens a second (22,239 and 23,253), `ours`
61,389 (61,237 and 61,540), 2.70 times. `plain` is bound by the host: on another one 23,184 and 60,996 (2.63 times,
figures/train_h100_earlier.json), on a third 26,756 (one run of 30 steps) and 60,847 (2.27 times). Two GPUs of one host
by DDP (figures/train_ddp_h100.json): 59,790 on one, 117,336 on both (1.96 times), not captured 91,346; by FSDP, with
random weights of that shape (figures/train_two_gpus_h100.json), 25,039.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LENGTH, ROWS = 1_024, 8
WARM_UP = 10
"""Steps before the clock starts: compiling and capturing are in them."""
ADAPTER = {"use_peft": True, "lora_r": 16, "lora_alpha": 32, "lora_target_modules": ["all-linear"]}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True}
SIDES = {
    "plain": {"lora_dropout": 0.0, **NF4},
    "plain, dropout .05": {"lora_dropout": 0.05, **NF4},
    "ours": {"lora_dropout": 0.0, **NF4, "dequantize_base": True, "compile_layers": True},
    "ours, 4-bit weights": {"lora_dropout": 0.0, **NF4, "compile_layers": True},
    "ours, dropout .05": {"lora_dropout": 0.05, **NF4, "dequantize_base": True, "compile_layers": True},
}
SIDES |= {
    "ours, not captured": SIDES["ours"] | {"cuda_graph": False},
    "ours, two GPUs by DDP": SIDES["ours"] | {"launch": ("ddp.yaml", 2)},
    "ours, two GPUs by DDP, not captured": SIDES["ours"] | {"cuda_graph": False, "launch": ("ddp.yaml", 2)},
    "ours, 4-bit weights, neither compiled nor captured": SIDES["ours, 4-bit weights"] | {"compile_layers": False},
    "ours, two GPUs by FSDP": {
        **SIDES["ours, 4-bit weights"],
        "compile_layers": False,
        "bnb_4bit_quant_storage": "bfloat16",
        "launch": ("fsdp_qlora.yaml", 2),
    },
}
LAUNCHES = Path(__file__).parents[1] / "trainers/recipes/accelerate"
RECIPE = "recipe.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", required=True, help=".jsonl or .jsonl.gz of rows with `text`")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sides", nargs="+", default=["plain", "ours", "ours, 4-bit weights"], choices=SIDES)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        found = work(args, json.loads(args.worker))
        if int(os.environ.get("RANK", 0)) == 0:
            print("RESULT " + json.dumps(found), flush=True)
        return
    found = {name: [] for name in args.sides}
    for _ in range(args.repeats):
        for name in args.sides:
            run = measured(args, SIDES[name] | {"peer": name.startswith("plain")})
            found[name].append(run)
            args.out.write_text(json.dumps({"steps": args.steps, "runs": found}, indent=1) + "\n")
            print(f"{name}: {described(run)}", flush=True)
    compare(found)


def measured(args, settings: dict) -> dict:
    """What one run in a process of its own gives; its last lines where it fails."""
    launch = settings.get("launch")
    rest = {key: value for key, value in settings.items() if key != "launch"}
    command = [*launched(launch), __file__, "--model", args.model, "--texts", args.texts, "--out", str(args.out)]
    command += ["--steps", str(args.steps), "--worker", json.dumps(rest)]
    done = subprocess.run(command, capture_output=True, text=True, env=seeing(launch))
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(results[-1][7:]) if results else {"failed": done.stderr[-3_000:]}


def launched(launch: tuple[str, int] | None) -> list[str]:
    """The beginning of a command line that starts a script: in one process, or by accelerate with a shipped
    configuration (``launch``: its file's name and the number of processes)."""
    if launch is None:
        return [sys.executable]
    config, processes = launch
    by = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCHES / config)]
    return [*by, "--num_processes", str(processes)]


def seeing(launch: tuple[str, int] | None) -> dict[str, str]:
    """The environment of a side: one process sees one GPU, whatever the machine has."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return os.environ | ({} if launch else {"CUDA_VISIBLE_DEVICES": first})


def described(run: dict) -> str:
    if "failed" in run:
        return "failed: " + run["failed"].strip()
    memory = f"{run['allocated'] / 1e9:.2f} GB allocated, {run['reserved'] / 1e9:.2f} reserved"
    return f"{run['tokens_per_second']:,.0f} tokens/s, {memory}, loss {run['loss']:.4f}"


def compare(found: dict) -> None:
    medians = {
        name: statistics.median(run["tokens_per_second"] for run in runs if "failed" not in run)
        for name, runs in found.items()
        if any("failed" not in run for run in runs)
    }
    first = next(iter(medians))
    for name, rate in medians.items():
        print(f"{name}: {rate:,.0f} tokens/s, {rate / medians[first]:.2f} of {first}")


def work(args, settings: dict) -> dict:
    """One run: tokens a second after the warm-up, peaks of memory in bytes, mean loss of the last ten steps."""
    import torch
    from transformers import TrainerCallback

    on_gpu = torch.cuda.is_available()

    class Clock(TrainerCallback):
        step, losses = 0, []

        def on_step_end(self, training, state, control, **_):
            self.step = state.global_step
            if self.step == WARM_UP:
                self.now()

        def on_log(self, training, state, control, logs=None, **_):
            self.losses += [logs["loss"]] if "loss" in logs else []

        def now(self):
            if on_gpu:
                torch.cuda.synchronize()
            self.started = time.perf_counter()

    is_peer = settings.pop("peer", False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = (plain if is_peer else ours)(args, settings, folder)
        clock = Clock()
        trainer.add_callback(clock)
        trainer._save_checkpoint = lambda *_: None
        trainer.train()
        begun = clock.started
        clock.now()
    tokens = settings.get("per_device_train_batch_size", ROWS) * settings.get("max_length", LENGTH)
    tokens *= trainer.args.world_size
    return {
        "tokens_per_second": tokens * (clock.step - WARM_UP) / (clock.started - begun),
        "allocated": torch.cuda.max_memory_allocated() if on_gpu else 0,
        "reserved": torch.cuda.max_memory_reserved() if on_gpu else 0,
        "processes": trainer.args.world_size,
        "loss": clock.losses[-1],
        "losses": clock.losses,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }


def rows_of(args, tokenizer, settings: dict) -> list[list[int]]:
    """Rows of exactly ``max_length`` tokens out of the texts, one after the other, for all steps."""
    from medtasks import corpora

    length, rows = settings.get("max_length", LENGTH), settings.get("per_device_train_batch_size", ROWS)
    steps = settings.get("max_steps", args.steps) * settings.get("gradient_accumulation_steps", 1)
    steps *= int(os.environ.get("WORLD_SIZE", 1))
    wanted = length * rows * steps
    tokens: list[int] = []
    for passage in corpora.read(args.texts):
        tokens += tokenizer(passage["text"])["input_ids"]
        if len(tokens) >= wanted:
            break
    tokens *= -(-wanted // len(tokens))
    return [tokens[start : start + length] for start in range(0, wanted, length)]


def training_keys(args, settings: dict, folder: str) -> dict:
    keys = {"per_device_train_batch_size", "max_length", "gradient_checkpointing"}
    return {
        "per_device_train_batch_size": ROWS,
        "max_length": LENGTH,
        "gradient_checkpointing": False,
        "max_steps": args.steps,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "logging_steps": 10,
        "save_strategy": "steps",
        "save_steps": 10_000,
        "seed": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": True,
        "output_dir": folder + "/run",
    } | {key: value for key, value in settings.items() if key in keys}


def plain(args, settings: dict, folder: str):
    """TRL's trainer as its documentation has it."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config, get_quantization_config

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = ModelConfig(args.model, dtype="bfloat16", **ADAPTER, **settings)
    config = SFTConfig(
        **training_keys(args, settings, folder),
        use_cpu=not torch.cuda.is_available(),
        model_init_kwargs={"dtype": "bfloat16", "quantization_config": get_quantization_config(model)},
        dataloader_drop_last=True,
        train_sampling_strategy="sequential",
    )
    rows = Dataset.from_dict({"input_ids": rows_of(args, tokenizer, settings)})
    return SFTTrainer(args.model, args=config, train_dataset=rows, peft_config=get_peft_config(model))


def ours(args, settings: dict, folder: str):
    """The trainer of `trainers.cpt`, given the same rows; its recipe is left in `folder`."""
    import torch

    from trainers import adapter, batches, cpt, stage

    recipe = {
        "model_name_or_path": args.model,
        "dtype": "bfloat16",
        **ADAPTER,
        "lora_dropout": 0.0,
        **training_keys(args, settings, folder),
        **settings,
        "corpus": [args.texts + ":64"],
        "packing": True,
        "packing_strategy": "bfd_split",
        "decontaminate": False,
        "use_cpu": not torch.cuda.is_available(),
    }
    file = Path(folder, RECIPE)
    file.write_text(json.dumps(recipe))
    prepared = cpt.prepare(["--config", str(file)])
    tokenizer = adapter.load_tokenizer(prepared.model)
    rows = [
        {"input_ids": row, "labels": list(row), "seq_lengths": [len(row)], "examples": [0]}
        for row in rows_of(args, tokenizer, settings)
    ]
    return stage.build(prepared, tokenizer, batches.Packed(rows, 1.0))


if __name__ == "__main__":
    main()
