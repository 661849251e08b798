"""`medadapt rag eval`: metrics of known value, sets whose right passages are known, a row for each retriever."""

import json
import math

import numpy as np
import pytest
from rag_doubles import WordEmbedder

from medtasks import corpora, files, sources
from medtasks.errors import InputError
from rag_model import rag_command
from rag_model.build import build
from rag_model.evaluation import measuring, metrics, sets
from rag_model.evaluation.metrics import Estimate, estimate, ndcg, recall, reciprocal_rank
from rag_model.evaluation.sets import QuestionSet
from rag_model.index import open_index
from rag_model.retrieval import Retrieval


def test_metrics_of_a_ranking_have_their_published_values():
    ranking, relevant = ["x", "a", "y", "b", "z"], {"a", "b", "c"}
    assert recall(ranking, relevant, 3) == pytest.approx(1 / 3) and recall(ranking, relevant, 5) == pytest.approx(2 / 3)
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    assert ndcg(ranking, relevant, 10) == pytest.approx(gain / (1 + 1 / math.log2(3) + 1 / 2))
    assert ndcg(ranking, relevant, 2) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert ndcg(["a", "c", "b"], relevant, 10) == 1 and ndcg(["x"], relevant, 10) == 0
    assert reciprocal_rank(ranking, relevant) == 1 / 2 and reciprocal_rank(["x"], relevant) == 0


def test_the_interval_is_that_of_the_mean_over_questions():
    values = np.random.default_rng(1).random(400) < 0.7
    found = estimate(values)
    error = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / 400)
    assert found.mean == values.mean() and found == estimate(values)
    assert found.low == pytest.approx(values.mean() - error, abs=0.008)
    assert found.high == pytest.approx(values.mean() + error, abs=0.008)
    assert estimate([0.25, 0.25, 0.25]) == Estimate(0.25, 0.25, 0.25)


def test_documents_stand_where_their_best_snippet_stands():
    assert measuring.documents([("a#1", 0.9), ("b#0", 0.8), ("a#0", 0.7), ("c~2#3", 0.6)]) == ["a", "b", "c~2"]


def test_sets_name_passages_of_the_abstracts():
    passages = {passage["id"]: passage for passage in sets.abstracts()}
    assert all(set(passage) == set(corpora.FIELDS) and passage["text"] for passage in passages.values())
    for split in sets.SPLITS:
        for questions in sets.load(["pubmedqa", "scifact", "cited"], split):
            assert len(questions.items) == len(questions.relevant) > 0
            assert frozenset().union(*questions.relevant) <= set(passages)
            assert all(questions.relevant)
    [scifact, cited] = sets.load(["scifact", "cited"], "test")
    by_claim = {item["question"]: right for item, right in zip(cited.items, cited.relevant, strict=True)}
    assert all(r <= by_claim[i["question"]] for i, r in zip(scifact.items, scifact.relevant, strict=True))
    assert sum(map(len, cited.relevant)) > sum(map(len, scifact.relevant))


def test_what_is_chosen_on_is_not_what_is_measured():
    for test, dev in zip(
        *(sets.load(["pubmedqa", "scifact", "exams"], split) for split in ("test", "dev")), strict=True
    ):
        asked = {item["question"] for item in test.items}
        assert not asked & {item["question"] for item in dev.items}
    assert [questions.name for questions in sets.load(["exams"], "test")] == ["medqa", "medmcqa", "mmlu_med"]


def test_scifacts_dev_claims_and_abstracts_are_those_of_beir(shared_data, monkeypatch):
    monkeypatch.setenv(sources.ENV, str(shared_data))
    [cited, evidence] = sets.load(["cited", "scifact"], "test")
    assert len(cited.items) == 300 and sum(map(len, cited.relevant)) == 339
    assert len(evidence.items) == 188


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The folder of an index of the sample's abstracts."""
    folder = tmp_path_factory.mktemp("sample")
    files.write_jsonl(folder / "abstracts.jsonl", sets.abstracts())
    build(str(folder / "abstracts.jsonl"), folder / "index", WordEmbedder(), progress=False)
    return folder / "index"


@pytest.fixture
def command(sample, monkeypatch, tmp_path):
    monkeypatch.setattr("rag_model.embedding.Embedder", lambda name, device=None, batch_size=1: WordEmbedder())
    monkeypatch.setattr("rag_model.retrieval.dense.Embedder", lambda name, device=None: WordEmbedder())
    monkeypatch.setattr(metrics, "RESAMPLES", 200)

    def run(*arguments, index=sample):
        assert rag_command.rag(["eval", "--index", str(index), "--out", str(tmp_path / "out"), *arguments]) == 0
        return json.loads((tmp_path / "out" / "retrieval.json").read_text())

    return run


