"""Order passages by a cross-encoder, which reads query and passage together (Nogueira & Cho 2019, arXiv:1901.04085)."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import models
from medtasks.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

BATCH_SIZE = 64
CLASSIFIER = "ForSequenceClassification"
"""How the names of transformers' classes with such a head end."""
MEND = "give a cross-encoder, such as ncbi/MedCPT-Cross-Encoder or cross-encoder/ms-marco-MiniLM-L6-v2"


class Reranker:
    """A cross-encoder of sentence-transformers with one output, loaded when it scores its first pair; in bfloat16 on a
    GPU that has it.

    Args:
        name: Hub id or folder: ``ncbi/MedCPT-Cross-Encoder`` (Jin et al. 2023, doi:10.1093/bioinformatics/btad651),
            ``cross-encoder/ms-marco-MiniLM-L6-v2``, ...
        device: torch's name of one (default: the GPU if there is one).
        batch_size: pairs scored at once.

    Attributes:
        fingerprint: 16 hex digits that change with the model's weights.

    Raises:
        InputError: no such model, here or on the Hub, or one that is no cross-encoder.
    """

    def __init__(self, name: str, device: str | None = None, batch_size: int = BATCH_SIZE):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"rerank={name}: {MEND}")
        self.name, self.device, self.batch_size = name, device, batch_size
        self.fingerprint = models.fingerprint(name)
        if not _is_cross_encoder(models.folder(name)):
            raise InputError(f"rerank={name}: has no head that was trained to score a query and a passage; {MEND}")

    @cached_property
    def model(self):
        """The ``CrossEncoder``.

        Raises:
            InputError: the files cannot be loaded, or are a cross-encoder with several outputs, or without the weights
                of its head.
        """
        import torch
        from sentence_transformers import CrossEncoder

        on_gpu = torch.cuda.is_available() and (self.device or "cuda").startswith("cuda")
        dtype = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32
        try:
            model = CrossEncoder(
                str(Path(self.name).expanduser()), device=self.device, model_kwargs={"torch_dtype": dtype}
            )
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{self.name}: cannot be loaded as a cross-encoder ({reason}); give another one"
            ) from error
        if model.num_labels != 1:
            raise InputError(f"{self.name}: gives {model.num_labels} numbers for a pair, not one; give another one")
        if missing := _missing_in_head(model.model, models.folder(self.name)):
            raise InputError(f"{self.name}: lacks the weights '{missing[0]}' of its head; {MEND}")
        return model

    def score(self, pairs: Sequence[tuple[str, str]]) -> "np.ndarray":
        """How well each (query, passage) pair fits: float32, ``(len(pairs),)``, the model's logit, without a sigmoid.

        Pairs of like length run in one batch (sentence-transformers sorts them), so little time goes into padding.
        """
        import torch

        return self.model.predict(
            list(pairs), batch_size=self.batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )


def _is_cross_encoder(folder: Path) -> bool:
    """Whether a model says that it scores pairs: a classifier, or what sentence-transformers saved as a cross-encoder.
    It would load any other one too, and give it a head of random weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if any(name.endswith(CLASSIFIER) for name in config.get("architectures") or ()):
        return True
    of_library = folder / "config_sentence_transformers.json"
    return of_library.is_file() and json.loads(of_library.read_text()).get("model_type") == "CrossEncoder"


def _missing_in_head(model: "PreTrainedModel", folder: Path) -> list[str]:
    """Names of a classifier's weights that are not the body's, and that none of its ``.safetensors`` files hold, which
    would have been drawn at random; [] where there are no such files."""
    from safetensors import safe_open

    if not type(model).__name__.endswith(CLASSIFIER):
        return []
    stored = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as tensors:
            stored.update(tensors.keys())
    head = (name for name in model.state_dict() if not name.startswith(f"{model.base_model_prefix}."))
    return [name for name in head if stored and name not in stored]
