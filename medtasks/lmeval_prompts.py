"""lm-evaluation-harness 0.4.13's own prompts, for the `*_lmeval` tasks: same data, its exact wording.

`medqa` needs none: lm-eval's `medqa_4options` prompt is the one :func:`medtasks.mcq.render` gives.
"""

from medtasks import mcq


def medmcqa(item: dict) -> str:
    """Prompt of lm-eval's `medmcqa`: as ours, with a line ``Choices:`` before the options."""
    return "\n".join([f"Question: {item['question']}", "Choices:", *mcq.option_lines(item), "Answer:"])


def mmlu(item: dict) -> str:
    """Prompt of lm-eval's `mmlu_*` (without the subject's description, which the task adds): no ``Question:`` label."""
    return "\n".join([item["question"], *mcq.option_lines(item), "Answer:"])


def pubmedqa(item: dict) -> str:
    """Prompt of lm-eval's `pubmedqa`: no options are shown; the words yes, no, maybe are scored."""
    return f"Abstract: {item['context']}\nQuestion: {item['question']}\nAnswer:"
