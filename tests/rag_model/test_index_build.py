"""Builds: the same inputs give the same files; nobody else writes meanwhile; damage is seen and mended."""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from index_content import SHARD_SIZE, files_of, make, stored
from rag_doubles import WordEmbedder, write_corpus

from medtasks import contamination
from medtasks.errors import InputError
from rag_model.build import build
from rag_model.chunking import Chunking
from rag_model.index import damage, open_index


def test_two_builds_give_the_same_files(corpus, tmp_path):
    for name in ("one", "two"):
        make(corpus, tmp_path / name)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert set(stored(tmp_path / "one")) == set(open_index(tmp_path / "one").ids)


def test_a_finished_index_is_left_alone(corpus, tmp_path):
    make(corpus, tmp_path / "index")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*.*") if path.name != ".lock"}
    embedder = WordEmbedder()
    assert not make(corpus, tmp_path / "index", embedder=embedder).changed
    assert embedder.n_texts == 0
    assert {path: path.stat().st_mtime_ns for path in before if "chroma" not in path.parts} == {
        path: time for path, time in before.items() if "chroma" not in path.parts
    }


def test_a_second_writer_is_refused(corpus, tmp_path):
    out = tmp_path / "index"
    refused = []

    class Meanwhile(WordEmbedder):
        def encode(self, texts, progress):
            if not refused:
                with pytest.raises(InputError, match="another process is building here") as caught:
                    make(corpus, out)
                refused.append(str(caught.value))
            return super().encode(texts, progress)

    make(corpus, out, embedder=Meanwhile())
    assert len(refused) == 1 and "\n" not in refused[0]
    open_index(out)


class Replicated(WordEmbedder):
    """Three of them work at the same time; the first to begin is the last to end."""

    def __init__(self, broken=False):
        super().__init__()
        self.broken, self.others = broken, []

    def replicas(self):
        self.others = [Replicated(self.broken) for _ in range(3)]
        return self.others

    def encode(self, texts, progress=lambda n: None):
        if texts and self.broken:
            raise InputError("this replica is broken")
        time.sleep(0.01 * len(texts) / SHARD_SIZE * (threading.get_ident() % 3))
        return super().encode(texts, progress)


def test_several_devices_share_the_shards_and_give_the_same_files(corpus, tmp_path):
    make(corpus, tmp_path / "one")
    embedder = Replicated()
    make(corpus, tmp_path / "three", embedder=embedder)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three")
    assert all(replica.n_texts > 0 for replica in embedder.others)
    with pytest.raises(InputError, match="this replica is broken"):
        make(corpus, tmp_path / "broken", embedder=Replicated(broken=True))
    assert not list((tmp_path / "broken" / "vectors").glob("*"))


def test_other_inputs_are_named_and_refused(corpus, tmp_path):
    out = tmp_path / "index"
    make(corpus, out)
    with pytest.raises(InputError, match=r"chunking size 1000 overlap 200 by sentences, now size 500 .*--overwrite"):
        make(corpus, out, chunks=Chunking(500, 0))
    with pytest.raises(InputError, match="embedder fingerprint words-64, now fingerprint words-32"):
        make(corpus, out, embedder=WordEmbedder(32))
    half = WordEmbedder()
    half.precision = "bfloat16"
    with pytest.raises(InputError, match="precision float32, now bfloat16"):
        make(corpus, out, embedder=half)
    other = write_corpus(tmp_path / "other.jsonl", 41)
    with pytest.raises(InputError, match=r"corpus corpus.jsonl \(sha256 \w+\), now other.jsonl"):
        make(other, out)
    assert make(other, out, overwrite=True).meta["corpus"]["passages"] == 41
    assert "p40#0" in open_index(out).offsets


