"""Chain of thought: what the prompt says, how an output is scored, and the tasks in lm-eval."""

import math

import pytest
from lm_eval.api.model import LM

from medtasks import TASKS_DIR, benchmarks, cot, mcq
from medtasks.extraction import extract
from rag_model import prompts

ITEM = {
    "id": "x",
    "question": "Which gland makes insulin?",
    "options": ["Thyroid", "Pancreas", "Adrenal"],
    "answer": 1,
    "context": "",
    "subject": "",
    "rationale": "Beta cells make it.\n",
}
PROMPT = (
    "Question: Which gland makes insulin?\nA. Thyroid\nB. Pancreas\nC. Adrenal\n"
    'Reason step by step, then end with one line "Answer: <letter>", where <letter> is A, B or C.'
)
TASKS = {"medqa_cot": "medqa", "medmcqa_cot": "medmcqa", "pubmedqa_cot": "pubmedqa", "mmlu_med_cot": "mmlu_med"}


class Writer(LM):
    """Knows the items: right, wrong, two letters, nothing, and so on."""

    def generate_until(self, requests):
        return [self.write(request.doc_id, request.doc) for request in requests]

    @staticmethod
    def write(doc_id, doc):
        wrong = mcq.LETTERS[(doc["answer"] + 1) % len(doc["options"])]
        right = mcq.target(doc)
        return (
            f"It must be so.\n\nAnswer: {right}",
            f"A 45-year-old man.\nAnswer: {wrong}",
            f"Answer: {right} or {wrong}",
            "I cannot give medical advice.",
        )[doc_id % 4]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


@pytest.fixture(scope="module")
def loaded():
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS_DIR), include_defaults=False).load(["medadapt_cot"])


@pytest.fixture(scope="module")
def group(loaded):
    """lm-eval's own evaluation of ten items a task by :class:`Writer`."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    return simple_evaluate(
        Writer(), tasks=[loaded["groups"]["medadapt_cot"]], task_manager=manager, limit=10, bootstrap_iters=10
    )


def test_the_prompt_asks_for_reasoning_and_names_the_letters():
    assert cot.render(ITEM) == PROMPT
    assert cot.render(ITEM | {"options": [*"wxyz"]}).endswith("where <letter> is A, B, C or D.")
    assert cot.render(ITEM | {"context": "Islets."}) == "Abstract: Islets.\n" + PROMPT


def test_the_prompt_itself_declares_nothing():
    assert extract(PROMPT, ITEM["options"]) is None


@pytest.mark.parametrize("context", ["", "Islets of 12 patients."])
def test_passages_stand_before_the_item_that_is_asked(context):
    item = ITEM | {"context": context}
    passages = [{"title": "Best", "text": "Beta cells."}, {"title": "", "text": "Far."}]
    shot = f"{cot.render(item)}\n{cot.worked(item)}\n\n"
    expected = f"<user>{shot}{mcq.passage_block(passages)}{cot.render(item)}<assistant>"
    assert prompts.insert(f"<user>{shot}{cot.render(item)}<assistant>", item, "medqa_cot", passages) == expected


def test_an_example_reasons_where_an_explanation_is_written():
    assert cot.worked(ITEM) == "Beta cells make it.\nAnswer: B"
    assert cot.worked(ITEM | {"rationale": ""}) == "Answer: B"


@pytest.mark.parametrize("family", TASKS.values())
def test_what_examples_show_is_what_is_read(family):
    for item in benchmarks.load(family, "train"):
        assert extract(cot.worked(item), item["options"]) == item["answer"]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Answer: B", {"acc": 1, "acc_valid": 1, "invalid": 0, "declared": "B"}),
        ("Answer: A", {"acc": 0, "acc_valid": 0, "invalid": 0, "declared": "A"}),
        ("A 45-year-old", {"acc": 0, "acc_valid": None, "invalid": 1, "declared": ""}),
        ("", {"acc": 0, "acc_valid": None, "invalid": 1, "declared": ""}),
    ],
)
def test_what_an_output_scores(output, expected):
    assert cot.process_results(ITEM, [output]) == expected


def test_an_invalid_output_is_wrong_even_where_the_first_option_is_right():
    assert cot.process_results(ITEM | {"answer": 0}, ["No idea."])["acc"] == 0


def test_share_of_the_commonest_letter():
    assert cot.share_of_commonest(["A", "", "B", "A", "C", ""]) == 0.5
    assert math.isnan(cot.share_of_commonest(["", ""]))
    assert cot.share_of_commonest.stderr(["A", "A", "", ""]) == 0
    assert 0.1 < cot.share_of_commonest.stderr([*"ABBBCAAC"]) < 0.2


def test_lm_eval_counts_invalid_outputs_as_wrong(group):
    for task in TASKS:
        scores = group["results"][task]
        assert scores["acc,none"] == 0.3  # documents 0, 4 and 8 of ten
        assert scores["invalid,none"] == 0.4
        assert scores["acc_valid,none"] == 0.5
        assert 0.1 < scores["acc_valid_stderr,none"] < 0.3
        assert scores["acc_stderr,none"] > 0
        assert 0 < scores["declared_stderr,none"] < 0.5
    assert group["results"]["medadapt_cot"]["acc,none"] == pytest.approx(0.3)
    assert group["results"]["medadapt_cot"]["invalid,none"] == pytest.approx(0.4)
    assert group["group_subtasks"]["medadapt_cot"] == list(TASKS)


def test_samples_show_what_was_read(group):
    for task, family in TASKS.items():
        items = benchmarks.load(family, "test")[:10]
        samples = sorted(group["samples"][task], key=lambda sample: sample["doc_id"])
        assert [sample["doc"]["id"] for sample in samples] == [item["id"] for item in items]
        assert [sample["target"] for sample in samples] == [mcq.target(item) for item in items]
        for sample, item in zip(samples, items, strict=True):
            assert (sample["declared"] == mcq.target(item)) == bool(sample["acc"])
            assert (sample["declared"] == "") == bool(sample["invalid"])


def test_generation_is_greedy_and_long_enough(group):
    for task in TASKS:
        prompt, settings = group["samples"][task][0]["arguments"][0]
        assert prompt == cot.render(group["samples"][task][0]["doc"])
        assert (settings["do_sample"], settings["max_gen_toks"]) == (False, 1024)
        assert settings["until"] == ["\n\nQuestion:", "\n\nAbstract:"]


@pytest.mark.parametrize("task", TASKS)
def test_few_shot_examples_reason_and_answer(loaded, task):
    shots, item = benchmarks.load(TASKS[task], "train")[:2], benchmarks.load(TASKS[task], "test")[0]
    expected = "".join(f"{cot.render(shot)}\n{cot.worked(shot)}\n\n" for shot in shots) + cot.render(item)
    assert loaded["tasks"][task].fewshot_context(item, num_fewshot=2) == expected


def test_few_shot_examples_have_explanations_in_the_sample():
    assert all(item["rationale"] for item in benchmarks.load("medqa", "train")[:2])
