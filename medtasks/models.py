"""Which base model is this, and does this adapter belong to it?"""

import hashlib
import json
from pathlib import Path

from medtasks.errors import InputError

ADAPTER_CARD = "medadapt.json"
"""Written by ``trainers`` into an adapter's folder: the base's name and fingerprint, and how it was trained."""

EDGE = 1 << 20
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt"),
    "chat_template.jinja",
)
TOKENIZER_KEYS = (
    *("bos_token", "eos_token", "pad_token", "unk_token"),
    *("add_bos_token", "add_eos_token", "chat_template"),
)
"""Of tokenizer_config.json: what changes the tokens of a text. The rest is of the library that wrote it."""


def folder(model: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model: the folder itself, or the Hub snapshot of an id (config fetched if needed).

    Raises:
        InputError: neither a folder with a ``config.json`` nor an id that the Hub knows.
    """
    model, path = str(model), Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{model}: the folder has no config.json, so it is not a model that transformers can load")
        return path
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise InputError(f"{model}: no such model folder")
    from huggingface_hub import hf_hub_download

    return Path(_from_hub(model, hf_hub_download, filename="config.json", revision=revision)).parent


def _from_hub(model: str, fetch, **arguments) -> str:
    """What ``fetch`` brings of a Hub model; any failure becomes one line that names the model and the mend."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import HFValidationError

    try:
        return fetch(model, **arguments)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{model}: neither a folder here nor a model the Hub gives ({reason}); "
            "check the name, the network or HF_ENDPOINT"
        ) from error


def _fetched(model: str | Path, revision: str | None, patterns: list[str]) -> Path:
    """The local folder with a Hub model's files of these patterns."""
    from huggingface_hub import snapshot_download

    return Path(_from_hub(str(model), snapshot_download, revision=revision, allow_patterns=patterns))


def fingerprint(model: str | Path, revision: str | None = None) -> str:
    """16 hex digits that change with the model's architecture or weights.

    Hashes ``config.json`` (less the name it was saved under) and, of each weights file, its size, first and last MiB,
    so a model of many GB costs milliseconds. For a Hub id whose weights are not here yet, fetches them.
    """
    path = folder(model, revision)
    weights = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    if not weights and not Path(model).expanduser().is_dir():
        path = _fetched(model, revision, ["*.json", "*.safetensors"])
        weights = sorted(path.glob("*.safetensors"))
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    for volatile in ("_name_or_path", "transformers_version"):
        config.pop(volatile, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in weights:
        size = file.stat().st_size
        digest.update(f"{file.name}{size}".encode())
        with file.open("rb") as f:
            digest.update(f.read(EDGE))
            f.seek(max(0, size - EDGE))
            digest.update(f.read(EDGE))
    return digest.hexdigest()[:16]


def tokenizer_fingerprint(model: str | Path, revision: str | None = None) -> str:
    """16 hex digits that change with how the model's tokenizer makes tokens of a text: its vocabulary, special tokens
    (of which training teaches the end) and chat template. For a Hub id whose files are not here yet, fetches them."""
    path = folder(model, revision)
    if not Path(model).expanduser().is_dir():
        path = _fetched(model, revision, [*TOKENIZER_FILES, TOKENIZER_CONFIG])
    digest = hashlib.sha256()
    for file in (path / name for name in TOKENIZER_FILES):
        if file.is_file():
            digest.update(f"{file.name}{file.stat().st_size}".encode() + file.read_bytes())
    config = path / TOKENIZER_CONFIG
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    found = {key: settings.get(key) for key in TOKENIZER_KEYS}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in found.items()}
    digest.update(json.dumps(texts, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def check_adapter(adapter: str | Path, base: str | Path, revision: str | None = None) -> None:
    """Raise unless the LoRA adapter in folder ``adapter`` was trained on ``base``, of a Hub id its ``revision``.

    Compares the fingerprint that our trainers record; for an adapter made elsewhere, the widths of its matrices with
    the base's ``hidden_size``.

    Raises:
        InputError: not an adapter folder, or made for another base.
    """
    path = Path(adapter).expanduser()
    if not (path / "adapter_config.json").is_file():
        raise InputError(f"{adapter}: not an adapter folder (no adapter_config.json)")
    made_for = read_json(path / "adapter_config.json").get("base_model_name_or_path")
    card = path / ADAPTER_CARD
    if card.is_file():
        recorded = read_json(card)
        if recorded["base_fingerprint"] != (found := fingerprint(base, revision)):
            raise InputError(
                f"{adapter} was trained on {recorded['base']} ({recorded['base_fingerprint']}), not on {base} "
                f"({found}); give that base (and its revision) or train again"
            )
    elif (width := _input_width(path)) is not None:
        hidden = json.loads((folder(base, revision) / "config.json").read_text(encoding="utf-8")).get("hidden_size")
        if hidden is not None and width != hidden:
            raise InputError(
                f"{adapter} was made for {made_for} (width {width}), not for {base} (width {hidden}); give that base"
            )


def read_json(file: Path) -> dict:
    """What one of an adapter's JSON files holds.

    Raises:
        InputError: it is cut short, or no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); train or fetch it again") from error


def _input_width(adapter: Path) -> int | None:
    """Input width of the adapter's attention projections, or None where it has none."""
    file = adapter / "adapter_model.safetensors"
    if not file.is_file():
        raise InputError(f"{adapter}: the adapter has no adapter_model.safetensors; train or fetch it again")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                if name.endswith("q_proj.lora_A.weight"):
                    return tensors.get_slice(name).get_shape()[1]
    except SafetensorError as error:
        raise InputError(f"{file}: cannot be loaded ({error}); train or fetch it again") from error
    return None
