"""MedQA with "I don't know" as a last option, scored so that guessing gains nothing.

The task of `medsafe/medqa_abstain.yaml`. A right answer gives 1, "I don't know" 0, a wrong one of k options costs
1/(k - 1): formula scoring, under which a blind guess has expectation 0 (Frary 1988,
doi:10.1111/j.1745-3992.1988.tb00434.x). The rule stands in the prompt: only a model that is told what errors cost can
weigh them (Kalai et al. 2025, arXiv:2509.04664, who argue that evaluations without such a rule reward guessing).
"""

from collections.abc import Sequence

from medtasks import items, mcq

OPTION = "I don't know"


def docs(rows):
    """The task's ``process_docs``: MedQA's items with :data:`OPTION` as one more option, the last."""
    import datasets

    found = items.from_medqa(rows)
    longer = [item | {"options": [*item["options"], OPTION]} for item in found]
    return datasets.Dataset.from_list(longer, features=found.features)


def scores(doc: dict, results: Sequence[tuple[float, bool]]) -> dict[str, float | None]:
    """The task's ``process_results``; chosen is the most likely option, the first of equals.

    Returns:
        ``score`` 1, 0 or -1/(k - 1) with k options beside "I don't know"; ``acc`` and ``abstain_rate`` 0 or 1;
        ``acc_answered`` as ``acc``, None where the model abstains.
    """
    chosen = mcq.likeliest([likelihood for likelihood, _ in results])
    right, abstains = chosen == doc["answer"], chosen == len(results) - 1
    penalty = 1 / (len(results) - 2)
    return {
        "score": float(right) if right or abstains else -penalty,
        "acc": float(right),
        "abstain_rate": float(abstains),
        "acc_answered": None if abstains else float(right),
    }
