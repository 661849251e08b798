"""Passages become snippets: short ones stay whole, long ones lose nothing, ids and origin are carried."""

import pytest

from medtasks.errors import InputError
from rag_model.chunking import Chunking, embedded_text, split

PASSAGE = {"id": "p", "title": "Gout", "text": "", "source": "book", "license": "CC0"}


def test_a_short_passage_stays_as_it_is():
    text = "  Uric acid.\n\nTreat early.  "
    assert list(split([PASSAGE | {"text": text}], Chunking())) == [PASSAGE | {"id": "p#0", "text": text}]


def test_a_long_passage_is_cut_at_sentences_and_loses_none():
    sentences = [f"Sentence number {i} says something about gout." for i in range(200)]
    snippets = list(split([PASSAGE | {"text": " ".join(sentences)}], Chunking(size=500, overlap=100)))
    assert [s["id"] for s in snippets] == [f"p#{n}" for n in range(len(snippets))]
    assert all(len(s["text"]) <= 500 for s in snippets)
    assert all(s["text"].startswith("Sentence") and s["text"].endswith("gout.") for s in snippets)
    assert {(s["title"], s["source"], s["license"]) for s in snippets} == {("Gout", "book", "CC0")}
    assert all(any(sentence in s["text"] for s in snippets) for sentence in sentences)
    for one, next_one in zip(snippets, snippets[1:], strict=False):
        assert next_one["text"].split(". ")[0] in one["text"]  # the overlap


def test_medrags_way_cuts_at_paragraphs_then_lines_then_words():
    paragraphs = [
        "First paragraph of forty characters here.",
        "Second one.",
        "A third paragraph, which is much longer " * 4,
    ]
    snippets = list(split([PASSAGE | {"text": "\n\n".join(paragraphs)}], Chunking(60, 15, "recursive")))
    texts = [s["text"] for s in snippets]
    assert texts[0] == "\n\n".join(paragraphs[:2])
    assert all(len(text) <= 60 for text in texts)
    for one, next_one in zip(texts[1:], texts[2:], strict=False):
        shared = max(n for n in range(16) if one.endswith(next_one[:n]))
        assert 0 < shared <= 15 and not next_one[:shared].startswith(" ")
    assert {word for text in texts for word in text.split()} == set(" ".join(paragraphs).split())


def test_both_ways_keep_every_word_and_the_size():
    text = "\n".join(f"Line {i}. It says that {'very ' * (i % 9)}little is known.\n" for i in range(120))
    for way in ("sentences", "recursive"):
        pieces = [s["text"] for s in split([PASSAGE | {"text": text}], Chunking(by=way))]
        assert len(pieces) > 5 and all(len(piece) <= 1000 for piece in pieces)
        assert all(f"Line {i}." in " ".join(pieces) for i in range(120))
    with pytest.raises(InputError, match="unknown chunking 'words'; there are sentences, recursive"):
        Chunking(by="words")


def test_text_without_any_place_to_cut_is_cut_anyway():
    for way in ("sentences", "recursive"):
        snippets = list(split([PASSAGE | {"text": "x" * 2500}], Chunking(size=1000, overlap=0, by=way)))
        assert "".join(s["text"] for s in snippets) == "x" * 2500


def test_it_needs_no_network_nor_downloaded_data(monkeypatch, tmp_path):
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "nothing"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    assert len(list(split([PASSAGE | {"text": "A sentence. " * 300}], Chunking()))) > 1


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (100, 100), (100, -1)])
def test_senseless_sizes_are_refused(size, overlap):
    with pytest.raises(InputError, match="overlap"):
        Chunking(size, overlap)


def test_the_title_is_embedded_with_the_text():
    assert embedded_text(PASSAGE | {"text": "Hurts."}) == "Gout: Hurts."
    assert embedded_text(PASSAGE | {"text": "Hurts.", "title": ""}) == "Hurts."
