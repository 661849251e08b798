"""What is dropped - duplicates, test questions, what is held out, what is too long - and that it is counted."""

import json

import pytest

from medtasks import benchmarks, contamination, mcq
from medtasks.errors import InputError
from trainers import data
from trainers.data import CPTDataArguments, SFTDataArguments, collecting

pytestmark = pytest.mark.usefixtures("held_out_once")


def sft(*sources, **changes):
    return data.sft_examples(SFTDataArguments(list(sources), **({"decontaminate": False} | changes)), seed=1)


def test_duplicates_are_dropped_and_caps_count_what_is_used(write_jsonl, make_item):
    rows = [make_item(0), make_item(0) | {"question": make_item(0)["question"].upper()}, make_item(1), make_item(2)]
    examples = sft(write_jsonl(rows) + ":2")
    assert examples.counts == {"read": 3, "duplicates": 1, "contaminated": 0, "too_long": 0, "used": 2}
    assert [row["prompt"] for row in examples.rows] == [mcq.render(make_item(n)) for n in (0, 1)]


def test_items_that_share_a_question_but_not_the_options_stay(write_jsonl, make_item):
    other = make_item(1) | {"question": make_item(0)["question"]}
    assert len(sft(write_jsonl([make_item(0), other])).rows) == 2


def test_items_about_different_contexts_stay(write_jsonl, make_item):
    rows = [make_item(0) | {"context": f"Abstract {n}."} for n in (1, 2, 2)]
    assert sft(write_jsonl(rows)).counts["duplicates"] == 1


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("What lowers a pH < 7.35?", "What lowers a pH > 7.35?", True),
        ("Is Rh+ common?", "Is Rh- common?", True),
        ("Is it ↑ Na, ↓ K?", "Is it ↓ Na, ↑ K?", True),
        ("\U0001f48a", "\U0001fac0", True),
        ("Is well-known gout rare?", "Is well known Gout rare", False),
    ],
)
def test_signs_make_another_question(write_jsonl, one, other, differ):
    rows = [{"prompt": text, "completion": " Yes."} for text in (one, other)]
    assert sft(write_jsonl(rows)).counts["used"] == 1 + differ


def test_rows_without_a_prompt_are_told_apart_by_what_is_learned(write_jsonl):
    rows = [{"prompt": "", "completion": f"Document {n} in full."} for n in (1, 2, 2)]
    assert sft(write_jsonl(rows)).counts["used"] == 2


@pytest.mark.parametrize("name", ["medqa", "medmcqa_sub", "pubmedqa_sub", "mmlu_med_anatomy"])
def test_planted_test_questions_are_dropped(write_jsonl, make_item, name):
    question = max((item["question"] for item in benchmarks.load(name, "test")), key=len)
    planted = [
        make_item(0) | {"question": f"  {question.upper()} "},
        {"prompt": f"Doctor, tell me. {question} Please!", "completion": " A"},
    ]
    examples = sft(write_jsonl([*planted, make_item(1)]), decontaminate=True)
    assert examples.counts["contaminated"] == 2 and examples.counts["used"] == 1
    assert sft(write_jsonl([*planted, make_item(1)])).counts["used"] == 3


def test_training_splits_hold_no_test_question():
    examples = sft("medqa", "medmcqa", "pubmedqa", "mmlu_med", decontaminate=True)
    held_out = contamination.held_out()
    assert examples.counts["used"] > 100
    assert not any(held_out.is_contaminated(row) for row in examples.rows)


def test_too_long_examples_are_dropped_whole(base, write_jsonl, make_item):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = sft(write_jsonl([make_item(0), make_item(1) | {"context": "word " * 400}]))
    kept = data.drop_too_long(examples, tokenizer, 256)
    assert kept.counts["too_long"] == 1 and kept.rows == examples.rows[:1]
    with pytest.raises(InputError, match="max_length 8"):
        data.drop_too_long(examples, tokenizer, 8)


def test_the_fingerprint_follows_rows_and_order(write_jsonl, make_item):
    one, two = make_item(0), make_item(1)
    prints = {sft(write_jsonl(rows)).fingerprint for rows in ([one, two], [two, one], [one])}
    assert len(prints) == 3
    assert sft(write_jsonl([one, two])).fingerprint in prints


