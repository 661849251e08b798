"""Order passages by a cross-encoder, which reads query and passage together (Nogueira & Cho 2019, arXiv:1901.04085)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import models
from medtasks.errors import InputError

if TYPE_CHECKING:
    import numpy as np

BATCH_SIZE = 64


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
        InputError: no such model, here or on the Hub.
    """

    def __init__(self, name: str, device: str | None = None, batch_size: int = BATCH_SIZE):
        self.name, self.device, self.batch_size = name, device, batch_size
        self.fingerprint = models.fingerprint(name)

    @cached_property
    def model(self):
        """The ``CrossEncoder``.

        Raises:
            InputError: the files are not a cross-encoder, or one with several outputs.
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
        return model

    def score(self, pairs: Sequence[tuple[str, str]]) -> "np.ndarray":
        """How well each (query, passage) pair fits: float32, ``(len(pairs),)``, the model's logit, without a sigmoid.

        Pairs of like length run in one batch (sentence-transformers sorts them), so little time goes into padding.
        """
        import torch

        return self.model.predict(
            list(pairs), batch_size=self.batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
