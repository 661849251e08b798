import gzip
import json

import httpx
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
        {"id": "b", "title": "U", "text": "two", "source": "c.jsonl", "license": "unknown"},
    ]
    assert [p["license"] for p in corpora.read(str(tmp_path / "c.jsonl"), license="MIT")] == ["L", "MIT"]
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as f:
        f.write((tmp_path / "c.jsonl").read_text())
    packed = list(corpora.read(str(tmp_path / "c.jsonl.gz")))
    assert [p | {"source": ""} for p in packed] == [p | {"source": ""} for p in plain]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "text": "one"}, {"id": "b", "text": " "}], r"c\.jsonl:2: no text"),
        ([{"id": "a", "text": "one"}, {"id": "a", "text": "one"}], r"c\.jsonl:2: the passage 'a' comes twice"),
        ([{"id": "a", "text": "one"}, "{broken"], r"c\.jsonl:2: not a JSON object"),
        (["[1, 2]"], r"c\.jsonl:1: not a JSON object"),
        (["[" * 100_000], r"c\.jsonl:1: not a JSON object .*recursion"),
        (['{"id": ' + 5_000 * "1" + "}"], r"c\.jsonl:1: not a JSON object .*digits"),
        ([{"text": "a"}, {"text": 5}], r"c\.jsonl:2: 'text' is a number, not a string"),
        ([{"text": True}], r"c\.jsonl:1: 'text' is true or false, not a string"),
        ([{"text": "", "content": ["a"]}], r"c\.jsonl:1: 'content' is a list, not a string"),
        ([{"text": None}], r"c\.jsonl:1: no text"),
        ([{"text": "a \U0001f600"}, {"text": "a \ud800 b"}], r"c\.jsonl:2: holds half of a character .*'\\ud800'"),
        ([{"id": "\udfff", "text": "a"}], r"c\.jsonl:1: holds half of a character .*'\\udfff'.*; replace it"),
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


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"text": "Öl"}\n'.encode("latin-1"), "not UTF-8 after line 0"),
        (b'[\n{"text": "a"}\n]', "the file no array of them"),
    ],
)
def test_files_of_another_kind_are_told(tmp_path, content, complaint):
    (tmp_path / "c.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        list(corpora.read(str(tmp_path / "c.jsonl")))


@pytest.mark.parametrize("name", ["missing.jsonl", "./nothing", "plain"])
def test_no_such_corpus(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        list(corpora.read(name))


def test_a_path_that_is_not_there_may_look_like_a_datasets_name():
    what = "data/nothing: no such file or folder, and as a dataset: MEDTASKS_DATA: no folder"
    with pytest.raises(InputError, match=what):
        corpora.locate("data/nothing").version()
    with pytest.raises(InputError, match=what):
        list(corpora.read("data/nothing:5"))


def test_half_a_character_of_a_document_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setattr("medtasks.documents.rows", lambda file, name: [(name, {"text": "a \ud800"})])
    with pytest.raises(InputError, match=r"a.txt: holds half of a character"):
        list(corpora.read(str(tmp_path / "a.txt")))


def test_names_that_are_not_utf_8_are_refused(tmp_path):
    (tmp_path / "a\udc80.jsonl").write_text('{"text": "a"}\n')
    for corpus in (tmp_path, tmp_path / "a\udc80.jsonl"):
        with pytest.raises(InputError, match=r"a\\udc80.jsonl': the name is not UTF-8"):
            corpora.locate(str(corpus)).version()


def test_another_kind_of_file_or_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no .jsonl, .* file in this folder"):
        list(corpora.read(str(tmp_path)))
    (tmp_path / "c.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="must end in"):
        list(corpora.read(str(tmp_path / "c.csv")))


def test_several_corpora_are_one_and_each_may_be_limited(tmp_path):
    one = write(tmp_path / "one.jsonl", *({"id": str(i), "text": f"one {i}"} for i in range(5)))
    two = write(tmp_path / "two.jsonl", *({"id": str(i), "text": f"two {i}"} for i in range(5)))
    passages = list(corpora.read(f"{one}:2", two, "sample:1"))
    assert [p["id"] for p in passages[:7]] == ["0", "1", "0~2", "1~2", "2", "3", "4"] and len(passages) == 8
    assert [p["source"] for p in passages[:3]] == ["one.jsonl", "one.jsonl", "two.jsonl"]
    with pytest.raises(InputError, match="the passage '0' comes twice"):
        list(corpora.read(one, one))


def test_medmcqa_is_no_corpus(tmp_path):
    row = {"id": "a", "question": "Q", "opa": "x", "cop": 1, "exp": "Because.", "text": "Because."}
    with pytest.raises(InputError, match="c.jsonl:1: has a field 'exp', where MedMCQA explains"):
        list(corpora.read(write(tmp_path / "c.jsonl", row)))


def test_a_dataset_in_medrags_schema_is_streamed(tmp_path, monkeypatch):
    chunks = tmp_path / "hub" / "MedRAG" / "textbooks" / "chunk"
    chunks.mkdir(parents=True)
    write(
        chunks / "Anatomy.jsonl",
        *({"id": f"A_{i}", "title": "T", "content": f"c {i}", "contents": f"T. c {i}"} for i in range(9)),
    )
    monkeypatch.setenv("MEDTASKS_DATA", str(tmp_path / "hub"))
    passages = list(corpora.read("MedRAG/textbooks:4"))
    assert passages[3] == {"id": "A_3", "title": "T", "text": "c 3", "source": "MedRAG/textbooks", "license": "unknown"}
    assert len(passages) == 4 and len(list(corpora.read("MedRAG/textbooks"))) == 9
    before = corpora.locate("MedRAG/textbooks").version()
    assert corpora.locate("MedRAG/textbooks:3").version() == before
    write(chunks / "Biology.jsonl", {"id": "B", "title": "T", "content": "c", "contents": "T. c"})
    assert corpora.locate("MedRAG/textbooks").version() != before
    with pytest.raises(InputError, match="no folder .*MedRAG/pubmed"):
        list(corpora.read("MedRAG/pubmed"))


def test_a_stream_that_breaks_off_is_named(monkeypatch):
    def rows(*_, **__):
        yield {"text": "the first"}
        raise httpx.ReadError("connection reset")

    monkeypatch.setenv("MEDTASKS_DATA", "hub")
    monkeypatch.setattr("datasets.load_dataset", rows)
    read = corpora.read("MedRAG/pubmed")
    assert next(read)["text"] == "the first"
    with pytest.raises(InputError, match="cannot load MedRAG/pubmed, split train: connection reset; check the network"):
        next(read)


def test_a_hub_dataset_is_streamed_and_known_by_its_commit(on_hub):
    script = (
        "from medtasks import sources\nfrom itertools import islice\n"
        "print(len(list(islice(sources.stream_rows('openlifescienceai/medmcqa', 'train'), 3))))\n"
        "print(len(sources.version('openlifescienceai/medmcqa')))"
    )
    assert on_hub(script).split() == ["3", "40"]
