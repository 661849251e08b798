"""Where a bf16 LoRA loop over padded batches stops being finite: by attention kernel, padding side and adapter dtype.

    python benchmarks/nan_padding.py --device cuda --shape 0.5b --out FILE.json      # random weights
    python benchmarks/nan_padding.py --device cuda --model MODEL --out FILE.json
    python benchmarks/nan_padding.py --device cpu --shape tiny --steps 5             # a dry run

Each case trains a LoRA (r 16, all linear layers, AdamW, gradients clipped to norm 1) from the same start on the same
random tokens, `--rows` texts of 30 to 400 tokens a step, under one attention kernel ("default": whichever torch takes).
A case ends at the first loss or gradient that is not finite; that step is replayed with every module watched, and the
report names where the forward, or else the backward, went wrong first. The labels are all tokens that are no padding,
so on the left side the last padding position, which attends to nothing, is asked for the first token.

Apart from that, the first step's attention calls (first and last layer; of a broken step, the call that broke) are
repeated alone, forward and backward, against the math kernel in float32: non-finite entries of the output and of the
gradients, those of rows that may attend to nothing apart, and the largest error of the others relative to the largest
value. `--seconds` bounds the whole; a case that did not fit in is reported as not run.

Measured (figures/nan_padding_h100.json): random weights of the 0.5B shape, 30 steps, one H100 80GB, torch 2.11,
left-padded batches; right-padded and unpadded ones did not fit into the time. No NaN appeared under any kernel, in
either dtype, so what was seen elsewhere is not reproduced. But torch's own choice for a masked batch was cuDNN, whose
outputs differ from the math kernel's by up to 0.81 of the largest value and its query gradients by up to 0.63; those of
the memory-efficient kernel by 0.003 and 0.008. These errors are over all rows: whether rows of text have them, or those
of padding alone, which may attend to nothing, the figures do not tell.
"""

import argparse
import itertools
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
"""Qwen2's, with 2 key-value heads."""
VOCABULARY = {"tiny": 512, "0.5b": 151_936, "1.5b": 151_936}
KERNELS = {
    "default": None,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "math": SDPBackend.MATH,
}
PADDINGS = ("left", "right", "none")
ADAPTERS = ("bfloat16", "float32")
LENGTHS = (30, 400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model folder or Hub id, instead of random weights")
    parser.add_argument("--shape", default="0.5b", choices=SHAPES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS), choices=KERNELS)
    parser.add_argument("--paddings", nargs="+", default=list(PADDINGS), choices=PADDINGS)
    parser.add_argument("--adapters", nargs="+", default=list(ADAPTERS), choices=ADAPTERS)
    parser.add_argument("--seconds", type=float, default=85)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    started = time.perf_counter()
    model = build(arguments)
    figures = {"settings": _settings(arguments), "loading_seconds": round(time.perf_counter() - started, 1)}
    figures["cases"] = cases = []
    print(
        f"{'kernel':<10}{'padding':<9}{'adapters':<10}{'steps':>6}{'first':>9}{'last':>9}{'s':>6}  result", flush=True
    )
    for padding, kernel, adapters in itertools.product(arguments.paddings, arguments.kernels, arguments.adapters):
        case = {"kernel": kernel, "padding": padding, "adapters": adapters}
        if time.perf_counter() - started > arguments.seconds:
            cases.append(case | {"result": "not run: out of time"})
        elif kernel == "flash" and padding != "none" and arguments.device.startswith("cuda"):
            cases.append(case | {"result": "not run: this kernel takes no mask"})
        else:
            cases.append(case | train(model, kernel, padding, adapters, arguments))
        show(cases[-1])
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def build(arguments: argparse.Namespace):
    """The base in bf16 on the device, with an untrained LoRA."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen2Config

    kind = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    torch.manual_seed(0)
    if arguments.model:
        base = AutoModelForCausalLM.from_pretrained(arguments.model, **kind).to(arguments.device)
    else:
        shape = SHAPES[arguments.shape] | {"num_key_value_heads": 2, "vocab_size": VOCABULARY[arguments.shape]}
        with torch.device(arguments.device):
            base = AutoModelForCausalLM.from_config(Qwen2Config(**shape, tie_word_embeddings=True), **kind)
    base.config.use_cache = False
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(base, lora).train()


def train(model, kernel: str, padding: str, adapters: str, arguments: argparse.Namespace) -> dict:
    """One case: ``steps`` done, ``losses``, ``seconds``, ``attention`` alone, and where it broke, if it did."""
    weights = restart(model, getattr(torch, adapters))
    optimizer = torch.optim.AdamW(weights, lr=arguments.learning_rate)
    draw = torch.Generator().manual_seed(1)
    case = {"result": "finite", "steps": 0, "losses": []}
    started = time.perf_counter()
    for step in range(1, arguments.steps + 1):
        batch = texts(draw, arguments.rows, padding, model.config.vocab_size, arguments.device)
        watch = Watch(model) if step == 1 else None
        try:
            loss = step_of(model, batch, kernel, adapters, watch)
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            return case | {"result": f"refused: {' '.join(str(error).split())[:100]}"}
        if step == 1:
            calls = (watch.calls[0], watch.calls[-1])
            case["kernel_by_default"] = chosen(calls[0])
            case["attention"] = {call.name: alone(call, kernel) for call in calls}
        if not finite(torch.stack([loss, *(weight.grad.float().norm() for weight in weights)])):
            case |= {
                "result": f"not finite at step {step}",
                "loss": str(float(loss)),
                "broken_gradients": broken(model),
            }
            case |= replay(model, batch, kernel, adapters)
            break
        case["losses"].append(round(float(loss), 4))
        case["steps"] = step
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return case | {"seconds": round(time.perf_counter() - started, 1)}


def restart(model, dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """The adapter's weights, as they are before any training, in ``dtype``."""
    draw = torch.Generator().manual_seed(2)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in zip(names, weights, strict=True):
        bound = parameter.shape[1] ** -0.5 if "lora_A" in name else 0.0
        start = (2 * torch.rand(parameter.shape, generator=draw) - 1) * bound
        parameter.data = start.to(parameter.device, dtype)
    return weights


