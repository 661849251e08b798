"""Upload an adapter or a merged model to the Hugging Face Hub, in one commit.

    python -m trainers.push FOLDER ORG/NAME [--private] [--card FILE] [--base_model ORG/NAME]

FOLDER is the `adapter/`, `merged/` or `model/` of a training. `--card` goes up as the repository's README.md
(`medadapt card` writes one). An adapter names its base; where that is a folder, `--base_model` gives the id under which
others find the same model. The token is the one of HF_TOKEN or `hf auth login`.
"""

import argparse
import json
import re
from pathlib import Path

from medtasks import files, hub, models
from medtasks.errors import InputError
from trainers import recipe

ADAPTER = "adapter_config.json"
TOLD = (models.ADAPTER_CARD, "merge.json")
"""Files that say where something lay on this machine."""
FOLDERS = re.compile(r"(?<![\w.~:/-])/(?:[^/\s\"]+/)+")
"""The folders of a path from the root, within other text."""
PATH = re.compile(r"/|~|\.{1,2}[/\\]|file://|[A-Za-z]:[/\\]")
"""How a text begins that is a path of this machine, whatever its folders are called."""
WEIGHTS = (".safetensors", ".bin")
OF_CHECKPOINTS = ("trainer_state.json", "optimizer.pt", "training_args.bin")


def main(argv: list[str]) -> int:
    """Upload what the arguments name; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers.push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=files.user_path, help="the folder of an adapter or a model")
    parser.add_argument("repo", metavar="ORG/NAME", help="the model repository, made if it is not there")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--card", type=files.user_path, metavar="FILE", help="upload it as README.md")
    parser.add_argument("--base_model", metavar="ORG/NAME", help="the Hub id of an adapter's base")
    args = parser.parse_args(argv)
    print(hub.upload(contents(args.folder, args.card, args.base_model), args.repo, "model", args.private))
    return 0


def contents(folder: Path, card: Path | None = None, base_model: str | None = None) -> dict[str, Path | bytes]:
    """What goes up: path in the repository -> local file, or content where it is not that of the folder.

    Raises:
        InputError: neither an adapter nor a model, no such card, or an adapter of a base that only this machine has.
    """
    if not any((folder / name).is_file() for name in (ADAPTER, "config.json")):
        raise InputError(f"{folder}: neither an adapter ({ADAPTER}) nor a model (config.json)")
    found: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if left := [name for name in OF_CHECKPOINTS if name in found]:
        raise InputError(f"{folder}: a checkpoint ({left[0]}); upload the adapter/, merged/ or model/ of the training")
    if not any(name.endswith(WEIGHTS) for name in found):
        raise InputError(f"{folder}: no weights in it ({' or '.join('*' + ending for ending in WEIGHTS)})")
    if "README.md" in found and FOLDERS.search((folder / "README.md").read_text(encoding="utf-8")):
        del found["README.md"]  # PEFT's, of a base that lies here
    if card is not None:
        if not card.is_file():
            raise InputError(f"{card}: no such card; `medadapt card` writes one")
        found["README.md"] = card
    found |= {name: _without_folders(folder / name) for name in TOLD if name in found}
    if ADAPTER in found:
        found[ADAPTER] = _with_base(folder, base_model)
    elif base_model:
        raise InputError(f"{folder} is a model and needs no base; take --base_model out")
    return found


def _without_folders(file: Path) -> bytes:
    """What a JSON file says, less the folders of this machine in it: of their paths the last part is left."""
    told = _told(json.loads(file.read_text(encoding="utf-8")))
    return (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()


def _told(value):
    if isinstance(value, dict):
        return {key: _told(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_told(each) for each in value]
    if not isinstance(value, str):
        return value
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if PATH.match(value) else FOLDERS.sub("", value)


def _with_base(folder: Path, base_model: str | None) -> bytes:
    """The adapter's configuration, its base named as the Hub knows it."""
    config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    base = base_model or config.get("base_model_name_or_path") or ""
    if not re.fullmatch(hub.ID, base) or (base_model is None and Path(base).exists()):
        raise InputError(f"{folder}: its base is '{base}', which the Hub does not know; say --base_model ORG/NAME")
    return (json.dumps(config | {"base_model_name_or_path": base}, indent=2, sort_keys=True) + "\n").encode()


if __name__ == "__main__":
    recipe.command(main)
