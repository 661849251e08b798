"""The whole memory of a training, against what trainings on an H100 were recorded to take, and what changes it."""

import dataclasses
import json
from pathlib import Path

import pytest

from trainers.planning import memory, shape
from trainers.planning.setup import Setup

RUNS = Path(__file__).parents[2] / "results" / "runs"
QWEN = shape.of_config(
    {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    }
)
QLORA = Setup(1, 4096, base="nf4", nested=True, rank=32, dropout=0.05, attention="sdpa")
FULL = Setup(1, 1024, base="float32", stream=4, rank=None, checkpointing="all")


@pytest.mark.parametrize("study", ["published_subsets_1.5b", "whole_sets_1.5b"])
@pytest.mark.parametrize(("stage", "labelled"), [("sft", 0.05), ("msft/cpt", 1.0)])
def test_the_recorded_peaks_are_foretold(study, stage, labelled):
    recorded = json.loads((RUNS / study / "trainings" / stage / "cost.json").read_text())["peak_memory_bytes"]
    said = memory.plan(QWEN, dataclasses.replace(QLORA, labelled=labelled))
    assert said.allocated == pytest.approx(recorded, rel=0.05)


def test_items_add_up_and_the_largest_comes_first():
    said = memory.plan(QWEN, QLORA)
    sizes = list(said.items.values())
    assert sum(sizes) == pytest.approx(said.allocated) and sizes == sorted(sizes, reverse=True)
    assert said.allocated < said.shown < 1.2 * said.allocated


@pytest.mark.parametrize(
    "change",
    [
        {"length": 2048},
        {"checkpointing": "all"},
        {"attention": "packed"},
        {"compiled": True},
        {"rank": 8},
        {"dropout": 0.0},
        {"optim": "paged_adamw_8bit"},
        {"optim": "adamw_bnb_8bit"},
        {"targets": ("q_proj", "v_proj")},
    ],
    ids=str,
)
def test_thrift_saves_memory(change):
    assert memory.plan(QWEN, dataclasses.replace(QLORA, **change)).allocated < memory.plan(QWEN, QLORA).allocated


def test_bases_and_checkpointing_are_in_order():
    def taken(**change):
        return memory.plan(QWEN, dataclasses.replace(QLORA, attention="packed", **change)).allocated

    assert taken(base="nf4") < taken(base="int8") < taken(base="bfloat16") < taken(base="float32", stream=4)
    assert taken(nested=True) < taken(nested=False)
    kept = [taken(checkpointing=name) for name in ("all", "selective", "off")]
    assert kept == sorted(kept) and taken(checkpointing="all", every=2) > kept[0]


def test_full_fine_tuning_holds_gradients_and_moments_of_all_weights():
    said = memory.plan(QWEN, FULL)
    assert said.items["optimizer"] == 2 * 4 * QWEN.parameters
    assert said.items["gradients"] == 4 * QWEN.parameters
    assert said.moment == "where the backward ends"
    assert said.items["second gradient of the embeddings"] == 4 * QWEN.embedding_weights
    thrifty = memory.plan(QWEN, dataclasses.replace(FULL, optim="adamw_8bit"))
    others = QWEN.parameters - QWEN.embedding_weights  # the embeddings' moments stay in float32
    assert thrifty.items["optimizer"] == pytest.approx(2 * others + 8 * QWEN.embedding_weights, rel=0.02)


def test_beside_captured_graphs_the_head_needs_memory_of_its_own():
    captured = dataclasses.replace(QLORA, rank=16, dropout=0.0, checkpointing="off", compiled=True)
    said = memory.plan(QWEN, captured)
    assert captured.captures and said.moment == "where graphs are replayed"
    assert {"loss head", "values in passing", "gradients"} <= said.items.keys()
    accumulated = memory.plan(QWEN, dataclasses.replace(captured, accumulation=2))
    assert accumulated.items["gradients"] == 2 * said.items["gradients"] and accumulated.allocated == said.allocated


def test_a_mask_grows_with_the_square_of_the_row():
    def masks(length):
        return memory.plan(QWEN, dataclasses.replace(QLORA, length=length)).items["attention masks"]

    assert masks(4096) == 4 * masks(2048) == 28 * 2 * 4096**2
    assert "attention masks" not in memory.plan(QWEN, dataclasses.replace(QLORA, attention="packed")).items


def test_two_devices_copy_or_divide():
    one = memory.plan(QWEN, FULL)
    copied = memory.plan(QWEN, dataclasses.replace(FULL, gpus=2))
    divided = memory.plan(QWEN, dataclasses.replace(FULL, gpus=2, sharded=True))
    assert copied.items["optimizer"] == one.items["optimizer"] == 2 * divided.items["optimizer"]
    assert copied.allocated - one.allocated == 4 * QWEN.parameters
    assert divided.allocated < 0.75 * one.allocated


def test_a_sharded_model_is_first_loaded_whole():
    figures = json.loads((RUNS.parents[1] / "benchmarks" / "figures" / "training_memory_h100.json").read_text())
    measured = figures["FSDP recipe, two GPUs, before layers were let go of while sharding"]
    large = {"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40}
    large |= {"model_type": "qwen2", "num_key_value_heads": 8, "vocab_size": 152064, "tie_word_embeddings": False}
    model = shape.of_config(large)
    two = dataclasses.replace(QLORA, length=2048, rank=16, checkpointing="all", gpus=2, sharded=True)
    said = memory.plan(model, two)
    assert said.moment == "where FSDP shards the model"
    share = said.items.pop("first layer's share")
    assert sum(said.items.values()) == pytest.approx(measured["built"], rel=0.01) and share < 0.02 * measured["built"]
    assert memory.plan(model, dataclasses.replace(two, gpus=1, sharded=False)).moment == "where the backward begins"


def test_gradients_wait_for_later_micro_batches():
    alone = memory.plan(QWEN, QLORA)
    more = memory.plan(QWEN, dataclasses.replace(QLORA, accumulation=4))
    assert more.allocated - alone.allocated == 4 * QWEN.adapter_weights(32)