def texts(draw: torch.Generator, rows: int, padding: str, vocabulary: int, device: str) -> dict:
    """A batch of random tokens, (rows, longest); with padding ``none``, all as long as the longest."""
    lengths = torch.randint(*LENGTHS, (rows,), generator=draw)
    width = int(lengths.max())
    ids = torch.randint(vocabulary, (rows, width), generator=draw)
    place = torch.arange(width).expand(rows, -1)
    is_text = {
        "none": torch.ones_like(place, dtype=torch.bool),
        "left": place >= width - lengths[:, None],
        "right": place < lengths[:, None],
    }[padding]
    batch = {
        "input_ids": ids.where(is_text, 0),
        "attention_mask": is_text.long(),
        "labels": ids.masked_fill(~is_text, -100),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def step_of(model, batch: dict, kernel: str, adapters: str, watch: "Watch | None" = None) -> torch.Tensor:
    """The loss of a batch, its gradients left in the weights. Float32 adapters train under bf16 autocast."""
    device = batch["input_ids"].device.type
    precision = torch.autocast(device, torch.bfloat16) if adapters == "float32" else nullcontext()
    model.zero_grad(set_to_none=True)
    with under(kernel), precision, watch or nullcontext():
        loss = model(**batch).loss
        loss.backward()
    return loss.detach()


def broken(model) -> list[str]:
    """The weights whose gradient is not finite."""
    return [name for name, weight in model.named_parameters() if weight.grad is not None and not finite(weight.grad)]


def under(kernel: str):
    """The context in which attention runs under one kernel."""
    return nullcontext() if KERNELS[kernel] is None else sdpa_kernel(KERNELS[kernel])


def replay(model, batch: dict, kernel: str, adapters: str) -> dict:
    """The broken step once more, watched: where it went wrong first, and that layer's attention alone."""
    watch = Watch(model, check=True)
    step_of(model, batch, kernel, adapters, watch)
    guilty = next((call for call in watch.calls if call.broken), None)
    return {
        "broken_forward": watch.forward,
        "broken_backward": watch.backward,
        "broken_attention": guilty and {f"broken {guilty.name}": alone(guilty, kernel)},
    }


@dataclass
class Call:
    """One attention call: its tensors (batch, heads, length, head size), keywords, and the gradient of its output."""

    name: str
    inputs: tuple
    keywords: dict
    gradient: torch.Tensor | None = None
    broken: bool = False
    """Finite inputs and output gradient, but a non-finite output or input gradient."""


@dataclass
class Watch:
    """Inside: records attention calls; with ``check``, names the first non-finite tensor of forward and backward."""

    model: torch.nn.Module
    check: bool = False
    calls: list[Call] = field(default_factory=list)
    forward: str | None = None
    backward: str | None = None
    _handles: list = field(default_factory=list)

    def __enter__(self):
        self._attention = functional.scaled_dot_product_attention
        functional.scaled_dot_product_attention = self._record
        if self.check:
            for name, module in self.model.named_modules():
                self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_):
        functional.scaled_dot_product_attention = self._attention
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str):
        def after(module, inputs, output):
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, torch.Tensor):
                self._follow(name, tensor)

        return after

    def _follow(self, name: str, tensor: torch.Tensor) -> None:
        if self.forward is None and not finite(tensor):
            self.forward = name
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self._see(f"gradient of {name}", gradient))

    def _see(self, name: str, gradient: torch.Tensor) -> None:
        if self.backward is None and not finite(gradient):
            self.backward = name

    def _record(self, query, key, value, **keywords):
        call = Call(f"attention call {len(self.calls)}", tuple(t.detach() for t in (query, key, value)), keywords)
        self.calls.append(call)
        output = self._attention(query, key, value, **keywords)
        output.register_hook(lambda gradient: setattr(call, "gradient", gradient.detach()))
        if self.check:
            call.broken = all(map(finite, call.inputs)) and not finite(output)
            for name, tensor in zip(("query", "key", "value"), (query, key, value), strict=True):
                self._follow(f"{call.name}, {name}", tensor)
                tensor.register_hook(lambda gradient: self._blame(call, gradient))
            self._follow(f"{call.name}, output", output)
        return output

    @staticmethod
    def _blame(call: Call, gradient: torch.Tensor) -> None:
        call.broken |= call.gradient is not None and finite(call.gradient) and not finite(gradient)


