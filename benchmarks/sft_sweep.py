"""What was tried to find the SFT recipe: variations of one recipe, each judged on held-out development questions.

    python benchmarks/sft_sweep.py --model MODEL --data FOLDER --out FILE.json [--only NAME ...]

FOLDER holds headqa_en_{train,dev}.jsonl.gz, openstax_review_mcq.jsonl.gz and casimedicos_en_{train,dev}.jsonl.gz.
Development questions, none of a test set: MedQA's validation split, 250 of MedMCQA's train subset, 150 of PubMedQA's
500 training questions, MMLU's validation questions, HEAD-QA's and CasiMedicos' development splits; what is held out of
a train split is not trained on. `score` is the mean over MedQA, MedMCQA, PubMedQA and MMLU, MedMCQA being pooled with
HEAD-QA and CasiMedicos (exams of the same kind), since its own 250 tell little.

Variants are those of :data:`TRIED`, one process for all; a file that is there is continued.

Measured (figures/sft_sweep_h100.json): Qwen2.5-Coder-1.5B-Instruct (dequantized from Q4_K_M), one H100 80GB, one run
each of `base model` (45.4), four with the artificial part (49.3 to 52.3; at 0.7 of the adapter's effect 50.5 to 52.9)
and the four learning rates of all weights with it (41.7 to 51.0; at 0.7 of the way 44.0 to 51.2). Two runs of
`artificial` with one seed gave 50.0 and 52.3. The other variants were not run.
"""

import argparse
import gc
import json
import random
import tempfile
import time
from pathlib import Path

