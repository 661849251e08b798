"""How fast `hf-mcq` scores multiple-choice questions, against lm-eval's `hf` in the same run.

    python benchmarks/scoring.py --model MODEL --device cuda --out FILE.json
    python benchmarks/scoring.py --model MODEL --device cuda --num_fewshot 5
    python benchmarks/scoring.py --model MODEL --device cuda --passages 3 --corpus FILE.jsonl.gz
    python benchmarks/scoring.py --model .models/SmolLM2-135M-Instruct --device cpu --tasks medqa --limit 200 --peers 1
        --dtype float32 --reorder_weights True    (or nothing, for bfloat16)
    accelerate launch benchmarks/scoring.py --model MODEL --device cuda --peers none    (each GPU a share of the items)

Both sides get the same requests, weights and precision. Timed is `loglikelihood(requests)`, from text to answers: the
median of three runs after one to warm up (for `hf`, on the first 400 requests). Loading the model and building the
requests are not timed. `hf` with batch_size auto looks for its batch size again in each call, as it does in each
evaluation; `--peers auto,64` adds a fixed batch size. Passages, where asked for, are drawn at random from the corpus
(seed 0), three of about 200 words to a question: what is measured is scoring, not finding.

The arithmetic limit is the time that the products of the forward pass take at the rate of an 8192 x 8192 product
measured in the same run: 2 x parameters (without embeddings) x tokens, plus the head at the scored positions and the
attention.
"""

import argparse
import gc
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch

