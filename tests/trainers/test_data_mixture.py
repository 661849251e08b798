"""Sources by weight: how a recipe names them, what is drawn, and what may not be learned from."""

import json
from collections import Counter

import pytest

from medtasks import mcq
from medtasks.errors import InputError
from trainers import cpt, data, sft
from trainers.data import CPTDataArguments, SFTDataArguments, account, mixture, schemas


def learned(*entries, seed=1, **changes):
    entries = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    return data.sft_examples(SFTDataArguments(entries, **({"decontaminate": False} | changes)), seed)


@pytest.fixture
def forty(write_jsonl, make_item):
    """A file of 40 items."""
    return write_jsonl([make_item(n) for n in range(40)])


@pytest.mark.parametrize(
    ("weight", "times"), [(0.5, {0: 20, 1: 20}), (2, {2: 40}), (1.3, {1: 28, 2: 12}), (1, {1: 40})]
)
def test_a_weight_is_the_share_that_is_drawn(forty, make_item, weight, times):
    examples = learned({"source": forty, "weight": weight})
    drawn = Counter(row["prompt"] for row in examples.rows)
    assert Counter(drawn[mcq.render(make_item(n))] for n in range(40)) == times
    assert examples.counts["used"] == round(40 * weight) and examples.counts["read"] == 40
    assert examples.counts.get("not_drawn", 0) == times.get(0, 0)
    assert examples.notes.get("repeated", 0) == max(0, round(40 * weight) - 40)
    assert examples.rows == learned({"source": forty, "weight": weight}).rows


def test_what_is_drawn_depends_on_the_seed(forty):
    half = {"source": forty, "weight": 0.5}
    assert learned(half, seed=1).rows != learned(half, seed=2).rows


def test_a_source_of_which_nothing_is_drawn_is_still_told(forty, write_jsonl, make_item):
    again = write_jsonl([make_item(0)], "again.jsonl")
    examples = learned(forty, again)
    assert examples.taken == {forty: 40, again: 0} and examples.sources[1]["usable"] == 0


def test_a_row_that_is_drawn_twice_is_shuffled_twice(forty):
    examples = learned({"source": forty, "weight": 2}, shuffle_options=True)
    assert examples.rows[:40] != examples.rows[40:]


def test_a_recipe_mixes_strings_and_mappings(recipe_file, forty, write_jsonl, make_item):
    general = write_jsonl(
        [{"question": "Why?", "answer": "So."}, {"question": "Who?", "answer": "I."}], "general.jsonl"
    )
    entries = [f"{forty}:4", {"source": forty, "take": 10, "weight": 0.5}, {"source": general, "replay": True}]
    stage = sft.prepare(["--config", recipe_file(sources=entries)])
    first, second, third = stage.examples.sources
    assert (first["drawn"], second["drawn"], third["drawn"]) == (4, 5, 2)
    assert stage.examples.counts["duplicates"] == 4 and stage.examples.notes == {"replay": 2}
    assert [about["replay"] for about in stage.examples.sources] == [False, False, True]
    assert list(stage.examples.taken) == stage.config["sources"]
    assert json.loads(stage.config["sources"][1]) == entries[1]
    json_given = ["--sources", json.dumps({"source": forty, "take": 3})]
    assert len(sft.prepare(["--config", recipe_file(), *json_given]).examples.rows) == 3


def test_a_source_may_be_listed_twice_for_other_columns_and_is_accounted_apart(write_jsonl):
    path = write_jsonl([{"Q": "Why?", "A": "So.", "who": "Who?", "name": ""}, {"Q": "Why?", "A": "So."}])
    columns = ({"question": "Q", "answer": "A"}, {"question": "who", "answer": "name"})
    examples = learned(*({"source": path, "columns": each} for each in columns), skip_faulty=True)
    first, second = account._sources(examples)
    assert first["source"] != second["source"] and list(examples.taken.values()) == [1, 0]
    assert (first["dropped"], second["dropped"]) == ({"duplicates": 1}, {"faulty": 2})


@pytest.mark.parametrize("again", [{}, {"weight": 0.5}, {"style": "rationale"}, {"replay": True}])
def test_the_same_rows_are_listed_once(forty, again):
    corpus = {"source": "sample", **{key: value for key, value in again.items() if key != "style"}}
    for refuse in (
        lambda: learned(forty, {"source": forty} | again),
        lambda: learned("medqa", dev_sources=["medqa", json.dumps({"source": "medqa"} | again)]),
        lambda: data.cpt_examples(CPTDataArguments(["sample", json.dumps(corpus)])),
    ):
        with pytest.raises(InputError, match="is listed twice, and duplicates are dropped; .*'weight: 2'"):
            refuse()
    first = {"source": forty, "take": 4}
    with pytest.raises(InputError, match="items.jsonl:4: is listed twice"):
        learned(first, first)


