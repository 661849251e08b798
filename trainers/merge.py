"""Put an adapter into its base's weights: a plain model, and by how much it answers differently.

    python -m trainers.merge ADAPTER --out FOLDER [--base MODEL] [--method dequantize|original] [--dtype DTYPE]
    python -m trainers.merge ADAPTER --out FOLDER --scale 0.7 [--adapter_only]

What was trained on 4 or 8 bits is merged into the weights that it was trained on, dequantized; `--method original`
takes the unquantized ones, which are not those that the adapter corrects. Either way the merged model is compared with
base and adapter on the same prompts, computing in float32 with the weights as they are stored; what was found is
printed and kept in the folder's merge.json. `--scale` takes a part of what the adapter changes: 0 is the base, 1
the adapter (WiSE-FT: Wortsman et al. 2022, arXiv:2109.01903).
"""

import argparse
import dataclasses
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files, models
from medtasks.errors import InputError
from trainers import adapter as adapters
from trainers import fidelity, recipe

if TYPE_CHECKING:
    import torch
    from trl import ModelConfig

REPORT = "merge.json"
METHODS = ("dequantize", "original")
DTYPES = ("bfloat16", "float16", "float32")
FINER = ("float16", "float32")
"""Those that round less than bfloat16, in which most bases are stored."""
OF_MERGING = ("base", "method", "dtype", "prompts")
"""Options that an adapter alone does not take."""
PROMPT_LEARNING = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT")
"""PEFT's adapters that change no weights."""
FAITHFUL = 0.02
"""A relative error of the logits from which on rounding is worth a word."""