WORDS = " ".join(f"word{n}" for n in range(120))


@pytest.mark.parametrize(("share", "dropped"), [(0.0, []), (0.8, ["near", "part"]), (1.0, ["part"])])
def test_texts_that_nearly_repeat_another_may_be_dropped(write_jsonl, share, dropped):
    near, part = f"{WORDS[:-20]} something else entirely", " ".join(WORDS.split()[10:90])
    texts = {"first": WORDS, "near": near, "part": part, "other": WORDS[::-1], "short": "word1 word2 word3"}
    path = write_jsonl([{"id": name, "text": text} for name, text in texts.items()], "corpus.jsonl")
    examples = data.cpt_examples(CPTDataArguments([path], near_duplicates=share, decontaminate=False))
    assert [row["place"] for row in examples.dropped] == dropped
    assert all(row["of"] == "first" and row["reason"] == "near_duplicates" for row in examples.dropped)


def test_questions_that_differ_in_a_word_are_no_near_duplicates(write_jsonl, make_item):
    one, other = (make_item(0) | {"question": f"{WORDS} in {sex}?"} for sex in ("men", "women"))
    answers = [{"question": f"Why {n}?", "answer": WORDS} for n in range(2)]
    examples = sft(write_jsonl([one, other, *answers]), near_duplicates=0.8)
    assert examples.counts["near_duplicates"] == 1 and examples.counts["used"] == 3
    with pytest.raises(InputError, match="near_duplicates is 2"):
        sft(write_jsonl([one]), near_duplicates=2)


def test_every_dropped_row_keeps_its_place_and_reason(write_jsonl, make_item):
    test = benchmarks.load("medqa", "test")[0]
    path = write_jsonl([make_item(0), make_item(0), test | {"id": "x", "options": test["options"][::-1]}])
    duplicate, leak = sft(path, decontaminate=True).dropped
    assert duplicate == {"source": path, "place": f"{path}:2", "reason": "duplicates"}
    assert leak.pop("kind") == "reordered" and leak.pop("item") == test["id"]
    assert leak == {"source": path, "place": f"{path}:3", "reason": "contaminated"}
    assert test["question"] not in json.dumps(sft(path, decontaminate=True).dropped)


def test_what_is_held_out_is_not_learned(write_jsonl, make_item):
    train = write_jsonl([make_item(n) for n in range(10)])
    dev = write_jsonl([make_item(n) | {"options": make_item(n)["options"][::-1]} for n in (1, 4)], "dev.jsonl")
    args = SFTDataArguments([train], dev_sources=[dev], shuffle_options=True, decontaminate=False)
    examples, held = data.sft_examples(args, seed=1), data.dev_examples(args, seed=1)
    assert examples.dev.rows == held.rows
    assert examples.counts["held_out"] == 2 and examples.counts["used"] == 8
    assert len(held.rows) == 2 and held.epoch(3) == held.rows
    assert all(f"number {n}?" not in row["prompt"] for row in examples.rows for n in (1, 4))
    assert data.dev_examples(SFTDataArguments([train]), 1) is None


def test_a_held_out_chat_is_known_by_what_it_asks(write_jsonl):
    asked = ("system", "Be brief."), ("user", "Which drug slows the heart in atrial flutter?")

    def chat(reply):
        return {"messages": [{"role": role, "content": text} for role, text in (*asked, ("assistant", reply))]}

    question = {"question": "Which drug slows the heart in atrial flutter?", "answer": "Verapamil."}
    other = {"question": "Which drug lowers potassium in the blood quickly?", "answer": "Insulin."}
    path, dev = write_jsonl([chat("Diltiazem."), question, other]), write_jsonl([chat("Verapamil.")], "dev.jsonl")
    examples = sft(path, dev_sources=[dev], chat=True)
    assert examples.counts["held_out"] == 2 and examples.counts["used"] == 1