def test_parts_of_a_source_may_be_learned_in_several_styles(forty):
    examples = learned(*({"source": forty, "take": 4, "style": style} for style in ("letter", "rationale")))
    assert [(about["usable"], about["dropped"]) for about in account._sources(examples)] == [
        (4, {}),
        (4, {"duplicates": 4}),
    ]


def test_validation_splits_may_be_held_out(recipe_file):
    dev = {"source": "medqa", "split": "validation", "take": 3}
    stage = sft.prepare(["--config", recipe_file(dev_sources=[dev], max_length=2000)])
    assert len(stage.dev.rows) == 3 and len(stage.examples.rows) == 16
    assert sft.prepare(["--config", recipe_file()]).dev is None


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"source": "medqa", "wieght": 2}, "no key 'wieght' .did you mean 'weight'"),
        ({"split": "train"}, "no 'source'"),
        ({"source": "medqa", "weight": 0}, "weight is 0; it must be a number above 0"),
        ({"source": "medqa", "weight": True}, "weight is True"),
        ({"source": "medqa", "take": 1.5}, "take is 1.5; it must be a whole number"),
        ({"source": "medqa", "style": "song"}, "one of letter, rationale, free"),
        ({"source": "medqa", "columns": ["Q"]}, "columns is .* a mapping"),
        ({"source": "x.jsonl", "columns": {"anwser": "A"}}, "x.jsonl: .* 'anwser' .did you mean 'answer'.*rationale"),
        ({"source": "medqa", "columns": {"answer": "A"}}, "the columns of a benchmark are known"),
        ({"source": "medqa", "replay": "yes"}, "true or false"),
        ({"source": "medqa", "split": "test"}, "medqa: split test is for measuring"),
        ({"source": "some/data", "split": "train+test"}, "is for measuring"),
        ({"source": "openlifescienceai/medmcqa", "split": "validation"}, "holds medmcqa's test questions"),
        ({"source": "openlifescienceai/medmcqa", "split": "train+validation[:9]"}, "holds medmcqa's test questions"),
        ({"source": "qiaojin/PubMedQA/pqa_labeled", "split": "train[:600]"}, "holds pubmedqa's test questions"),
        ({"source": "medqa", "split": "nowhere"}, "medqa has no split 'nowhere'"),
        ("qiaojin/PubMedQA/pqa_labeled", "holds pubmedqa's test questions"),
        ("{source: medqa}", "not JSON"),
    ],
)
def test_what_is_no_source_is_refused(entry, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        learned(entry)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["answer_idx", "opd", "exp", "pubid", "Complex_CoT", "input", "conversations"])
def test_every_name_that_a_row_is_read_by_may_be_a_column_s(name):
    assert mixture.parse(json.dumps({"source": "x.jsonl", "columns": {name: "x"}})).columns == {name: "x"}
    assert len(set(schemas.KNOWN)) == len(schemas.KNOWN)


def test_a_file_has_no_split(forty):
    with pytest.raises(InputError, match="a file has no split"):
        learned({"source": forty, "split": "validation"})


def test_corpora_have_weights_too(recipe_file, write_jsonl):
    passages = write_jsonl([{"id": n, "text": f"Passage number {n}."} for n in range(20)], "corpus.jsonl")
    stage = cpt.prepare(
        ["--config", recipe_file(corpus=[{"source": passages, "weight": 1.5}, "sample:2"], dev_share=0.1)]
    )
    assert [about["drawn"] for about in stage.examples.sources] == [30, 2]
    assert len(stage.examples.rows) + stage.examples.counts["held_out"] == 32
    held_out = {row["text"] for row in stage.dev.rows}  # once, if drawn twice: which ones are depends on the path
    assert 0 < len(stage.dev.rows) == len(held_out) <= stage.examples.counts["held_out"]
    with pytest.raises(InputError, match="no key 'split'.*its keys are source, take, weight, replay"):
        data.cpt_examples(CPTDataArguments([json.dumps({"source": passages, "split": "train"})]))


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("medqa:500", "medqa:500"),
        ('{"source": "medqa", "split": "validation", "weight": 0.5}', "medqa validation x0.5"),
    ],
)
def test_a_source_says_what_it_is(entry, shown):
    assert str(mixture.parse(entry)) == shown


@pytest.mark.parametrize("source", ["nowhere.jsonl", "medqb", "./x/y"])
def test_an_unknown_source_is_named(source):
    with pytest.raises(InputError, match=source):
        learned(source)
    with pytest.raises(InputError, match=source):
        data.cpt_examples(CPTDataArguments([source], decontaminate=False))
