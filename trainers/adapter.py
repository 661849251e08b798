"""The model that learns: a base (bf16, fp32 or NF4) with a LoRA adapter, new or to learn on, or all of its weights."""

import json
import math
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from medtasks import files, models
from medtasks.errors import InputError
from trainers import processes

WEIGHTS = "adapter_model.safetensors"
SHAPE = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
"""recipe key -> key of ``adapter_config.json``: what an adapter keeps when it learns on."""


def check_base(model_args, full_finetuning: bool = False) -> str:
    """The base's fingerprint.

    Args:
        full_finetuning: whether all its weights are to learn, instead of an adapter.

    Raises:
        InputError: no base or no LoRA settings in the recipe, the base is not there, or its weights cannot learn.
    """
    if not model_args.model_name_or_path:
        raise InputError("model_name_or_path is not set; give a model folder or a Hub id")
    if full_finetuning:
        _check_weights_can_learn(model_args)
    elif not model_args.use_peft:
        raise InputError("use_peft is not set; say 'use_peft: true', or 'full_finetuning: true' to train all weights")
    elif model_args.lora_target_modules is None:
        raise InputError("lora_target_modules is not set and PEFT would take q and v alone; say 'all-linear'")
    return models.fingerprint(model_args.model_name_or_path, model_args.model_revision)


def _check_weights_can_learn(model_args) -> None:
    """Raise InputError where there is an adapter to learn, or weights too coarse to take an update."""
    if model_args.use_peft:
        raise InputError("full_finetuning trains all weights and use_peft an adapter; take one of them out")
    if model_args.load_in_4bit or model_args.load_in_8bit:
        raise InputError("full_finetuning: quantized weights cannot learn; take load_in_4bit and load_in_8bit out")
    if model_args.dtype != "float32":
        raise InputError(
            f"full_finetuning: dtype {model_args.dtype} rounds most updates to nothing; say 'dtype: float32' "
            "(and 'bf16: true' to compute in bfloat16)"
        )


def keep_target_a_name(model_args) -> None:
    """Let ``lora_target_modules`` of one name be a name; TRL makes a text of it, which PEFT takes for a pattern that
    must match a map's whole path."""
    if isinstance(name := model_args.lora_target_modules, str) and name.isidentifier():
        model_args.lora_target_modules = [name]


def check_adapter(model_args, adapter: str) -> None:
    """Raise InputError unless the adapter can learn on: it is there, for this base, and shaped as the recipe says."""
    models.check_adapter(adapter, model_args.model_name_or_path, model_args.model_revision)
    settings = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    for name, key in SHAPE.items():
        if settings.get(key) != getattr(model_args, name):
            raise InputError(
                f"{adapter} has {name} {settings.get(key)} and the recipe {getattr(model_args, name)}; an adapter that "
                "learns on keeps its shape, so give both the same"
            )


def load_tokenizer(model_args):
    """The base's tokenizer.

    Raises:
        InputError: the base has none, or it knows no end of a text.
    """
    from transformers import AutoTokenizer

    with loading(model_args.model_name_or_path):
        found = AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    if found.eos_token is None:
        raise InputError(
            f"{model_args.model_name_or_path}: its tokenizer has no eos_token, in which what is learned ends; "
            "name one in tokenizer_config.json"
        )
    return found


def load_base(model_args, attention: str | None = None, dequantizes: bool = False):
    """The base model in ``dtype``, or in 4 or 8 bits where the recipe asks for them.

    Args:
        attention: instead of the recipe's ``attn_implementation``.
        dequantizes: whether 4-bit weights are held dequantized; they keep the values that 4 bits give them.

    Raises:
        InputError: its files are missing or damaged, or bitsandbytes is not there.
    """
    import torch
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM
    from trl import get_quantization_config

    from trainers.acceleration import attention as packed_attention

    packed_attention.register()

    quantization = get_quantization_config(model_args)
    where = {}
    if quantization is not None and not processes.sharded():
        where = {"device_map": {"": PartialState().device}}
    with loading(model_args.model_name_or_path):
        model = AutoModelForCausalLM.from_pretrained(
            model_args.model_name_or_path,
            revision=model_args.model_revision,
            dtype="auto" if model_args.dtype == "auto" else getattr(torch, model_args.dtype),
            attn_implementation=attention or model_args.attn_implementation,
            quantization_config=quantization,
            **where,
        )
    for module in model.modules():
        # bitsandbytes 0.50 repacks 4-bit weights at the first forward without gradients on such a CPU, and every
        # gradient after that is wrong
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return plain(model) if dequantizes else model


