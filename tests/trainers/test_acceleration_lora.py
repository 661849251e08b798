"""LoRA in one operation gives what PEFT's gives, and is left out where it would not."""

import pytest
import torch

from trainers import sft, stage
from trainers.acceleration import lora


class Layers(torch.nn.Module):
    """Maps as a transformer's layer has them: three and two that read the same states, and one alone."""

    def __init__(self, width: int, bias: bool):
        super().__init__()
        self.q_proj = torch.nn.Linear(width, width, bias)
        self.k_proj = torch.nn.Linear(width, width // 2, bias)
        self.v_proj = torch.nn.Linear(width, width // 2, bias)
        self.gate_proj = torch.nn.Linear(width, 3 * width, bias)
        self.up_proj = torch.nn.Linear(width, 3 * width, bias)
        self.down_proj = torch.nn.Linear(3 * width, width, bias)

    def forward(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        x = x + q.sin() * torch.cat([k, v], -1)
        return x + self.down_proj(self.gate_proj(x).tanh() * self.up_proj(x))


def with_lora(width: int = 12, bias: bool = False, **settings):
    """The layers with an adapter whose every weight counts."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    targets = [name for name, _ in Layers(width, bias).named_children()]
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": targets} | settings)
    model = get_peft_model(Layers(width, bias), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.train()


def results(model, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output, and the gradients of input and adapter."""
    x = x.clone().requires_grad_()
    y = model(x)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    gradients = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), [x, *weights.values()])
    return dict(zip(["output", "input", *weights], [y, *gradients], strict=True))


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (7, 12)),
        ({"bias": True}, (2, 5, 12)),
        ({"use_rslora": True, "r": 9}, (1, 3, 12)),
        ({"rank_pattern": {"k_proj": 2, "up_proj": 1}, "alpha_pattern": {"q_proj": 1}}, (1, 6, 12)),
        ({"width": 32, "r": 1}, (3, 1, 32)),
        ({"width": 16, "r": 8}, (2, 4, 16)),  # lora_B of gate and up, and lora_A of down, are held beside weights
        ({"width": 16, "r": 12, "rank_pattern": {"gate_proj": 4, "down_proj": 24}, "bias": True}, (5, 16)),
    ],
)
def test_fused_layers_compute_what_peft_s_do(settings, shape):
    model = with_lora(**settings)
    torch.manual_seed(1)
    inputs = [torch.randn(shape) for _ in range(2)]
    expected = [results(model, x) for x in inputs]
    assert lora.fuse(model) == 6
    for x, found in zip(inputs, expected, strict=True):
        fused = results(model, x)
        assert fused.keys() == found.keys()
        for name, value in found.items():
            torch.testing.assert_close(fused[name], value, rtol=1e-5, atol=1e-5, msg=name)
        assert min(value.abs().max() for value in found.values()) > 1e-3


def test_adapters_held_beside_weights_follow_what_is_learned():
    model = with_lora(16, r=8)
    expected, x = with_lora(16, r=8), torch.randn(6, 16)
    lora.fuse(model)
    maps = model.base_model.model
    assert maps.gate_proj.group.weight.shape == (96, 32) and maps.down_proj.group.weight.shape == (24, 48)
    for _ in range(2):
        for changed in (model, expected):
            torch.manual_seed(2)
            for name, weight in changed.named_parameters():
                if "lora" in name:
                    weight.data.add_(torch.randn(weight.shape), alpha=0.1)
            for layer in changed.modules():
                if hasattr(layer, "scaling"):
                    layer.scaling["default"] *= 0.7
        for name, value in results(expected, x).items():
            torch.testing.assert_close(results(model, x)[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_two_forwards_may_come_before_a_backward():
    model, x = with_lora(16, r=8), torch.randn(6, 16)
    expected = results(model, x)
    lora.fuse(model)
    x = x.requires_grad_()
    first = model(x)
    second = model(x)
    y = (first + second) / 2
    [found] = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), [x])
    torch.testing.assert_close(found, expected["input"], rtol=1e-5, atol=1e-5)


