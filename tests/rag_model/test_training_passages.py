"""`medadapt rag passages`: what trainers read, without the passages that hold an item."""

import gzip
import json

import pytest
from rag_doubles import ITEMS, WordEmbedder, write_corpus

from medtasks import benchmarks
from medtasks.errors import InputError
from rag_model import rag_command, training_passages
from rag_model.build import build
from rag_model.chunking import Chunking
from rag_model.index import open_index
from rag_model.retrieval import Retrieval

LEAK = (
    "A colleague was asked: which of these drugs would you give first of all to an adult with asthma? "
    "It was the first one."
)
QUESTION = "Which of these drugs would you give first of all to an adult with asthma?"


@pytest.fixture
def leaking(tmp_path):
    """An index of the little corpus with a passage that holds a training item."""
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    row = {"id": "leak", "title": "", "text": LEAK, "source": "", "license": ""}
    corpus.write_text(corpus.read_text() + json.dumps(row) + "\n")
    build(str(corpus), tmp_path / "index", WordEmbedder(), progress=False)
    return tmp_path / "index"


@pytest.fixture
def items(tmp_path):
    """A file of two training items; the corpus holds the first."""
    file = tmp_path / "items.jsonl"
    rows = [ITEMS[0] | {"id": "leaked", "question": QUESTION}, ITEMS[3]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def passages(*arguments):
    assert rag_command.rag(["passages", *map(str, arguments)]) == 0


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_an_item_without_the_passage_that_holds_it(leaking, items, tmp_path, capsys):
    out = tmp_path / "passages.jsonl"
    passages(items, "--index", leaking, "--search", "bm25", "-k", 2, "--out", out)
    first, second = lines(out)
    index = open_index(leaking)
    found = Retrieval(index, search="bm25", cache="none").find([{"question": QUESTION}, ITEMS[3]], 3)
    assert [snippet_id for snippet_id, _ in found[0]][0] == "leak#0"  # the search would show it first
    assert [p["id"] for p in first["passages"]] == [snippet_id for snippet_id, _ in found[0][1:3]]
    assert [p["id"] for p in second["passages"]] == [snippet_id for snippet_id, _ in found[1][:2]]
    assert (first["id"], first["question"]) == ("leaked", QUESTION)
    for row in (first, second):
        for passage in row["passages"]:
            assert {field: passage[field] for field in ("title", "text")} == {
                field: index.snippet(passage["id"])[field] for field in ("title", "text")
            }
    assert (
        "2 items, up to 2 passages each; 1 passages that hold their item left out, 0 items" in capsys.readouterr().out
    )


def test_another_item_may_see_what_holds_only_the_first(leaking):
    other = ITEMS[0] | {"question": "What would a colleague give first of all for asthma?"}
    retrieval = Retrieval(open_index(leaking), search="bm25", cache="none")
    [row], left_out = training_passages.found_for([other], retrieval, 3)
    assert left_out == 0 and "leak#0" in [passage["id"] for passage in row["passages"]]


def test_neighbours_come_with_a_passage_unless_they_hold_the_item(tmp_path):
    """In one passage the question stands two snippets after the best one, in another nowhere."""
    whole = "Asthma drugs for adults: first, drug, give, asthma. " + "Nothing is said here of it at all. " * 2
    rows = [{"id": "tells", "text": whole + LEAK}, {"id": "not", "text": whole + "An end without any question to it."}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(str(tmp_path / "corpus.jsonl"), tmp_path / "index", WordEmbedder(), Chunking(60, 0), progress=False)
    retrieval = Retrieval(open_index(tmp_path / "index"), search="bm25", cache="none")
    item = ITEMS[0] | {"id": "leaked", "question": QUESTION}
    for n, expected in ((0, ["tells#0", "not#0"]), (9, ["not#0"])):
        [row], left_out = training_passages.found_for([item], retrieval, 4, n)
        ids = [passage["id"] for passage in row["passages"]]
        assert [snippet_id for snippet_id in ids if snippet_id.endswith("#0")] == expected and (left_out > 0) == (n > 0)
    [shown] = row["passages"]
    assert shown["text"].startswith("Asthma drugs") and shown["text"].endswith("any question to it.")
    with pytest.raises(SystemExit):
        passages(tmp_path / "items.jsonl", "--index", tmp_path / "index", "--neighbours", -1, "--out", tmp_path / "out")


def test_a_benchmark_gives_its_training_items(little_index, tmp_path):
    for name, split in (("pubmedqa", "train"), ("medqa:validation", "validation")):
        out = tmp_path / f"{split}.jsonl"
        passages(name, "--index", little_index, "--search", "bm25", "--out", out)
        items = benchmarks.load(name.partition(":")[0], split)
        assert [row["id"] for row in lines(out)] == [item["id"] for item in items]


@pytest.mark.parametrize(
    "options",
    [
        {"options": ["one", "two"]},
        {"choices": ["one", "two"]},
        {"options": {"A": "one", "B": "two"}},
        {"opa": "one", "opb": "two"},
    ],
)
def test_options_are_read_in_every_schema(tmp_path, options):
    file = tmp_path / "items.jsonl.gz"
    with gzip.open(file, "wt") as f:
        f.write(json.dumps({"question": "Why?"} | options) + "\n")
    assert training_passages.read(str(file))[0]["options"] == ["one", "two"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    for out, message in ((tmp_path, "is a folder; give a file to write"), (f"{__file__}/x", "is not a folder")):
        with pytest.raises(InputError, match=message):
            passages("no such items", "--index", "no such index", "--out", out)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("medqa:test", None, "medqa:test: test items are for measuring; give medqa"),
        ("nonesuch", None, "unknown benchmark 'nonesuch'"),
        ("absent.jsonl", None, "absent.jsonl: no such file"),
        ("bad.jsonl", '{"text": "?"}\n', "bad.jsonl:1: no question"),
        ("bad.jsonl", "[1]\n", "bad.jsonl:1: no question"),
        ("empty.jsonl", "", "empty.jsonl: no items"),
    ],
)
def test_what_is_no_training_item_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    path = str(tmp_path / name) if name.endswith(".jsonl") else name
    with pytest.raises(InputError, match=message):
        training_passages.read(path)