def test_rows_that_share_an_instruction_are_compared_by_the_rest(write_jsonl):
    instruction = " ".join(f"instruction{n}" for n in range(60))
    own = [" ".join(f"row{row}word{n}" for n in range(80)) for row in range(30)]
    rows = [{"prompt": f"{instruction} {text} {end}", "completion": " A"} for text in own for end in ("one", "other")]
    examples = sft(write_jsonl(rows), near_duplicates=0.9)
    assert examples.counts["near_duplicates"] == 30 and examples.counts["used"] == 30
    places = {row["place"].rpartition(":")[2]: row["of"].rpartition(":")[2] for row in examples.dropped}
    assert places == {str(2 * n): str(2 * n - 1) for n in range(1, 31)}


def test_what_is_dropped_was_not_seen(write_jsonl):
    test = max((item["question"] for item in benchmarks.load("medqa", "test")), key=len)
    words = " ".join(f"word{n}" for n in range(400))
    path = write_jsonl([{"id": "leak", "text": f"{words} {test}"}, {"id": "clean", "text": words}])
    examples = data.cpt_examples(CPTDataArguments([path], near_duplicates=0.8))
    assert [row["reason"] for row in examples.dropped] == ["contaminated"] and examples.counts["used"] == 1


def test_a_short_test_question_is_found_behind_an_instruction(write_jsonl):
    item = {"id": "t", "question": "Which nerve supplies the deltoid?", "options": ["Axillary", "Ulnar"], "answer": 0}
    check = collecting.holds_none_of(contamination.Overlap([item]))
    [draft] = sft(write_jsonl([{"instruction": "Answer.", "input": item["question"], "output": "A"}])).drafts
    assert check(draft.row, None, "") == {"kind": "stem", "item": "t"}
    assert check(draft.row | {"question": "Answer.\n\nWhich nerve?"}, None, "") is None


def test_a_vignette_told_with_other_options_is_held_out_too(write_jsonl, make_item):
    other = make_item(1) | {"options": ["x", "y", "z", "w"]}
    args = SFTDataArguments(
        [write_jsonl([other, make_item(2)])],
        dev_sources=[write_jsonl([make_item(1)], "dev.jsonl")],
        decontaminate=False,
    )
    assert data.sft_examples(args, 1).counts["held_out"] == 1


def test_an_example_must_fit_in_every_epoch(write_jsonl, make_item):
    class Tokenizer:
        """Counts one more where the long option stands last, and one for the end."""

        eos_token = "<end>"

        def __call__(self, texts, **_):
            longer = [text.split("\nAnswer:")[0].endswith("0") + text.endswith("<end>") for text in texts]
            return {"input_ids": [[0] * (10 + n) for n in longer]}

    examples = sft(write_jsonl([make_item(n) for n in range(30)]), shuffle_options=True)
    fits = [len(data.drop_too_long(examples, Tokenizer(), 11, epochs).rows) for epochs in (1, 2, 8)]
    assert 30 > fits[0] > fits[1] > fits[2]
    kept = data.drop_too_long(examples, Tokenizer(), 11, 8)
    assert len(kept.epoch(3)) == len(kept.rows) == len(kept.drafts) == kept.counts["used"]
    assert kept.counts["too_long"] == 30 - len(kept.rows) == len(kept.dropped)


def corpus(write_jsonl, n=50):
    return write_jsonl([{"id": i, "title": f"T{i}", "text": f"Passage number {i}."} for i in range(n)], "corpus.jsonl")


def test_what_is_said_of_rows_is_of_those_that_are_left(base, write_jsonl):
    from transformers import AutoTokenizer

    path = write_jsonl([{"prompt": "word " * n, "completion": " A"} for n in (1, 2, 300)])
    examples = sft(json.dumps({"source": path, "weight": 2, "replay": True}))
    assert examples.notes == {"replay": 6, "repeated": 3}
    kept = data.drop_too_long(examples, AutoTokenizer.from_pretrained(base), 100)
    assert kept.notes == {"replay": 4, "repeated": 2} and kept.counts["used"] == 4
    assert kept.dropped == [{"source": kept.dropped[0]["source"], "place": f"{path}:3", "reason": "too_long"}]


