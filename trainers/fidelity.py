"""Does a merged model answer as base and adapter do? The logits after a fixed set of prompts, compared."""

import functools
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import benchmarks, corpora, mcq, sources
from medtasks.errors import InputError

if TYPE_CHECKING:
    import torch

BENCHMARKS = ("medqa", "medmcqa", "pubmedqa", "mmlu_med")
ITEMS = 6
"""Items of each benchmark, the first training items of the bundled sample: the same everywhere, and no test item."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the letters that may answer it; none where it is no exam question."""

    text: str
    letters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """How far one model's answers are from another's.

    Attributes:
        prompts: how many were compared.
        relative_logit_error: ``||b - a|| / ||a||`` (Frobenius) of the logits after all prompts, (prompts, vocabulary).
        letters: prompts that are answered by a letter.
        letters_changed: those of them whose likeliest letter is another one.
    """

    prompts: int
    relative_logit_error: float
    letters: int
    letters_changed: int

    def __str__(self) -> str:
        return (
            f"{self.relative_logit_error:.2%} in the logits after {self.prompts} prompts, "
            f"{self.letters_changed} of {self.letters} letters"
        )

    def as_dict(self) -> dict:
        """For a JSON file; the error with four significant digits."""
        return asdict(self) | {"relative_logit_error": float(f"{self.relative_logit_error:.4g}")}


def prompts(file: Path | None = None) -> list[Prompt]:
    """The sample's exam questions, rendered as they are asked, and those of a file.

    Args:
        file: ``.jsonl`` or ``.jsonl.gz`` with a ``prompt`` (str) in each row.

    Raises:
        InputError: there is no such file, or a row without a prompt.
    """
    found = list(_exam())
    if file is None:
        return found
    if not file.is_file() or not file.name.endswith(corpora.JSONL):
        raise InputError(f"{file}: no such file; prompts are rows with 'prompt' in a {' or '.join(corpora.JSONL)} file")
    for place, row in corpora.file_rows(file):
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
            raise InputError(f"{place}: no 'prompt'; each row needs one, as text")
        found.append(Prompt(row["prompt"]))
    if len(found) == len(_exam()):
        raise InputError(f"{file}: holds no rows; prompts are rows with 'prompt'")
    return found


@functools.cache
def _exam() -> tuple[Prompt, ...]:
    """The sample's questions."""
    with sources.reading_from("sample"):
        items = [item for name in BENCHMARKS for item in benchmarks.load(name, "train")[:ITEMS]]
    return tuple(Prompt(mcq.render(item), tuple(mcq.choices(item))) for item in items)


def last_logits(model, tokenizer, asked: list[Prompt], exactly: bool = True) -> "torch.Tensor":
    """float32 logits after each prompt, (prompts, vocabulary), on the CPU.

    Args:
        exactly: compute in float32, whatever the weights are stored in; else as the model computes.
    """
    import torch

    model.eval()
    rows = []
    with torch.no_grad(), in_float32(model) if exactly else nullcontext():
        for prompt in asked:
            encoded = tokenizer(prompt.text, return_tensors="pt", return_token_type_ids=False).to(model.device)
            rows.append(model(**encoded, logits_to_keep=1).logits[0, -1].float().cpu())
    return torch.stack(rows)


@contextmanager
def in_float32(model):
    """Let ``model`` compute in float32 with the weights that it has, a few modules' worth of which are widened at once.

    In a model's own bfloat16 the products' rounding may be larger than what merging does to the weights. A module is
    widened with its children that have none themselves, whose weights some parents use without calling them; 4 bits are
    dequantized to the precision that training rounds them to.
    """
    import torch

    narrow, hooks, quantized = {}, [], []

    def widen(module, *_):
        narrow[module] = [
            (parameter, parameter.data)
            for part in (module, *(child for child in module.children() if not any(child.children())))
            for parameter in part.parameters(recurse=False)
            if parameter.dtype in (torch.bfloat16, torch.float16)
        ]
        for parameter, data in narrow[module]:
            parameter.data = data.float()

    def restore(module, *_):
        for parameter, data in narrow.pop(module):
            parameter.data = data

    for module in model.modules():
        hooks += [module.register_forward_pre_hook(widen), module.register_forward_hook(restore)]
        if hasattr(dict(module.named_parameters(recurse=False)).get("weight"), "quant_state"):
            quantized.append((module, module.__dict__.get("forward")))  # accelerate's, where it has put one
            module.forward = functools.partial(_as_dequantized, module)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in list(narrow):  # of a forward that failed
            restore(module)
        for module, forward in quantized:
            del module.forward
            if forward is not None:
                module.forward = forward


def _as_dequantized(linear, hidden: "torch.Tensor") -> "torch.Tensor":
    """What bitsandbytes' 4-bit map gives in float32; its own product there would not round the weights."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    state = linear.weight.quant_state
    weight = dequantize_4bit(linear.weight.data, state).to(linear.compute_dtype or state.dtype)
    bias = None if linear.bias is None else linear.bias.float()
    return torch.nn.functional.linear(hidden.float(), weight.float(), bias)


def compare(reference: "torch.Tensor", other: "torch.Tensor", tokenizer, asked: list[Prompt]) -> Difference:
    """How far ``other`` is from ``reference``, both from :func:`last_logits` over the prompts ``asked``."""
    changed = 0
    exams = [number for number, prompt in enumerate(asked) if prompt.letters]
    for number in exams:
        tokens = [_first_token(tokenizer, asked[number].text, letter) for letter in asked[number].letters]
        changed += mcq.likeliest(reference[number, tokens].tolist()) != mcq.likeliest(other[number, tokens].tolist())
    error = ((other - reference).norm() / reference.norm()).item()
    return Difference(len(asked), error, len(exams), changed)


def _first_token(tokenizer, prompt: str, letter: str) -> int:
    """The token that begins the answer ``letter`` after ``prompt``."""
    start = len(tokenizer(prompt)["input_ids"])
    return tokenizer(prompt + mcq.DELIMITER + letter)["input_ids"][start]
