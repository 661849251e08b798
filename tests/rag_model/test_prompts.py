"""Passages go directly before the item that is asked, and nothing else in a prompt moves."""

import json

import pytest
from lm_eval.models.api_models import JsonChatStr
from rag_doubles import ITEMS

from medtasks import mcq
from medtasks.errors import InputError
from rag_model import prompts

PASSAGES = [{"title": "Best", "text": "Near."}, {"title": "", "text": "Far."}]
BLOCK = "Reference passages:\n\nFar.\n\nBest: Near.\n\n"
ITEM, OTHER = ITEMS[0], ITEMS[1]


def test_alone_it_is_the_rendering_with_passages():
    assert prompts.insert(mcq.render(ITEM), ITEM, "t", PASSAGES) == mcq.render(ITEM, PASSAGES)


def test_few_shot_examples_stay_as_they_are_even_if_they_show_the_same_item():
    shots = f"Answer these.\n\n{mcq.render(OTHER)} B\n\n{mcq.render(ITEM)} A\n\n"
    assert prompts.insert(shots + mcq.render(ITEM), ITEM, "t", PASSAGES) == shots + mcq.render(ITEM, PASSAGES)


def test_a_chat_template_stays_around_it():
    before, after = "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    prompt = prompts.insert(before + mcq.render(ITEM) + after, ITEM, "t", PASSAGES)
    assert prompt == before + mcq.render(ITEM, PASSAGES) + after


def test_an_abstract_belongs_to_its_item():
    item = ITEM | {"context": "We asked 12 patients."}
    assert prompts.insert(mcq.render(item), item, "t", PASSAGES) == mcq.render(item, PASSAGES)
    foreign = f"Abstract: We asked 12 patients.\nQuestion: {item['question']}\nAnswer:"
    assert prompts.insert(foreign, item, "t", PASSAGES) == BLOCK + foreign


QUESTION = "What is gout?"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"Question: {QUESTION}\nChoices:\nA. x\nAnswer:"),
        ("The following are questions.\n\n", f"{QUESTION}\nA. x\nB. y\nAnswer:"),
        ("[INST] ", f"Question: {QUESTION} [/INST]"),
        (f"Q: {QUESTION}\nA: no\n\n", f"Q: {QUESTION}\nA:"),
        ("", f"Question: {QUESTION}\nA. He asked: no\nB. repeat ({QUESTION})\nAnswer:"),
        ("Tell me ", f"{QUESTION} Say it."),
    ],
)
def test_other_tasks_prompts_get_them_before_the_question_and_its_label(before, after):
    assert prompts.insert(before + after, {"question": QUESTION}, "t", PASSAGES) == before + BLOCK + after


def test_chat_messages_for_a_server_get_them_in_the_last_user_turn():
    messages = [
        {"role": "system", "content": "Help."},
        {"role": "user", "content": mcq.render(ITEM)},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": mcq.render(ITEM)},
    ]
    prompt = prompts.insert(JsonChatStr(json.dumps(messages)), ITEM, "t", PASSAGES)
    assert isinstance(prompt, JsonChatStr)
    assert json.loads(prompt.prompt) == [*messages[:3], {"role": "user", "content": mcq.render(ITEM, PASSAGES)}]


@pytest.mark.parametrize("field", prompts.QUESTION_FIELDS)
def test_questions_of_other_tasks_are_found(field):
    assert prompts.question_of({"id": 3, field: f" {QUESTION}\n"}, "t") == QUESTION


def test_no_question_or_no_place_is_an_error_that_names_the_task():
    with pytest.raises(InputError, match="task t: no question to look up .*its fields are text"):
        prompts.question_of({"text": "x"}, "t")
    with pytest.raises(InputError, match="task t: its prompt does not hold the question"):
        prompts.insert("Something else.", {"question": QUESTION}, "t", PASSAGES)


THREE = [{"title": "", "text": f"{i} one two three four five"} for i in range(3)]


def fit(longest):
    return prompts.fit(THREE, lambda passages: length(passages) <= longest)


def length(passages):
    return len(mcq.passage_block(passages))


def test_what_fits_stays():
    assert fit(length(THREE)) == THREE


def test_the_worst_passage_goes_first():
    assert fit(length(THREE) - 1) == THREE[:2]
    assert fit(length(THREE[:1])) == THREE[:1]


def test_the_last_one_loses_its_end():
    shortened = [{"title": "", "text": "0 one two"}]
    assert fit(length(shortened) + 2) == shortened


def test_nothing_is_shown_where_nothing_fits():
    assert fit(5) == []
