"""The model that learns: a base (bf16, fp32 or NF4) with a new LoRA adapter, or with one that is to learn on."""

import json
import shutil
import tempfile
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


def check_base(model_args) -> str:
    """The base's fingerprint.

    Raises:
        InputError: no base or no LoRA settings in the recipe, or the base is not there.
    """
    if not model_args.model_name_or_path:
        raise InputError("model_name_or_path is not set; give a model folder or a Hub id")
    if not model_args.use_peft:
        raise InputError("use_peft is not set; these trainers train adapters, so say 'use_peft: true'")
    if model_args.lora_target_modules is None:
        raise InputError("lora_target_modules is not set and PEFT would take q and v alone; say 'all-linear'")
    return models.fingerprint(model_args.model_name_or_path, model_args.model_revision)


def check_adapter(model_args, adapter: str) -> None:
    """Raise InputError unless the adapter can learn on: it is there, for this base, and shaped as the recipe says."""
    models.check_adapter(adapter, model_args.model_name_or_path)
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
        InputError: the base has none.
    """
    from transformers import AutoTokenizer

    with _loading(model_args.model_name_or_path):
        return AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)


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
    with _loading(model_args.model_name_or_path):
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


def continue_adapter(model, adapter: str):
    """``model`` with the adapter in folder ``adapter``, trainable, under PEFT's usual name ``default``."""
    from peft import PeftModel

    with _loading(adapter):
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)


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
    with _new_folder(adapter) as folder:
        for file in checkpoint.iterdir():
            if file.name.startswith(("adapter_", "tokenizer", "special_tokens", "chat_template")):
                shutil.copyfile(file, folder / file.name)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()  # PEFT writes a set, in another order each time
        files.write_json(folder / "adapter_config.json", config)
        files.write_json(folder / models.ADAPTER_CARD, card)


def merge(model_args, adapter: Path, merged: Path) -> None:
    """Put base + adapter as a plain model into folder ``merged``, at one stroke.

    A quantized base is dequantized first: merging an adapter into the weights it was not trained on costs ten times
    the error.
    """
    from peft import PeftModel

    base = load_base(model_args)
    if getattr(base, "is_quantized", False):
        base = base.dequantize()
    model = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    with _new_folder(merged) as folder:
        model.save_pretrained(folder)
        load_tokenizer(model_args).save_pretrained(folder)
        shutil.copyfile(adapter / models.ADAPTER_CARD, folder / models.ADAPTER_CARD)


@contextmanager
def _new_folder(path: Path):
    """A temporary folder beside ``path`` that becomes ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield folder
        folder.chmod(0o755)
        shutil.rmtree(path, ignore_errors=True)
        folder.rename(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _loading(what: str):
    """Say in one line that a model's files cannot be used."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ImportError, SafetensorError, ValueError) as error:
        raise InputError(f"{what}: cannot be loaded ({' '.join(str(error).split())})") from error
