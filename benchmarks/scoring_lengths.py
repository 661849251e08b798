"""`hf-mcq`: tokens per second by prompt length and batch size, and where the time goes.

    python benchmarks/scoring_lengths.py --model MODEL --device cuda --out FILE.json
    python benchmarks/scoring_lengths.py --model MODEL --device cpu --tokens 6000 --compile False

Prompts are random tokens that share nothing; each answer is one token. A cell is one run over `--tokens` tokens after
one to warm up. The profile is of prompts of 128 tokens, by what the time of the kernels (on a CPU, of the operators)
went into.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

LENGTHS, BUDGETS = (64, 128, 256, 512, 1024, 2048, 4096), (4096, 8192, 16_384, 32_768, 65_536)
KINDS = {
    "attention": ("flash", "attention"),
    "products": ("gemm", "nvjet", "aten::mm", "aten::addmm", "cutlass", "cublas"),
    "fused element-wise": ("triton_", "inductor", "graph_", "kernel_cpp"),
    "copies": ("memcpy", "memset", "copy_", "index_select", "cat"),
}


def main() -> None:
    from lm_eval.models.huggingface import HFLM

    from medtasks.scoring.scorer import Scorer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--compile", default="True", choices=("True", "False"))
    parser.add_argument("--out")
    arguments = parser.parse_args()
    model = HFLM(pretrained=arguments.model, device=arguments.device, dtype=arguments.dtype).model
    scorer = Scorer(model)
    if arguments.compile == "True":
        scorer.compile()
    budgets = BUDGETS if arguments.device.startswith("cuda") else (256, 512, 1024, 2048, 4096)
    lengths = LENGTHS if arguments.device.startswith("cuda") else LENGTHS[:5]
    settings = vars(arguments) | {"model": Path(arguments.model).name}
    figures = {"settings": settings, "tokens_per_s": {}}
    print("length  " + "".join(f"{budget:>9}" for budget in budgets))
    for length in lengths:
        row = figures["tokens_per_s"][length] = {}
        for budget in budgets:
            if budget >= length:
                scorer.max_tokens = budget
                _run(scorer, length, min(arguments.tokens, 2 * budget))
                row[budget] = round(arguments.tokens / _run(scorer, length, arguments.tokens))
        print(f"{length:>6}  " + "".join(f"{row.get(budget, ''):>9}" for budget in budgets), flush=True)
    scorer.max_tokens = budgets[-1]
    figures["profile"] = _profile(scorer, arguments)
    print("profile", figures["profile"])
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(figures, indent=1) + "\n")


def _run(scorer, length: int, tokens: int) -> float:
    """Seconds that prompts of ``length`` take, ``tokens`` in all."""
    from medtasks.scoring.scorer import Chunk, Request

    draw = np.random.default_rng(0)
    vocabulary = scorer.model.get_input_embeddings().weight.shape[0]
    prompts = draw.integers(vocabulary, size=(max(1, tokens // length), length))
    chunk = Chunk({i: Request(prompt, [0]) for i, prompt in enumerate(prompts)})
    started = time.perf_counter()
    scorer.score([chunk], lambda index, answer: None)
    return time.perf_counter() - started


def _profile(scorer, arguments: argparse.Namespace) -> dict[str, float]:
    """Share of the device's time by kind of work."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = arguments.device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
        _run(scorer, 128, arguments.tokens)
    shares: Counter = Counter()
    for event in profiled.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        name = event.key.lower()
        shares[next((kind for kind, signs in KINDS.items() if any(s in name for s in signs)), "other")] += spent
    return {kind: round(spent / shares.total(), 3) for kind, spent in shares.most_common()}


if __name__ == "__main__":
    main()