def plain(model):
    """``model`` with its quantized weights dequantized; to PEFT and TRL, a model that never was quantized."""
    model = model.dequantize()
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"):
        setattr(model, flag, False)
    return model


def continue_adapter(model, adapter: str, model_args):
    """``model`` with the adapter in folder ``adapter``, trainable, under PEFT's usual name ``default``.

    Raises:
        InputError: its files are damaged, or it learns other maps or modules than the recipe names.
    """
    from peft import PeftModel

    asked = _paths(model, model_args.lora_target_modules), set(model_args.lora_modules_to_save or ())
    with loading(adapter):
        learning = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    saved = learning.peft_config["default"].modules_to_save
    has = set(learning.base_model.targeted_module_names), set(saved or ())
    for key, wanted, found in zip(("lora_target_modules", "lora_modules_to_save"), asked, has, strict=True):
        if other := sorted({path.rpartition(".")[2] for path in wanted ^ found}):
            raise InputError(
                f"{key}: {adapter} and the recipe differ in {', '.join(other)}; an adapter that learns on keeps its "
                "shape, so give both the same"
            )
    return learning


def _paths(model, targets: str | list[str]) -> set[str]:
    """The paths of the maps that ``targets`` (lora_target_modules) names, as PEFT takes it: names, a pattern for a
    whole path, or ``all-linear``, which is all but the head."""
    import torch
    from transformers.pytorch_utils import Conv1D

    named, head = dict(model.named_modules()), model.get_output_embeddings()
    if targets in ("all-linear", ["all-linear"]):
        maps = (torch.nn.Linear, Conv1D)
        return {path for path, each in named.items() if isinstance(each, maps) and each is not head}
    if isinstance(targets, str):
        return {path for path in named if re.fullmatch(targets, path)}
    return {path for path in named if any(_is_called(path, name) for name in targets)}


def _is_called(path: str, name: str) -> bool:
    """Whether the module at ``path`` is one that ``name`` in a list means, as PEFT takes it: the path's end."""
    return f".{path}".endswith(f".{name}")


def demand_untied(model) -> None:
    """Raise InputError where LoRA changes the embeddings of a model whose head they are too: one of both would change
    without the other, and the merged model has but one."""
    paths = getattr(getattr(model, "base_model", None), "targeted_module_names", None) or ()
    base = model.get_base_model() if paths else model
    ends = [path for path in paths if path.rpartition(".")[2] in ("embed_tokens", "lm_head", "wte")]
    if ends and base.config.get_text_config().tie_word_embeddings:
        raise InputError(
            f"lora_target_modules: {ends[0]} shares its weights, as this model's head is its embeddings; take it out"
        )


def train_in_float32(model) -> int:
    """Make the trainable parameters float32, and return how many there are.

    TRL keeps a quantized base's adapter in bfloat16, where most small updates round to nothing, and resumes it in
    float32; from float32 on, both are the same.
    """
    import torch

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.data = parameter.data.to(torch.float32)
    return sum(parameter.numel() for parameter in trainable)


def publish(checkpoint: Path, adapter: Path, card: dict) -> None:
    """Put the adapter of a checkpoint into folder ``adapter``, with tokenizer and card, at one stroke."""
    with files.new_folder(adapter) as folder:
        for file in checkpoint.iterdir():
            if file.name.startswith(("adapter_", "tokenizer", "special_tokens", "chat_template")):
                shutil.copyfile(file, folder / file.name)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()  # PEFT writes a set, in another order each time
        files.write_json(folder / "adapter_config.json", config)
        files.write_json(folder / models.ADAPTER_CARD, card)