def test_layers_that_are_computed_again_for_backward_give_the_same():
    from torch.utils.checkpoint import checkpoint

    model, x = with_lora(16, r=8), torch.randn(6, 16)
    expected = results(model, x)
    lora.fuse(model)
    layers = model.get_base_model()
    again = layers.forward
    layers.forward = lambda x: checkpoint(again, x, use_reentrant=False)
    for name, value in results(model, x).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_maps_that_are_left_out_by_the_adapter_stay_as_they_are():
    model = with_lora(target_modules=["q_proj", "v_proj", "down_proj"])
    x = torch.randn(4, 12)
    expected = results(model, x)
    assert lora.fuse(model) == 3
    for name, value in results(model, x).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_the_weights_are_stored_as_before():
    model = with_lora(bias=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lora.fuse(model)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True, "bias": True}])
def test_what_is_no_plain_map_is_not_fused(settings):
    assert lora.fuse(with_lora(**settings)) == 0


def test_a_4_bit_base_is_not_fused(recipe_file, build_base):
    pytest.importorskip("bitsandbytes")
    path = recipe_file(model_name_or_path=build_base(64), load_in_4bit=True, lora_dropout=0.0)
    assert lora.fuse(stage._build(sft.prepare(["--config", path])).model) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_decides_in_what_products_are_computed(dtype):
    model = with_lora(bias=True).to(dtype)
    x = torch.randn(5, 12, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model.base_model.model.q_proj(x)
        lora.fuse(model)
        found = model.base_model.model.q_proj(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("bias", [False, True])
def test_the_operators_keep_torch_s_rules(bias):
    torch.manual_seed(0)
    x, weight, a, b = (torch.randn(*shape) for shape in ((5, 8), (6, 8), (3, 8), (6, 3)))
    offset = torch.randn(6) if bias else None
    learned = [x.requires_grad_(), weight, offset, a.requires_grad_(), b.requires_grad_()]
    torch.library.opcheck(lora.lora_linear, tuple(learned))
    dy, low = torch.randn(5, 6), x.detach() @ a.detach().t()
    parts = tuple(tensor.detach() for tensor in (dy, x, low, weight, a, b))
    torch.library.opcheck(lora.lora_linear_backward, parts)
    doubles = [None if tensor is None else tensor.detach().double() for tensor in learned]
    for position in (0, 3, 4):
        doubles[position].requires_grad_()
    assert torch.autograd.gradcheck(lambda *tensors: lora.lora_linear(*tensors)[0], doubles)


@pytest.mark.parametrize("where", ["right", "below"])
def test_the_operators_keep_torch_s_rules_with_adapters_beside_weights(where):
    torch.manual_seed(0)
    x, weight, a, b = (torch.randn(*shape) for shape in ((5, 8), (6, 8), (3, 8), (6, 3)))
    weight = torch.cat([weight, b], 1) if where == "right" else torch.cat([weight, a])
    learned = [x.requires_grad_(), weight, None, a.requires_grad_(), b.requires_grad_()]
    torch.library.opcheck(lora.lora_linear, tuple(learned))
    parts = (torch.randn(5, 6), x, x @ a.t(), weight, a, b)
    torch.library.opcheck(lora.lora_linear_backward, tuple(tensor.detach() for tensor in parts))


def test_what_a_map_alone_gives_may_be_changed_in_its_place():
    """As Gemma 3n changes it; several maps' outputs are parts of one."""
    given = []
    for fuses in (False, True):
        model = with_lora()
        if fuses:
            lora.fuse(model)
        x = torch.ones(3, 36, requires_grad=True)
        y = model.base_model.model.down_proj(x)
        y *= torch.linspace(0, 1, 12)
        given.append(torch.autograd.grad(y.sum(), x)[0])
    torch.testing.assert_close(*given)
