"""What a multiple-choice answer is worth: lm-eval's ``process_results`` for tasks that score options by log-likelihood.

The probabilities are those of the options among themselves: a softmax over their log-likelihoods.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from medtasks import mcq, option_text
from medtasks.benchmarks import MMLU_SUBJECTS

MEDQA_STEPS = ("step1", "step2&3")
"""MedQA's ``meta_info``, parts of the licensing examination: step 1 asks basic science, the others clinical care."""

MEDMCQA_SUBJECTS = (
    "Anaesthesia",
    "Anatomy",
    "Biochemistry",
    "Dental",
    "ENT",
    "Forensic Medicine",
    "Gynaecology & Obstetrics",
    "Medicine",
    "Microbiology",
    "Ophthalmology",
    "Orthopaedics",
    "Pathology",
    "Pediatrics",
    "Pharmacology",
    "Physiology",
    "Psychiatry",
    "Radiology",
    "Skin",
    "Social & Preventive Medicine",
    "Surgery",
)
"""MedMCQA's ``subject_name`` in its validation split; two questions there are "Unknown"."""

MEDHALLU_LEVELS = ("easy", "medium", "hard")

Results = Sequence[tuple[float, bool]]


def process_results(doc: dict, results: Results) -> dict:
    """One item's values for the metrics of :mod:`medtasks.metrics`.

    Args:
        doc: an item; its ``answer`` is the index of the right option.
        results: log-likelihood in nats and whether it is greedy, one an option.

    Returns:
        ``acc`` 0 or 1 (ties go to the first option, as in lm-eval); ``nll``, the negative logarithm of the right
        option's probability, in nats; ``brier``, the sum over options of the squared difference between probability and
        truth, 0 to 2 (Brier 1950); ``ece``, ``aurc`` and ``acc_at_80``, each [probability of the chosen option, acc];
        ``macro_f1``, [right, chosen]; ``acc_constant``, the right option.
    """
    logs = np.array([log for log, _ in results], dtype=float)
    logs -= np.logaddexp.reduce(logs)
    probabilities, right, chosen = np.exp(logs), int(doc["answer"]), int(np.argmax(logs))
    acc = float(chosen == right)
    truth = np.arange(len(logs)) == right
    sureness = [float(probabilities[chosen]), acc]
    return {
        "acc": acc,
        "nll": float(-logs[right]),
        "brier": float(((probabilities - truth) ** 2).sum()),
        "ece": sureness,
        "aurc": sureness,
        "acc_at_80": sureness,
        "macro_f1": [right, chosen],
        "acc_constant": right,
    }


def option_texts(doc: dict, results: Results) -> dict:
    """:func:`process_results` of options scored by their texts, with ``acc_norm``: 0 or 1 by the log-likelihood divided
    by the number of characters, as lm-eval's."""
    texts = option_text.choices(doc)
    chosen = mcq.likeliest([likelihood / len(text) for (likelihood, _), text in zip(results, texts, strict=True)])
    return process_results(doc, results) | {"acc_norm": float(chosen == doc["answer"])}


def metric_of(subject: str) -> str:
    """The name of a subject's accuracy: ``Gynaecology & Obstetrics`` is ``acc_gynaecology_obstetrics``."""
    return "acc_" + re.sub(r"[^a-z0-9]+", "_", subject.lower()).strip("_")


def _with(subjects: Iterable[str]) -> Callable[[dict, Results], dict]:
    """:func:`process_results` and each subject's accuracy: ``acc`` where the item's ``subject`` is this, else None."""
    names = {subject: metric_of(subject) for subject in subjects}

    def with_subjects(doc: dict, results: Results) -> dict:
        values = process_results(doc, results)
        return values | {name: values["acc"] if doc["subject"] == s else None for s, name in names.items()}

    return with_subjects


medqa = _with(MEDQA_STEPS)
medmcqa = _with(MEDMCQA_SUBJECTS)
mmlu_med = _with(MMLU_SUBJECTS)
medhallu = _with(MEDHALLU_LEVELS)
