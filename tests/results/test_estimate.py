"""What steps are foretold to take, against what the committed studies' steps took; and what `--dry-run` says."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from results.studies import cost, dry_run, estimate, workload
from results.studies.estimate import Machine, Shape
from results.studies.steps import Step
from results.studies.study import Index, Study, Training, Variant, of_folder
from results.studies.workload import Asked, Embedded, Stage
from trainers.planning import shape as planning
from trainers.planning.setup import Setup

RUNS = Path(__file__).parents[2] / "results" / "runs"


def decoder(kind, hidden, inner, layers, heads, keys, vocabulary):
    """As the planner sees a model."""
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary}
    heads = {"num_attention_heads": heads, "num_key_value_heads": keys}
    return planning.of_config({"model_type": kind, "tie_word_embeddings": True} | sizes | heads)


SMOLLM2 = Shape(106_168_320, 28_311_552, 30, 576, 1_536, 269_060_552, decoder("llama", 576, 1_536, 30, 9, 3, 49_152))
QWEN = Shape(
    1_310_195_712, 233_373_696, 28, 1_536, 8_960, 3_090_000_000, decoder("qwen2", 1_536, 8_960, 28, 12, 2, 151_936)
)
MINILM = Shape(10_616_832, 11_720_448, 6, 384, 1_536, 90_868_376)
CORES = Machine("2 CPU cores", "cpu", {"bfloat16": 0.326e12, "float32": 0.135e12})
"""As measured where the study ran (benchmarks/figures/scoring_cpu_zero_shot*.json)."""
H100 = Machine("1 x NVIDIA H100 80GB HBM3", "gpu", {"bfloat16": 744e12})
"""benchmarks/figures/scoring_h100_zero_shot.json"""
MEASURED = {
    "published_subsets": (SMOLLM2, CORES),
    "published_subsets_1.5b": (QWEN, H100),
    "whole_sets_1.5b": (QWEN, H100),
}
FORMER = {"attention": "sdpa", "fused": False}
"""How the trainer of the recorded trainings did: with masks, and PEFT's own LoRA."""
TOLERANCE = 3


def ratios(name):
    """Step -> estimated over recorded: seconds, and the peak memory where it was recorded."""
    shape, where = MEASURED[name]
    folder, study = RUNS / name, of_folder(RUNS / name)

    def over(step, seconds):
        return seconds / json.loads((folder / "steps" / f"{step}.json").read_text())["seconds"]

    found = {}
    for variant, settings in study.variants.items():
        has = bool(settings.index), bool(settings.training)
        taken = estimate.evaluation(shape, where, workload.asked(study, settings), "bfloat16", *has)
        peak = json.loads((folder / "steps" / f"eval-{variant}.json").read_text()).get("peak_gpu_bytes")
        found[f"eval-{variant}"] = over(f"eval-{variant}", taken.seconds), peak and taken.gpu_bytes / peak
    for training, settings in study.trainings.items():
        files = [folder / "trainings" / training / part / "cost.json" for part in ("cpt", "")]
        costs = [json.loads(file.read_text()) for file in files if file.is_file()]
        stages = [
            dataclasses.replace(stage, tokens=seen["tokens_seen"], setup=dataclasses.replace(stage.setup, **FORMER))
            for stage, seen in zip(workload.trained(study, settings), costs, strict=True)
        ]
        taken = estimate.training(shape, where, stages)
        memory = taken.gpu_bytes if where.kind == "gpu" else taken.rss_bytes
        recorded = max(seen["peak_memory_bytes"] for seen in costs)
        found[f"train-{training}"] = over(f"train-{training}", taken.seconds), memory / recorded
    if where.kind == "gpu":  # the other study's index had its vectors already
        meta = json.loads((folder / "indexes" / "books" / "index.json").read_text())["snippets"]
        work = Embedded(meta["count"], meta["count"] * workload.SNIPPET_TOKENS)
        found["index-books"] = over("index-books", estimate.index(MINILM, where, work).seconds), None
    return found


