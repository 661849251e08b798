"""What is trained is what is asked, in every style; and epochs in which options change places."""

import pytest
from lm_eval.models.huggingface import HFLM

from medtasks import mcq, option_text
from trainers import data
from trainers.data import SFTDataArguments, free_form


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
        (["x", "y", "Both A and B are correct", "z"], False),
        (["x", "y", "All except A", "z"], False),
        (["x", "y", "a+c", "A/C"], False),
        (["x", "y", "z", "A only"], False),
        (["v", "w", "x", "y", "z", "u", "A and G"], False),
    ],
)
def test_only_options_that_stand_for_themselves_are_shuffled(make_item, options, free):
    assert data.may_shuffle(make_item(0) | {"options": options}, "letter") is free
    assert not data.may_shuffle(make_item(0) | {"options": options}, "rationale")


def test_options_change_places_in_every_epoch_and_mean_the_same(write_jsonl, make_item):
    items = [make_item(n) for n in range(12)]
    examples = sft(write_jsonl(items), shuffle_options=True)
    epochs = [examples.epoch(n) for n in range(3)]
    assert epochs[0] == examples.rows and epochs[1] == examples.epoch(1)
    assert len({tuple(row["prompt"] for row in epoch) for epoch in epochs}) == 3
    for epoch in epochs:
        for item, row in zip(items, epoch, strict=True):
            assert f"{row['completion'].strip()}. {item['options'][item['answer']]}\n" in row["prompt"]
    assert sft(write_jsonl(items)).epoch(2) == sft(write_jsonl(items)).rows


def test_the_fingerprint_knows_of_other_epochs(write_jsonl, make_item):
    path = write_jsonl([make_item(0)])
    prints: dict[str, set] = {}
    for seed in range(40):
        examples = data.sft_examples(SFTDataArguments([path], shuffle_options=True, decontaminate=False), seed)
        prints.setdefault(examples.rows[0]["prompt"], set()).add(examples.fingerprint)
    assert sum(map(len, prints.values())) == 40 and max(map(len, prints.values())) > 1


def test_free_answers_are_the_text_of_the_option(write_jsonl, make_item):
    alone = make_item(0) | {"question": "What is the capital of the heart?"}
    bound = make_item(1) | {"question": "Which of the following is a heart?"}
    examples = sft(write_jsonl([alone, bound]), answer_style="free", shuffle_options=True)
    assert examples.rows == [{"prompt": option_text.render(alone), "completion": f" {alone['options'][0]}"}]
    assert examples.counts["needs_its_options"] == 1 and examples.epoch(1) == examples.rows


@pytest.mark.parametrize(
    ("question", "options", "alone"),
    [
        ("What is the most likely diagnosis?", ["Gout", "Lupus"], True),
        ("Ductus arteriosus closes in response to", ["Indomethacin", "Oxygen"], True),
        ("She presents with pain following an accident. What is the next step?", ["Surgery", "Rest"], True),
        ("Which of the following is the most likely diagnosis?", ["Gout", "Lupus"], False),
        ("All are causes of gout except:", ["Beer", "Milk"], False),
        ("Which is NOT a sign of gout?", ["Tophi", "Fever"], False),
        ("True about gout is", ["It hurts", "It heals"], False),
        ("Regarding gout:", ["It hurts", "It heals"], False),
        ("In gout, uric acid:", ["It rises", "It falls"], False),
        ("What causes gout?", ["Urate", "None of the above"], False),
        ("What causes gout?", ["Urate", "Beer", "Both A and B"], False),
    ],
)
def test_questions_that_can_be_asked_alone(make_item, question, options, alone):
    assert free_form.stands_alone(make_item(0) | {"question": question, "options": options, "answer": 0}) is alone


def test_a_source_may_have_a_style_of_its_own(write_jsonl, make_item):
    import json

    path = write_jsonl([make_item(n) for n in range(2)])
    other = write_jsonl([make_item(5) | {"rationale": ""}, make_item(6)], "other.jsonl")
    examples = sft(path, json.dumps({"source": other, "style": "rationale"}))
    letters = [row["completion"] for row in examples.rows[:3]]
    assert letters == [" A", " B", " B"] and examples.rows[3]["completion"].endswith("Answer: C")
    assert examples.notes == {"without_rationale": 1}
