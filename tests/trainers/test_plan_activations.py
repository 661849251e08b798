"""The itemization of activations, against what autograd saves in a real forward pass of a tiny model."""

import dataclasses
import weakref

import pytest

from trainers.planning import activations, memory, shape
from trainers.planning.setup import Setup

ROWS, LENGTH = 2, 32
LORA = Setup(ROWS, LENGTH, rank=4, attention="packed", fused=False, on_cpu=True)


@pytest.fixture(scope="module")
def build():
    """A function that builds a random Qwen2 or Qwen3, its base as in ``setup``, with LoRA where that has a rank."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from trainers.acceleration import lora

    def build(setup: Setup, width=64, inner=160, layers=2, kind="qwen2"):
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            kind,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=width // 4,
            vocab_size=300,
            tie_word_embeddings=True,
            pad_token_id=0,
        )
        dtype = torch.float32 if setup.stream == 4 else torch.bfloat16
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
        if setup.base == "nf4":
            in_nf4(model)
        if setup.rank:
            targets = setup.targets if isinstance(setup.targets, str) else list(setup.targets)
            adapter = LoraConfig(
                r=setup.rank, lora_dropout=setup.dropout, target_modules=targets, task_type="CAUSAL_LM"
            )
            model = get_peft_model(model, adapter)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        if setup.fuses:
            assert lora.fuse(model) == len(shape.of_config(config.to_dict()).adapted(setup.targets)) * layers
        return model.train(), shape.of_config(config.to_dict())

    return build


def in_nf4(model) -> None:
    """Quantize the layers' products, as transformers does on loading."""
    import bitsandbytes
    import torch

    model.is_loaded_in_4bit = model.is_quantized = True
    for parent in list(model.model.modules()):
        for name, linear in list(parent.named_children()):
            if isinstance(linear, torch.nn.Linear):
                new = bitsandbytes.nn.Linear4bit(
                    linear.in_features,
                    linear.out_features,
                    bias=linear.bias is not None,
                    compute_dtype=torch.bfloat16,
                    compress_statistics=True,
                    quant_type="nf4",
                )
                new.weight = bitsandbytes.nn.Params4bit(
                    linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
                )
                new.bias = linear.bias
                new = new.to("cpu")
                new.support_avx512bf16_for_cpu = False
                setattr(parent, name, new)


def saved_bytes(model, setup: Setup) -> int:
    """Bytes of the distinct storages that autograd saves in a forward pass up to the head, parameters left out."""
    import torch

    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    storages, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    decoder = (model.get_base_model() if setup.rank else model).model
    ids = torch.randint(0, 300, (setup.micro_batch, setup.length))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=setup.autocast):
        decoder(input_ids=ids, use_cache=False)
    return sum(storages.values())


def foretold(model_shape, setup: Setup) -> float:
    layers = model_shape.layers * activations.layer(model_shape, setup)
    layers -= activations.not_in_first_layer(model_shape, setup)
    around = activations.around_layers(model_shape, setup) + activations.copies(model_shape, setup)
    return layers + around


@pytest.mark.parametrize("sizes", [{}, {"width": 96, "inner": 224, "layers": 3}, {"kind": "qwen3"}], ids=str)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rank": 16},
        {"dropout": 0.1},
        {"targets": ("q_proj", "k_proj", "down_proj")},
        {"autocast": False},
        {"autocast": False, "dropout": 0.1},
        {"fused": True},
        {"fused": True, "targets": ("q_proj", "k_proj", "down_proj")},
        {"fused": True, "base": "float32", "stream": 4, "autocast": False},
        {"base": "float32", "stream": 4},
        {"base": "float32", "stream": 4, "dropout": 0.1},
        {"base": "float32", "stream": 4, "autocast": False},
        {"rank": None},
        {"rank": None, "base": "float32", "stream": 4},
        {"micro_batch": 3, "length": 48},
    ],
    ids=str,
)
def test_autograd_saves_what_is_foretold(build, change, sizes):
    setup = dataclasses.replace(LORA, **change)
    model, model_shape = build(setup, **sizes)
    assert saved_bytes(model, setup) == foretold(model_shape, setup)


@pytest.mark.parametrize("kind", [*shape.COUNTED, "seed_oss"])
@pytest.mark.parametrize("change", [{}, {"rank": None, "base": "float32", "stream": 4}], ids=str)
def test_kinds_of_models_keep_what_is_foretold_or_are_not_among_those_that_do(build, kind, change):
    setup = dataclasses.replace(LORA, length=64, **change)
    model, model_shape = build(setup, width=128, inner=320, layers=3, kind=kind)
    error = foretold(model_shape, setup) / saved_bytes(model, setup) - 1
    assert abs(error) < 0.05 if kind in shape.COUNTED else -0.45 < error < -0.3


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_on_an_nf4_base_adapters_take_their_input_as_it_is(build, dropout, monkeypatch):
    """PEFT asks whether CUDA's autocast is on; here the CPU's stands for it."""
    import torch

    setup = dataclasses.replace(LORA, base="nf4", dropout=dropout)
    model, model_shape = build(setup)
    ask = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: ask("cpu"))
    assert saved_bytes(model, setup) == foretold(model_shape, setup)
    in_bf16 = dataclasses.replace(setup, base="bfloat16")
    assert foretold(model_shape, setup) < foretold(model_shape, in_bf16)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_checkpointed_layer_keeps_its_input(build, dropout):
    setup = dataclasses.replace(LORA, dropout=dropout, checkpointing="all")
    model, model_shape = build(setup, layers=4)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    kept = model_shape.layers * memory.checkpoint(model_shape, setup)
    last_norm = setup.tokens * activations.norm(model_shape, setup)
    assert saved_bytes(model, setup) == kept + last_norm


