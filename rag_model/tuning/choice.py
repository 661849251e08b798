"""Accuracies of settings with their standard errors, and the rule that chooses one.

Tasks count alike, however many items they have: what is chosen by is the mean of their accuracies. Of the settings
whose mean lies within one standard error of the best one's, the simplest is chosen (the one-standard-error rule of
Breiman et al. 1984, Classification and Regression Trees): the best of many is best by luck too. Since
all settings answer the same items, the error is that of the paired difference to the best.

The closed book is what all are compared with, and is none of the choices: whether passages help at all is for the test
set to say. A choice that does not beat it here by one standard error is told as such.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rag_model.tuning.grid import Outcome


def mean(values: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Mean over tasks of their items' mean, and its standard error, tasks being independent samples.

    Args:
        values: task -> one number an item.
    """
    errors = [_error(own) for own in values.values()]
    return float(np.mean([own.mean() for own in values.values()])), math.hypot(*errors) / len(errors)


def difference(one: Outcome, other: Outcome) -> tuple[float, float]:
    """Mean paired difference in accuracy, ``one - other``, and its standard error."""
    return mean({task: one.correct[task] - other.correct[task] for task in one.correct})


def best(outcomes: Sequence[Outcome], simplicity: Callable[[Outcome], tuple]) -> Outcome:
    """The highest mean; of equal ones the simplest."""
    return min(outcomes, key=lambda one: (-round(mean(one.correct)[0], 12), simplicity(one)))


def chosen(outcomes: Sequence[Outcome], simplicity: Callable[[Outcome], tuple]) -> Outcome:
    """The simplest within one standard error of the best; of equally simple ones the highest mean."""
    top = best(outcomes, simplicity)
    near = []
    for one in outcomes:
        behind, error = difference(top, one)
        if behind <= error:
            near.append(one)
    return min(near, key=lambda one: (simplicity(one), -round(mean(one.correct)[0], 12)))


def row(one: Outcome, reference: Outcome) -> dict:
    """A setting as JSON: accuracies, shares opened, and differences to ``reference``, each with its standard error."""
    tasks = {}
    for task, correct in one.correct.items():
        change = correct - reference.correct[task]
        tasks[task] = {
            "acc": round(float(correct.mean()), 6),
            "stderr": round(_error(correct), 6),
            "difference": round(float(change.mean()), 6),
            "difference_stderr": round(_error(change), 6),
            "opened": round(one.opened[task], 6),
        }
    (accuracy, error), (change, change_error) = mean(one.correct), difference(one, reference)
    return {
        "settings": one.settings,
        "acc": round(accuracy, 6),
        "stderr": round(error, 6),
        "difference": round(change, 6),
        "difference_stderr": round(change_error, 6),
        "tasks": tasks,
    }


def _error(values: np.ndarray) -> float:
    """Standard error of the mean; of a single value 0."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
