"""A cross-encoder's scores are its own, whatever is scored beside a pair."""

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


def test_it_knows_itself_and_needs_no_loading_for_that(cross_encoder, embedder):
    reranker = Reranker(cross_encoder)
    assert len(reranker.fingerprint) == 16 and reranker.fingerprint != Reranker(str(embedder)).fingerprint
    assert "model" not in vars(reranker)


def test_what_is_no_cross_encoder_is_refused(embedder, tmp_path):
    with pytest.raises(InputError, match="no such model folder"):
        Reranker(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="gives 3 numbers for a pair, not one"):
        Reranker(_cross_encoder(embedder, tmp_path / "three", 3), "cpu").score(PAIRS)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded as a cross-encoder"):
        Reranker(str(tmp_path), "cpu").score(PAIRS)
