"""What is searched for, from an item's fields or written by a model."""

import pytest

from medtasks.errors import InputError
from rag_model.retrieval.queries import MOST_PARTS, Query, queries

GOUT = {"question": "Which drug is given for gout?", "options": ["Allopurinol", "Aspirin"]}


def texts(item, how, write=None):
    return [query.text for query in queries([item], how, write)[0]]


def test_fields_make_the_query():
    assert texts(GOUT, "question") == ["Which drug is given for gout?"]
    assert texts(GOUT, "question+options") == ["Which drug is given for gout?\nAllopurinol\nAspirin"]
    assert texts(GOUT, "per_option") == [
        "Allopurinol\nWhich drug is given for gout?",
        "Aspirin\nWhich drug is given for gout?",
    ]


def test_other_tasks_options_are_understood():
    for options in ({"options": {"A": "Allopurinol", "B": "Aspirin"}}, {"choices": ["Allopurinol", "Aspirin"]}):
        item = {"question": GOUT["question"], **options}
        assert texts(item, "per_option") == texts(GOUT, "per_option")


def test_options_that_name_nothing_are_passed_over():
    item = GOUT | {"options": ["Allopurinol", "None of the above", "All of these", " ", "Both A and B"]}
    assert [text.splitlines()[0] for text in texts(item, "per_option")] == ["Allopurinol", "Both A and B"]
    for options in (["yes", "no", "maybe"], [], None):
        for how in ("per_option", "question+options"):
            assert texts(GOUT | {"options": options}, how) == [GOUT["question"]]


def test_a_written_passage_is_searched_for_and_the_question_reranked_by():
    asked = []

    def write(prompts):
        asked.extend(prompts)
        return [" Allopurinol lowers uric acid.\n", "  "]

    found = queries([GOUT, {"question": "And for asthma?"}], "hyde", write)
    assert found == [
        [Query("Allopurinol lowers uric acid.", GOUT["question"])],
        [Query("And for asthma?", "And for asthma?")],
    ]
    assert len(asked) == 2 and GOUT["question"] in asked[0] and "Allopurinol" not in asked[0]


def test_written_parts_are_searched_for_beside_the_question():
    written = "1. What is gout?\n- What lowers uric acid?\n\n(3) What is gout?\n* Who gets it?\nAnd why?\nAnd when?"
    found = texts(GOUT, "decompose", lambda prompts: [written] * len(prompts))
    assert found == [GOUT["question"], "What is gout?", "What lowers uric acid?", "Who gets it?"]
    assert len(found) == 1 + MOST_PARTS
    assert texts(GOUT, "decompose", lambda prompts: ["\n"]) == [GOUT["question"]]


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(InputError, match="unknown query 'options'; there are question, question"):
        queries([GOUT], "options", None)
    with pytest.raises(InputError, match="query=hyde needs a model that writes"):
        queries([GOUT], "hyde", None)
    with pytest.raises(InputError, match="no question to look up"):
        queries([{"options": ["a", "b"]}], "question", None)