@pytest.fixture
def hub(monkeypatch):
    """The source that the committed studies had."""
    monkeypatch.setenv("MEDTASKS_DATA", "hub")


@pytest.mark.parametrize("name", MEASURED)
def test_estimates_lie_near_the_committed_records(hub, name):
    found = ratios(name)
    assert {"eval-base", "eval-sft+rag", "train-sft", "train-msft"} <= set(found)
    for step, pair in found.items():
        for ratio in pair:
            assert ratio is None or 1 / TOLERANCE < ratio < TOLERANCE, (step, pair)


def test_the_table_in_the_docstring_is_what_comes_out(hub):
    lines = re.findall(r"^    (\S.*?)  +(\d\.\d\d.*)$", estimate.__doc__, re.M)
    said = [value for _, figures in lines for value in re.findall(r"\d\.\d\d", figures)]
    out = []
    for name in MEASURED:
        found = ratios(name)
        evaluations = ("eval-base", "eval-sft", "eval-msft"), ("eval-rag", "eval-sft+rag")
        for steps in (*evaluations, ("train-sft", "train-msft"), ("index-books",)):
            known = [found[step] for step in steps if step in found]
            out += [pair[i] for i in (0, 1) for pair in known if pair[i] is not None]
    assert said == [f"{value:.2f}" for value in out]


def test_shapes_are_read_from_config(language_model, embedder):
    assert Shape.of(language_model) == SMOLLM2 and Shape.of(language_model).decoder == SMOLLM2.decoder
    assert Shape.of(embedder) == MINILM


def test_a_product_is_timed_within_a_second():
    import time

    import torch

    started = time.perf_counter()
    rate = estimate._rate("cpu", torch.float32, 256)
    assert 1e8 < rate < 1e15 and time.perf_counter() - started < 1


def test_what_cannot_be_told_is_none():
    assert estimate.evaluation(SMOLLM2, CORES, Asked(10, None)).seconds is None
    assert estimate.training(SMOLLM2, CORES, [Stage(None, Setup(1, 512)), Stage(100, Setup(1, 512))]).seconds is None
    assert estimate.index(MINILM, CORES, None).seconds is None


def test_more_work_and_less_thrift_cost_more():
    few, many = (estimate.evaluation(SMOLLM2, CORES, Asked(10, n)).seconds for n in (1_000, 100_000))
    assert few < many < estimate.evaluation(SMOLLM2, CORES, Asked(10, 100_000), "float32").seconds
    stage = Stage(1_000, Setup(1, 4_096, rank=32, dropout=0.05))
    plain = estimate.training_memory(QWEN, "gpu", stage).allocated
    for thrifty in ({"base": "nf4"}, {"checkpointing": "all"}, {"length": 1_024}, {"dropout": 0.0}, {"rank": 8}):
        changed = dataclasses.replace(stage, setup=dataclasses.replace(stage.setup, **thrifty))
        assert estimate.training_memory(QWEN, "gpu", changed).allocated < plain, thrifty


# Workloads


def study(**changes):
    given = {
        "name": "s",
        "base": "b",
        "tasks": ["medqa", "pubmedqa"],
        "variants": {"base": Variant(), "rag": Variant(index="i", rag={"k": 2})},
        "indexes": {"i": Index("sample")},
        "source": "sample",
    }
    return Study(**given | changes)


def test_items_of_a_folder_are_counted_and_their_prompts_measured():
    work = workload.asked(study(), Variant())
    assert work.items == 35 + 32
    assert 67 * 50 < work.tokens < 67 * 400
    with_passages = workload.asked(study(), study().variants["rag"])
    assert with_passages.tokens - work.tokens == 67 * 2 * workload.SNIPPET_TOKENS
    assert workload.asked(study(run_args={"limit": 5}), Variant()).items == 10
    assert workload.asked(study(run_args={"limit": 0.1}), Variant()).items == 4 + 4


