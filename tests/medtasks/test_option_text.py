"""The texts of the options, scored by log-likelihood."""

import pytest
from lm_eval.api.model import LM

from medtasks import TASKS_DIR, benchmarks, lmeval_prompts, option_text
from rag_model import prompts

ITEM = {
    "id": "x",
    "question": "Which gland makes insulin?",
    "options": ["Thyroid", "Pancreas", "Pancreas", " "],
    "answer": 1,
    "context": "",
    "subject": "",
    "rationale": "",
}
PROMPT = "Question: Which gland makes insulin?\nAnswer:"
TASKS = {"medqa_text": "medqa", "medmcqa_text": "medmcqa", "pubmedqa_text": "pubmedqa", "mmlu_med_text": "mmlu_med"}


class Counter(LM):
    """A word more costs two nats, a character more a tenth: a function of the text that anyone can compute."""

    @staticmethod
    def score(text):
        return -2.0 * len(text.split()) - 0.1 * len(text)

    def loglikelihood(self, requests):
        return [(self.score(request.args[1]), False) for request in requests]

    def generate_until(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = generate_until


@pytest.fixture(scope="module")
def loaded():
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS_DIR), include_defaults=False).load(["medadapt_text"])


@pytest.fixture(scope="module")
def group(loaded):
    """lm-eval's own evaluation by :class:`Counter`."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    return simple_evaluate(
        Counter(), tasks=[loaded["groups"]["medadapt_text"]], task_manager=manager, bootstrap_iters=10
    )


def test_the_prompt_shows_no_options():
    assert option_text.render(ITEM) == PROMPT
    abstract = ITEM | {"context": "Islets."}
    assert option_text.render(abstract) == f"Abstract: Islets.\n{PROMPT}" == lmeval_prompts.pubmedqa(abstract)


def test_every_option_has_a_text_to_score():
    assert option_text.choices(ITEM) == ["Thyroid", "Pancreas", "Pancreas", "(no text)"]
    assert option_text.choices(ITEM | {"options": ["", "b"]}) == ["(no text)", "b"]


@pytest.mark.parametrize("context", ["", "Islets of 12 patients."])
def test_passages_stand_before_the_item_that_is_asked(context):
    item = ITEM | {"context": context}
    passages = [{"title": "Best", "text": "Beta cells."}]
    shot = f"{option_text.render(item)} Pancreas\n\n"
    found = prompts.insert(shot + option_text.render(item), item, "medqa_text", passages)
    assert found == f"{shot}Reference passages:\n\nBest: Beta cells.\n\n{option_text.render(item)}"


def best(item, norm):
    scores = [Counter.score(f" {option}") / (len(option) if norm else 1) for option in option_text.choices(item)]
    return scores.index(max(scores))


def test_acc_and_acc_norm_are_of_the_sum_and_of_the_mean_of_a_character(group):
    differ = 0
    for task, family in TASKS.items():
        items = benchmarks.load(family, "test")
        for metric, norm in (("acc", False), ("acc_norm", True)):
            right = [best(item, norm) == item["answer"] for item in items]
            assert group["results"][task][f"{metric},none"] == pytest.approx(sum(right) / len(right))
        differ += sum(best(item, True) != best(item, False) for item in items)
    assert differ > 10
    for metric in ("acc", "acc_norm"):
        leaves = [group["results"][task][f"{metric},none"] for task in TASKS]
        assert group["results"]["medadapt_text"][f"{metric},none"] == pytest.approx(sum(leaves) / 4)


def test_a_request_is_the_question_and_an_option(group):
    (sample,) = (sample for sample in group["samples"]["medmcqa_text"] if sample["doc_id"] == 0)
    item = benchmarks.load("medmcqa", "test")[0]
    assert [tuple(arguments) for arguments in sample["arguments"]] == [
        (f"Question: {item['question']}\nAnswer:", f" {option}") for option in item["options"]
    ]


@pytest.mark.parametrize("task", TASKS)
def test_few_shot_examples_answer_in_full_text(loaded, task):
    shots, item = benchmarks.load(TASKS[task], "train")[:2], benchmarks.load(TASKS[task], "test")[0]
    shown = "".join(f"{option_text.render(shot)} {shot['options'][shot['answer']]}\n\n" for shot in shots)
    assert loaded["tasks"][task].fewshot_context(item, num_fewshot=2) == shown + option_text.render(item)


def test_empty_and_repeated_options_are_scored(loaded):
    task = loaded["tasks"]["medqa_text"]
    requests = task.construct_requests(doc=ITEM, ctx=PROMPT, metadata=("medqa_text", 0, 1))
    results = Counter().loglikelihood(requests)
    assert [request.args[1] for request in requests] == [" Thyroid", " Pancreas", " Pancreas", " (no text)"]
    # Per character the longer name is the likelier; of two options with one text lm-eval takes the first
    found = task.process_results(ITEM, results)
    assert (found["acc"], found["acc_norm"]) == (0.0, 1.0)
    other = task.process_results(ITEM | {"answer": 2}, results)
    assert (other["acc"], other["acc_norm"]) == (0.0, 0.0)
