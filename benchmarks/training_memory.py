"""How much memory trainings take and how fast they are, against what `python -m trainers.plan` tells of them.

    python benchmarks/training_memory.py --model MODEL --out FILE.json            (one GPU; about a minute each)
    python benchmarks/training_memory.py --model MODEL --out FILE.json --only nf4_r16_8x1024,full_2x1024_checkpointed
    python benchmarks/training_memory.py --model MODEL --out FILE.json --add      (to the measurements of the planner)

Each configuration trains in a process of its own, through `trainers.cpt`, on packed rows of random words, all of whose
tokens count. The peak is PyTorch's over the whole process; tokens a second are those of the steps after the first few;
`outside_bytes` is what the GPU holds beyond what PyTorch has reserved (CUDA's context), at the end.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from medtasks import files
from trainers.planning import memory, setup, shape, speed

LORA = {"use_peft": True, "lora_target_modules": "all-linear", "lora_dropout": 0.05, "dtype": "bfloat16"}
NF4 = LORA | {"load_in_4bit": True, "use_bnb_nested_quant": True}


def batch(rows: int, length: int, checkpointing: bool = False) -> dict:
    return {"per_device_train_batch_size": rows, "max_length": length, "gradient_checkpointing": checkpointing}


CONFIGURATIONS = {
    "nf4_r16_8x1024": NF4 | {"lora_r": 16} | batch(8, 1024),
    "nf4_r16_2x1024_checkpointed": NF4 | {"lora_r": 16} | batch(2, 1024, True),
    "nf4_r32_1x4096": NF4 | {"lora_r": 32} | batch(1, 4096),
    "bf16_r64_4x2048": LORA | {"lora_r": 64} | batch(4, 2048),
    "bf16_r16_4x1024_checkpointed": LORA | {"lora_r": 16} | batch(4, 1024, True),
    "full_2x1024_checkpointed": {"use_peft": False, "dtype": "bfloat16"} | batch(2, 1024, True),
}
WARM_UP, STEPS = 5, 15
SIZES = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SIZES += ("num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings")
LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", default=",".join(CONFIGURATIONS))
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        files.write_json(arguments.out, measure(arguments.model, json.loads(arguments.worker)))
        return
    figures = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    for name in arguments.only.split(","):
        figures[name] = _in_own_process(arguments.model, CONFIGURATIONS[name])
        figures[name]["source"] = f"benchmarks/training_memory.py {name}"
        files.write_json(arguments.out, figures)
        told = figures[name]
        if "error" in told:
            print(f"{name}: {told['error']}")
        else:
            took, planned = (told[key] / 1e9 for key in ("peak_allocated_bytes", "planned_bytes"))
            speed_told = f"{told['tokens_per_second']:,} tokens/s"
            print(f"{name}: {took:.2f} GB, planned {planned:.2f} ({planned / took:.2f}), {speed_told}")
    if arguments.add:
        _add([each for each in figures.values() if "error" not in each])


def _in_own_process(model: str, configuration: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--model", model, "--out", str(out)]
        done = subprocess.run([*command, "--worker", json.dumps(configuration)], capture_output=True, text=True)
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1]}
        return json.loads(out.read_text())


def measure(model: str, configuration: dict) -> dict:
    """Train for a few steps; what it took, and what the planner had told."""
    import torch

    from trainers import cpt, stage

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "recipe.yaml"
        rows = configuration["per_device_train_batch_size"] * (STEPS + 1)
        given = {"model_name_or_path": model, "corpus": [str(_corpus(Path(folder), rows, configuration["max_length"]))]}
        given |= {"packing": True, "packing_strategy": "bfd_split", "decontaminate": False, "bf16": True}
        given |= {"output_dir": f"{folder}/out", "max_steps": STEPS, "save_steps": STEPS, "disable_tqdm": True}
        config.write_text(json.dumps(given | configuration))
        prepared = cpt.prepare(["--config", str(config)])
        trainer = stage._build(prepared)
        clock = _clock()
        trainer.add_callback(clock)
        trainer.train()
    how = setup.of(vars(prepared.model) | vars(prepared.training) | {"answer_style": None})
    planned = memory.plan(shape.of(model), how)
    peak = torch.cuda.max_memory_allocated()
    sizes = json.loads((Path(model) / "config.json").read_text())
    return {
        "gpu": torch.cuda.get_device_name(),
        "model": {key: sizes[key] for key in SIZES if key in sizes},
        "precision": how.precision,
        "rank": how.rank or 0,
        "compiled": how.compiled,
        "checkpointing": how.checkpointing,
        "tokens": how.tokens,
        "length": how.length,
        "labelled": how.labelled,
        "tokens_per_second": round(how.tokens * (STEPS - WARM_UP) / clock.seconds),
        "peak_allocated_bytes": peak,
        "planned_bytes": round(planned.allocated),
        "planned_over_measured": round(planned.allocated / peak, 3),
        "planned_items": {name: round(size) for name, size in planned.items.items()},
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "outside_bytes": _outside(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def _clock():
    """A callback that times the steps after the first few (``seconds``)."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step in (WARM_UP, STEPS):
                torch.cuda.synchronize()
                now = time.perf_counter()
                self.seconds = now - self.started if state.global_step == STEPS else None
                self.started = now

    return Clock()


def _outside() -> int:
    """Bytes that the GPU holds beyond what PyTorch has reserved."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def _corpus(folder: Path, rows: int, length: int) -> Path:
    """A corpus of more random words than ``rows`` rows of ``length`` tokens need."""
    draw = random.Random(0)
    words = ["heart", "liver", "kidney", "nerve", "fever", "cough", "acute", "chronic", "dose", "left", "right", "the"]
    path = folder / "corpus.jsonl"
    texts = (" ".join(draw.choice(words) for _ in range(length)) for _ in range(2 * rows))
    path.write_text(
        "".join(json.dumps({"id": n, "title": f"Text {n}", "text": text}) + "\n" for n, text in enumerate(texts))
    )
    return path


def _add(measured: list[dict]) -> None:
    """Put measurements among the planner's, in place of earlier ones of the same source on the same GPU."""
    fields = set(speed.measurements()[0])
    new = [{key: value for key, value in each.items() if key in fields} for each in measured]
    names = {(each["source"], each["gpu"]) for each in new}
    kept = [each for each in speed.measurements() if (each["source"], each["gpu"]) not in names]
    files.write_json(speed.MEASUREMENTS, kept + new)


if __name__ == "__main__":
    main()
