"""A made-up study: three variants, two tasks, every file that a report reads. No model has answered anything here."""

import hashlib
import json

from results import harness_output

DATE = "2026-01-01T00-00-00.000001"
TASKS = {"exam": 24, "trial": 12}
RIGHT = {
    "base": lambda i: i % 2 == 0,
    "rag": lambda i: i % 4 == 0 or i % 8 == 1,
    "sft": lambda i: i % 6 != 5,
    "sft+rag": lambda i: i % 6 != 5,
}
"""Variant -> which items it answers correctly."""

HOSTILE = "</script><b>Which</b> & 'why'?"
INDEX_FOLDER = "elsewhere/indexes/books"


def subject(task, i):
    if task == "trial":
        return ""
    return "Anatomy" if i < 12 else "Surgery" if i < 22 else "Dental"


def sample(task, i, variant):
    gold, options = i % 4, [f"{task} option {letter}{i}" for letter in "wxyz"]
    choice = gold if RIGHT[variant](i) else (gold + 1) % 4
    logs = [-0.3 - 0.02 * i if k == choice else -2.0 - k for k in range(4)]
    question = HOSTILE if (task, i) == ("exam", 0) else f"Question {i} of the {task}?"
    context = f"Abstract {i}." if task == "trial" else ""
    doc = {"id": f"{task}-{i:03}", "question": question, "options": options, "answer": gold, "context": context}
    digest = hashlib.sha256(f"{task}{i}".encode()).hexdigest()
    return {
        "doc_id": i,
        "doc": doc | {"subject": subject(task, i)},
        "target": str(gold),
        "arguments": {f"gen_args_{k}": {"arg_0": f"Q: {question}", "arg_1": f" {'ABCD'[k]}"} for k in range(4)},
        "filtered_resps": [[str(log), "False"] for log in logs],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": digest,
        "prompt_hash": digest,
        "acc": float(choice == gold),
    }


def results(folder, variant):
    config = {"model_args": {"pretrained": "models/Tiny-1B"}, "model_dtype": "torch.bfloat16"}
    if "sft" in variant:
        config["model_args"]["peft"] = "runs/made_up/trainings/sft/adapter"
    if "rag" in variant:
        config["model_args"]["index"] = INDEX_FOLDER
        config |= {"rag_k": 2, "rag_corpus": {"name": "books"}}
    return {
        "results": {},
        "configs": {},
        "versions": dict.fromkeys(TASKS, 1),
        "config": config,
        "model_name": "models/Tiny-1B",
        "n-shot": dict.fromkeys(TASKS, 0),
        "n-samples": {task: {"effective": n} for task, n in TASKS.items()},
        "lm_eval_version": "0.4.13",
    }


def write_json(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def write_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(folder, variant):
    """A run folder of a study."""
    write_json(folder / "results.json", results(folder, variant))
    predictions = []
    for task, n in TASKS.items():
        file = folder / "samples" / f"{task}.jsonl"
        write_lines(file, (sample(task, i, variant) for i in range(n)))
        predictions += harness_output.predictions(task, file)
        if "rag" in variant:
            write_lines(folder / "retrieval" / f"{task}.jsonl", (seen(task, i) for i in range(n)))
    write_lines(folder / "predictions.jsonl", predictions)


def seen(task, i):
    passages = [{"id": f"p{i % 5}#0", "score": 0.9 - i / 100}, {"id": "p5#0", "score": 0.25}]
    return {"task": task, "doc_id": i, "query": "?", "passages": passages, "n_cut": int(i == 3), "rag": "f"}


def write_lm_eval_output(folder, variant):
    """What ``lm_eval --log_samples --output_path`` leaves."""
    write_json(folder / "org__model" / f"results_{DATE}.json", results(folder, variant))
    for task, n in TASKS.items():
        rows = (sample(task, i, variant) for i in range(n))
        write_lines(folder / "org__model" / f"samples_{task}_{DATE}.jsonl", rows)


def write_study(folder):
    nothing = {"training": None, "index": None, "rag": {}}
    variants = {
        "rag": nothing | {"index": "books", "rag": {"k": 2}},
        "base": nothing,
        "sft": nothing | {"training": "sft"},
    }
    study = {"name": "made_up", "base": "models/Tiny-1B", "tasks": list(TASKS), "variants": variants}
    study["trainings"] = {"sft": {"stage": "sft", "recipe": "sft.yaml"}}
    study["indexes"] = {"books": {"corpus": "books"}}
    write_json(folder / "study.json", study)
    for variant in variants:
        write_run(folder / "runs" / variant, variant)
    snippets = [{"id": f"p{k}#0", "title": f"Title {k}", "text": f"Text of passage {k} <img src=x>"} for k in range(6)]
    write_lines(folder / "indexes" / "books" / "snippets.jsonl", snippets)
    write_json(folder / "indexes" / "books" / "index.json", {"format": 1})
    write_json(folder / "trainings" / "sft" / "loss.json", [{"step": s, "loss": 3 / s} for s in range(1, 30)])
    cost = {"device": "2 x NVIDIA X", "peak_memory_bytes": 7e9, "tokens_seen": 9000, "train_seconds": 90}
    write_json(folder / "trainings" / "sft" / "cost.json", cost)
    about = {"stage": "sft", "steps": 29, "epochs": 1.0, "first_loss": 3.0, "final_loss": 0.1}
    write_json(folder / "trainings" / "sft" / "training.json", about | {"data": {"counts": {"used": 1234}}})
    step = {"key": "k", "seconds": 360.0, "device": "1 x NVIDIA X", "peak_gpu_bytes": 2e9}
    steps = {"index-books": {"gpu_joules": 1000.0}, "train-sft": {"device": "2 x NVIDIA X"}}
    for name in ("index-books", "train-sft", "eval-base", "eval-rag", "eval-sft"):
        extra = {"gpu_joules": 5000.0, "tokens": 72_000} if name.startswith("eval") else steps[name]
        write_json(folder / "steps" / f"{name}.json", step | extra)
    return folder
