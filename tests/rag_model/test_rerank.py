"""A cross-encoder's scores are its own, whatever is scored beside a pair."""

import shutil

import numpy as np
import pytest

from medtasks.errors import InputError
from rag_model.retrieval.rerank import Reranker

PAIRS = [
    ("Which drug is given for gout?", "Allopurinol lowers uric acid."),
    ("Which drug is given for gout?", "Gout. " + "A long passage about joints, their fluid and their pain. " * 20),
    ("asthma", "Salbutamol opens the airways."),
    ("asthma", "Tetanus is caused by a toxin."),
]


def _cross_encoder(embedder, folder, n_labels):
    """MiniLM with a head of drawn weights, saved as a cross-encoder."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(4242)
    CrossEncoder(str(embedder), num_labels=n_labels, device="cpu").save_pretrained(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def cross_encoder(embedder, tmp_path_factory):
    return _cross_encoder(embedder, tmp_path_factory.mktemp("cross") / "encoder", 1)


def test_pairs_get_the_models_logits_in_the_order_given(cross_encoder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    scores = Reranker(cross_encoder, "cpu", batch_size=2).score(PAIRS)
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    model = AutoModelForSequenceClassification.from_pretrained(cross_encoder).eval()
    with torch.no_grad():
        alone = [model(**tokenizer(*pair, truncation=True, return_tensors="pt")).logits.item() for pair in PAIRS]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    assert np.ptp(scores) > 1e-3


@pytest.fixture(scope="module")
def of_three(embedder, tmp_path_factory):
    return _cross_encoder(embedder, tmp_path_factory.mktemp("cross") / "three", 3)


def test_it_knows_itself_and_needs_no_loading_for_that(cross_encoder, of_three):
    reranker = Reranker(cross_encoder)
    assert len(reranker.fingerprint) == 16 and reranker.fingerprint != Reranker(of_three).fingerprint
    assert "model" not in vars(reranker)


def test_what_is_no_cross_encoder_is_refused(embedder, language_model, of_three, tmp_path):
    with pytest.raises(InputError, match="no such model folder"):
        Reranker(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="gives 3 numbers for a pair, not one"):
        Reranker(of_three, "cpu").score(PAIRS)
    (tmp_path / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    with pytest.raises(InputError, match="cannot be loaded as a cross-encoder"):
        Reranker(str(tmp_path), "cpu").score(PAIRS)
    (tmp_path / "config.json").write_text("{}")
    for other in (embedder, language_model, tmp_path):
        with pytest.raises(InputError, match="has no head that was trained .*; give a cross-encoder, such as"):
            Reranker(str(other), "cpu")
    for wrong in (3, True, "", ["a"]):
        with pytest.raises(InputError, match="rerank=.*: give a cross-encoder, such as"):
            Reranker(wrong)


def test_a_cross_encoder_without_the_weights_of_its_head_is_refused(cross_encoder, tmp_path):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(cross_encoder, tmp_path / "headless")
    weights = load_file(tmp_path / "headless" / "model.safetensors")
    body = {name: value for name, value in weights.items() if not name.startswith("classifier.")}
    save_file(body, tmp_path / "headless" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks the weights 'classifier.weight' of its head; give a cross-encoder"):
        Reranker(str(tmp_path / "headless"), "cpu").score(PAIRS)
