"""What is kept on disk: read again, by several processes, and never from a damaged file."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from medtasks.errors import InputError
from rag_model.retrieval.cache import Cache, file_of

VALUES = {f"key {i}": [[f"p{i}#0", i / 7]] for i in range(1_200)}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "kept" / "of_an_index.sqlite"


def test_what_was_put_is_found_bit_for_bit(file):
    Cache(file).put(VALUES)
    assert Cache(file).get(VALUES) == VALUES
    assert Cache(file).get(["key 7", "another"]) == {"key 7": VALUES["key 7"]}
    Cache(file).put({"key 7": "replaced"})
    assert Cache(file).get(["key 7"]) == {"key 7": "replaced"}


def test_without_a_file_nothing_is_kept():
    cache = Cache(None)
    cache.put(VALUES)
    assert cache.get(VALUES) == {}


def _put_and_get(file, start):
    own = dict(list(VALUES.items())[start : start + 100])
    for key, value in own.items():
        Cache(Path(file)).put({key: value})
    return Cache(Path(file)).get(own) == own


def test_several_processes_may_write(file):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.starmap(_put_and_get, [(str(file), start) for start in (0, 100, 200)]))
    assert len(Cache(file).get(VALUES)) == 300


@pytest.mark.parametrize("harm", ["no database", "truncated", "pages overwritten", "a value that is no JSON"])
def test_a_damaged_file_is_thrown_away_aloud(file, caplog, harm):
    Cache(file).put(VALUES)
    content = file.read_bytes()
    if harm == "no database":
        file.write_bytes(b"not a database, " * 1_000)
    elif harm == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "pages overwritten":
        file.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    else:
        with sqlite3.connect(file) as database:
            database.execute("UPDATE kept SET value = '[1,' WHERE key = 'key 3'")
    assert Cache(file).get(VALUES) == {}
    assert "damaged" in caplog.text and "thrown away" in caplog.text
    Cache(file).put(VALUES)
    assert Cache(file).get(VALUES) == VALUES


def test_a_damaged_file_is_thrown_away_when_written_to(file, caplog):
    file.parent.mkdir()
    file.write_bytes(b"not a database, " * 1_000)
    Cache(file).put(VALUES)
    assert "damaged" in caplog.text and Cache(file).get(VALUES) == VALUES


def test_a_file_that_is_held_by_another_is_not_thrown_away(file, monkeypatch):
    monkeypatch.setattr("rag_model.retrieval.cache.WAIT", 0.05)
    Cache(file).put(VALUES)
    with sqlite3.connect(file) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="cannot be used .database is locked.; give another cache=FOLDER"):
            Cache(file).put({"key": 1})
    assert Cache(file).get(VALUES) == VALUES


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot keep what was found there"):
        Cache(tmp_path / "file" / "kept" / "a.sqlite")


def test_where_it_lies(tmp_path, monkeypatch):
    assert file_of(tmp_path, "f") == tmp_path / "f.sqlite"
    assert file_of("none", "f") is None
    assert file_of(None, "f") is None  # as the tests' MEDADAPT_CACHE says
    monkeypatch.delenv("MEDADAPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert file_of(None, "f") == tmp_path / "medadapt" / "retrieval" / "f.sqlite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert file_of(None, "f") == Path.home() / ".cache" / "medadapt" / "retrieval" / "f.sqlite"