@pytest.mark.parametrize(
    ("rag", "prompts", "passages"),
    [
        ({"k": 2, "context": "none"}, 1, 0),
        ({"k": 2, "context": "oracle"}, 1, 1),
        ({"k": 2, "mode": "gate", "gate_margin": 1}, 2, 2),
        ({"k": 2, "mode": "gate+mix", "gate_margin": 1, "w": 0.5}, 2, 2),
        ({"k": 2, "mode": "calibrate"}, 2, 2),
        ({"k": 2, "mode": "per_passage"}, 2, 2),
        ({"k": 2, "mode": "per_passage+calibrate+mix", "w": 0.5}, 5, 2),
    ],
)
def test_every_arm_that_a_mode_scores_is_counted(rag, prompts, passages):
    work = workload.asked(study(tasks=["medqa"]), Variant())
    found = workload.asked(study(tasks=["medqa"]), Variant(index="i", rag=rag))
    assert found.tokens == pytest.approx(prompts * work.tokens + 35 * passages * workload.SNIPPET_TOKENS, abs=5)


def test_items_of_the_hub_are_those_published():
    work = workload.asked(study(source="hub"), Variant())
    assert work == Asked(1_773, 1_273 * 213 + 500 * 356)


def test_groups_generated_answers_and_versions():
    assert workload.asked(study(tasks=["medadapt"], source="hub"), Variant()).items == 7_045
    assert workload.asked(study(tasks=["medqa_cot"]), Variant()) == Asked(35, None)
    assert workload.asked(study(tasks=["medqa_order"]), Variant()).items == 4 * 35


@pytest.mark.parametrize(
    ("recipe", "tokens", "batch"),
    [
        ("corpus: [sample]\npacking: true\nmax_steps: 5\nmax_length: 64\nper_device_train_batch_size: 2", 640, 128),
        ("corpus: [nowhere/else]\nmax_steps: 5", None, 8 * 1024),
    ],
)
def test_what_a_stage_trains(tmp_path, recipe, tokens, batch):
    (tmp_path / "r.yaml").write_text(recipe)
    (stage,) = workload.trained(study(), Training("cpt", str(tmp_path / "r.yaml")))
    assert (stage.tokens, stage.setup.tokens, stage.setup.labelled) == (tokens, batch, 1)


def test_a_source_counts_by_its_weight(tmp_path):
    def tokens(entry):
        (tmp_path / "r.yaml").write_text(f"corpus: [{entry}]\nnum_train_epochs: 1")
        return workload.trained(study(), Training("cpt", str(tmp_path / "r.yaml")))[0].tokens

    assert tokens("{source: sample, weight: 3}") == pytest.approx(3 * tokens("sample"), rel=0.01)


def test_tokens_of_sft_follow_steps_epochs_and_processes():
    def tokens(overrides, launch=()):
        return workload.trained(study(), Training("sft", "trainers/recipes/demo_sft.yaml", overrides, list(launch)))[
            0
        ].tokens

    sixteen = tokens({})
    assert tokens({"max_steps": 32}) == pytest.approx(2 * sixteen, abs=2)
    assert tokens({}, ["--num_processes", "2"]) == pytest.approx(2 * sixteen, abs=2)
    one = tokens({"max_steps": -1, "num_train_epochs": 1})
    assert tokens({"max_steps": -1, "num_train_epochs": 2}) == pytest.approx(2 * one, abs=2)
    assert tokens({"sources": ["medqa:10"], "max_steps": -1, "num_train_epochs": 1}) < one


