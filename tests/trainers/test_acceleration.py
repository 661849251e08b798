"""What pays is decided per run; a base held dequantized and compiled layers teach what they stand in for."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medtasks.errors import InputError
from trainers import acceleration, adapter, batches, sft, stage
from trainers.acceleration import AccelerationArguments, attention


def losses(out) -> list[float]:
    return [entry["loss"] for entry in json.loads((out / "loss.json").read_text())]


def decide(on_gpu=True, shards=False, rows=2, tokens=acceleration.COMPILES_FROM, asked=None, model=None, training=None):
    usual = {"world_size": 1, "gradient_checkpointing": False, "per_device_train_batch_size": rows}
    usual |= {
        "loss_type": "nll",
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "bf16": True,
        "fp16": False,
        "activation_offloading": False,
    }
    device = SimpleNamespace(type="cuda" if on_gpu else "cpu")
    parts = [{"input_ids": range(100), "seq_lengths": [60, 40]}, {"input_ids": range(tokens - 100), "seq_lengths": [1]}]
    model = {
        "use_peft": True,
        "lora_modules_to_save": None,
        "load_in_8bit": False,
        "load_in_4bit": True,
        "attn_implementation": None,
        "lora_dropout": 0.0,
        "dtype": "float32",
    } | (model or {})
    return acceleration.decide(
        AccelerationArguments(**(asked or {})),
        SimpleNamespace(device=device, **usual | (training or {})),
        SimpleNamespace(**model),
        batches.Packed(parts, 1.0),
        shards=shards,
    )


ALL = {"fuses", "compiles", "captures"}


@pytest.mark.parametrize(
    ("case", "does"),
    [
        ({}, ALL),
        ({"on_gpu": False}, {"fuses"}),
        ({"on_gpu": False, "asked": {"compile_layers": True}}, {"fuses", "compiles"}),
        ({"tokens": acceleration.COMPILES_FROM - 1}, {"fuses"}),  # compiling would not pay
        ({"tokens": 200, "asked": {"compile_layers": True}}, ALL),
        ({"asked": {"compile_layers": False}}, {"fuses"}),
        ({"asked": {"cuda_graph": False}}, {"fuses", "compiles"}),
        ({"asked": {"fused": False, "dequantize_base": True}}, {"dequantizes", "compiles", "captures"}),
        ({"training": {"world_size": 2}}, ALL),
        (
            {"model": {"use_peft": False, "load_in_4bit": False}},
            {"fuses", "compiles"},
        ),  # TRL's loss takes the model whole
        ({"training": {"gradient_checkpointing": True}}, {"fuses", "compiles"}),
        ({"model": {"lora_dropout": 0.05}}, {"compiles"}),
        ({"shards": True, "training": {"world_size": 2}}, set()),
    ],
)
def test_what_pays_and_is_possible_is_done(case, does):
    chosen = decide(**case)
    assert {name for name in (*ALL, "dequantizes") if getattr(chosen, name)} == does
    is_static = "compiles" in does and case.get("on_gpu", True)
    longest = case.get("tokens", acceleration.COMPILES_FROM) - 100
    assert chosen.tokens == (2 * longest if is_static else 0)
    assert chosen.documents == (5 if is_static else 0)  # three, and one of filling for each row
    assert chosen.attention == (attention.NAME if case.get("on_gpu", True) else None)


@pytest.mark.parametrize(("dtype", "chosen"), [("float32", None), ("bfloat16", attention.NAME)])
def test_packed_attention_computes_in_16_bits_alone(dtype, chosen):
    assert decide(training={"bf16": False}, model={"dtype": dtype}).attention == chosen


def test_the_attention_that_a_recipe_names_is_taken():
    assert decide(model={"attn_implementation": "eager"}).attention == "eager"


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ({"asked": {"dequantize_base": True}, "model": {"load_in_4bit": False}}, "the base is not in 4 bits"),
        ({"asked": {"dequantize_base": True}, "shards": True}, "does not go together with FSDP"),
        ({"asked": {"cuda_graph": True}, "on_gpu": False}, "cuda_graph: there is no GPU; take the key out"),
        ({"asked": {"cuda_graph": True}, "model": {"use_peft": False}}, "cuda_graph: more than LoRA learns"),
        ({"asked": {"cuda_graph": True}, "model": {"lora_modules_to_save": ["lm_head"]}}, "more than LoRA learns"),
        ({"asked": {"cuda_graph": True}, "model": {"load_in_8bit": True}}, "cuda_graph: products in 8 bits"),
        ({"asked": {"cuda_graph": True}, "training": {"loss_type": "dft"}}, "cuda_graph: the loss is TRL's"),
        ({"asked": {"cuda_graph": True}, "training": {"label_smoothing_factor": 0.1}}, "cuda_graph: the loss is TRL's"),
        ({"asked": {"cuda_graph": True}, "shards": True}, "cuda_graph: FSDP's GPUs speak"),
        ({"asked": {"cuda_graph": True}, "model": {"lora_dropout": 0.1}}, "cuda_graph: lora_dropout draws"),
        (
            {"asked": {"cuda_graph": True}, "training": {"neftune_noise_alpha": 5.0}},
            "cuda_graph: neftune_noise_alpha draws",
        ),
        (
            {"asked": {"cuda_graph": True}, "training": {"gradient_checkpointing": True}},
            "cuda_graph: gradient_checkpointing computes",
        ),
        ({"asked": {"cuda_graph": True, "compile_layers": False}}, "cuda_graph: layers are not compiled"),
        (
            {"on_gpu": False, "model": {"attn_implementation": attention.NAME}},
            "packed learns on a GPU alone; say 'sdpa'",
        ),
        ({"on_gpu": False, "model": {"attn_implementation": "flex_attention"}}, "flex_attention learns on a GPU alone"),
        (
            {"model": {"attn_implementation": attention.NAME}, "training": {"bf16": False}},
            "packed computes in 16 bits alone; say 'bf16: true'",
        ),
        ({"on_gpu": False, "training": {"activation_offloading": True}}, "activation_offloading: there is no GPU"),
    ],
)
def test_what_is_asked_for_and_cannot_be_is_refused(case, complaint):
    with pytest.raises(InputError, match=complaint):
        decide(**case)


NF4 = {"load_in_4bit": True, "use_bnb_nested_quant": True, "dtype": "bfloat16", "lora_dropout": 0.0}


def test_a_base_held_dequantized_teaches_what_its_4_bits_teach(recipe_file, build_base, micro_batch, tmp_path):
    pytest.importorskip("bitsandbytes")
    from peft import PeftModel

    settings = NF4 | {"model_name_or_path": build_base(64, spread=0.1), "learning_rate": 1e-3, "save_steps": 6}
    path = {}
    for held in (False, True):
        out = str(tmp_path / str(held))
        path[held] = recipe_file(f"{held}.yaml", output_dir=out, dequantize_base=held, **settings)
    trainers = {held: stage._build(sft.prepare(["--config", path[held]])) for held in path}
    kinds = {held: {type(m).__name__ for m in trainers[held].model.modules()} for held in path}
    assert "Linear4bit" in kinds[False] and "Linear4bit" not in kinds[True]
    found = []
    for trainer in trainers.values():
        torch.manual_seed(0)
        for name, weight in trainer.model.named_parameters():
            if "lora" in name:
                weight.data.normal_(0, 0.05)
        found.append(micro_batch(trainer, [trainer.train_dataset[n] for n in range(4)]))
    (four, _, gradients), (plain, _, gradients_plain) = found
    torch.testing.assert_close(plain, four, rtol=0.01, atol=0)
    whole, whole_plain = (torch.cat([g.flatten().float() for g in each]) for each in (gradients, gradients_plain))
    assert (whole - whole_plain).norm() < 0.03 * whole.norm() and whole.norm() > 1e-3
    for held in path:
        sft.main(["--config", path[held]])
    assert losses(tmp_path / "True") == pytest.approx(losses(tmp_path / "False"), rel=0.01)
    # the adapter belongs to the 4-bit base
    prepared = sft.prepare(["--config", path[False]])
    model = PeftModel.from_pretrained(adapter.load_base(prepared.model), tmp_path / "True" / "adapter")
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        ours = model(ids).logits
        held = adapter.load_base(prepared.model, dequantizes=True)
        theirs = PeftModel.from_pretrained(held, tmp_path / "True" / "adapter")(ids).logits
    assert (ours - theirs).norm() < 0.03 * ours.norm()


def test_compiled_layers_train_to_the_same_losses(recipe_file, build_base, write_jsonl, make_item, tmp_path):
    """A model of one layer over rows of one shape, which is compiled once."""
    base = build_base()
    config = json.loads((file := Path(base) / "config.json").read_text())
    file.write_text(json.dumps(config | {"num_hidden_layers": 1}))
    settings = {
        "model_name_or_path": base,
        "sources": [write_jsonl([make_item(1)], "one.jsonl")],
        "per_device_train_batch_size": 1,
    }
    settings |= {"lora_dropout": 0.0, "max_steps": 3, "save_steps": 3, "learning_rate": 1e-3}
    for name, compiles in (("plain", False), ("compiled", True)):
        out = str(tmp_path / name)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        sft.main(["--config", recipe_file(f"{name}.yaml", output_dir=out, compile_layers=compiles, **settings)])
        assert (torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0) == compiles
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    assert losses(tmp_path / "plain")[-1] < losses(tmp_path / "plain")[0]


def test_what_is_captured_sees_one_shape_and_learns_the_same(recipe_file, build_base, tmp_path, monkeypatch):
    """Of capturing itself a CPU has nothing: the graphs' place is taken by the layers, which watch what they get."""
    shapes = []

    def capture(static, inputs):
        def replay(*given):
            shapes.append([tensor.shape for tensor in given])
            return static(*given)

        assert static.training and not shapes
        shapes.append([tensor.shape for tensor in inputs])
        static(*inputs).sum().backward()  # the rehearsal is of filling alone
        static.zero_grad(set_to_none=True)
        return replay

    def decide(args, training, model, packed, *, shards):
        rows = training.per_device_train_batch_size
        tokens = rows * max(len(row["input_ids"]) for row in packed.rows)
        return acceleration.Acceleration(captures=True, tokens=tokens, documents=packed.most_documents(rows) + rows)

    settings = {"model_name_or_path": build_base(), "lora_dropout": 0.0, "learning_rate": 1e-3}
    settings |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 3, "save_steps": 3}
    sft.main(["--config", recipe_file("plain.yaml", output_dir=str(tmp_path / "plain"), **settings)])
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    monkeypatch.setattr(acceleration, "decide", decide)
    sft.main(["--config", recipe_file("captured.yaml", output_dir=str(tmp_path / "captured"), **settings)])
    assert len(shapes) == 1 + 6 and all(each == shapes[0] for each in shapes)
    assert losses(tmp_path / "captured") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    assert losses(tmp_path / "plain")[-1] < losses(tmp_path / "plain")[0]


