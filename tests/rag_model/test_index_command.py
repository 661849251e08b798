"""`medadapt index`: build, info and query, each refusing what it cannot use."""

import subprocess
import sys

import pytest
from rag_doubles import WordEmbedder

from medtasks.errors import InputError
from rag_model import commands, embedding


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setattr(embedding, "Embedder", lambda name, device=None, batch_size=1: WordEmbedder())
    monkeypatch.setattr("rag_model.retrieval.dense.Embedder", lambda name, device=None: WordEmbedder())


def test_build_info_query(words, corpus, tmp_path, capsys):
    out = str(tmp_path / "index")
    assert commands.index(["build", str(corpus), "--out", out]) == 0
    said = capsys.readouterr().out
    assert "index built" in said and f"index={out},k=3" in said
    assert commands.index(["build", str(corpus), "--out", out]) == 0
    assert "already complete, nothing to do" in capsys.readouterr().out
    assert commands.index(["info", out]) == 0
    assert "corpus.jsonl, 40 passages" in capsys.readouterr().out
    assert commands.index(["query", out, "Which drug is given for gout?", "-k", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("#") == 2 and "gout" in said


def test_what_cannot_be_used_is_refused(words, corpus, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        commands.index(["build", str(tmp_path / "nothing.jsonl"), "--out", str(tmp_path / "index")])
    with pytest.raises(InputError, match="the overlap"):
        commands.index(["build", str(corpus), "--out", str(tmp_path / "index"), "--chunk-size", "10"])
    with pytest.raises(InputError, match="no index here"):
        commands.index(["info", str(tmp_path)])
    for argv in (["query", str(tmp_path), "x", "-k", "0"], ["build", str(corpus)], []):
        with pytest.raises(SystemExit) as caught:
            commands.index(argv)
        assert caught.value.code == 2


def test_the_command_is_imported_without_anything_heavy():
    script = "import sys, rag_model.commands; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert not {"torch", "chromadb", "llama_index", "lm_eval", "numpy", "datasets"} & set(modules)