EXAMS = ["headqa_en_train.jsonl.gz", "openstax_review_mcq.jsonl.gz", "casimedicos_en_train.jsonl.gz"]
FOUR = ["medqa", "medmcqa", "pubmedqa", "mmlu_med"]
ALL = [*FOUR, *EXAMS, "qiaojin/PubMedQA/pqa_artificial"]
BASE = {
    "dtype": "bfloat16",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": True,
    "dequantize_base": True,
    "use_peft": True,
    "lora_r": 32,
    "lora_alpha": 32,
    "use_rslora": True,
    "lora_dropout": 0.0,
    "lora_target_modules": ["all-linear"],
    "sources": FOUR + EXAMS,
    "shuffle_options": True,
    "max_length": 2048,
    "num_train_epochs": 2,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "packing": True,
    "packing_strategy": "bfd",
    "per_device_train_batch_size": 2,
    "gradient_checkpointing": False,
    "bf16": True,
    "compile_layers": True,
    "seed": 1,
    "logging_steps": 20,
    "save_steps": 100_000,
    "disable_tqdm": True,
}
FULL = {
    "use_peft": False,
    "full_finetuning": True,
    "load_in_4bit": False,
    "dequantize_base": False,
    "dtype": "float32",
}
FULL_LRS = ("5e-6", "1e-5", "2e-5", "4e-5")
TRIED = {
    "base model": None,
    "four benchmarks": {"sources": FOUR},
    "with exams": {},
    "lr 5e-5": {"learning_rate": 5e-5},
    "lr 2e-4": {"learning_rate": 2e-4},
    "lr 2e-4, 3 epochs": {"learning_rate": 2e-4, "num_train_epochs": 3},
    "3 epochs": {"num_train_epochs": 3},
    "5 epochs": {"num_train_epochs": 5},
    "4 rows a step": {"per_device_train_batch_size": 4},
    "artificial": {"sources": ALL},
    "artificial, lr 5e-5": {"sources": ALL, "learning_rate": 5e-5},
    "artificial, 1 epoch": {"sources": ALL, "num_train_epochs": 1},
    "artificial, 4 rows a step": {"sources": ALL, "per_device_train_batch_size": 4},
    "artificial, 4 rows a step, lr 2e-4": {"sources": ALL, "per_device_train_batch_size": 4, "learning_rate": 2e-4},
    "artificial, 3 epochs, lr 5e-5": {"sources": ALL, "num_train_epochs": 3, "learning_rate": 5e-5},
    "lr 3e-4": {"learning_rate": 3e-4},
    "neftune 5": {"neftune_noise_alpha": 5.0},
    "not shuffled": {"shuffle_options": False},
    "r 8": {"lora_r": 8, "lora_alpha": 8},
    "r 128": {"lora_r": 128, "lora_alpha": 128},
    "attention only": {"lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    "bf16 base": {"load_in_4bit": False, "dequantize_base": False},
    "full fine-tuning": FULL | {"learning_rate": 1e-5},
    **{
        f"artificial, full fine-tuning, lr {lr}": FULL | {"sources": ALL, "learning_rate": float(lr)} for lr in FULL_LRS
    },
}
SCALES = (0.5, 0.7)
"""Parts of what was learned, tried too (interpolation with the base, Wortsman et al. 2022, arXiv:2109.01903)."""
TOKENS = 16_384
"""Of a batch of development questions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", nargs="+", default=list(TRIED), choices=TRIED)
    parser.add_argument("--limit", type=int, help="development questions of each set, for a dry run")
    parser.add_argument("--max_steps", type=int, default=-1, help="for a dry run")
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        dev = questions(args, Path(folder))
        for name in args.only:
            if name in found:
                continue
            found[name] = tried(args, TRIED[name], dev, Path(folder))
            args.out.write_text(json.dumps(found, indent=1) + "\n")
            scores = {key: round(100 * value, 1) for key, value in found[name]["accuracy"].items()}
            print(f"{name}: {scores} {found[name].get('train_seconds')}", flush=True)


def questions(args, folder: Path) -> dict[str, list[dict]]:
    """Development items by set; what stays of train splits goes to files of ``folder``."""
    from medtasks import benchmarks
    from trainers.data import mixture, reading

    dev = {}
    for name, held in (("medmcqa", 250), ("pubmedqa", 150)):
        items = list(benchmarks.load(name, "train"))
        random.Random(0).shuffle(items)
        dev[name], rest = items[:held], items[held:]
        with open(folder / f"{name}.jsonl", "w") as f:
            f.writelines(json.dumps(item) + "\n" for item in rest)
    dev["medqa"] = list(benchmarks.load("medqa", "validation"))
    dev["mmlu_med"] = list(benchmarks.load("mmlu_med", "validation"))
    for name in ("headqa", "casimedicos"):
        source = mixture.parse(str(args.data / f"{name}_en_dev.jsonl.gz"))
        dev[name] = [row for _, row in reading.rows(source)]
    return {name: items[: args.limit] for name, items in dev.items()}


def tried(args, variant: dict | None, dev: dict, folder: Path) -> dict:
    """Train the variant, and ask the development questions."""
    import torch

    from trainers import sft, stage

    recipe = BASE | ({"max_steps": 1} if variant is None else variant)
    here = {name: str(folder / f"{name}.jsonl") for name in ("medmcqa", "pubmedqa")}
    recipe["sources"] = [here.get(s, str(args.data / s) if s in EXAMS else s) for s in recipe["sources"]]
    recipe |= {"model_name_or_path": args.model, "output_dir": str(folder / "run")}
    recipe |= {"max_steps": args.max_steps} if args.max_steps > 0 else {}
    recipe |= {"use_cpu": True, "compile_layers": False} if not torch.cuda.is_available() else {}
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    prepared = sft.prepare(["--config", str(file)])
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    trainer = stage._build(prepared)
    trainer._save_checkpoint = lambda *_: None
    result = {"variant": variant, "examples": len(prepared.examples.rows)}
    full = bool(recipe.get("full_finetuning"))
    base = {name: weight.detach().cpu().clone() for name, weight in trainer.model.named_parameters()} if full else {}
    if variant is not None:
        trainer.train()
        result |= {
            "train_seconds": round(time.monotonic() - started, 1),
            "tokens": trainer.state.num_input_tokens_seen,
            "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
            "final_loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1],
        }
    result["accuracy"] = accuracies(trainer, dev)
    if variant is not None:
        result["scaled"] = {
            str(part): interpolated(trainer, base, part, dev) if full else scaled(trainer, part, dev) for part in SCALES
        }
    del trainer, base
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return result


def scaled(trainer, part: float, dev: dict) -> dict[str, float]:
    """Accuracies with ``part`` of the adapter's effect."""
    layers = [module for module in trainer.model.modules() if hasattr(module, "lora_B")]
    for layer in layers:
        layer.scaling["default"] *= part
    try:
        return accuracies(trainer, dev)
    finally:
        for layer in layers:
            layer.scaling["default"] /= part


def interpolated(trainer, base: dict, part: float, dev: dict) -> dict[str, float]:
    """Accuracies of weights that lie ``part`` of the way from the ``base``'s to the learned ones."""
    import torch

    learned = {name: weight.detach().cpu().clone() for name, weight in trainer.model.named_parameters()}
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            weight.copy_(torch.lerp(base[name], learned[name], part))
    try:
        return accuracies(trainer, dev)
    finally:
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                weight.copy_(learned[name])


def accuracies(trainer, dev: dict) -> dict[str, float]:
    """Share of items whose right letter is the likeliest, by set, and ``score``."""
    right = {name: hits(trainer, items) for name, items in dev.items()}
    exams = right["medmcqa"] + right["headqa"] + right["casimedicos"]
    four = [right["medqa"], exams, right["pubmedqa"], right["mmlu_med"]]
    found = {name: sum(values) / len(values) for name, values in right.items()}
    return found | {"score": sum(sum(values) / len(values) for values in four) / 4}


def hits(trainer, items: list[dict]) -> list[bool]:
    import torch

    from medtasks import mcq
    from trainers.batches import Collator

    tokenizer = trainer.processing_class
    causal = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    letters = [tokenizer(f"Answer: {letter}")["input_ids"][-1] for letter in mcq.LETTERS]
    encoded = sorted(
        ((tokenizer(mcq.render(item))["input_ids"], item) for item in items), key=lambda pair: len(pair[0])
    )
    batches, tokens = [[]], 0
    for pair in encoded:
        if tokens + len(pair[0]) > TOKENS:
            batches.append([])
            tokens = 0
        batches[-1].append(pair)
        tokens += len(pair[0])
    found = []
    trainer.model.eval()
    for batch in batches:
        rows = [{"input_ids": i, "labels": [-100] * len(i), "seq_lengths": [len(i)], "examples": [0]} for i, _ in batch]
        inputs = Collator(0)(rows)
        keys = ("input_ids", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
        inputs = {key: inputs[key] for key in keys}
        inputs = {k: v.to(trainer.args.device) if torch.is_tensor(v) else v for k, v in inputs.items()}
        device, dtype = trainer.args.device.type, torch.bfloat16
        with torch.no_grad(), torch.autocast(device, dtype), torch.compiler.set_stance("force_eager"):
            hidden = causal.base_model(**inputs, use_cache=False).last_hidden_state[0]
            logits = hidden[inputs["cu_seq_lens_q"][1:].long() - 1] @ causal.get_output_embeddings().weight[letters].t()
        for (_, item), scores in zip(batch, logits.float().tolist(), strict=True):
            scores = scores[: len(item["options"])]
            found.append(scores.index(max(scores)) == item["answer"])
    return found


if __name__ == "__main__":
    main()