def test_each_retriever_gets_its_row(command, sample, capsys, tmp_path):
    result = command("--search", "exact", "bm25", "rrf,fuse=rrf:0.7", "-k", "1", "5", "--sets", "scifact,pubmedqa")
    assert [(row["set"], row["retriever"]) for row in result["rows"]] == [
        (name, how) for name in ("scifact", "pubmedqa") for how in ("exact", "bm25", "rrf,fuse=rrf:0.7")
    ]
    words = result["rows"][1]
    retrieval, [claims] = Retrieval(open_index(sample), search="bm25"), sets.load(["scifact"], "test")
    found = [[name.split("#")[0] for name, _ in row] for row in retrieval.find(claims.items, 50)]
    first = [row[0] in right for row, right in zip(found, claims.relevant, strict=True)]
    ranks = [min(row.index(one) for one in right) + 1 for row, right in zip(found, claims.relevant, strict=True)]
    assert list(words["metrics"]) == ["mrr", "ndcg@10", "recall@1", "recall@5"] and words["n"] == len(claims.items)
    assert words["metrics"]["mrr"]["mean"] == pytest.approx(np.mean([1 / r for r in ranks]))
    assert words["metrics"]["recall@1"]["mean"] <= np.mean(first) <= 1
    assert (
        words["settings"]["search"] == "bm25" and words["settings"]["index"] == open_index(sample).meta["fingerprint"]
    )
    shown = capsys.readouterr().out
    assert shown == (tmp_path / "out" / "retrieval.md").read_text()
    mrr = words["metrics"]["mrr"]
    cell = f"{100 * mrr['mean']:.1f} [{100 * mrr['low']:.1f}, {100 * mrr['high']:.1f}]"
    heads = ["retriever", "recall@1", "recall@5", "ndcg@10", "mrr", "ndcg@10, difference to exact"]
    assert f"| {' | '.join(heads)} |" in shown and cell in shown


def test_differences_to_the_first_are_paired(command):
    exact, words, again = command("--search", "exact", "bm25", "exact,fuse=rrf", "--sets", "pubmedqa")["rows"]
    assert "differences" not in exact
    for metric, difference in words["differences"].items():
        expected = words["metrics"][metric]["mean"] - exact["metrics"][metric]["mean"]
        assert difference["mean"] == pytest.approx(expected) and difference["low"] <= expected <= difference["high"]
    assert all(difference == {"mean": 0, "low": 0, "high": 0} for difference in again["differences"].values())


def test_of_exams_the_words_of_options_are_looked_for(sample, monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 10)
    retrieval = Retrieval(open_index(sample), search="bm25")
    [best] = retrieval.find([{"question": "blood pressure"}], 1)
    text = retrieval.passages(best)[0]["text"]
    first, last = " ".join(text.split()[:3]).upper(), " ".join(text.split()[-2:])
    items = [
        {"question": "blood pressure", "options": [first, "no such words", "zebra"], "answer": 0},
        {"question": "blood pressure", "options": ["zebra", first, last], "answer": 0},
        {"question": "blood pressure", "options": [text.split()[0][:-1], "zebra"], "answer": 0},
    ]
    [row] = measuring.measure({"bm25": retrieval}, [QuestionSet("exam", items, None)], [1])
    means = {name: values["mean"] for name, values in row["metrics"].items()}
    assert means == pytest.approx({"right@1": 1 / 3, "wrong@1": 1 / 3, "right-wrong@1": 0})


def test_exams_can_be_asked_of_any_index(command, little_index):
    result = command("--sets", "exams", "--search", "bm25", "-k", "2", "--limit", "5", index=little_index)
    assert [(row["set"], row["n"]) for row in result["rows"]] == [("medqa", 5), ("medmcqa", 5), ("mmlu_med", 5)]
    assert list(result["rows"][0]["metrics"]) == ["right-wrong@2", "right@2", "wrong@2"]


def test_the_index_of_the_abstracts_is_built_where_there_is_none(command, tmp_path):
    made = ("--corpus", str(tmp_path / "abstracts.jsonl"), "--sets", "pubmedqa", "--search", "bm25", "-k", "1")
    first = command(*made, index=tmp_path / "new")
    assert {row["id"] for row in map(json.loads, (tmp_path / "abstracts.jsonl").open())} == {
        passage["id"] for passage in sets.abstracts()
    }
    (tmp_path / "abstracts.jsonl").unlink()
    assert command(*made, index=tmp_path / "new") == first and not (tmp_path / "abstracts.jsonl").exists()


def test_what_cannot_be_measured_is_refused(command, little_index, tmp_path):
    with pytest.raises(InputError, match="lacks .* passages to be found for pubmedqa .*--corpus FILE makes one"):
        command("--sets", "pubmedqa", index=little_index)
    with pytest.raises(InputError, match="unknown set 'medhop'; there are pubmedqa, scifact, cited, exams"):
        command("--sets", "pubmedqa,medhop")
    with pytest.raises(InputError, match="no index here"):
        command(index=tmp_path / "nothing")
    with pytest.raises(InputError, match="--search rrf,depth=3: 'depth=3' is none of query=, rerank=, fuse="):
        command("--search", "rrf,depth=3")
    with pytest.raises(InputError, match="--search exact,mmr=much: mmr must be a number, not 'much'"):
        command("--search", "exact,mmr=much")
    for option in ("--out", "--corpus"):
        with pytest.raises(InputError, match="test_rag_eval.py: is not a folder, so nothing can be written into it"):
            command("--sets", "exams", option, __file__ + "/x", index=tmp_path / "nothing")
    for argv in (["-k", "0"], ["--split", "train"]):
        with pytest.raises(SystemExit):
            command(*argv)