def alone(call: Call, kernel: str) -> dict:
    """A recorded attention call by itself, forward and backward, against the math kernel in float32."""
    usable = call.gradient is not None and finite(call.gradient)
    gradient = call.gradient if usable else torch.ones_like(call.inputs[0])
    ours = attend(call, call.inputs, gradient, under(kernel))
    theirs = attend(call, [t.float() for t in call.inputs], gradient.float(), sdpa_kernel(SDPBackend.MATH))
    mask = call.keywords.get("attn_mask")
    rows = torch.zeros_like(ours["output"][..., 0], dtype=torch.bool)  # those that may attend to nothing
    if mask is not None:
        allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min
        rows = ~allowed.any(-1).expand_as(rows)
    figures = {"mask": None if mask is None else str(mask.dtype), "rows_without_keys": int(rows.sum())}
    for name, value in ours.items():
        broken = ~value.isfinite()
        figures[f"{name}_not_finite"] = int(broken.sum())
        if name in ("output", "query"):
            figures[f"{name}_not_finite_in_rows_without_keys"] = int(broken[rows].sum())
        scale = theirs[name].abs().max().clamp_min(1e-30)
        error = ((value.float() - theirs[name]).abs() / scale).masked_fill(broken, 0)
        if name in ("output", "query"):
            figures[f"{name}_error_in_rows_without_keys"] = float(error[rows].max()) if rows.any() else 0.0
            error = error[~rows]
        figures[f"{name}_error"] = float(error.max())
    figures["reference_not_finite"] = sum(int((~value.isfinite()).sum()) for value in theirs.values())
    return figures


def attend(call: Call, inputs, gradient: torch.Tensor, where) -> dict[str, torch.Tensor]:
    """Output and gradients of the inputs of an attention call with other tensors under another kernel."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    keywords = dict(call.keywords)
    mask = keywords.get("attn_mask")
    if mask is not None and mask.dtype != torch.bool:
        keywords["attn_mask"] = mask.to(leaves[0].dtype)
    with where:
        output = functional.scaled_dot_product_attention(*leaves, **keywords)
    output.backward(gradient.to(output.dtype))
    names = ("query", "key", "value")
    return {"output": output.detach()} | {name: leaf.grad for name, leaf in zip(names, leaves, strict=True)}


def chosen(call: Call) -> str:
    """The kernel that torch chooses by itself for a call."""
    keywords = {key: call.keywords[key] for key in ("attn_mask", "is_causal", "scale") if key in call.keywords}
    grouped = call.keywords.get("enable_gqa", False)
    inputs = [tensor.clone().requires_grad_() for tensor in call.inputs]
    return SDPBackend(torch._fused_sdp_choice(*inputs, **keywords, enable_gqa=grouped)).name


def finite(tensor: torch.Tensor) -> bool:
    return bool(tensor.isfinite().all())


def show(case: dict) -> None:
    """A line of the table, and lines under it for what was not finite."""
    losses = [f"{loss:.3f}" for loss in case.get("losses", [])] or ["-"]
    took = f" (torch takes {case['kernel_by_default']})" if case["kernel"] == "default" and losses != ["-"] else ""
    print(
        f"{case['kernel']:<10}{case['padding']:<9}{case['adapters']:<10}{case.get('steps', 0):>6}"
        f"{losses[0]:>9}{losses[-1]:>9}{case.get('seconds', 0):>6}  {case['result']}{took}",
        flush=True,
    )
    for key in ("broken_forward", "broken_backward"):
        if case.get(key):
            print(f"    {key.replace('_', ' ')} first at: {case[key]}")
    if case.get("broken_gradients"):
        print(f"    {len(case['broken_gradients'])} broken gradients, the last of them {case['broken_gradients'][-1]}")
    for name, figures in {**(case.get("attention") or {}), **(case.get("broken_attention") or {})}.items():
        bad = {key: value for key, value in figures.items() if "not_finite" in key and value}
        error = max(value for key, value in figures.items() if key.endswith("_error"))
        print(
            f"    {name} alone: {bad or 'finite'}, {figures['rows_without_keys']} rows without keys, error {error:.1e}"
        )


def _settings(arguments: argparse.Namespace) -> dict:
    import peft
    import transformers

    settings = vars(arguments) | {"model": arguments.model and Path(arguments.model).name}
    del settings["out"]
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "cpu"
    versions = {library.__name__: library.__version__ for library in (torch, transformers, peft)}
    return settings | {"device_name": name, "versions": versions}


if __name__ == "__main__":
    main()
