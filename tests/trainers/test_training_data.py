"""What is trained is what is asked: rendering, cleaning and counting of training examples."""

import pytest
from lm_eval.models.huggingface import HFLM

from medtasks import benchmarks, contamination, mcq
from medtasks.errors import InputError
from trainers import data
from trainers.data import CPTDataArguments, SFTDataArguments


def sft(*sources, **changes):
    return data.sft_examples(SFTDataArguments(list(sources), **({"decontaminate": False} | changes)), seed=1)


def test_an_example_is_the_prompt_and_answer_of_evaluation(write_jsonl, make_item):
    item = make_item(3)
    [row] = sft(write_jsonl([item])).rows
    assert row == {"prompt": mcq.render(item), "completion": " D"}


def test_tokens_are_those_that_the_harness_scores(base, write_jsonl, make_item):
    harness = HFLM(pretrained=base, device="cpu", batch_size=1)
    tokenizer = harness.tokenizer
    for row in sft(write_jsonl([make_item(n) for n in range(8)])).rows:
        context, answer = harness._encode_pair(row["prompt"], row["completion"])
        assert tokenizer(row["prompt"])["input_ids"] == context
        assert tokenizer(row["prompt"] + row["completion"])["input_ids"] == context + answer
        assert data.count_tokens(row, tokenizer) == len(context + answer) + 1


@pytest.mark.parametrize("chat", [False, True])
def test_a_rationale_comes_before_the_letter(write_jsonl, make_item, chat):
    path = write_jsonl([make_item(1), make_item(2) | {"rationale": ""}])
    first, second = (row["completion"] for row in sft(path, answer_style="rationale", chat=chat).rows)
    if chat:
        first, second = first[0]["content"], second[0]["content"]
    assert first.strip() == f"{make_item(1)['rationale']}\nAnswer: B" and second.strip() == "C"
    assert first.startswith(" ") is not chat


def test_chat_examples_leave_the_delimiter_to_the_template(write_jsonl, make_item):
    [row] = sft(write_jsonl([make_item(0)]), chat=True).rows
    assert row["prompt"] == [{"role": "user", "content": mcq.render(make_item(0))}]
    assert row["completion"] == [{"role": "assistant", "content": "A"}]


def test_shuffled_options_keep_the_right_answer(make_item):
    orders = set()
    for number in range(20):
        item = make_item(number)
        moved = data.shuffled(item, seed=7)
        assert moved["options"][moved["answer"]] == item["options"][item["answer"]]
        assert sorted(moved["options"]) == sorted(item["options"])
        assert moved == data.shuffled(item, seed=7)
        orders.add(tuple(item["options"].index(option) for option in moved["options"]))
    assert len(orders) > 5


@pytest.mark.parametrize(
    ("options", "free"),
    [
        (["yes", "no", "maybe"], False),
        (["Aspirin", "Heparin", "Both A and B", "None"], False),
        (["x", "y", "a, b and c", "All of the above"], False),
        (["Vitamin A", "Vitamin B", "A band", "All of the above"], True),
    ],
)
def test_only_options_that_stand_for_themselves_are_shuffled(make_item, options, free):
    assert data.may_shuffle(make_item(0) | {"options": options}, "letter") is free
    assert not data.may_shuffle(make_item(0) | {"options": options}, "rationale")


@pytest.mark.parametrize(
    ("row", "letter"),
    [
        ({"choices": ["a", "b", "c"], "answer": 2}, "C"),
        ({"choices": "['a', 'b', 'c']", "answer": "2"}, "B"),
        ({"options": ["a", "b", "c"], "answer": "b"}, "B"),
    ],
)
def test_choices_and_answers_of_every_shape(write_jsonl, row, letter):
    [example] = sft(write_jsonl([{"question": "Which?"} | row])).rows
    assert example["completion"] == f" {letter}"


@pytest.mark.parametrize(
    ("row", "completion"),
    [
        ({"Question": "Why?", "Complex_CoT": "Think.", "Response": "So."}, " Think.\n\nSo."),
        ({"instruction": "Why?", "input": "", "output": "So."}, " So."),
        ({"question": "Why?", "answer": "So."}, " So."),
    ],
)
def test_open_questions(write_jsonl, row, completion):
    [example] = sft(write_jsonl([row])).rows
    assert example == {"prompt": "Question: Why?\nAnswer:", "completion": completion}


def test_pairs_are_taken_as_they_are(write_jsonl):
    pair = {"prompt": "One, two,", "completion": " three"}
    assert sft(write_jsonl([pair])).rows == [pair]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "Which?", "choices": ["a", "b"], "answer": 2}, "names none of the 2 choices"),
        ({"question": "Which?", "choices": "none", "answer": 0}, "not a list"),
        ({"question": "Which?", "choices": ["a"], "answer": 0}, "2 to 10"),
        ({"text": "only"}, "a row needs the columns"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_named(write_jsonl, row, complaint):
    path = write_jsonl([{"prompt": "a", "completion": "b"}, row])
    with pytest.raises(InputError, match=f"items.jsonl:2: .*{complaint}"):
        sft(path)


@pytest.mark.parametrize("source", ["medqua", "nowhere.jsonl", "/no/such/folder"])
def test_an_unknown_source_is_named(source):
    with pytest.raises(InputError, match=source):
        sft(source)


def test_duplicates_are_dropped_and_caps_count_what_is_used(write_jsonl, make_item):
    rows = [make_item(0), make_item(0) | {"question": make_item(0)["question"].upper()}, make_item(1), make_item(2)]
    examples = sft(write_jsonl(rows) + ":2")
    assert examples.counts == {"read": 3, "duplicates": 1, "contaminated": 0, "too_long": 0, "used": 2}
    assert [row["prompt"] for row in examples.rows] == [mcq.render(make_item(n)) for n in (0, 1)]


def test_items_that_share_a_question_but_not_the_options_stay(write_jsonl, make_item):
    other = make_item(1) | {"question": make_item(0)["question"]}
    assert len(sft(write_jsonl([make_item(0), other])).rows) == 2


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


def test_the_fingerprint_follows_rows_and_order(write_jsonl, make_item):
    one, two = make_item(0), make_item(1)
    prints = {sft(write_jsonl(rows)).fingerprint for rows in ([one, two], [two, one], [one])}
    assert len(prints) == 3
    assert sft(write_jsonl([one, two])).fingerprint in prints
