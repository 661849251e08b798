"""Texts -> vectors, by a sentence-transformers model, in batches that waste little on padding."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files, models
from medtasks.errors import InputError
from rag_model import chunking, embedders
from rag_model.tokens import Text, Tokens

if TYPE_CHECKING:
    import numpy as np
    import torch

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
BATCH_TOKENS = {"cuda": 65_536, "cpu": 8_192}
"""Tokens in a batch, padding included. On two CPU cores 8,192 are faster than 2,048 and 32,768 (bfloat16)."""
PRECISIONS = ("auto", "float32", "bfloat16")
POOLING_FILES = (
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
)
"""What changes vectors besides the weights: the pooling, where a long text is cut off, prompts."""
REPLICAS_OF_A_GPU = 2
"""Copies of the model on each GPU: while one computes, the other's texts become tokens."""


class Embedder:
    """A sentence-transformers model, loaded when it embeds its first text.

    Args:
        name: one of :data:`rag_model.embedders.NAMES`, a Hub id, or a folder.
        device: torch's name of one (default: the GPU if there is one; :meth:`replicas` takes all of them).
        batch_size: most texts in a batch; None for as many as ``batch_tokens`` allows.
        batch_tokens: most tokens in a batch; None for :data:`BATCH_TOKENS`.
        precision: of the model's weights and products: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the
            hardware computes in it (GPUs; CPUs with AVX512-BF16 or AMX). Pooling is float32 in either case.

    Attributes:
        name: as given, so that an index holds no path of the machine that built it.
        fingerprint: 16 hex digits that change with weights, pooling, prompts or maximum length, not with where the
            model lies.
        similarity: ``cosine`` or ``dot``: whether vectors are unit vectors; a score is their inner product either way.

    Raises:
        InputError: no such model, here or on the Hub, or no such precision.
    """

    def __init__(
        self,
        name: str = DEFAULT,
        device: str | None = None,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        precision: str = "auto",
    ):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"embedder={name}: give {', '.join(embedders.NAMES)}, or a model's Hub id or folder")
        if precision not in PRECISIONS:
            raise InputError(f"unknown precision '{precision}'; there are {', '.join(PRECISIONS)}")
        self.name, self.device = name, device
        self.batch_size, self.batch_tokens = batch_size, batch_tokens
        self._asked_precision = precision
        self._reordered = ExitStack()
        self._place, self.profile = embedders.known(name)
        self.similarity = self.profile.similarity
        self.fingerprint = _fingerprint(self._place, self.profile)

    @cached_property
    def precision(self) -> str:
        """``float32`` or ``bfloat16``."""
        if self._asked_precision != "auto":
            return self._asked_precision
        return "bfloat16" if _computes_in_bfloat16(self._torch_device) else "float32"

    def document(self, snippet: dict) -> Text:
        """What stands for a snippet: ``title: text``, or both apart."""
        if self.profile.pairs and chunking.ITEM not in snippet:
            return snippet["title"], snippet["text"]
        return chunking.embedded_text(snippet)

    def encode(self, texts: Sequence[Text], progress: Callable[[int], object] = lambda n: None) -> "np.ndarray":
        """Vectors of documents (:meth:`document`): shape ``(len(texts), dimension)``, float32, in the order given.

        ``progress`` is called with the number of texts embedded since its last call.
        """
        return self._encode(
            self.model, texts, _prompt(self.model, "document", "passage", "corpus"), "document", progress
        )

    def encode_queries(self, texts: Sequence[str]) -> "np.ndarray":
        """Vectors of queries, as :meth:`encode`, by the query encoder and with the query prefix of the model."""
        prompt = self.profile.query_prompt
        if prompt is None:
            prompt = _prompt(self._query_model, "query")
        return self._encode(self._query_model, texts, prompt, "query", lambda n: None)

    def replicas(self) -> "list[Embedder]":
        """Embedders that may work at the same time: this one on a CPU, or else two on each GPU."""
        import torch

        if self.device is not None or self._torch_device.type != "cuda":
            return [self]
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] * REPLICAS_OF_A_GPU
        return [Embedder(self.name, device, self.batch_size, self.batch_tokens, self.precision) for device in devices]

    @cached_property
    def model(self):
        """The ``SentenceTransformer`` that embeds documents.

        Raises:
            InputError: the files are not a model that sentence-transformers can load.
        """
        return self._load(self._place)

    @cached_property
    def _query_model(self):
        if self.profile.query_model is None:
            return self.model
        return self._load(embedders.beside(self._place, self.profile.query_model))

    @cached_property
    def _torch_device(self) -> "torch.device":
        import torch

        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @cached_property
    def _room(self) -> int:
        return self.batch_tokens or BATCH_TOKENS.get(self._torch_device.type, BATCH_TOKENS["cpu"])

    def _load(self, place: str):
        try:
            model = _sentence_transformer(str(Path(place).expanduser()), self.profile, self._torch_device)
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{place}: cannot be loaded as an embedder ({reason}); give another one") from error
        model.eval()
        if self.precision == "bfloat16":
            _in_bfloat16(model[0])
        if self._torch_device.type == "cpu" and model.transformers_model is not None:
            from medtasks.scoring.packing import packed_linears

            self._reordered.enter_context(packed_linears(model.transformers_model, self._room))
        return model

    def _encode(self, model, texts: Sequence[Text], prompt: str, task: str, progress) -> "np.ndarray":
        import numpy as np
        import torch

        vectors = None
        tokens = Tokens(model, texts, prompt, task)
        with torch.inference_mode():
            for rows in self._batches(tokens.lengths):
                features = {
                    name: value.to(self._torch_device, non_blocking=True) if hasattr(value, "to") else value
                    for name, value in tokens.features(rows).items()
                }
                found = model(features, task=task)["sentence_embedding"].float()
                if self.similarity == "cosine":
                    found = torch.nn.functional.normalize(found, dim=1)
                if vectors is None:
                    vectors = np.empty((len(texts), found.shape[1]), dtype=np.float32)
                vectors[rows] = found.cpu().numpy()
                progress(len(rows))
        return np.empty((0, 0), dtype=np.float32) if vectors is None else vectors

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions of the texts, longest first, as many at a time as the tokens allow with padding."""
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            full = (len(batch) + 1) * lengths[batch[0]] > self._room if batch else False
            if full or len(batch) == self.batch_size:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch


def _sentence_transformer(place: str, profile: embedders.Profile, device: "torch.device"):
    from sentence_transformers import SentenceTransformer

    if not profile.cls:
        return SentenceTransformer(place, device=str(device))
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(place)
    pooling = Pooling(transformer.get_embedding_dimension(), "cls")
    return SentenceTransformer(modules=[transformer, pooling], device=str(device))


def _in_bfloat16(encoder: "torch.nn.Module") -> None:
    """Let the first module compute in bfloat16, and give what follows, the pooling, float32."""
    import torch

    def widen(module, inputs, features: dict) -> dict:
        return {
            name: value.float() if getattr(value, "dtype", None) == torch.bfloat16 else value
            for name, value in features.items()
        }

    encoder.to(torch.bfloat16)
    encoder.register_forward_hook(widen)


def _computes_in_bfloat16(device: "torch.device") -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _prompt(model, *names: str) -> str:
    """What a model's configuration puts before texts of this kind."""
    found = [model.prompts[name] for name in names if name in model.prompts]
    return (found[0] if found else model.prompts.get(model.default_prompt_name)) or ""


def _fingerprint(place: str, profile: embedders.Profile) -> str:
    encoders = [place, *([embedders.beside(place, profile.query_model)] if profile.query_model else [])]
    content = {
        "encoders": [{"weights": models.fingerprint(encoder), "pooling": _pooling(encoder)} for encoder in encoders],
        "query_prompt": profile.query_prompt,
        "cls": profile.cls,
        "pairs": profile.pairs,
        "similarity": profile.similarity,
    }
    return files.sha256_json(content)[:16]


def _pooling(place: str) -> dict:
    folder = models.folder(place)
    if not Path(place).expanduser().is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(place, allow_patterns=["*.json"]))
    present = [file for file in POOLING_FILES if (folder / file).is_file()]
    found = {file: json.loads((folder / file).read_text(encoding="utf-8")) for file in present}
    found.get("config_sentence_transformers.json", {}).pop("__version__", None)
    return found
