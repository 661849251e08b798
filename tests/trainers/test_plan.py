"""The command `python -m trainers.plan`: what it says, what it refuses, and where its times come from."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medtasks.errors import InputError
from trainers import acceleration, plan, recipe
from trainers.planning import knobs, memory, setup, shape, speed
from trainers.planning.setup import Setup

ROOT = Path(__file__).parents[2]
QWEN = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


@pytest.fixture
def qwen(tmp_path):
    """A folder with the config.json of Qwen2.5-1.5B, and nothing else."""
    folder = tmp_path / "qwen"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN))
    return str(folder)


@pytest.fixture
def planned(qwen, capsys):
    """A function that plans a shipped recipe for that model and returns the exit code and what was printed."""

    def run(name, *arguments):
        code = plan.main(["--config", name, "--model_name_or_path", qwen, *map(str, arguments)])
        return code, capsys.readouterr().out

    return run


def test_a_plan_to_read(planned):
    code, said = planned("published_sft", "--vram", 8, "--tokens", 1_000_000, "--gpu", "H100")
    lines = said.splitlines()
    assert code == 0 and lines[0].endswith("1.54 billion parameters, LoRA r 16 (18.5 million)")
    assert "2 x 1024 tokens, accumulated 4 times, checkpointing all, layers compiled" in lines
    assert "      2.6 GB  weights of the layers (float16)" in lines and "fits into 8.0 GB" in lines
    assert any(line.endswith("per_device_train_batch_size 8, gradient_accumulation_steps 1") for line in lines)
    assert any("load_in_4bit: true" in line and line.startswith("     -2.") for line in lines)
    assert any(line.startswith("time: about ") and "1,000,000 tokens" in line for line in lines)


def test_what_does_not_fit_is_told_what_to_turn(planned):
    code, said = planned("subsets_qlora_sft", "--vram", 8, "--tokens", 1000)
    assert code == 1 and "does not fit into 8.0 GB" in said and "no micro-batch fits" in said
    first = next(line for line in said.splitlines() if line.lstrip().startswith("-"))
    assert "gradient_checkpointing: true" in first and first.endswith("fits]")
    assert planned("subsets_qlora_sft", "--vram", 8, "--tokens", 1000, "--gradient_checkpointing", "true")[0] == 0


def test_json_holds_bytes_that_add_up(planned):
    _, said = planned("published_cpt", "--json", "--use_peft", "false", "--gpus", 2, "--sharded")
    (stage,) = json.loads(said).values()
    assert sum(stage["items"].values()) == pytest.approx(stage["allocated"])
    assert stage["trained"] == stage["parameters"] == 1_543_714_304
    assert stage["setup"]["sharded"] and stage["setup"]["gpus"] == 2
    assert stage["tokens"] == 5000 * 4 * 2 * 1024  # full rows are packed, and steps are given
    assert stage["seconds"][0] <= stage["seconds"][1]


def test_both_stages_of_msft_are_planned_with_shared_keys(planned):
    _, said = planned("subsets_qlora_msft", "--json", "--max_steps", 10, "--join", "continue")
    stages = json.loads(said)
    assert list(stages) == ["cpt", "sft"]
    assert {stage["tokens"] for stage in stages.values()} == {40_960}
    assert stages["cpt"]["allocated"] > stages["sft"]["allocated"]  # every token of a corpus has a label


def test_tokens_are_counted_from_the_data(recipe_file, capsys):
    def tokens(**changes):
        plan.main(["--config", recipe_file(**changes), "--json"])
        return json.loads(capsys.readouterr().out)["sft"]["tokens"]

    once = tokens(max_steps=-1, num_train_epochs=1)
    assert 16 * 30 < once < 16 * 100
    assert tokens(max_steps=-1, num_train_epochs=2) == pytest.approx(2 * once, abs=1)
    assert tokens(max_steps=8) == pytest.approx(2 * once, abs=1)  # 8 steps of 4 rows, 16 rows an epoch
    assert tokens(max_steps=8, sources=["nowhere.jsonl"]) is None


def test_on_a_cpu_memory_is_the_process_s(recipe_file, capsys):
    plan.main(["--config", recipe_file(), "--cpu"])
    said = capsys.readouterr().out
    assert "the whole process" in said and "cuBLAS" not in said and "medadapt study --dry-run" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--vram", "0"], "--vram 0.0: a number above 0"),
        (["--gpus", "none"], "--gpus"),
        (["--gpu", "Radeon"], "no datasheet here; known are H200"),
        (["--lerning_rate", "1"], "--lerning_rate"),
        (["--max_length", "0"], "max_length is 0; it must be a number from 1 on"),
        (["--lora_r", "0"], "lora_r: 0 is no number"),
        (["--max_steps", "-1", "--num_train_epochs", "nan"], "num_train_epochs is nan"),
        (["--dtype", "int4"], "int4"),
        (["--load_in_4bit", "--use_peft", "false"], "cannot learn itself"),
        (["--model_name_or_path", "/no/such"], "/no/such: no such model folder"),
        (["--attn_implementation", "eager"], "keeps every score"),
        (["--gradient_checkpointing_kwargs", "no"], "a mapping expected"),
        (["--lora_target_modules", "foo"], "lora_target_modules: 'foo' is none of the maps that are planned .q_proj, "),
        (["--lora_target_modules", "q_proj", "embed_tokens"], "'embed_tokens' is none of the maps"),
        (["--lora_target_modules", "self_attn.q_proj"], "'self_attn.q_proj' matches none of the maps that are planned"),
        (["--lora_target_modules", "(q_proj"], "is neither a name nor a pattern"),
    ],
)
def test_bad_input_is_refused_in_one_line(recipe_file, arguments, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        plan.main(["--config", recipe_file(), *arguments])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"hidden_act": "gelu"}, "not gated by SiLU"),
        ({"hidden_size": None}, "has no hidden_size"),
    ],
)
def test_models_of_another_kind_are_refused(tmp_path, change, complaint):
    (tmp_path / "config.json").write_text(json.dumps(QWEN | change))
    with pytest.raises(InputError, match=complaint):
        shape.of(tmp_path)


@pytest.mark.parametrize(
    ("stored", "base", "nested"),
    [
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "nf4", True),
        ({"load_in_4bit": True}, "nf4", False),
        ({"load_in_8bit": True, "load_in_4bit": False}, "int8", False),
        (None, "float16", False),
    ],
)
def test_a_base_is_planned_as_it_is_stored(qwen, planned, stored, base, nested):
    quantization = stored and {"quant_method": "bitsandbytes"} | stored
    (Path(qwen) / "config.json").write_text(json.dumps(QWEN | {"quantization_config": quantization}))
    found = json.loads(planned("published_sft", "--json", "--tokens", 1000)[1])["sft"]
    assert (found["setup"]["base"], found["setup"]["nested"]) == (base, nested)
    assert any("load_in_4bit" in knob["keys"] for knob in found["knobs"]) == (stored is None)


def test_a_base_that_another_library_quantized_is_refused(qwen, planned):
    (Path(qwen) / "config.json").write_text(json.dumps(QWEN | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(InputError, match="is stored quantized by gptq, which is not planned"):
        planned("published_sft")


def test_without_a_recipe_it_says_so():
    with pytest.raises(InputError, match="no --config"):
        plan.main(["--vram", "8"])


def test_from_a_shell_it_helps_and_refuses():
    def run(*arguments):
        command = [sys.executable, "-m", "trainers.plan", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ)

    helped = run("--help")
    assert helped.returncode == 0 and "--vram GB" in helped.stdout
    refused = run("--config", "no_such")
    assert refused.returncode == 2 and refused.stderr.startswith("medadapt: no_such: no such recipe")


@pytest.mark.parametrize("path", sorted(recipe.RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_planned(path, planned, monkeypatch):
    monkeypatch.setenv("MEDTASKS_DATA", "sample")
    code, said = planned(str(path), "--vram", 80, "--tokens", 1000)
    assert code == 0 and "allocated peak" in said


def test_the_allocated_peak_of_a_recipe(recipe_file, base):
    def told(**changes):
        return plan.allocated("sft", ["--config", recipe_file(**changes), "--use_cpu", "false"])

    settings = recipe.settings(_kinds(), ["--config", recipe_file()], "")
    assert told() == memory.plan(shape.of(base), setup.of(settings)).allocated
    assert told(compile_layers=True) < told() < told(max_length=2 * settings["max_length"])


# Which micro-batch, which knob


MODEL = shape.of_config(QWEN)
NOW = Setup(8, 1024, accumulation=2, base="bfloat16", rank=16, dropout=0.05)


def test_the_largest_micro_batch_keeps_the_rows_of_a_step():
    found = knobs.largest_that_fits(MODEL, NOW, 24e9)
    assert found.micro_batch * found.accumulation == 16
    assert memory.plan(MODEL, found).shown <= 24e9
    doubled = dataclasses.replace(found, micro_batch=2 * found.micro_batch, accumulation=found.accumulation // 2)
    assert memory.plan(MODEL, doubled).shown > 24e9
    assert knobs.largest_that_fits(MODEL, NOW, 1e9) is None


def test_knobs_come_in_order_and_each_saves_what_it_says():
    found = knobs.knobs(MODEL, NOW)
    order = [
        "per_device",
        "gradient_ch",
        "compile_layers",
        "max_length",
        "load_in_4bit",
        "optim",
        "lora_r",
        "lora_dropout",
    ]
    assert [knob.keys.startswith(key) for knob, key in zip(found, order, strict=True)] == [True] * len(order)
    for knob in found:
        assert memory.plan(MODEL, NOW).shown - memory.plan(MODEL, knob.setup).shown == knob.saved > 0
    held = dataclasses.replace(NOW, dequantized=True)
    assert any(knob.keys == "dequantize_base: false" and knob.setup.quantized for knob in knobs.knobs(MODEL, held))
    full = [knob.keys for knob in knobs.knobs(MODEL, dataclasses.replace(NOW, rank=None))]
    adapter = "full_finetuning: false, use_peft: true, lora_target_modules: all-linear"  # all that a trainer asks for
    assert adapter in full and not any(keys.startswith(("lora", "load")) for keys in full)
    shards = dataclasses.replace(NOW, sharded=True, gpus=2)
    stored = "load_in_4bit: true, use_bnb_nested_quant: true, bnb_4bit_quant_storage: bfloat16"
    assert stored in [knob.keys for knob in knobs.knobs(MODEL, shards)]


def test_advice_is_there_for_any_model(qwen):
    settings = recipe.settings(_kinds(), ["--config", "published_sft", "--model_name_or_path", qwen], "")
    assert knobs.advice(settings).startswith(
        "set per_device_train_batch_size: 1, gradient_accumulation_steps: 8 (saves"
    )
    assert "smaller model" in knobs.advice(settings | {"model_name_or_path": "/no/such"})
    nothing_saves = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_length": 16, "lora_r": 1}
    assert "smaller model" in knobs.advice(settings | nothing_saves | {"load_in_4bit": True, "optim": "adamw_8bit"})


def _kinds():
    from trl import ModelConfig, SFTConfig

    from trainers.acceleration import AccelerationArguments
    from trainers.data import SFTDataArguments
    from trainers.run_folder import RunArguments

    return ModelConfig, SFTConfig, RunArguments, AccelerationArguments, SFTDataArguments


@pytest.mark.parametrize(("kind", "tied"), [("gemma", True), ("qwen2", False), ("cohere", True)])
def test_a_head_is_tied_as_the_model_s_class_has_it(kind, tied):
    from transformers import CONFIG_MAPPING

    config = {key: value for key, value in QWEN.items() if key != "tie_word_embeddings"} | {"model_type": kind}
    assert shape.of_config(config).tied == tied == CONFIG_MAPPING[kind]().tie_word_embeddings
    assert shape.of_config(config | {"tie_word_embeddings": not tied}).tied != tied


def test_missing_keys_have_their_defaults():
    known = recipe.settings(_kinds(), [], "")
    for key, value in setup.DEFAULTS.items():
        assert str(getattr(known[key], "value", known[key])) == str(value), key


def test_settings_become_a_setup(qwen):
    def made(*arguments):
        return setup.of(recipe.settings(_kinds(), ["--model_name_or_path", qwen, *arguments], ""))

    usual = made("--use_peft")
    assert (usual.micro_batch, usual.length, usual.base, usual.stream) == (8, 1024, "float32", 4)
    assert usual.checkpointing == "all" and usual.autocast and usual.targets == ("q_proj", "v_proj")
    packed = made("--use_peft", "--load_in_4bit", "--packing", "--dtype", "bfloat16", "--answer_style", "rationale")
    assert packed.base == "nf4" and packed.labelled == 1 and packed.packed and not usual.packed
    kwargs = ["--gradient_checkpointing_kwargs", '{"selective": true}']
    assert made(*kwargs).checkpointing == "selective" and made().rank is None
    assert made("--lora_target_modules", "self_attn.q_proj", "up_proj").targets == ("q_proj", "up_proj")
    assert made("--lora_target_modules", r".*\.(q|k)_proj").targets == ("q_proj", "k_proj")
    assert made("--lora_target_modules", r"model\.layers\.1[0-9]\.mlp.*").targets == (
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    assert made("--gradient_checkpointing", "false").checkpointing == "off"
    assert made("--dtype", "bfloat16").base == "float32" and made("--dtype", "bfloat16").trained_bytes == 4


@pytest.mark.parametrize(
    ("arguments", "others", "said"),
    [
        (["--lora_modules_to_save", "lm_head"], {}, "lora_modules_to_save is not planned"),
        (["--use_dora"], {}, "use_dora is not planned"),
        (["--label_smoothing_factor", "0.1"], {}, "label_smoothing_factor is not planned"),
        (["--dequantize_base"], {"sharded": True, "gpus": 2}, "dequantize_base does not go together with FSDP"),
        (["--load_in_4bit", "false", "--load_in_8bit"], {"sharded": True}, "load_in_8bit: FSDP cannot shard"),
        (["--gradient_checkpointing_kwargs", '{"every_n_layers": 0}'], {}, "every_n_layers: 0 is no number"),
        (["--gradient_checkpointing_kwargs", '{"every_n_layers": "x"}'], {}, "every_n_layers: 'x' is no number"),
        (["--gradient_checkpointing_kwargs", "[1]"], {}, "a mapping expected"),
    ],
)
def test_what_is_not_counted_or_not_trained_is_refused(made, arguments, others, said):
    with pytest.raises(InputError, match=re.escape(said)):
        made(*arguments, **others)


def test_a_base_is_dequantized_before_it_is_captured(made):
    """Both copies are there for a moment, whatever is done with the second one."""
    model = dataclasses.replace(MODEL, layers=10 * MODEL.layers)
    small = [
        "--dequantize_base",
        "--compile_layers",
        "true",
        "--max_length",
        "16",
        "--per_device_train_batch_size",
        "1",
    ]
    plans = [memory.plan(model, made(*small, *more)) for more in ([], ["--cuda_graph", "false"])]
    assert plans[0] == plans[1] and plans[0].moment == "where the base is dequantized"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "a mapping of names to sizes expected"),
        ({"text_config": []}, "no mapping of names to sizes"),
        ({"num_key_value_heads": "2"}, "its num_key_value_heads is no number"),
        ({"head_dim": -1}, "its head_dim is no number"),
        ({"hidden_size": -8}, "its hidden_size is no number"),
        ({"hidden_activation": "gelu_pytorch_tanh", "hidden_act": None}, "not gated by SiLU"),
    ],
)
def test_a_configuration_that_cannot_be_counted_is_refused(qwen, tmp_path, content, said):
    known = json.loads((Path(qwen) / "config.json").read_text())
    content = known | content if isinstance(content, dict) else content
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        shape.of(str(tmp_path))


@pytest.fixture
def made(qwen):
    """A function that makes the setup of QLoRA with further arguments, and others of `setup.of`."""

    def make(*arguments, **others):
        given = ["--model_name_or_path", qwen, "--use_peft", "--load_in_4bit", "--dtype", "bfloat16"]
        given += ["--lora_dropout", "0", "--gradient_checkpointing", "false"]
        return setup.of(recipe.settings(_kinds(), [*given, *arguments], ""), **others)

    return make


def test_masks_are_sdpa_s_where_documents_share_a_row(made):
    assert not made().masked and not made("--attn_implementation", "flash_attention_2", on_cpu=True).masked
    assert made(on_cpu=True).masked and made("--attn_implementation", "sdpa").masked
    alone = ["--attn_implementation", "sdpa", "--per_device_train_batch_size", "1"]
    assert not made(*alone).masked and made(*alone, "--packing").masked


def test_lora_is_fused_over_plain_weights_without_dropout(made):
    plain = made("--dequantize_base")
    assert plain.base == "bfloat16" and plain.fuses and not made().fuses
    assert not made("--load_in_4bit", "false", sharded=True, gpus=2).fuses
    for keys in (["--lora_dropout", "0.1"], ["--fused", "false"]):
        assert not made("--dequantize_base", *keys).fuses


def test_layers_are_compiled_and_captured_where_trainers_do(made):
    long = {"tokens": acceleration.COMPILES_FROM}
    assert made(**long).compiled and made(**long).captures and made("--compile_layers", "true").captures
    for others in ({}, {"tokens": long["tokens"] - 1}, long | {"on_cpu": True}, long | {"sharded": True, "gpus": 2}):
        assert not made(**others).compiled
    off = [["--cuda_graph", "false"], ["--lora_dropout", "0.1"], ["--gradient_checkpointing", "true"]]
    off += [["--neftune_noise_alpha", "5"], ["--loss_type", "dft"]]
    for keys in (*off, ["--load_in_4bit", "false", "--load_in_8bit"]):
        assert made(*keys, **long).compiled and not made(*keys, **long).captures
    assert not made("--compile_layers", "false", **long).compiled and made(**long, gpus=2).captures
    full = made("--use_peft", "false", "--load_in_4bit", "false", **long)
    assert full.compiled and not full.captures


# Time


def test_measurements_are_those_recorded():
    for each in speed.measurements():
        source, _, side = each["source"].partition(": ")
        if side:
            content = json.loads((ROOT / source).read_text())
            run = content["runs"][side][0] if "runs" in content else content[side]
            peak = run["allocated"] if "runs" in content else run["peak"]
            found = peak, round(run["tokens_per_second"] / run.get("processes", 1))
        else:
            cost = json.loads((ROOT / source / "cost.json").read_text())
            processes = int(cost["device"].partition(" x ")[0]) if " x " in cost["device"] else 1
            found = cost["peak_memory_bytes"], round(cost["tokens_seen"] / cost["train_seconds"] / processes)
        assert (each["peak_allocated_bytes"], each["tokens_per_second"]) == found


def run(rate: float, tokens: int = 8192, **others) -> dict:
    """A measured training of :data:`MODEL`, not compiled."""
    usual = {"gpu": "NVIDIA H100 80GB HBM3", "model": QWEN, "precision": "bfloat16", "rank": 16, "compiled": False}
    usual |= {"captured": False, "checkpointing": "off", "tokens": tokens, "length": 1024, "tokens_per_second": rate}
    return usual | others


def rated(measured: list[dict], name: str = "H100", **changes) -> speed.Speed | None:
    return speed.of(MODEL, dataclasses.replace(NOW, dropout=0.0, **changes), name, measured)


def test_a_micro_batch_takes_its_arithmetic_or_its_launch():
    measured = [run(20_000, tokens=8192), run(5_000, tokens=1024)]  # 0.41 s, and 0.20 s, which is all launching
    assert rated(measured).low == rated(measured).high == pytest.approx(20_000)
    assert rated(measured, micro_batch=1).low == pytest.approx(5_000)  # by arithmetic alone it were 0.05 s
    assert rated(measured, micro_batch=2).low == pytest.approx(10_000)
    assert rated(measured, micro_batch=64).low == pytest.approx(20_000)
    assert "binds" in rated(measured, micro_batch=1).source and "binds" not in rated(measured).source
    again = rated(measured, checkpointing="all")
    assert 13_000 < again.low < 15_000  # the layers' forward again: 6 operations in place of 4
    assert rated([]) is None


def test_graphs_are_launched_at_once_and_compiled_layers_sooner():
    plain, captured = run(5_000, tokens=1024), run(60_000, compiled=True, captured=True)
    measured = [plain, captured, run(8_000, tokens=1024, compiled=True)]
    assert rated(measured, micro_batch=1).low == pytest.approx(5_000)
    assert rated(measured, micro_batch=1, compiled=True).low == pytest.approx(60_000)
    assert rated(measured, micro_batch=1, compiled=True, graphed=False).low == pytest.approx(8_000)
    assert rated([captured], micro_batch=1).low == pytest.approx(60_000)  # nothing like it was measured


def test_launching_is_that_of_trainings_with_the_same_kernels():
    dequantized, again = run(4_000, tokens=1024, precision="nf4"), run(3_000, tokens=1024, checkpointing="all")
    measured = [run(5_000, tokens=1024), dequantized, again, run(20_000)]
    assert rated(measured, micro_batch=1).low == pytest.approx(5_000)
    assert rated(measured, micro_batch=1, base="nf4").low == pytest.approx(4_000)
    assert rated(measured, micro_batch=1, checkpointing="all").low == pytest.approx(3_000)
    both = rated(measured, micro_batch=1, checkpointing="all", base="nf4")  # not measured: the least of all
    assert both.low == pytest.approx(5_000)


def test_another_gpu_has_other_arithmetic_and_the_same_processor():
    measured = [run(20_000), run(5_000, tokens=1024)]
    slower = rated(measured, "RTX 4090")
    assert slower.low == pytest.approx(20_000 * 165 / 989) and slower.high == pytest.approx(20_000 * 1.008 / 3.35)
    assert "RTX 4090" in slower.source
    assert rated(measured, "RTX 4090", micro_batch=1).low == pytest.approx(20_000 * 165 / 989)
    assert rated(measured, "H200", micro_batch=1).high == pytest.approx(5_000)
    both = [*measured, run(3_000, gpu="NVIDIA GeForce RTX 4090")]
    assert rated(both, "RTX 4090").low == pytest.approx(3_000)  # measured there


def test_the_rate_is_that_of_the_same_precision_where_it_was_measured_without_launches():
    captured = {"compiled": True, "captured": True}
    measured = [run(20_000, **captured), run(10_000, precision="nf4", **captured)]
    assert rated(measured, base="nf4", compiled=True).low == pytest.approx(10_000)
    assert rated(measured, base="int8", compiled=True).low == pytest.approx(20_000)
    launched = [run(20_000), run(5_000, tokens=1024, precision="float16")]  # which tells nothing of arithmetic
    assert rated(launched, base="float16").low == pytest.approx(20_000)


def test_what_was_measured_is_told_to_a_third():
    for each in speed.measurements():
        model = shape.of_config(each["model"])
        made = Setup(
            each["tokens"] // each["length"],
            each["length"],
            base=each["precision"],
            rank=each["rank"],
            targets=each.get("targets", "all-linear"),
            checkpointing=each["checkpointing"],
            labelled=each["labelled"],
            compiled=each["compiled"],
            graphed=each["captured"],
        )
        told = speed.of(model, made, "H100", speed.measurements())
        assert 0.99 < told.low / each["tokens_per_second"] < 1.35, each["source"]


def test_full_fine_tuning_and_larger_models_cost_more_operations():
    lora = speed.operations(MODEL, NOW)
    assert lora < speed.operations(MODEL, dataclasses.replace(NOW, rank=None)) < 1.6 * lora
    twice = shape.of_config(QWEN | {"num_hidden_layers": 56})
    assert speed.operations(twice, NOW) > 1.6 * lora


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4060", "RTX 4060"),
        ("NVIDIA GeForce RTX 4060 Ti", None),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H100 PCIe", None),
        ("", None),
    ],
)
def test_gpus_are_found_by_their_names(name, key):
    assert speed.gpu(name) == key


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        ("deepseek_v2", {"n_routed_experts": 8, "moe_intermediate_size": 64}, "parameters, and were it a decoder"),
        ("llama", {"intermediate_size": [128, 128]}, "its intermediate_size is no number"),
    ],
)
def test_models_that_are_more_than_they_seem_are_refused(tmp_path, kind, changes, complaint):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": kind, "vocab_size": 100} | sizes | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=complaint):
        shape.of(tmp_path)


# What the data say


def test_what_is_learned_decides_how_many_tokens_are_scored(recipe_file, write_jsonl, make_item, capsys):
    def labelled(**changes):
        plan.main(["--config", recipe_file(**changes), "--json"])
        return json.loads(capsys.readouterr().out)["sft"]["setup"]["labelled"]

    chats = [{"question": f"What is {n}?", "answer": f"A number, and a long story of {n}."} for n in range(8)]
    told = write_jsonl(chats, "chats.jsonl")
    asked = write_jsonl([make_item(n) for n in range(8)], "exam.jsonl")
    assert labelled(sources=[asked]) == setup.LETTER_LABELS < labelled(sources=[told]) == 1
    assert labelled(sources=[asked, told]) == labelled(sources=[asked], answer_style="rationale") == 1
    packed = {"packing": True, "max_steps": 4}
    assert labelled(sources=[told], **packed) == 1 and labelled(sources=[asked], **packed) == setup.LETTER_LABELS
    assert labelled(sources=["nowhere.jsonl"]) == 1  # it may be anything
    assert labelled(sources=["medqa"], **packed) == setup.LETTER_LABELS


def test_rows_that_are_not_full_take_as_long_to_launch(recipe_file, qwen, capsys):
    def seconds(**changes):
        common = {"use_cpu": False, "model_name_or_path": qwen, "max_steps": -1, "num_train_epochs": 500}
        common |= {"max_length": 2048, "compile_layers": False}
        plan.main(["--config", recipe_file(**common, **changes), "--json", "--gpu", "H100"])
        found = json.loads(capsys.readouterr().out)["sft"]
        return found["seconds"][0] - plan.START, found

    packed, of_packed = seconds(packing=True)
    loose, of_loose = seconds(packing=False)
    assert of_packed["tokens"] == of_loose["tokens"]
    micro_batches = 500 * 16 / 4
    launch = float(re.search(r"([0-9.]+) s to launch", of_loose["speed"]["source"])[1])
    assert loose == pytest.approx(micro_batches * launch, rel=0.05) and loose > 10 * packed


def test_halving_rows_may_leave_too_few_tokens_to_compile_for(qwen, capsys):
    steps = acceleration.COMPILES_FROM // (2 * 4 * 1024) + 1  # of published_sft's rows a step
    settings = ["--max_steps", str(steps), "--packing", "true", "--packing_strategy", "bfd", "--sources", "medqa"]
    common = ["--config", "published_sft", "--model_name_or_path", qwen, "--json", *settings]

    def planned(*more):
        plan.main([*common, *more])
        return json.loads(capsys.readouterr().out)["sft"]

    whole, half = planned(), planned("--max_length", "512")
    (knob,) = [knob for knob in whole["knobs"] if knob["keys"] == "max_length: 512"]
    assert whole["setup"]["compiled"] and not half["setup"]["compiled"]
    assert knob["saves"] == pytest.approx(whole["shown"] - half["shown"])
    demanded = planned("--compile_layers", "true")
    (knob,) = [knob for knob in demanded["knobs"] if knob["keys"] == "max_length: 512"]
    assert knob["saves"] == pytest.approx(
        demanded["shown"] - planned("--compile_layers", "true", "--max_length", "512")["shown"]
    )


def test_knobs_bear_the_recipe_s_own_names_and_leave_what_is_fixed(made):
    def keys(*arguments):
        return [knob.keys for knob in knobs.knobs(MODEL, made("--gradient_checkpointing", "false", *arguments))]

    assert "gradient_checkpointing: true" in keys() and "lora_r: 16" in keys("--lora_r", "32")
    assert "activation_checkpointing: true" in keys("--activation_checkpointing", "false")
    graphs = keys("--cuda_graph", "true", "--compile_layers", "true")
    assert graphs and not any("checkpointing" in each for each in graphs)
    assert not any(each.startswith("lora_r") for each in keys("--lora_r", "32", "--adapter", "runs/before/adapter"))


def test_where_all_knobs_are_too_few_it_says_so(planned):
    def least(vram):
        _, said = planned("subsets_qlora_sft", "--vram", vram, "--tokens", 1000)
        (line,) = [line for line in said.splitlines() if "where all are turned" in line]
        return line

    assert least(1).endswith("it does not fit; take a smaller model or a larger accelerator")
    assert least(8).endswith("is left where all are turned as far as they go")
    assert float(least(1).split()[0]) == float(least(8).split()[0]) < 8
    assert "where all are turned" not in planned("subsets_qlora_sft", "--vram", 80, "--tokens", 1000)[1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sharded"], "--sharded: one device has nothing to share with"),
        (["--gpu", "A100"], "--gpu A100: may be A100 80GB or A100 40GB; say which"),
        (["--max_steps", "-1", "--num_train_epochs", "1e308"], "num_train_epochs: 1e.308 are more than can be counted"),
        (["--push_to_hub", "true"], "push_to_hub has no place here"),
        (["--save_strategy", "no"], "save_strategy must be steps or epoch"),
    ],
)
def test_what_training_refuses_is_not_planned(recipe_file, arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        plan.main(["--config", recipe_file(), *arguments])


def test_a_recipe_for_the_cpu_is_planned_for_it_unless_a_gpu_is_named(recipe_file, capsys):
    def planned(*arguments, **changes):
        plan.main(["--config", recipe_file(**changes), "--json", *arguments])
        return json.loads(capsys.readouterr().out)["sft"]

    said, asked = planned(use_cpu=True), planned("--cpu", use_cpu=False)
    assert said["memory"] == asked["memory"] and said["shown"] == asked["shown"] and said["setup"]["on_cpu"]
    named = planned("--gpu", "RTX 4060", use_cpu=True)
    assert named["memory"] == 8e9 and not named["setup"]["on_cpu"]


def test_a_model_of_a_kind_that_was_not_checked_is_told_as_such(qwen, planned):
    note = "activations are counted as Llama's; seed_oss may keep"
    assert note not in planned("published_sft", "--tokens", 1000)[1]
    config = QWEN | {"model_type": "seed_oss", "num_hidden_layers": 2}
    (Path(qwen) / "config.json").write_text(json.dumps(config))
    assert note in planned("published_sft", "--tokens", 1000)[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["published_sft"],
        ["subsets_qlora_sft"],
        ["exams_qlora_sft"],
        ["qlora_8gb_sft"],
        ["published_cpt"],
        ["ddp_sft", "--gpus", "2"],
        ["fsdp_qlora_sft", "--gpus", "2", "--sharded"],
        ["published_sft", "--use_peft", "false"],
        ["exams_qlora_sft", "--use_peft", "false", "--load_in_4bit", "false", "--dequantize_base", "false"],
    ],
    ids=" ".join,
)
def test_what_a_knob_saves_is_what_a_plan_with_it_turned_tells(qwen, arguments, capsys, monkeypatch):
    monkeypatch.setenv("MEDTASKS_DATA", "sample")
    name, *rest = arguments
    common = ["--config", name, "--model_name_or_path", qwen, "--json", "--tokens", "1000000", "--vram", "80", *rest]

    def planned(*more):
        plan.main([*common, *more])
        (found,) = json.loads(capsys.readouterr().out).values()
        return found

    now = planned()
    assert now["knobs"]
    for knob in now["knobs"]:
        turned = [word for pair in knob["keys"].split(", ") for word in ("--" + pair).split(": ")]
        assert knob["saves"] == pytest.approx(now["shown"] - planned(*turned)["shown"], rel=1e-6), knob["keys"]