def test_a_corpus_is_measured_from_its_beginning(tmp_path, monkeypatch):
    import gzip

    rows = [json.dumps({"text": "word " * 20, "id": i}) for i in range(4_000)]
    (tmp_path / "c.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "c.jsonl").read_bytes()))
    assert (
        workload.text_size(str(tmp_path / "c.jsonl"))[0] == workload.text_size(str(tmp_path / "c.jsonl.gz"))[0] == 4_000
    )
    monkeypatch.setattr(workload, "MEASURED_BYTES", 100_000)
    (tmp_path / "d.jsonl").write_text((tmp_path / "c.jsonl").read_text())
    assert workload.text_size(str(tmp_path / "d.jsonl"))[0] == pytest.approx(4_000, rel=0.1)
    assert workload.embedded(Index("nowhere/else")) is None


# What --dry-run says


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A study whose base is done; sft and its evaluation are not, and an index cannot be built."""
    monkeypatch.setattr(dry_run, "_machine", lambda: CORES)
    monkeypatch.setattr(cost, "here", lambda: "2 CPU cores")
    monkeypatch.setattr(dry_run.models, "folder", lambda *_: tmp_path)
    monkeypatch.setattr(Shape, "of", staticmethod(lambda _: SMOLLM2))
    (tmp_path / "config.json").write_text('{"dtype": "bfloat16"}')
    (tmp_path / "steps").mkdir()
    for name in ("runs/base", "indexes/i", "trainings/sft", "runs/sft"):
        (tmp_path / name).mkdir(parents=True)
    made = [
        Step("index-i", "index", [], tmp_path / "indexes/i/x", {}, problem="c.jsonl: no such corpus"),
        Step("train-sft", "training", [], tmp_path / "trainings/sft/x", {"a": "1"}),
        Step("eval-base", "evaluation", [], tmp_path / "runs/base/x", {"a": "1"}),
        Step("eval-sft", "evaluation", [], tmp_path / "runs/sft/x", {"a": "1"}, ("train-sft",)),
        Step("eval-rag", "evaluation", [], tmp_path / "runs/rag/x", {"a": "1"}, ("index-i",)),
    ]
    record = {"key": made[2].key, "depends": {"a": "1"}, "seconds": 200.0, "device": "2 CPU cores"}
    (tmp_path / "steps" / "eval-base.json").write_text(json.dumps(record | {"peak_rss_bytes": 2e9}))
    (tmp_path / "runs/base/x").write_text("")
    training = Training("sft", "trainers/recipes/demo_sft.yaml")
    variants = {"base": Variant(), "sft": Variant("sft"), "rag": Variant(index="i")}
    return study(variants=variants, trainings={"sft": training}), made, tmp_path


def lines(planned):
    text = dry_run.text(*planned)
    return {line.split()[0]: line for line in text.splitlines() if line.strip()}


def test_dry_run_says_what_would_be_done_and_why(planned):
    said = lines(planned)
    assert "s:" in said and "5 steps" in said["s:"] and "1 of them done" in said["s:"]
    assert said["index-i"].endswith("cannot run: c.jsonl: no such corpus")
    assert said["train-sft"].endswith("would run; estimated")
    assert said["eval-base"].split() == ["eval-base", "done"]
    assert said["eval-sft"].endswith("waits for train-sft; from the record of eval-base")
    assert "3 min" in said["eval-sft"] and "2.0 GB" in said["eval-sft"]
    assert said["eval-rag"].endswith("waits for index-i; estimated")  # passages make it another kind of evaluation
    assert re.fullmatch(r"in all about \d+ min on 2 CPU cores, \d+\.\d GB", said["in"])


def test_a_step_s_own_record_comes_first_and_is_scaled_to_its_tokens(planned):
    definition, made, out = planned
    made[2] = dataclasses.replace(made[2], depends={"a": "2"})
    said = lines(planned)
    assert said["eval-base"].endswith("would run (runs again, since a changed (1 -> 2)); its own earlier record")
    file = out / "steps" / "eval-base.json"
    tokens = workload.asked(definition, Variant()).tokens
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokens": tokens // 10}))
    assert "29 min" in lines(planned)["eval-base"]  # ten times the work beyond the start
    file.write_text(json.dumps(json.loads(file.read_text()) | {"device": "1 x NVIDIA H100 80GB HBM3"}))
    assert lines(planned)["eval-base"].endswith("estimated")


def test_what_cannot_be_told_is_said(planned):
    definition, made, out = planned
    definition = dataclasses.replace(definition, tasks=["medqa_cot"])
    said = lines((definition, made, out))
    assert "unknown" in said["eval-rag"] and said["in"].startswith("in all at least ")