@pytest.mark.parametrize(
    ("error", "raised"), [(RuntimeError, InputError), (torch.OutOfMemoryError, torch.OutOfMemoryError)]
)
def test_layers_that_cannot_be_captured_are_told_in_a_line(error, raised, monkeypatch):
    from trainers.acceleration import graphs

    def fail(*_):
        raise error("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    batch = {"max_length_q": 2, **dict.fromkeys(("input_ids", "position_ids", "cu_seq_lens_q"), torch.zeros(1))}
    with pytest.raises(raised, match="stream is capturing") as caught:
        graphs.GraphedBackbone(torch.nn.Linear(1, 1), batch, None, False)
    assert raised is not InputError or str(caught.value).endswith("is capturing); say 'cuda_graph: false'")


def test_what_is_held_out_compiles_nothing(recipe_file, build_base, write_jsonl, make_item, tmp_path):
    settings = {"model_name_or_path": build_base(), "lora_dropout": 0.0, "max_steps": 2, "save_steps": 2}
    settings |= {"sources": [write_jsonl([make_item(1)], "one.jsonl")], "per_device_train_batch_size": 1}
    dev = [write_jsonl([make_item(n) for n in range(20, 28)], "dev.jsonl")]
    graphs = {}
    for name, held_out in (
        ("without", {}),
        ("with", {"dev_sources": dev, "eval_strategy": "steps", "eval_on_start": True}),
    ):
        held_out |= {"eval_steps": 1, "per_device_eval_batch_size": 3} if held_out else {}
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        out = str(tmp_path / name)
        sft.main(["--config", recipe_file(f"{name}.yaml", output_dir=out, compile_layers=True, **settings, **held_out)])
        graphs[name] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs["with"] == graphs["without"] > 0
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), rel=1e-4)
