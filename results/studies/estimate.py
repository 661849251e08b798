"""What a step will take in time and memory, before it has run: from the model's shape, the work, and the machine.

Time is a start (imports, loading, data) and the arithmetic at a share of what a plain matrix product reaches on the
machine (:func:`machine` measures that in less than a second). Forward costs 2 operations a weight and token, and LoRA's
training 4: the gradient of activations is as dear as the forward, that of frozen weights is not needed (the head
counts where all tokens are labelled). The shares and starts were fitted to the records of ``results/runs``, one H100
(744 TFLOP/s) and 2 CPU cores (0.33 TFLOP/s, with other work on the machine), except for the times of the whole test
sets, which test them; another kind of machine may lie further off. Estimated over recorded:

    2 CPU cores, SmolLM2-135M    time                         memory
    eval-base, -sft, -msft       0.89, 0.77, 0.83
    eval-rag, -sft+rag           0.93, 0.84
    train-sft, -msft             0.93, 1.01                   0.69, 0.67
    H100, a 1.5B model, 4-bit
    eval-base, -sft, -msft       0.79, 0.75, 0.84
    eval-rag, -sft+rag           0.85, 0.92
    train-sft, -msft             1.03, 1.01                   0.98, 0.99
    index-books                  0.87
    the same on whole test sets
    eval-base, -sft, -msft       0.72, 0.61, 0.61             1.01, 1.00, 1.00
    eval-rag, -sft+rag           0.58, 0.85                   1.15, 0.86
    train-sft, -msft             0.86, 0.85                   0.98, 0.99
    index-books                  0.87

given the tokens that the trainings saw (that eval-rag was killed once and began again). Where these must be guessed too
(:mod:`results.studies.workload`), that error is added; SFT on the CPU was guessed at 1.12 of its tokens.

An evaluation's memory is weights, what a batch keeps, and a base for Python with its libraries; a training's is that of
:mod:`trainers.planning`, rows taken to be full. The recorded trainings had masks and PEFT's own LoRA, and are planned
with them here; they had TRL's head too, in whose place the plan has ours.
"""

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from results.studies import cost
from results.studies.workload import Asked, Embedded, Stage
from trainers.planning import memory
from trainers.planning import shape as planning

START = {"index": 30.0, "training": 25.0, "evaluation": 26.0}
"""Seconds before and after the work itself."""
STAGE_START = 15.0
"""More seconds for each stage of a training: its data, test questions to keep out, and checkpoints."""
RETRIEVAL_START = 16.0
"""More seconds for an evaluation that looks passages up: the index and its embedder."""
COMPILES_FROM, COMPILING = 1e16, 12.0
"""Operations from which `hf-mcq` compiles on a GPU, and the seconds that it takes (:mod:`medtasks.scoring.scorer`)."""
SCORING = {"cpu": 0.5, "gpu": 0.6}
"""Share of the matrix product's rate that scoring reaches."""
TRAINING = {"cpu": 0.2, "gpu": 0.14, "gpu 4-bit": 0.07}
EMBEDDING = {"cpu": 0.6, "gpu": 0.013}
"""On a CPU in float32."""
STORED, SNIPPET_BYTES = 930, 4_000
"""Snippets that Chroma takes a second; bytes of memory for one: text, and vector twice."""

BASE_RSS, TRAINING_RSS = 0.6e9, 1.0e9
"""Bytes of Python with its libraries."""
CPU_BATCH, GPU_BATCH = 2_048, 65_536
"""Tokens of a batch of `hf-mcq` at most."""
GPU_ACTIVATIONS = 1.5
"""How much more a GPU's scoring keeps than is counted here."""
PRODUCT, PRODUCT_SECONDS = 1_024, 0.15
"""Width of the product that is timed, doubled four times on a GPU, and seconds to time it."""


