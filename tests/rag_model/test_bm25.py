"""BM25: the published formula, and files in the index's folder that are made once and mended."""

import json
import logging
import math
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from rag_doubles import WordEmbedder

from rag_model.build import build
from rag_model.chunking import embedded_text
from rag_model.index import open_index
from rag_model.retrieval import bm25
from rag_model.retrieval.bm25 import BM25, stems

ROOT = Path(__file__).parents[2]
QUERIES = ["Which drugs were given for gout?", "patients with sepsis or tetanus", "drug number 12 gout gout"]


@pytest.fixture
def folder(little_index, tmp_path):
    """A copy of the little index, without BM25's files."""
    return shutil.copytree(little_index, tmp_path / "index", ignore=shutil.ignore_patterns(".*", bm25.FOLDER))


@pytest.fixture
def made(monkeypatch):
    """Counts how often words are counted."""
    times, make = [], BM25._made
    monkeypatch.setattr(BM25, "_made", lambda self: times.append(1) or make(self))
    return times


def by_the_formula(query, texts):
    """Robertson & Zaragoza's sum with Lucene's idf, log(1 + (N - n + 0.5) / (n + 0.5))."""
    counted = [Counter(stems(text)) for text in texts]
    mean_length = sum(map(Counter.total, counted)) / len(texts)
    scores = np.zeros(len(texts))
    for word in stems(query):
        n = sum(word in counts for counts in counted)
        idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
        for i, counts in enumerate(counted):
            norm = bm25.K1 * (1 - bm25.B + bm25.B * counts.total() / mean_length)
            scores[i] += idf * counts[word] / (counts[word] + norm)
    return scores


def test_scores_are_those_of_the_formula(folder):
    index = open_index(folder)
    texts = [embedded_text(index.snippet(name)) for name in index.ids]
    ids, scores = BM25(index).search(QUERIES, 5)
    for query, own, row in zip(QUERIES, ids, scores, strict=True):
        expected = by_the_formula(query, texts)
        order = np.argsort(-expected.astype(np.float32), kind="stable")[:5]
        assert own == [index.ids[i] for i in order]
        np.testing.assert_allclose(row, expected[order], rtol=1e-5)


def test_words_are_compared_by_their_stems_and_stopwords_left_out():
    assert stems("The Tablets, and a TABLET!") == ["tablet", "tablet"]
    assert stems("vitamin K and β-blockers") == ["vitamin", "k", "β", "blocker"]


def test_only_snippets_that_share_a_word_are_found(folder):
    ids, scores = BM25(open_index(folder)).search(["zebra", "", "gout zebra"], 40)
    assert ids[0] == ids[1] == [] and np.isneginf(scores[:2]).all()
    assert 0 < len(ids[2]) < 40
    assert (scores[2][: len(ids[2])] > 0).all() and np.isneginf(scores[2][len(ids[2]) :]).all()


def test_many_queries_in_threads_give_what_each_gives_alone(folder, monkeypatch):
    monkeypatch.setattr(bm25, "BLOCK", 2 * len(open_index(folder).ids))
    searcher = BM25(open_index(folder))
    ids, scores = searcher.search(QUERIES * 5, 4)
    alone = [searcher.search([query], 4) for query in QUERIES] * 5
    assert ids == [own[0] for own, _ in alone]
    assert (scores == np.concatenate([row for _, row in alone])).all()


def test_no_queries_find_nothing(folder):
    ids, scores = BM25(open_index(folder)).search([], 3)
    assert ids == [] and scores.shape == (0, 3)


def test_files_are_made_once_and_are_the_same_bytes_again(folder, made):
    first = BM25(open_index(folder)).search(QUERIES, 3)
    contents = {file.name: file.read_bytes() for file in (folder / bm25.FOLDER).iterdir()}
    again = BM25(open_index(folder)).search(QUERIES, 3)
    assert len(made) == 1 and first[0] == again[0] and (first[1] == again[1]).all()
    shutil.rmtree(folder / bm25.FOLDER)
    BM25(open_index(folder)).search(QUERIES, 3)
    assert len(made) == 2
    assert {file.name: file.read_bytes() for file in (folder / bm25.FOLDER).iterdir()} == contents


def test_several_at_once_make_them_once(folder, made):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: BM25(open_index(folder)).search(QUERIES, 3)[0], range(4)))
    assert len(made) == 1 and all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("harm", ["truncated", "changed", "missing", "unreadable settings"])
def test_what_is_damaged_is_made_again_with_a_warning(folder, made, caplog, harm):
    expected = BM25(open_index(folder)).search(QUERIES, 3)[0]
    data = folder / bm25.FOLDER / "data.csc.index.npy"
    content = bytearray(data.read_bytes())
    if harm == "truncated":
        data.write_bytes(content[:-50])
    elif harm == "changed":
        content[-3] ^= 1
        data.write_bytes(content)
    elif harm == "missing":
        data.unlink()
    else:
        (folder / bm25.FOLDER / bm25.SETTINGS).write_text("{")
    with caplog.at_level(logging.WARNING):
        assert BM25(open_index(folder)).search(QUERIES, 3)[0] == expected
    assert len(made) == 2 and "made again" in caplog.text
    assert BM25(open_index(folder)).search(QUERIES, 3)[0] == expected and len(made) == 2


def test_other_settings_or_another_index_are_not_taken_for_the_same(folder, made, tmp_path, caplog):
    BM25(open_index(folder)).search(QUERIES, 3)
    BM25(open_index(folder), k1=0.9).search(QUERIES, 3)
    assert len(made) == 2 and "other settings" in caplog.text
    corpus = tmp_path / "other.jsonl"
    corpus.write_text(json.dumps({"id": "one", "text": "Gout is a disease of joints."}))
    build(str(corpus), folder, WordEmbedder(), overwrite=True, progress=False)
    assert BM25(open_index(folder), k1=0.9).search(["gout"], 3)[0] == [["one#0"]]


def test_where_they_cannot_be_written_words_are_counted_in_memory(folder, caplog):
    expected = BM25(open_index(folder)).search(QUERIES, 3)[0]
    shutil.rmtree(folder / bm25.FOLDER)
    (folder / bm25.FOLDER).write_text("in the way")
    assert BM25(open_index(folder)).search(QUERIES, 3)[0] == expected
    assert "cannot be written" in caplog.text


def test_jax_is_kept_off_the_gpu_while_bm25s_is_imported_and_left_alone_then():
    """Where it is installed, bm25s makes it compute something when it is imported."""
    code = """
import os, sys, types
os.environ["JAX_PLATFORMS"] = "cuda"
seen = []
jax = types.ModuleType("jax")
jax.lax = types.ModuleType("jax.lax")
jax.lax.top_k = lambda *_: seen.append(os.environ["JAX_PLATFORMS"])
sys.modules |= {"jax": jax, "jax.lax": jax.lax}
from rag_model.retrieval.bm25 import stems
assert stems("the lungs") == ["lung"]
assert set(seen) == {"cpu"} and os.environ["JAX_PLATFORMS"] == "cuda", seen
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