def test_a_row_without_text_writes_nothing(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "text": "fine"}\n{"id": "b", "title": "no text"}\n')
    with pytest.raises(InputError, match="bad.jsonl:2: no text"):
        make(bad, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_folder_of_something_else_is_refused(corpus, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds 'thesis.tex', which is not part of an index"):
        make(corpus, tmp_path / "home", overwrite=True)
    with pytest.raises(InputError, match="cannot make this folder"):
        make(corpus, tmp_path / "home" / "thesis.tex")


def truncate(path: Path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("part", ["snippets.jsonl", "vectors/00001.npy"])
@pytest.mark.parametrize("harm", [truncate, os.remove])
def test_damage_is_seen_when_opening_and_mended_by_building(corpus, tmp_path, part, harm):
    out = tmp_path / "index"
    make(corpus, out)
    whole, in_store = files_of(out), stored(out)
    harm(out / part)
    with pytest.raises(InputError, match=f"{part} missing or damaged; run medadapt index build again"):
        open_index(out)
    assert make(corpus, out).changed
    assert files_of(out) == whole and stored(out) == in_store


def without(key):
    def harm(path: Path):
        content = json.loads(path.read_text())
        del content[key]
        path.write_text(json.dumps(content))

    return harm


def mend_without_embedding(corpus, out) -> None:
    embedder = WordEmbedder()
    assert make(corpus, out, embedder=embedder).changed and embedder.n_texts == 0


@pytest.mark.parametrize("part", ["build.json", "corpus.json"])
@pytest.mark.parametrize("harm", [truncate, os.remove, lambda path: path.write_text("{}")])
def test_a_record_that_only_builds_read_is_missed_by_a_thorough_look_and_written_anew(corpus, tmp_path, part, harm):
    out = tmp_path / "index"
    make(corpus, out)
    whole = files_of(out)
    harm(out / part)
    assert damage(out, open_index(out).meta, thorough=True) == [part]
    mend_without_embedding(corpus, out)
    assert files_of(out) == whole and damage(out, open_index(out).meta, thorough=True) == []


@pytest.mark.parametrize(
    "harm",
    [truncate, *(lambda path, text=text: path.write_text(text) for text in ("", "[]", "null", "{}"))]
    + [without(key) for key in ("format", "corpus", "embedder", "snippets", "vectors", "store", "sources")],
)
def test_a_damaged_index_json_is_named_and_made_again_from_what_is_there(corpus, tmp_path, harm):
    out = tmp_path / "index"
    make(corpus, out)
    whole = files_of(out)
    harm(out / "index.json")
    with pytest.raises(InputError, match="index.json: damaged; run the same medadapt index build again to mend it"):
        open_index(out)
    mend_without_embedding(corpus, out)
    assert files_of(out) == whole


def test_an_unfinished_index_without_its_records_is_begun_anew_or_refused(corpus, tmp_path):
    out = tmp_path / "index"
    make(corpus, out)
    whole = files_of(out)
    for name in ("index.json", "corpus.json"):
        (out / name).unlink()
    assert make(corpus, out).changed and files_of(out) == whole
    (out / "index.json").unlink()
    truncate(out / "build.json")
    with pytest.raises(InputError, match="build.json: damaged.*: give another --out, or --overwrite"):
        make(corpus, out)
    assert make(corpus, out, overwrite=True).changed and files_of(out) == whole


@pytest.mark.parametrize("harm", [truncate, os.remove, lambda path: path.write_bytes(b"no database" * 999)])
def test_a_damaged_store_is_seen_and_filled_anew_from_the_vectors(corpus, tmp_path, harm):
    out = tmp_path / "index"
    make(corpus, out)
    in_store = stored(out)
    harm(out / "chroma" / "chroma.sqlite3")
    with pytest.raises(InputError, match="Chroma store"):
        stored(out)
    mend_without_embedding(corpus, out)
    assert stored(out) == in_store


def test_a_changed_vector_of_the_same_size_is_mended(corpus, tmp_path):
    out = tmp_path / "index"
    make(corpus, out)
    whole = files_of(out)
    shard = out / "vectors" / "00000.npy"
    np.save(shard, np.load(shard)[::-1])
    assert make(corpus, out).changed
    assert files_of(out) == whole


def test_vectors_that_are_not_numbers_are_refused(corpus, tmp_path):
    class Broken(WordEmbedder):
        def encode(self, texts, progress):
            return super().encode(texts, progress) * np.float32("nan")

    with pytest.raises(InputError, match="not finite"):
        make(corpus, tmp_path / "index", embedder=Broken())


def test_no_index(tmp_path):
    with pytest.raises(InputError, match="no index here; build one with medadapt index build"):
        open_index(tmp_path / "nowhere")


def test_index_json_says_what_is_inside(little_index):
    meta = json.loads((little_index / "index.json").read_text())
    rows = [json.loads(line) for line in (little_index / "snippets.jsonl").open()]
    assert meta["snippets"]["count"] == len(rows) == sum(len(v) for v in open_index(little_index).shards())
    assert meta["dimension"] == 64
    assert meta["corpus"]["name"] == "corpus.jsonl" and meta["corpus"]["passages"] == 40
    assert open_index(little_index).snippet(rows[-1]["id"]) == rows[-1]
    assert not {"date", "time", "seconds"} & set(meta)


# Test items stay out


def test_passages_that_hold_a_test_item_are_left_out_and_listed(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    question = "Which of the two valves between the atria and the ventricles has three leaflets in a healthy adult?"
    item = {"id": "t1", "question": question, "options": ["mitral", "tricuspid"], "answer": 1, "context": ""}
    leak = {"id": "leak", "title": "", "text": f"Quiz of the week. {question.upper()} The answer follows."}
    corpus.write_text(corpus.read_text() + json.dumps(leak) + "\n")
    held_out = contamination.Overlap([item])
    built = build(str(corpus), tmp_path / "clean", WordEmbedder(), held_out=held_out, progress=False)
    whole = build(str(corpus), tmp_path / "whole", WordEmbedder(), progress=False)
    assert built.meta["left_out"] == 1 and "left_out" not in whole.meta
    assert built.meta["snippets"]["count"] == whole.meta["snippets"]["count"] - 1
    assert built.meta["fingerprint"] != whole.meta["fingerprint"]
    listed = (tmp_path / "clean" / "left_out.jsonl").read_text()
    assert json.loads(listed) == {"id": "leak", "item": "t1", "kind": "stem"}
    assert not any("leak" in snippet_id for snippet_id in open_index(tmp_path / "clean").ids)
    again = build(str(corpus), tmp_path / "clean", WordEmbedder(), held_out=held_out, progress=False)
    assert again == (built.meta, False)
    with pytest.raises(InputError, match="begun with held-out items fingerprint .*, now none"):
        build(str(corpus), tmp_path / "clean", WordEmbedder(), progress=False)


def test_a_corpus_of_test_items_alone_is_refused(tmp_path):
    question = "Which of the two valves between the atria and the ventricles has three leaflets in a healthy adult?"
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": "leak", "text": question}) + "\n")
    item = {"id": "t1", "question": question, "options": ["mitral", "tricuspid"], "answer": 1}
    with pytest.raises(InputError, match="all 1 passages hold a test item"):
        build(
            str(tmp_path / "corpus.jsonl"),
            tmp_path / "index",
            WordEmbedder(),
            held_out=contamination.Overlap([item]),
            progress=False,
        )