@dataclass(frozen=True)
class Shape:
    """A model's size: parameters of its layers (``body``) and of its head, widths, bytes of its weights' files."""

    body: int
    head: int
    layers: int
    hidden: int
    inner: int
    file_bytes: int
    decoder: planning.Shape | None = field(default=None, compare=False)
    """As :mod:`trainers.planning` sees it: a model of another kind as if it were a decoder of the same widths."""

    @staticmethod
    def of(folder: Path) -> "Shape":
        """Of a model's folder. A width that its ``config.json`` does not name is that of a plain transformer."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        hidden, layers = config.get("hidden_size", config.get("n_embd", 0)), config.get("num_hidden_layers", 0)
        inner, heads = config.get("intermediate_size", 4 * hidden), config.get("num_attention_heads", 1)
        keys = config.get("num_key_value_heads", heads) * config.get("head_dim", hidden // max(1, heads))
        gated = 3 if config.get("hidden_act") in ("silu", "swish") else 2
        body = layers * (2 * hidden * hidden + 2 * hidden * keys + gated * hidden * inner)
        files = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        vocabulary = config.get("vocab_size", 0)
        widths = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads}
        widths |= {"num_hidden_layers": layers, "vocab_size": vocabulary}
        return Shape(body, vocabulary * hidden, layers, hidden, inner, files, planning.of_config(config | widths))


@dataclass(frozen=True)
class Machine:
    """Where steps run: ``device`` as in records, and operations a second of a matrix product by precision."""

    device: str
    kind: str
    rates: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """``seconds`` (None: cannot be told), ``rss_bytes`` (of the process), ``gpu_bytes`` (None without a GPU)."""

    seconds: float | None
    rss_bytes: float
    gpu_bytes: float | None = None


def machine() -> Machine:
    """This machine, its matrix products timed."""
    import torch

    if torch.cuda.is_available():
        name = f"1 x {torch.cuda.get_device_name(0)}"
        return Machine(name, "gpu", {"bfloat16": _rate("cuda", torch.bfloat16, 8 * PRODUCT)})
    rates = {name: _rate("cpu", getattr(torch, name), PRODUCT) for name in ("bfloat16", "float32")}
    return Machine(f"{cost.cores()} CPU cores", "cpu", rates)


def _rate(device: str, dtype, width: int) -> float:
    """Operations a second of a square product."""
    import torch

    a, b = (torch.ones(width, width, dtype=dtype, device=device) for _ in range(2))

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    a @ b
    wait()
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < PRODUCT_SECONDS:
        a @ b
        wait()
        n += 1
    return 2 * width**3 * n / (time.perf_counter() - started)


def evaluation(
    shape: Shape,
    where: Machine,
    work: Asked,
    dtype: str = "bfloat16",
    has_index: bool = False,
    has_adapter: bool = False,
) -> Estimate:
    """Of scoring ``work`` with a model in ``dtype``; the time of generated answers cannot be told."""
    rate = where.rates.get(dtype, where.rates["bfloat16"])
    width = 4 if dtype == "float32" else 2
    weights = width * (shape.body + shape.head)
    seconds = None
    if work.tokens is not None:
        operations = 2 * shape.body * work.tokens + 2 * shape.head * work.items
        seconds = START["evaluation"] + RETRIEVAL_START * has_index + operations / (rate * SCORING[where.kind])
        seconds += COMPILING if where.kind == "gpu" and operations >= COMPILES_FROM else 0
    if where.kind == "gpu":
        batch = min(GPU_BATCH, work.tokens or GPU_BATCH)
        kept = GPU_ACTIVATIONS * width * (4 * shape.hidden + 2 * shape.inner)
        kept += 4 * (4 * shape.hidden + shape.inner) * has_adapter  # what goes into an adapter, in float32
        return Estimate(seconds, BASE_RSS + weights, weights + batch * kept)
    batch = min(CPU_BATCH, work.tokens or CPU_BATCH)
    kept = batch * width * (4 * shape.hidden + 2 * shape.inner)
    return Estimate(seconds, BASE_RSS + 2 * weights + kept + 0.2e9 * has_index)  # a CPU's products keep a second copy


def training(shape: Shape, where: Machine, stages: list[Stage]) -> Estimate:
    """Of all stages of a training, one after the other."""
    seconds: float | None = START["training"]
    plans = []
    for stage in stages:
        setup = stage.setup
        share = TRAINING["gpu 4-bit" if where.kind == "gpu" and setup.base == "nf4" else where.kind]
        passes = 4 if setup.checkpointing == "off" else 6
        weights = shape.body + (shape.head if setup.labelled == 1 else 0)
        if stage.tokens is None:
            seconds = None
        elif seconds is not None:
            operations = passes * weights * stage.tokens
            seconds += STAGE_START + operations / (where.rates["bfloat16"] * share)
        plans.append(training_memory(shape, where.kind, stage))
    if where.kind == "gpu":
        return Estimate(seconds, TRAINING_RSS + shape.file_bytes, max(plan.allocated for plan in plans))
    return Estimate(seconds, max(plan.shown for plan in plans))


def training_memory(shape: Shape, kind: str, stage: Stage) -> memory.Plan:
    """What a stage of training holds at its highest (:mod:`trainers.planning`)."""
    return memory.plan(shape.decoder, dataclasses.replace(stage.setup, on_cpu=kind == "cpu"))


def index(shape: Shape, where: Machine, work: Embedded | None) -> Estimate:
    """Of embedding and storing a corpus with an embedder of this ``shape``."""
    memory = BASE_RSS + 2 * shape.file_bytes
    gpu = 2.0 * shape.file_bytes if where.kind == "gpu" else None
    if work is None:
        return Estimate(None, memory, gpu)
    rate = where.rates["bfloat16" if where.kind == "gpu" else "float32"] * EMBEDDING[where.kind]
    seconds = START["index"] + work.snippets / STORED + 2 * shape.body * work.tokens / rate
    return Estimate(seconds, memory + SNIPPET_BYTES * work.snippets, gpu)
