"""Packed attention is the model's own within each document, and refuses what it lacks."""

import dataclasses
import itertools
import json

import pytest
import torch

from medtasks.errors import InputError
from trainers import acceleration, batches, sft
from trainers.acceleration import attention


def by_document(query, key, value, bounds, _, longest, __, *, scale=None, window_size, enable_gqa=False):
    """Torch's variable-length attention, document by document, without its kernel: (tokens, heads, width) each."""
    outs = []
    for start, end in itertools.pairwise(bounds.tolist()):
        assert end - start <= longest
        q, k, v = (states[start:end].transpose(0, 1) for states in (query, key, value))
        distance = torch.arange(end - start)[:, None] - torch.arange(end - start)
        sees = (distance >= 0) & ((window_size[0] < 0) | (distance <= window_size[0]))
        outs.append(torch.nn.functional.scaled_dot_product_attention(q, k, v, sees, scale=scale, enable_gqa=enable_gqa))
    return torch.cat(outs, 1).transpose(0, 1)


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Gemma3Text", "Qwen2"])
def test_packed_attention_is_the_model_s_own_within_each_document(monkeypatch, base, tmp_path, name):
    """Also where layers see the last eight tokens alone."""
    import transformers
    from torch.nn.attention import varlen
    from transformers import AutoTokenizer

    settings = {"Mistral": {"sliding_window": 8}, "Gemma3Text": {"sliding_window": 8, "head_dim": 8}}.get(name, {})
    if name == "Qwen2":
        settings = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    monkeypatch.setattr(varlen, "varlen_attn", by_document)
    monkeypatch.setattr(attention, "_shared_keys", {None: {"enable_gqa": True}})
    attention.register()
    if name == "Gemma3Text":
        settings["layer_types"] = ["sliding_attention", "full_attention"]
    names = {"Gemma3Text": ("Gemma3TextConfig", "Gemma3ForCausalLM")}
    config_class, model_class = names.get(name, (f"{name}Config", f"{name}ForCausalLM"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        **settings,
    )
    model = getattr(transformers, model_class)(config).eval()
    lengths = [5, 30, 12]
    rows = [
        {"input_ids": ids, "labels": ids, "seq_lengths": [len(ids)], "examples": [0]}
        for ids in (torch.randint(len(tokenizer), (length,)).tolist() for length in lengths)
    ]
    with torch.no_grad():
        alone = [model(torch.tensor([row["input_ids"]])).logits[0] for row in rows]
        model.set_attn_implementation(attention.NAME)
        batch = batches.Collator(0, tokens=64, documents=8, max_length=30)(rows)
        keys = ("input_ids", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
        packed = model(**{key: batch[key] for key in keys}, use_cache=False).logits[0]
    torch.testing.assert_close(packed[: sum(lengths)], torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_under_autocast_attention_is_computed_in_its_precision(monkeypatch):
    """Where weights are float32, rotated queries and keys are, but values are not."""
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", by_document)
    monkeypatch.setattr(attention, "_shared_keys", {None: {"enable_gqa": True}})
    query, key, value = (torch.randn(1, 2, 7, 8) for _ in range(3))
    bounds = torch.tensor([0, 3, 7], dtype=torch.int32)
    given = {"scaling": 0.5, "cu_seq_lens_q": bounds, "max_length_q": 4}
    expected, _ = attention._attention(None, query, key, value, None, **given)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = attention._attention(None, query, key, value.bfloat16(), None, **given)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_one_text_alone_gets_the_usual_attention_and_a_padded_batch_none(base):
    from transformers import AutoModelForCausalLM

    attention.register()
    ids = torch.arange(5, 45).view(2, 20)
    models = [AutoModelForCausalLM.from_pretrained(base, attn_implementation=name) for name in (attention.NAME, "sdpa")]
    with torch.no_grad():
        found, expected = (model(ids[:1]).logits for model in models)
        with pytest.raises(InputError, match="a padded batch"):
            models[0](ids)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("asked", [{"softcap": 50.0}, {"dropout": 0.1}, {"s_aux": torch.zeros(2)}])
def test_what_packed_attention_lacks_is_refused(asked):
    states = torch.zeros(1, 2, 4, 8)
    bounds = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(InputError, match=f"lacks this model's {next(iter(asked))}; say 'attn_implementation: eager'"):
        attention._attention(None, states, states, states, None, cu_seq_lens_q=bounds, max_length_q=4, **asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_peft": False, "full_finetuning": True, "adapter_scale": 0.7},
        {"load_in_4bit": True},
        {"dtype": "bfloat16", "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_a_whole_training_gives_attention_numbers_of_2_bytes(
    monkeypatch, recipe_file, write_jsonl, make_item, tmp_path, changes
):
    """All that a kernel of GPUs takes; what is held out and asked before the first step too."""
    from torch.nn.attention import varlen

    def on_a_gpu(query, key, value, *bounds, **keywords):
        assert {query.dtype, key.dtype, value.dtype} == {torch.bfloat16}
        return by_document(query, key, value, *bounds, **keywords)

    monkeypatch.setattr(varlen, "varlen_attn", on_a_gpu)
    monkeypatch.setattr(attention, "_shared_keys", {None: {"enable_gqa": True}})
    usual = acceleration.decide
    held_out = write_jsonl([make_item(n) for n in range(20, 24)], "dev.jsonl")
    keys = {"bf16": True, "max_steps": 2, "learning_rate": 1e-3, "lora_dropout": 0.0, **changes}
    keys |= {"dev_sources": [held_out], "eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True}
    losses = []
    for name in (None, attention.NAME):
        monkeypatch.setattr(
            acceleration, "decide", lambda *a, n=name, **k: dataclasses.replace(usual(*a, **k), attention=n)
        )
        out = tmp_path / str(name)
        assert sft.main(["--config", recipe_file(output_dir=str(out), **keys)]) == 0
        points = (json.loads((out / file).read_text()) for file in ("loss.json", "eval.json"))
        losses.append([point.get("loss", point.get("eval_loss")) for curve in points for point in curve])
    assert losses[1] == pytest.approx(losses[0], rel=0.01) and len(losses[1]) > 4