def main(argv: list[str]) -> int:
    """Merge or scale what the arguments name; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers.merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter", type=files.user_path, help="an adapter's folder")
    parser.add_argument(
        "--out", type=files.user_path, required=True, metavar="FOLDER", help="a folder that is not there yet"
    )
    parser.add_argument("--base", metavar="MODEL", help="where the base lies now (default: where it was in training)")
    parser.add_argument("--method", choices=METHODS, help="default: dequantize what was trained on 4 or 8 bits")
    parser.add_argument("--dtype", choices=DTYPES, help="of the merged weights (default: the base's in training)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the adapter's change to take (default: 1)")
    parser.add_argument("--adapter_only", action="store_true", help="write the scaled adapter, not a merged model")
    parser.add_argument(
        "--prompts", type=files.user_path, metavar="FILE", help="more prompts to compare on: .jsonl with 'prompt'"
    )
    args = parser.parse_args(argv)
    args.out = files.output_folder(args.out)
    if args.out.exists():
        raise InputError(f"{args.out}: is there already; give another --out, or remove it")
    if args.adapter_only and (given := [key for key in OF_MERGING if getattr(args, key) is not None]):
        raise InputError(f"--{given[0]} is of a merged model; take it or --adapter_only out")
    with files.telling_of_a_full_disk(args.out, "free some, and merge again"):
        if args.adapter_only:
            adapters.scale(args.adapter, args.out, args.scale)
            print(f"{args.out}: {args.adapter} at {args.scale:g} of its strength")
            return 0
        report = merge(args.adapter, args.out, args.base, args.method, args.dtype, args.scale, args.prompts)
    print(f"{args.out}: {describe(report)}")
    return 0


def merge(
    adapter: Path,
    out: Path,
    base: str | None = None,
    method: str | None = None,
    dtype: str | None = None,
    scale: float = 1.0,
    prompts: Path | None = None,
) -> dict:
    """Write base + adapter as a plain model with tokenizer, card and ``merge.json`` into ``out``, at one stroke.

    Args:
        base: folder or Hub id; None takes the one that the adapter names.
        method: one of :data:`METHODS`; None dequantizes where the adapter was trained on quantized weights.
        dtype: of the merged weights; None keeps the base's.
        scale: of the adapter's change of the weights.
        prompts: a file of further prompts (:func:`trainers.fidelity.prompts`).

    Returns:
        What ``merge.json`` holds: how it was merged, and under ``difference`` and ``adapter_effect`` how far the merged
        model, and the base alone, are from base + adapter (:class:`trainers.fidelity.Difference`).

    Raises:
        InputError: not an adapter of this base, or its files cannot be loaded.
    """
    trained = trained_on(adapter, base)
    quantized = bool(trained.load_in_4bit or trained.load_in_8bit)
    method = method or ("dequantize" if quantized else "original")
    if method == "dequantize" and not quantized:
        raise InputError(f"{adapter} was trained on weights that are not quantized; take --method dequantize out")
    asked, tokenizer = fidelity.prompts(prompts), adapters.load_tokenizer(trained)
    with tempfile.TemporaryDirectory() as scaled:
        strong = adapter if scale == 1 else adapters.scale(adapter, Path(scaled) / "adapter", scale)
        model = _with_adapter(adapters.load_base(trained), strong)
        reference = fidelity.last_logits(model, tokenizer, asked)
        with model.disable_adapter():
            base_alone = fidelity.last_logits(model, tokenizer, asked)
        if quantized:
            model = _with_adapter(_unquantized(model.unload(), trained, method), strong)
    if dtype in FINER:
        _cast(model, dtype)  # before, so that the sum is not rounded first
    merged = model.merge_and_unload()
    if dtype is not None:
        _cast(merged, dtype)
    after = fidelity.last_logits(merged, tokenizer, asked)
    if reference.isfinite().all() and not _is_finite(merged, after, tokenizer, asked):
        raise InputError(f"the merged model's logits are not finite in {merged.dtype}; say another --dtype")
    report = {
        "base": trained.model_name_or_path,
        "base_fingerprint": models.fingerprint(trained.model_name_or_path, trained.model_revision),
        "adapter_fingerprint": files.sha256_file(adapter / adapters.WEIGHTS)[:16],
        "trained_on": _precision(trained),
        "method": method,
        "dtype": str(merged.dtype).removeprefix("torch."),
        "scale": scale,
        "difference": fidelity.compare(reference, after, tokenizer, asked).as_dict(),
        "adapter_effect": fidelity.compare(reference, base_alone, tokenizer, asked).as_dict(),
    }
    with files.new_folder(out) as folder:
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if (adapter / models.ADAPTER_CARD).is_file():
            shutil.copyfile(adapter / models.ADAPTER_CARD, folder / models.ADAPTER_CARD)
        files.write_json(folder / REPORT, report)
    return report


def describe(report: dict) -> str:
    """One line about a merged model, from what :func:`merge` returned."""
    difference, effect = (fidelity.Difference(**report[key]) for key in ("difference", "adapter_effect"))
    rounded = difference.relative_logit_error > FAITHFUL and report["dtype"] != "float32"
    return (
        f"merged ({report['method']}, {report['dtype']}); it differs from base + adapter by {difference}; "
        f"the base without the adapter differs by {effect}"
    ) + ("; --dtype float32 rounds nothing" * rounded)


def trained_on(adapter: Path, base: str | None = None) -> "ModelConfig":
    """The base as the adapter was trained on it: which one, and in which precision or quantization.

    An adapter made elsewhere tells its base alone; it is taken unquantized, in the precision that it is stored in.

    Raises:
        InputError: not an adapter, or not of ``base``.
    """
    from trl import ModelConfig

    for name in ("adapter_config.json", adapters.WEIGHTS):
        if not (adapter / name).is_file():
            raise InputError(f"{adapter}: not an adapter folder (no {name})")
    told = models.read_json(adapter / "adapter_config.json")
    if told.get("peft_type") in PROMPT_LEARNING:
        raise InputError(f"{adapter}: {told['peft_type']} learns tokens, which no weights can hold; merge LoRA")
    settings = {"dtype": "auto", "model_name_or_path": told.get("base_model_name_or_path")}
    if (adapter / models.ADAPTER_CARD).is_file():
        card = models.read_json(adapter / models.ADAPTER_CARD)
        known = {field.name for field in dataclasses.fields(ModelConfig)}
        named = settings["model_name_or_path"]  # by adapter_config.json, which an upload changes
        settings = {key: value for key, value in card["config"].items() if key in known}
        settings["model_name_or_path"] = card["base"] if Path(card["base"]).exists() else named or card["base"]
    if base not in (None, settings["model_name_or_path"]):
        settings |= {"model_name_or_path": base, "model_revision": None}  # a revision is of the other one
    if not settings["model_name_or_path"]:
        raise InputError(f"{adapter} does not name its base; give --base")
    with _naming_the_option(base):
        models.check_adapter(adapter, settings["model_name_or_path"], settings.get("model_revision"))
    return ModelConfig(**settings)


@contextmanager
def _naming_the_option(base: str | None):
    """Say how to name another base where the one that the adapter names is not there."""
    try:
        yield
    except InputError as error:
        told = str(error).endswith(("no such model folder", "or HF_ENDPOINT"))
        raise InputError(f"{error}; give --base if it lies elsewhere") if base is None and told else error from error


def _is_finite(merged, exact: "torch.Tensor", tokenizer, asked: list[fidelity.Prompt]) -> bool:
    """Whether the model gives numbers: its weights do in ``exact``, and in float16 so do its own products."""
    import torch

    if merged.dtype == torch.float16:
        exact = torch.cat([exact, fidelity.last_logits(merged, tokenizer, asked, exactly=False)])
    return bool(exact.isfinite().all())


def _with_adapter(base, adapter: Path):
    """PEFT's model, where its process computes."""
    from accelerate import PartialState
    from peft import PeftModel

    with adapters.loading(str(adapter)):
        model = PeftModel.from_pretrained(base, str(adapter))
    adapters.demand_untied(model)
    return model if getattr(base, "is_quantized", False) else model.to(PartialState().device)


def _unquantized(base, trained: "ModelConfig", method: str):
    """The weights to merge into: those of the quantized ``base``, or those that it was quantized from."""
    if method == "dequantize":
        return base.dequantize()
    return adapters.load_base(dataclasses.replace(trained, load_in_4bit=False, load_in_8bit=False))


def _cast(model, dtype: str) -> None:
    """Change the weights' precision, but not the adapter's, and not the buffers': rotary positions must stay exact."""
    import torch

    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.to(getattr(torch, dtype))


def _precision(trained: "ModelConfig") -> str:
    if trained.load_in_4bit:
        return trained.bnb_4bit_quant_type
    return "int8" if trained.load_in_8bit else trained.dtype


if __name__ == "__main__":
    recipe.command(main)
