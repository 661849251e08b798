"""What is exported works elsewhere: in the harness, with passages, and in llama.cpp's converter."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from trainers import merge, sft

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "rag_model"))  # its stand-ins for an embedder and a corpus


@pytest.fixture(scope="module")
def exported(build_base, make_item, tmp_path_factory):
    """(base, adapter, merged in float32, merged in bfloat16)."""
    folder, base = tmp_path_factory.mktemp("exported"), build_base(64, spread=0.1)
    (folder / "items.jsonl").write_text("".join(json.dumps(make_item(number)) + "\n" for number in range(16)))
    recipe = {
        "model_name_or_path": base,
        "dtype": "float32",
        "use_peft": True,
        "lora_r": 8,
        "lora_target_modules": "all-linear",
        "sources": [str(folder / "items.jsonl")],
        "decontaminate": False,
        "max_steps": 6,
        "learning_rate": 5e-2,
        "per_device_train_batch_size": 8,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "output_dir": str(folder / "out"),
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    sft.main(["--config", str(folder / "recipe.yaml")])
    adapter = folder / "out" / "adapter"
    merge.merge(adapter, folder / "merged")
    merge.merge(adapter, folder / "half", dtype="bfloat16")
    return base, adapter, folder / "merged", folder / "half"


def answers(model: str, arguments: dict, limit: int = 5) -> list[list[float]]:
    """Log-likelihoods of the letters of the first sample items."""
    import lm_eval.models  # noqa: F401 (the built-in models first)
    from lm_eval import simple_evaluate
    from lm_eval.api.registry import model_registry
    from lm_eval.tasks import TaskManager

    for name, target in {"hf-mcq": "medtasks.scoring.lm:HFMCQ", "rag": "rag_model.lm:RAG"}.items():
        if name not in model_registry:
            model_registry.register(name, target=target)
    found = simple_evaluate(
        model,
        arguments | {"dtype": "float32", "max_length": 4096},
        tasks=["medqa"],
        task_manager=TaskManager(include_path=str(ROOT / "medtasks"), include_defaults=False),
        limit=limit,
        device="cpu",
        bootstrap_iters=0,
    )
    logged = [sample for samples in found["samples"].values() for sample in samples]
    assert len(logged) == limit
    return [[float(score) for score, _ in sample["filtered_resps"]] for sample in logged]


@pytest.mark.parametrize("model", ["hf", "hf-mcq", "rag"])
def test_adapter_and_merged_model_answer_alike_in_the_harness(exported, model, little_index):
    base, adapter, merged, _ = exported
    extra = {"index": str(little_index[0]), "embedder": little_index[1], "k": 2} if model == "rag" else {}
    apart = torch.tensor(answers(model, {"pretrained": base, "peft": str(adapter)} | extra))
    together = torch.tensor(answers(model, {"pretrained": str(merged)} | extra))
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-3)
    assert torch.equal(together.argmax(1), apart.argmax(1))


def test_the_adapter_is_in_those_answers(exported):
    base, _, merged, _ = exported
    untrained, trained = (torch.tensor(answers("hf", {"pretrained": str(model)})) for model in (base, merged))
    assert (trained - untrained).abs().max() > 1


@pytest.fixture(scope="module")
def little_index(tmp_path_factory):
    """(an index over a little corpus, its embedder)."""
    from rag_doubles import WordEmbedder, write_corpus

    from rag_model.build import build

    folder = tmp_path_factory.mktemp("index")
    build(str(write_corpus(folder / "corpus.jsonl")), folder / "index", WordEmbedder(), shard_size=16, progress=False)
    return folder / "index", WordEmbedder()


def test_the_merged_folder_has_what_llama_cpp_s_converter_reads(exported):
    """Its names of weights and its reader of vocabularies are those of the package `gguf`."""
    gguf = pytest.importorskip("gguf")
    *_, half = exported
    config = json.loads((half / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    with safe_open(half / "model.safetensors", framework="pt") as stored:
        for name in stored.keys():  # noqa: SIM118 (not a dict)
            assert names.get_name(name, try_suffixes=(".weight", ".bias")), name
            assert stored.get_tensor(name).dtype == torch.bfloat16
    vocabulary = gguf.SpecialVocab(half, load_merges=True)
    assert vocabulary.merges and "eos" in vocabulary.special_token_ids and vocabulary.chat_template
    assert json.loads((half / "tokenizer.json").read_text())["model"]["type"] == "BPE"
