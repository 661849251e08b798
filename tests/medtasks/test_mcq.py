from medtasks import mcq

ITEM = {
    "id": "x",
    "question": "Which gland makes insulin?",
    "options": ["Thyroid", "Pancreas", "Adrenal"],
    "answer": 1,
    "context": "",
    "subject": "",
    "rationale": "",
}
PROMPT = "Question: Which gland makes insulin?\nA. Thyroid\nB. Pancreas\nC. Adrenal\nAnswer:"


def test_render_is_question_options_answer():
    assert mcq.render(ITEM) == PROMPT
    assert mcq.choices(ITEM) == ["A", "B", "C"]
    assert mcq.target(ITEM) == "B"


def test_context_stands_before_the_question():
    assert mcq.render(ITEM | {"context": "Islets."}) == "Abstract: Islets.\n" + PROMPT


def test_passages_stand_first_and_the_best_last():
    passages = [{"title": "Best", "text": "beta cells"}, {"title": "", "text": "less apt"}]
    assert mcq.render(ITEM, passages) == "Reference passages:\n\nless apt\n\nBest: beta cells\n\n" + PROMPT


def test_find_item_passes_over_few_shot_examples_and_chat_template():
    shot = ITEM | {"question": "Which gland makes thyroxine?", "answer": 0}
    prompt = f"<|user|>{mcq.render(ITEM)} B\n\n{mcq.render(shot)} A\n\n{PROMPT}<|assistant|>"
    found = mcq.find_item(prompt, ITEM)
    assert prompt[found:] == PROMPT + "<|assistant|>"
    assert found > prompt.index("thyroxine")
    assert mcq.find_item("another prompt", ITEM) == -1
