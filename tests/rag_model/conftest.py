"""An index over a little corpus, and lm-eval's registry with `rag` and a recording model in it."""

import os

import lm_eval.models  # noqa: F401 (the built-in models first)
import pytest
from lm_eval.api.registry import model_registry
from rag_doubles import Recorder, WordEmbedder, write_corpus

from rag_model.build import build

os.environ["MEDADAPT_CACHE"] = "none"

for name, model in {"rag": "rag_model.lm:RAG", "recorder": Recorder}.items():
    if name not in model_registry:
        model_registry.register(name, target=model)


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl")


@pytest.fixture(scope="session")
def little_index(tmp_path_factory):
    """The folder of a finished index; not to be changed."""
    folder = tmp_path_factory.mktemp("little")
    build(str(write_corpus(folder / "corpus.jsonl")), folder / "index", WordEmbedder(), shard_size=16, progress=False)
    return folder / "index"


@pytest.fixture
def asked():
    """What the recording model was asked in this test: a list of request arguments."""
    Recorder.asked = []
    return Recorder.asked


@pytest.fixture
def rag(little_index):
    """Model arguments of `rag` over the little index, with the recording model inside."""

    def arguments(**changes):
        return {"inner": "recorder", "index": str(little_index), "embedder": WordEmbedder(), "k": 2} | changes

    return arguments