WARM_UP_REQUESTS, RUNS = 400, 3
PASSAGES_SEED = 0


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    model = _load("hf-mcq", arguments, batch_size=1)
    requests = _requests(arguments, model)
    settings = vars(arguments) | {name: Path(getattr(arguments, name)).name for name in ("model", "corpus")}
    figures = {"machine": _machine(arguments.device), "settings": settings}
    del figures["settings"]["out"]
    figures |= {"requests": len(requests), "items": len({(r.task_name, r.doc_id) for r in requests})}
    ours = _timed(model, requests, arguments.runs, whole_warm_up=True)
    figures["hf-mcq"] = ours[0] | {
        "batches": model.scorer.batches[-(len(model.scorer.batches) // (1 + arguments.runs)) :]
    }
    figures["limit"] = _limit(model, requests)
    if figures["limit"]["seconds"]:
        figures["hf-mcq"]["share_of_limit"] = round(figures["limit"]["seconds"] / ours[0]["seconds"], 3)
    _report("hf-mcq", figures["hf-mcq"])
    del model
    gc.collect()
    for peer in [] if arguments.peers == "none" else arguments.peers.split(","):
        other = _load("vllm" if peer == "vllm" else "hf", arguments, batch_size=peer)
        theirs = _timed(other, requests, arguments.peer_runs)
        name = peer if peer == "vllm" else f"hf, batch_size {peer}"
        figures[name] = theirs[0] | _agreement(requests, ours[1], theirs[1])
        figures[name]["ratio"] = round(theirs[0]["seconds"] / ours[0]["seconds"], 2)
        _report(name, figures[name])
        del other
        gc.collect()
    if arguments.fp32:
        reference = _load("hf-mcq", arguments, batch_size=1, dtype="float32")
        answers = reference.loglikelihood(requests, disable_tqdm=True)
        figures["against float32"] = _agreement(requests, ours[1], answers)
        _report("against float32", figures["against float32"])
    if arguments.out and int(os.environ.get("RANK", 0)) == 0:
        Path(arguments.out).write_text(json.dumps(figures, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tasks", default="medqa,medmcqa,mmlu_med_pooled,pubmedqa")
    parser.add_argument("--num_fewshot", type=int, default=0)
    parser.add_argument("--limit", type=int, help="items of each task")
    parser.add_argument("--every", type=int, default=1, help="only every n-th item of each task")
    parser.add_argument("--passages", type=int, default=0)
    parser.add_argument("--corpus", default="sample")
    parser.add_argument(
        "--peers", default="auto", help="batch sizes of hf (auto takes very long on a CPU), vllm, or none"
    )
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--peer_runs", type=int, default=RUNS)
    parser.add_argument("--max_batch_tokens", default="auto")
    parser.add_argument("--compile_layers", default="auto")
    parser.add_argument("--reorder_weights", default="auto")
    parser.add_argument("--fp32", action="store_true", help="also compare the answers with float32's")
    parser.add_argument("--out")
    return parser.parse_args()


def _load(name: str, arguments: argparse.Namespace, dtype: str | None = None, **keywords):
    from lm_eval.models.huggingface import HFLM

    from medtasks.scoring.lm import HFMCQ

    keywords |= {"pretrained": arguments.model, "device": arguments.device, "dtype": dtype or arguments.dtype}
    if name == "hf":
        return HFLM(**keywords)
    if name == "vllm":
        from lm_eval.models.vllm_causallms import VLLM

        return VLLM(**keywords | {"batch_size": "auto", "max_model_len": 4096, "gpu_memory_utilization": 0.6})
    budget = arguments.max_batch_tokens
    for name in ("compile_layers", "reorder_weights"):
        keywords[name] = {"True": True, "False": False}.get(value := getattr(arguments, name), value)
    return HFMCQ(**keywords, max_batch_tokens=budget if budget == "auto" else int(budget))


def _requests(arguments: argparse.Namespace, model) -> list:
    """lm-eval's requests of the tasks, for this process's share of the items."""
    from lm_eval.tasks import TaskManager

    from medtasks import TASKS_DIR

    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False)
    requests = []
    for task in manager.load(arguments.tasks.split(","))["tasks"].values():
        task.set_config("num_fewshot", arguments.num_fewshot)
        task.build_all_requests(limit=arguments.limit, rank=model.rank, world_size=model.world_size)
        requests += [request for request in task.instances if request.doc_id % arguments.every == 0]
    return _with_passages(requests, arguments) if arguments.passages else requests


def _with_passages(requests: list, arguments: argparse.Namespace) -> list:
    import dataclasses

    from medtasks import corpora
    from rag_model import prompts
    from rag_model.chunking import Chunking, split

    texts = list(split(corpora.read(arguments.corpus), Chunking()))
    draw = random.Random(PASSAGES_SEED)
    drawn = defaultdict(lambda: draw.sample(texts, arguments.passages))
    return [
        dataclasses.replace(
            r, arguments=(prompts.insert(r.args[0], r.doc, r.task_name, drawn[r.task_name, r.doc_id]), r.args[1])
        )
        for r in requests
    ]


def _timed(model, requests: list, runs: int, whole_warm_up: bool = False) -> tuple[dict, list]:
    """Seconds (median, and all), the peak memory above the weights in GB, and the answers."""
    device = torch.device(getattr(model, "device", None) or "cuda")
    _reset_peak(device)
    seconds = []
    for number in range(1 + runs):
        asked = requests if number or whole_warm_up else requests[:WARM_UP_REQUESTS]
        model.barrier()
        started = time.perf_counter()
        answers = model.loglikelihood(asked, disable_tqdm=True)
        model.barrier()
        seconds.append(round(time.perf_counter() - started, 3))
    figures = {"seconds": statistics.median(seconds[1:]), "runs": seconds[1:], "warm_up": seconds[0]}
    return figures | {"peak_gb": round(_peak(device) / 1e9, 2)}, answers


_before = 0


def _reset_peak(device: torch.device) -> None:
    global _before
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        _before = torch.cuda.memory_allocated(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")
        _before = _resident()


def _peak(device: torch.device) -> int:
    return (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")) - _before


def _resident(field: str = "VmRSS") -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))


def _limit(model, requests: list) -> dict:
    """Tokens of the distinct prompts, each computed in full, and the seconds that their arithmetic takes at least."""
    from medtasks.scoring import tokens
    from medtasks.scoring.scorer import Chunk

    pairs = [request.args for request in requests]
    encoded = tokens.encode_pairs(model, pairs)
    chunk = Chunk(dict(enumerate(model._as_requests([(p, *ids) for p, ids in zip(pairs, encoded, strict=True)]))))
    paths, lengths = chunk.paths, [len(path.tokens) for path in chunk.paths]
    shared = sum(node.end - node.start for top in chunk.top for node in top)
    config, head = model.model.config, model.model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.model.parameters()) - head
    if not config.tie_word_embeddings:
        body -= head
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    scored = sum(len(path.tokens) - path.first for path in paths)
    attention = sum(2 * n * n * width * config.num_hidden_layers for n in lengths)  # causal: half of 4 n^2 width
    flop = 2 * body * sum(lengths) + 2 * head * scored + attention
    rate = _product_rate(model.device, model.model.dtype)
    return {
        "prompts": len(paths),
        "tokens": sum(lengths),
        "tokens_with_sharing": shared,
        "tflop": round(flop / 1e12, 1),
        "tflop_per_s": round(rate / 1e12, 1),
        "seconds": round(flop / rate, 3),
    }


def _product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product."""
    n, repeats = (8192, 20) if device.type == "cuda" else (1024, 5)
    a, b = torch.randn(n, n, device=device, dtype=dtype), torch.randn(n, n, device=device, dtype=dtype)
    seconds = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * n**3 / statistics.median(seconds)


def _agreement(requests: list, ours: list, theirs: list) -> dict:
    """Share of items whose choice differs, accuracy of both, and the largest difference of a log-likelihood."""
    items = defaultdict(list)
    for request, a, b in zip(requests, ours, theirs, strict=True):
        items[request.task_name, request.doc_id].append((a[0], b[0], request.doc["answer"]))
    changed = right = right_theirs = 0
    for scores in items.values():
        a, b = (max(range(len(scores)), key=lambda i, side=side: scores[i][side]) for side in (0, 1))
        changed += a != b
        right += a == scores[0][2]
        right_theirs += b == scores[0][2]
    differences = [abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True)]
    return {
        "changed": changed,
        "changed_share": round(changed / len(items), 5),
        "acc": round(right / len(items), 4),
        "acc_theirs": round(right_theirs / len(items), 4),
        "largest_difference": max(differences),
        "mean_difference": statistics.fmean(differences),
    }


def _report(name: str, figures: dict) -> None:
    if int(os.environ.get("RANK", 0)) == 0:
        print(name, json.dumps({key: value for key, value in figures.items() if key != "batches"}), flush=True)


def _machine(device: str) -> dict:
    name = (
        torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()}, {os.cpu_count()} cores"
    )
    processes = int(os.environ.get("WORLD_SIZE", 1))
    return {"device": name, "processes": processes, "torch": torch.__version__, "python": sys.version.split()[0]}


if __name__ == "__main__":
    main()
