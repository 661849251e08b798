"""Each embedder is given what it was trained with: its pooling, prefixes, encoders; batches change nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from medtasks.errors import InputError
from rag_model import embedders
from rag_model.embedding import Embedder
from rag_model.tokens import Tokens

WORDS = "the of gout asthma drug is given for first represent this sentence searching relevant passages query :"
TITLES = ["gout", "asthma", "", "drug", "the"]
TEXTS = ["gout", "the drug given for asthma is first", "the drug " * 40, "", "for gout the first drug"]


def tiny_bert(folder: Path, seed: int) -> Path:
    """A BERT of two narrow layers with random weights, as MedCPT lies on the Hub: without modules."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.3,  # so that the first token sees the others
    )
    BertModel(config).save_pretrained(folder)
    return folder


def with_modules(folder: Path, pooling: str, prompts: dict | None = None) -> Path:
    """A tiny model with modules of sentence-transformers."""
    bert = tiny_bert(folder.with_name(folder.name + "-bert"), 1)
    modules = [Transformer(str(bert)), Pooling(32, pooling), Normalize()]
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(folder))
    return folder


def cls(folder: Path, *texts) -> np.ndarray:
    """The first token's last hidden state, by transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    tokens = tokenizer(*texts, truncation=True, padding=True, max_length=512, return_tensors="pt")
    with torch.no_grad():
        return model(**tokens).last_hidden_state[:, 0].numpy()


def test_medcpt_has_an_encoder_for_queries_and_one_for_pairs_of_title_and_text(tmp_path):
    articles = tiny_bert(tmp_path / "MedCPT-Article-Encoder", 1)
    queries = tiny_bert(tmp_path / "MedCPT-Query-Encoder", 2)
    model = Embedder(str(articles), device="cpu", precision="float32")
    snippets = [{"title": title, "text": text} for title, text in zip(TITLES, TEXTS, strict=True)]
    found = model.encode([model.document(snippet) for snippet in snippets])
    expected = cls(articles, [s["title"] for s in snippets], [s["text"] for s in snippets])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() > 0.1 and model.similarity == "dot"
    long = "asthma drug " * 60  # 120 tokens: its end counts, though MedCPT's example stops at 64
    np.testing.assert_allclose(model.encode_queries([long]), cls(queries, [long]), atol=1e-5)
    before = model.fingerprint
    BertModel.from_pretrained(articles).save_pretrained(queries)
    assert Embedder(str(articles)).fingerprint != before


def test_bge_gets_its_instruction_before_queries_alone(tmp_path):
    model = Embedder(str(with_modules(tmp_path / "bge-small-en-v1.5", "cls")), device="cpu", precision="float32")
    plain = cls(tmp_path / "bge-small-en-v1.5-bert", TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), unit(plain), atol=1e-5)
    instructed = cls(tmp_path / "bge-small-en-v1.5-bert", [f"{embedders.BGE}{text}" for text in TEXTS])
    np.testing.assert_allclose(model.encode_queries(TEXTS), unit(instructed), atol=1e-5)
    assert np.abs(model.encode_queries(TEXTS) - model.encode(TEXTS)).max() > 0.01


def test_another_model_gets_the_prompts_of_its_configuration(tmp_path):
    prompts = {"query": "query : ", "document": "passages : "}
    folder = with_modules(tmp_path / "other", "mean", prompts)
    model, reference = Embedder(str(folder), "cpu", precision="float32"), SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), reference.encode_document(TEXTS), atol=1e-5)
    np.testing.assert_allclose(model.encode_queries(TEXTS), reference.encode_query(TEXTS), atol=1e-5)
    before = model.fingerprint
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(settings.read_text().replace("query : ", "sentence : "))
    assert Embedder(str(folder)).fingerprint != before


def test_batches_change_nothing_but_rounding_and_keep_the_order(tmp_path):
    folder = with_modules(tmp_path / "model", "mean")
    whole = Embedder(str(folder), device="cpu", precision="float32").encode(TEXTS)
    for limits, batches in (({"batch_tokens": 16}, 4), ({"batch_size": 1}, 5), ({"batch_size": 3}, 2)):
        seen = []
        model = Embedder(str(folder), device="cpu", precision="float32", **limits)
        np.testing.assert_allclose(model.encode(TEXTS, seen.append), whole, atol=1e-5)
        assert sum(seen) == len(TEXTS) and len(seen) == batches
    assert whole.dtype == np.float32 and Embedder(str(folder)).encode([]).shape[0] == 0


PAIRS = list(zip(TITLES, TEXTS, strict=True))


@pytest.mark.parametrize(("texts", "prompt"), [(TEXTS, ""), (TEXTS, "query : "), (PAIRS, "")])
def test_texts_become_tokens_once_and_batches_are_those_of_the_model(tmp_path, monkeypatch, texts, prompt):
    model = SentenceTransformer(str(with_modules(tmp_path / "model", "mean")), device="cpu")
    own, asked = model.preprocess, []
    monkeypatch.setattr(model, "preprocess", lambda texts, **keys: asked.append(texts) or own(texts, **keys))
    tokens = Tokens(model, texts, prompt, "document")
    for rows in ([2, 1], [4, 0, 3], [1]):
        found = tokens.features(rows)
        expected = own([texts[row] for row in rows], prompt=prompt or None, task="document")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value) if hasattr(value, "to") else found[name] == value
        assert found["attention_mask"].sum(1).tolist() == [tokens.lengths[row] for row in rows]
    assert len(asked) == 1


def test_a_model_that_pads_in_its_own_way_makes_its_batches_itself(tmp_path):
    model = SentenceTransformer(str(with_modules(tmp_path / "model", "mean")), device="cpu")
    model.tokenizer.padding_side = "left"
    tokens = Tokens(model, TEXTS, "", "document")
    for rows in ([2, 1], [4, 0, 3]):
        expected = model.preprocess([TEXTS[row] for row in rows])
        found = tokens.features(rows)
        assert torch.equal(found["input_ids"], expected["input_ids"]) and found["input_ids"][1, 0] == 0


def test_bfloat16_is_near_float32_and_pools_in_float32(tmp_path):
    folder = with_modules(tmp_path / "model", "mean")
    exact, half = (Embedder(str(folder), device="cpu", precision=p) for p in ("float32", "bfloat16"))
    one, other = exact.encode(TEXTS), half.encode(TEXTS)
    assert half.model.transformers_model.dtype == torch.bfloat16
    assert ((one * other).sum(axis=1) > 0.998).all() and np.abs(one - other).max() > 1e-5
    np.testing.assert_allclose(np.linalg.norm(other, axis=1), 1, atol=1e-6)
    assert exact.fingerprint == half.fingerprint


def test_precision_follows_the_hardware_unless_given(tmp_path, monkeypatch):
    folder = str(with_modules(tmp_path / "model", "mean"))
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=able: able)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert Embedder(folder, device="cpu").precision == ("bfloat16" if able else "float32")
    with pytest.raises(InputError, match="unknown precision 'float16'"):
        Embedder(folder, precision="float16")


def test_every_gpu_gets_replicas_of_the_same_precision(tmp_path, monkeypatch):
    folder = str(with_modules(tmp_path / "model", "mean"))
    assert len(Embedder(folder, device="cpu").replicas()) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    replicas = Embedder(folder, batch_size=3).replicas()
    assert sorted(replica.device for replica in replicas) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert {(replica.precision, replica.batch_size) for replica in replicas} == {("bfloat16", 3)}


@pytest.mark.parametrize(
    ("name", "place", "query_model"),
    [
        ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", None),
        ("multi-qa-MiniLM-L6-cos-v1", "sentence-transformers/multi-qa-MiniLM-L6-cos-v1", None),
        ("bge-base-en-v1.5", "BAAI/bge-base-en-v1.5", None),
        ("MedCPT", "ncbi/MedCPT-Article-Encoder", "ncbi/MedCPT-Query-Encoder"),
        ("ncbi/MedCPT-Article-Encoder", "ncbi/MedCPT-Article-Encoder", "ncbi/MedCPT-Query-Encoder"),
        ("/models/MedCPT-Article-Encoder", "/models/MedCPT-Article-Encoder", "/models/MedCPT-Query-Encoder"),
        ("someone/else", "someone/else", None),
    ],
)
def test_names_and_places(name, place, query_model):
    found, profile = embedders.known(name)
    assert found == place
    assert (profile.query_model and embedders.beside(found, profile.query_model)) == query_model


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