def publish_model(
    checkpoint: Path, model: Path, base: str, revision: str | None, card: dict, factor: float = 1.0
) -> None:
    """Put the model of a checkpoint into folder ``model``, with tokenizer and card, at one stroke.

    It learned in float32 and is kept in the precision that its base is stored in, as a merged model is.

    Args:
        factor: how much of what it learned it keeps: ``base + factor * (learned - base)`` (WiSE-FT, as :func:`scale`).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    stored = AutoConfig.from_pretrained(base, revision=revision).dtype
    with files.new_folder(model) as folder:
        learned = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=stored if factor == 1 and stored else "auto")
        if factor != 1:
            began = AutoModelForCausalLM.from_pretrained(base, revision=revision, dtype=torch.float32)
            with torch.no_grad():
                for weight, first in zip(learned.parameters(), began.parameters(), strict=True):
                    weight.copy_(torch.lerp(first, weight.float(), factor))
            learned = learned.to(stored or learned.dtype)
        learned.save_pretrained(folder)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
        files.write_json(folder / models.ADAPTER_CARD, card)


def demand_targets(model, names: str | list[str] | None) -> None:
    """See that each of the maps that ``names`` lists (lora_target_modules) got its LoRA.

    Raises:
        InputError: the model has no map of such a name; PEFT complains only where it has none of all.
    """
    found = getattr(getattr(model, "base_model", None), "targeted_module_names", None)
    if not found or not isinstance(names, list) or names == ["all-linear"]:
        return
    if missing := [name for name in names if not any(_is_called(path, name) for path in found)]:
        has = ", ".join(sorted({path.rpartition(".")[2] for path in found}))
        raise InputError(f"lora_target_modules: the model has no map '{missing[0]}' beside {has}; mend or leave it out")


def scale(adapter: Path, out: Path, factor: float) -> Path:
    """Write an adapter that changes the base's weights ``factor`` times as much into folder ``out``; returns it.

    Between base (0) and adapter (1) lie the models of WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903), whose weights
    are interpolated: ``W + factor * B A``, so that the adapter's matrices B are multiplied.

    Raises:
        InputError: not an adapter, a factor that is no number, or other weights than LoRA's A and B (DoRA, biases,
            whole modules).
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    if not math.isfinite(factor):
        raise InputError(f"a strength of {factor} leaves no numbers; give a share of the adapter's change, such as 0.7")
    if not (adapter / WEIGHTS).is_file():
        raise InputError(f"{adapter}: not an adapter folder (no {WEIGHTS})")
    if out.resolve() != adapter.resolve() and out.resolve().is_relative_to(adapter.resolve()):
        raise InputError(f"{out}: lies in the adapter itself; give another --out")
    with loading(str(adapter)), safe_open(adapter / WEIGHTS, framework="pt") as stored:
        weights, metadata = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    if other := [name for name in weights if not re.search(r"lora_(embedding_)?[AB]\b", name)]:
        raise InputError(f"{adapter}: {other[0]} is none of LoRA's two matrices, and only these can be scaled")
    for name, weight in weights.items():
        if re.search(r"lora_(embedding_)?B\b", name):
            weights[name] = (weight.to(torch.float32) * factor).to(weight.dtype)
    with files.new_folder(out) as folder:
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        save_file(weights, folder / WEIGHTS, metadata)
        if (card := folder / models.ADAPTER_CARD).is_file():
            about = json.loads(card.read_text(encoding="utf-8"))
            files.write_json(card, about | {"scale": about.get("scale", 1.0) * factor})
    return out


@contextmanager
def loading(what: str):
    """Say in one line that a model's files cannot be used."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ImportError, SafetensorError, ValueError) as error:
        raise InputError(f"{what}: cannot be loaded ({' '.join(str(error).split())})") from error