class Live:
    """Follows every allocation: bytes alive ``now``, and the ``peak``."""

    def __new__(cls):
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_iter

        class Follow(TorchDispatchMode):
            def __init__(self):
                super().__init__()
                self.now, self.peak, self.sizes = 0, 0, {}

            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                out = function(*args, **(kwargs or {}))
                for tensor in tree_iter(out):
                    if hasattr(tensor, "untyped_storage"):
                        self.see(tensor.untyped_storage())
                self.peak = max(self.peak, self.now)
                return out

            def see(self, storage):
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.drop, storage._cdata)

            def drop(self, key):
                self.now -= self.sizes.pop(key)

        return Follow()


@pytest.mark.parametrize("checkpointing", ["off", "all"])
@pytest.mark.parametrize("change", [{}, {"dropout": 0.1}, {"fused": True}, {"rank": None}], ids=str)
def test_the_peak_of_a_step_is_foretold(build, change, checkpointing, monkeypatch):
    """Forward with the head that the trainer takes, and backward; two positions are labelled, so the layers count."""
    import torch
    from trl.trainer import utils

    from trainers.acceleration import loss

    setup = dataclasses.replace(
        LORA, micro_batch=1, length=512, labelled=2 / 512, checkpointing=checkpointing, **change
    )
    model, model_shape = build(setup, width=128, inner=1024, layers=4)
    ids, labels, scored = torch.randint(0, 300, (1, 512)), torch.full((1, 512), -100), torch.tensor([100, 400])
    labels[0, scored + 1] = 5
    if setup.rank:
        loss.add_head(model.get_base_model())
        given = {"scored": scored, "targets": labels[0, scored + 1]}
    else:
        monkeypatch.setattr(utils, "_use_triton", lambda device: True)
        utils.add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        given = {"labels": labels, "fused_lm_head": True}
    if checkpointing == "all":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    follow = Live()
    for tensor in [*model.parameters(), *model.buffers()]:
        follow.see(tensor.untyped_storage())
    with follow:
        with torch.autocast("cpu", torch.bfloat16):
            found = model(input_ids=ids, **given)
        (found[0] if setup.rank else found.loss).backward()
    said = memory.plan(model_shape, setup)
    assert follow.peak == pytest.approx(said.allocated - said.items["optimizer"], rel=0.15)


def test_the_head_takes_what_is_foretold(monkeypatch):
    import torch

    from trainers.acceleration import loss

    setup = dataclasses.replace(LORA, micro_batch=1, length=3 * loss.CHUNK // 2)
    sizes = {"layers": 1, "hidden": 64, "inner": 8, "heads": 1, "keys": 1, "head": 8, "vocabulary": 1000, "tied": True}
    model_shape = shape.Shape(**sizes, products=())
    hidden = torch.randn(setup.tokens, 64, dtype=torch.bfloat16, requires_grad=True)
    weight, labels = torch.randn(1000, 64, dtype=torch.bfloat16), torch.randint(0, 1000, (setup.tokens,))
    follow = Live()
    follow.see(hidden.untyped_storage())
    with follow:
        loss.linear_cross_entropy(hidden.clone(), weight, labels)
    (said,) = memory.loss_head(model_shape, setup).values()
    assert memory.CHUNK == loss.CHUNK and follow.peak == pytest.approx(said, rel=0.05)


def test_nf4_takes_the_bytes_that_bitsandbytes_takes():
    import torch
    from bitsandbytes.functional import quantize_4bit

    for nested in (False, True):
        weight, state = quantize_4bit(torch.randn(1024, 4096), quant_type="nf4", compress_statistics=nested)
        held = weight.nbytes + state.absmax.nbytes + (state.state2.absmax.nbytes if nested else 0)
        said = memory.product_bytes(dataclasses.replace(LORA, base="nf4", nested=nested))
        assert held / (1024 * 4096) == pytest.approx(said, rel=1e-3)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "phi3", "olmo2", "exaone4"])
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_from_the_configuration(kind, tied):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300, "tie_word_embeddings": tied}
    sizes |= {"pad_token_id": 0}
    config = AutoConfig.for_model(kind, **sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape.of_config(config.to_dict()).parameters == sum(each.numel() for each in model.parameters())


def test_adapters_are_counted(build):
    named = {"qwen2": ("q_proj", "v_proj", "down_proj"), "phi3": ("qkv_proj", "o_proj"), "glm4": ("gate_up_proj",)}
    for kind, targets in [*named.items(), *((kind, "all-linear") for kind in named)]:
        setup = dataclasses.replace(LORA, targets=targets)
        model, model_shape = build(setup, kind=kind)
        learn = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert memory.trained(model_shape, setup) == learn
