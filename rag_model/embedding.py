"""Texts -> unit vectors, by a sentence-transformers model."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files, models
from medtasks.errors import InputError

if TYPE_CHECKING:
    import numpy as np

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
BATCH_SIZE = 128
POOLING_FILES = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")
"""What changes vectors besides the weights: the pooling, and where a long text is cut off."""


class Embedder:
    """A sentence-transformers model, loaded when it embeds its first text.

    Attributes:
        name: Hub id or folder, as given, so that an index holds no path of the machine that built it.
        fingerprint: 16 hex digits that change with weights, pooling or maximum length, not with where the model lies.

    Raises:
        InputError: no such model, here or on the Hub.
    """

    def __init__(self, name: str = DEFAULT, device: str | None = None, batch_size: int = BATCH_SIZE):
        """``device`` is torch's name of one (default: the GPU if there is one); ``batch_size`` counts texts."""
        self.name, self.device, self.batch_size = name, device, batch_size
        self.fingerprint = _fingerprint(name)

    @cached_property
    def model(self):
        """The ``SentenceTransformer``.

        Raises:
            InputError: the files are not a model that sentence-transformers can load.
        """
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(str(Path(self.name).expanduser()), device=self.device)
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{self.name}: cannot be loaded as an embedder ({reason}); give another one") from error

    def encode(self, texts: Sequence[str]) -> "np.ndarray":
        """Unit vectors of ``texts``: shape ``(len(texts), dimension)``, float32, in the order given.

        Texts of like length run in one batch (sentence-transformers sorts them), so little time goes into padding.
        """
        import numpy as np

        vectors = self.model.encode(
            list(texts), batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def _fingerprint(name: str) -> str:
    weights = models.fingerprint(name)
    folder = models.folder(name)
    if not Path(name).is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=["*.json"]))
    present = [file for file in POOLING_FILES if (folder / file).is_file()]
    pooling = {file: json.loads((folder / file).read_text(encoding="utf-8")) for file in present}
    return files.sha256_json({"weights": weights, "pooling": pooling})[:16]
