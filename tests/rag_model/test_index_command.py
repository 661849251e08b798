"""`medadapt index`: build, info and query, each refusing what it cannot use."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rag_doubles import WordEmbedder

from medtasks import benchmarks
from medtasks.errors import InputError
from rag_model import commands, embedding
from rag_model.index import open_index


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setattr(embedding, "Embedder", lambda name, **_: WordEmbedder())
    monkeypatch.setattr("rag_model.retrieval.dense.Embedder", lambda name, device=None: WordEmbedder())


def test_build_info_query(words, corpus, tmp_path, capsys):
    out = str(tmp_path / "index")
    assert commands.index(["build", str(corpus), "--out", out]) == 0
    said = capsys.readouterr().out
    assert "index built" in said and f"index={out},k=3" in said
    assert commands.index(["build", str(corpus), "--out", out]) == 0
    assert "already complete, nothing to do" in capsys.readouterr().out
    assert commands.index(["info", out]) == 0
    said = capsys.readouterr().out
    assert "corpus.jsonl, 40 passages" in said and "58  made up, licence: CC0" in said and "store        chroma" in said
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
    for argv in (["query", str(tmp_path), "x \udc80"], ["build", str(corpus), "--out", "x", "--license", "\udc80"]):
        with pytest.raises(InputError, match=r"the argument '.*\\udc80' is not UTF-8"):
            commands.index(argv)
    for argv in (["query", str(tmp_path), "x", "-k", "0"], ["build", str(corpus)], []):
        with pytest.raises(SystemExit) as caught:
            commands.index(argv)
        assert caught.value.code == 2


def test_verify_says_what_is_whole_and_mends_the_store(words, corpus, tmp_path, capsys):
    out = tmp_path / "index"
    commands.index(["build", str(corpus), "--out", str(out)])
    assert commands.index(["verify", str(out)]) == 0
    assert "58 snippets, their vectors and the store (chroma) are whole" in capsys.readouterr().out
    (out / "build.json").unlink()
    with pytest.raises(InputError, match="build.json missing or damaged; run the same medadapt index build again"):
        commands.index(["verify", str(out)])
    commands.index(["build", str(corpus), "--out", str(out)])
    shutil.rmtree(out / "chroma")
    with pytest.raises(InputError, match="the store is damaged: .*no Chroma store here.*verify .* --mend") as caught:
        commands.index(["verify", str(out)])
    assert "\n" not in str(caught.value)
    assert commands.index(["verify", str(out), "--mend"]) == 0
    assert "has been filled anew" in capsys.readouterr().out
    assert commands.index(["verify", str(out), "--mend"]) == 0
    assert "filled anew" not in capsys.readouterr().out
    shard = out / "vectors" / "00000.npy"
    np.save(shard, np.load(shard)[::-1])
    with pytest.raises(InputError, match="vectors/00000.npy missing or damaged; run the same medadapt index build"):
        commands.index(["verify", str(out), "--mend"])


def test_test_items_are_kept_out_unless_told_otherwise(words, tmp_path, capsys):
    [item] = benchmarks.load("medmcqa", "test")[:1]
    [asked] = benchmarks.load("pubmedqa", "test")[:1]
    rows = [
        {"id": "clean", "text": "Water boils at 100 degrees."},
        {"id": "leak", "text": f"{item['question']} It was asked last year, and the year before."},
        {
            "id": "explained",
            "text": next(item for item in benchmarks.load("medmcqa", "test") if len(item["rationale"]) > 80)[
                "rationale"
            ],
        },
        {"id": "abstract", "text": asked["context"]},
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = {}
    for name, words in {"all": [], "evidence": ["--evidence-of", "pubmedqa"], "none": ["--no-decontaminate"]}.items():
        out = tmp_path / name
        commands.index(["build", str(corpus), "--out", str(out), "--store", "none", *words])
        kept[name] = [snippet_id.partition("#")[0] for snippet_id in open_index(out).ids]
    assert kept["none"] == ["clean", "leak", "explained", "abstract"]
    assert kept["all"] == ["clean"] and kept["evidence"] == ["clean", "abstract"]
    assert "left out     3 passages" in capsys.readouterr().out
    with pytest.raises(InputError, match="no benchmark 'nonesuch'"):
        commands.index(["build", str(corpus), "--out", str(tmp_path / "x"), "--evidence-of", "nonesuch"])


def test_the_command_is_imported_without_anything_heavy():
    script = "import sys, rag_model.commands; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert not {"torch", "chromadb", "llama_index", "lm_eval", "numpy", "datasets"} & set(modules)
