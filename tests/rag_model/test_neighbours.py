"""What stands before and after a found snippet is shown with it, once, and named in the sidecar."""

import json

import pytest
from rag_doubles import ITEMS, WordEmbedder, evaluate, instance

from medtasks import mcq
from medtasks.errors import InputError
from rag_model import chunking
from rag_model.build import build
from rag_model.chunking import Chunking
from rag_model.context import Context, Passage
from rag_model.index import open_index
from rag_model.neighbours import stretches
from rag_model.open_book import Layout, opened
from rag_model.retrieval import Retrieval

WORDS = ("gout", "asthma", "sepsis", "measles", "tetanus")
LONG = " ".join(f"Sentence {n} tells of {word}." for n, word in enumerate(WORDS))
CUT = Chunking(size=60, overlap=30)
"""Of LONG it makes four snippets of two sentences, each with the last of the one before."""


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neighbours")
    rows = [{"id": f"p{n}", "text": text} for n, text in enumerate((LONG, LONG.replace("Sentence", "Line"), "Alone."))]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(str(folder / "corpus.jsonl"), folder / "index", WordEmbedder(), CUT, store_spec="none", progress=False)
    return open_index(folder / "index")


def found(index, *ids, n=1):
    made = stretches(index, [(snippet_id, 1.0 - i / 10) for i, snippet_id in enumerate(ids)], n)
    return [(one.found, one.ids[0], one.ids[-1], one.score) for one in made]


def test_a_snippet_brings_those_beside_it_as_far_as_the_passage_goes(index):
    assert [i for i in index.ids if i.startswith("p0")] == ["p0#0", "p0#1", "p0#2", "p0#3"]
    assert found(index, "p0#0") == [("p0#0", "p0#0", "p0#1", 1.0)]
    assert found(index, "p0#2") == [("p0#2", "p0#1", "p0#3", 1.0)]
    assert found(index, "p0#3", n=9) == [("p0#3", "p0#0", "p0#3", 1.0)]
    assert found(index, "p2#0") == [("p2#0", "p2#0", "p2#0", 1.0)]


def test_those_that_meet_become_one_passage_at_the_better_place(index):
    both = [("p0#3", "p0#0", "p0#3", 1.0), ("p1#0", "p1#0", "p1#1", 0.9)]
    assert found(index, "p0#3", "p1#0", "p0#0") == both
    assert found(index, "p0#3", "p1#0", "p0#0", n=0) == [
        ("p0#3", "p0#3", "p0#3", 1.0),
        ("p1#0", "p1#0", "p1#0", 0.9),
        ("p0#0", "p0#0", "p0#0", 0.8),
    ]
    assert found(index, "p0#0", "p0#1", n=0) == [("p0#0", "p0#0", "p0#0", 1.0), ("p0#1", "p0#1", "p0#1", 0.9)]


@pytest.mark.parametrize("by", chunking.WAYS)
@pytest.mark.parametrize("overlap", [0, 30])
def test_joined_snippets_are_the_passage_but_for_blanks(by, overlap):
    text = LONG + "\n\n" + LONG.replace("Sentence", "Line") + " " + "".join(map(str, range(60)))
    passage = {"id": "p", "title": "", "text": text, "source": "", "license": ""}
    pieces = [snippet["text"] for snippet in chunking.split([passage], Chunking(60, overlap, by))]
    assert len(pieces) > 5
    assert "".join(chunking.joined(pieces, overlap).split()) == "".join(text.split())


def test_what_neighbours_have_in_common_by_chance_stays():
    assert chunking.joined(["Marathon Runners", "Runners show it"], 50) == "Marathon Runners\nRunners show it"
    repeated = "It is so with all of them."
    assert chunking.joined([f"One. {repeated}", f"{repeated} Two."], 50) == f"One. {repeated} Two."
    assert chunking.joined([f"One. {repeated}", f"{repeated} Two."], 0) == f"One. {repeated}\n{repeated} Two."


@pytest.mark.parametrize("kind", ["retrieved", "shuffled", "random"])
def test_control_arms_get_neighbours_too(index, kind):
    docs = {("little", n): item for n, item in enumerate(ITEMS)}
    own, wide = (Context(kind, Retrieval(index, embedder=WordEmbedder()), 2, neighbours=n).of(docs) for n in (0, 1))
    assert any(passage.shows for passages in wide.values() for passage in passages)
    for key, passages in own.items():
        texts = [passage.snippet["text"] for passage in wide[key]]
        assert all(any(passage.snippet["text"] in text for text in texts) for passage in passages)
        assert wide[key][0].snippet["id"] == passages[0].snippet["id"] and not passages[0].shows


def test_items_are_shown_them_and_the_sidecar_names_them(index, rag, asked, tmp_path):
    how = {"index": str(index.folder), "k": 2, "neighbours": 1, "search": "bm25", "sidecar": str(tmp_path)}
    results = evaluate("rag", rag(**how))
    assert results["config"]["rag_neighbours"] == 1
    rows = {row["item"]: row for row in map(json.loads, (tmp_path / "little.jsonl").open())}
    shown = [passage["shows"] for passage in rows["item-measles"]["passages"]]
    assert shown in ([["p0#1", "p0#2", "p0#3"], ["p1#1", "p1#2", "p1#3"]], [["p0#1", "p0#2", "p0#3"]])
    prompt = next(prompt for prompt, _ in asked if "first for measles" in prompt)
    assert "Sentence 1 tells of asthma. Sentence 2" in prompt and prompt.count("Sentence 3") == 1


def test_neighbours_are_given_up_before_what_was_found(index):
    """A budget with room for one snippet of two sentences, not for three."""
    alone = index.snippet("p0#2")
    passage = Passage({**alone, "text": LONG}, 0.5, ("p0#1", "p0#2", "p0#3"), alone)
    key, requests = ("little", 0), [instance(mcq.render(ITEMS[0]), ITEMS[0])]

    class Room:
        def __init__(self, characters):
            self.characters = characters

        def allows(self, snippets, doc):
            return sum(len(snippet["text"]) for snippet in snippets) <= self.characters

        def window(self, method, group):
            return lambda prompt: True

    for room, text, shows, n_cut in ((500, LONG, passage.shows, 0), (70, alone["text"], (), 1)):
        book = opened(Layout(), Room(room), "loglikelihood", key, requests, [passage])
        assert text in book.requests[0][0].args[0] and (book.n_cut, book.shown[0].shows) == (n_cut, shows)
    book = opened(Layout(), Room(20), "loglikelihood", key, requests, [passage])
    assert LONG[:10] not in book.requests[0][0].args[0] and alone["text"][:10] in book.requests[0][0].args[0]


def test_another_number_answers_anew_and_a_wrong_one_is_refused(index, rag):
    from rag_model.lm import RAG

    prints = {RAG(**rag(index=str(index.folder), neighbours=n)).fingerprint for n in (0, 1, 2)}
    assert len(prints) == 3
    for wrong in (-1, "1", 0.5):
        with pytest.raises(InputError, match=f"neighbours={wrong}: must be a whole number, 0 or more"):
            RAG(**rag(index=str(index.folder), neighbours=wrong))
