import gzip
import json

import pytest

from medtasks import corpora
from medtasks.errors import InputError


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_reads_jsonl_gzip_and_medrag_rows(tmp_path):
    rows = [{"id": "a", "title": "T", "text": "one", "source": "S", "license": "L"}]
    medrag = [{"id": "b", "title": "U", "content": "two", "contents": "U. two"}]
    plain = list(corpora.read(write(tmp_path / "c.jsonl", *rows, *medrag)))
    assert plain == [
        {"id": "a", "title": "T", "text": "one", "source": "S", "license": "L"},
        {"id": "b", "title": "U", "text": "two", "source": "", "license": ""},
    ]
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as f:
        f.write((tmp_path / "c.jsonl").read_text())
    assert list(corpora.read(str(tmp_path / "c.jsonl.gz"))) == plain


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "text": "one"}, {"id": "b", "text": " "}], r"c\.jsonl:2: no text"),
        ([{"id": "a", "text": "one"}, {"id": "a", "text": "one"}], r"c\.jsonl:2: the passage 'a' comes twice"),
        ([{"id": "a", "text": "one"}, "{broken"], r"c\.jsonl:2: not a JSON object"),
        (["[1, 2]"], r"c\.jsonl:1: not a JSON object"),
        ([], "the corpus is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        list(corpora.read(write(tmp_path / "c.jsonl", *rows)))


def test_passages_that_share_an_id_get_ids_of_their_own(tmp_path):
    ids = ["a", "a", "a~2", "b", "a", "a~2"]
    corpus = write(tmp_path / "c.jsonl", *({"id": name, "text": f"text {n}"} for n, name in enumerate(ids)))
    passages = list(corpora.read(corpus))
    assert [passage["id"] for passage in passages] == ["a", "a~2", "a~2~2", "b", "a~3", "a~2~3"]
    assert passages == list(corpora.read(corpus))


def test_medquad_is_read_whole(shared_data):
    passages = list(corpora.read(str(shared_data / "corpus" / "medquad.jsonl.gz")))
    assert len(passages) == len({passage["id"] for passage in passages}) == 16_407


def test_truncated_gzip_is_named(tmp_path):
    whole = gzip.compress(
        b"".join(json.dumps({"id": str(i), "text": f"passage {i}"}).encode() + b"\n" for i in range(500))
    )
    (tmp_path / "c.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged after line"):
        list(corpora.read(str(tmp_path / "c.jsonl.gz")))


@pytest.mark.parametrize("name", ["missing.jsonl", "./nothing", "plain"])
def test_no_such_corpus(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        list(corpora.read(name))


def test_a_folder_or_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        list(corpora.read(str(tmp_path)))
    (tmp_path / "c.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="must end in"):
        list(corpora.read(str(tmp_path / "c.csv")))