def test_held_out_passages_are_told_and_measured_once(write_jsonl):
    entry = json.dumps({"source": corpus(write_jsonl), "weight": 2})
    examples = data.cpt_examples(CPTDataArguments([entry], dev_share=0.2, decontaminate=False), seed=3)
    texts = [row["text"] for row in examples.dev.rows]
    assert len(texts) == len(set(texts)) == len(examples.dropped) > 0
    assert {row["reason"] for row in examples.dropped} == {"held_out"}
    assert examples.counts["used"] == 100 - 2 * len(texts)
    assert [source["drawn"] for source in examples.dev.sources] == [len(texts)]
    assert examples.notes["repeated"] == 50 - len(texts)


def test_a_share_of_the_passages_is_held_out(write_jsonl):
    path = corpus(write_jsonl)
    everything, train = (
        data.cpt_examples(CPTDataArguments([path], dev_share=share, decontaminate=False), 1) for share in (0.0, 0.2)
    )
    assert everything.dev is None
    assert sorted(row["text"] for row in train.rows + train.dev.rows) == sorted(row["text"] for row in everything.rows)
    assert 3 < len(train.dev.rows) < 20 and train.counts["held_out"] == len(train.dev.rows)
    for share, complaint in ((1.5, "dev_share is 1.5"), (0.0001, "leaves one side empty")):
        with pytest.raises(InputError, match=complaint):
            data.cpt_examples(CPTDataArguments([path], dev_share=share, decontaminate=False), 1)


def test_passages_that_come_twice_are_dropped_and_named(write_jsonl):
    one, other = {"id": "a", "text": "It beats."}, {"id": "a", "text": "It rests."}
    path = write_jsonl([one, other, one, other, {"text": "It beats."}], "corpus.jsonl")
    examples = data.cpt_examples(CPTDataArguments([path], decontaminate=False))
    assert examples.rows == [{"text": "It beats."}, {"text": "It rests."}]
    assert [row["place"] for row in examples.dropped] == [f"{path}:3", f"{path}:4", "corpus.jsonl:5"]
    assert {row["reason"] for row in examples.dropped} == {"duplicates"}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"text": "Fine."}, {"text": "Cut \ud83d"}], "corpus.jsonl:2: holds half of a character"),
        ([{"text": "Fine."}, {"text": None}], "corpus.jsonl:2: no text"),
        ([], "corpus.jsonl: the corpus is empty"),
    ],
)
def test_passages_that_cannot_be_read_are_named(write_jsonl, rows, complaint):
    with pytest.raises(InputError, match=complaint):
        data.cpt_examples(CPTDataArguments([write_jsonl(rows, "corpus.jsonl")], decontaminate=False))


def test_passages_become_texts(write_jsonl):
    question = max((item["question"] for item in benchmarks.load("medqa", "test")), key=len)
    passages = [
        {"id": 1, "title": "Heart > ", "text": "It beats."},
        {"id": 2, "title": "", "text": "It  BEATS"},
        {"id": 3, "title": "", "text": "Alone."},
        {"id": 4, "title": "Quiz", "text": f"Try this. {question}"},
    ]
    examples = data.cpt_examples(CPTDataArguments([write_jsonl(passages)]))
    assert examples.rows == [{"text": "Heart\n\nIt beats."}, {"text": "Alone."}]
    assert (examples.counts["duplicates"], examples.counts["contaminated"]) == (1, 1)


def test_the_same_instruction_with_another_answer_is_no_duplicate(write_jsonl):
    rows = [{"instruction": "Write a question.", "input": "", "output": f"What is {n}?"} for n in (1, 2, 2)]
    rows += [{"prompt": "Next:", "completion": f" {n}"} for n in (1, 2, 2)]
    counts = sft(write_jsonl(rows)).counts
    assert counts["duplicates"] == 2 and counts["used"] == 4


def test_a_held_out_question_is_not_learned_with_another_answer(write_jsonl):
    held_out = write_jsonl([{"question": "Why?", "answer": "So."}], "dev.jsonl")
    rows = [{"question": "Why?", "answer": "Because."}, {"question": "When?", "answer": "Now."}]
    counts = sft(write_jsonl(rows), dev_sources=[held_out]).counts
    assert counts["held_out"] == 1 and counts["used"] == 1


def test_no_rows_of_a_source_are_refused(write_jsonl):
    with pytest.raises(InputError, match="items.jsonl:0: takes no row"):
        sft(write_jsonl([{"question": "Why?", "answer": "So."}]) + ":0")
