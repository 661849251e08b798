"""Accuracy by subject: where each variant is better and worse than the base."""

from collections import defaultdict
from dataclasses import dataclass

from results.page.evidence import Evidence

FEWEST = 5
"""A subject with fewer items says nothing and is left out."""


@dataclass(frozen=True)
class Subject:
    """One subject of one task: shares of right answers, by run."""

    task: str
    name: str
    n: int
    accuracy: dict[str, float]


def of(found: Evidence) -> tuple[list[Subject], int]:
    """The subjects with at least :data:`FEWEST` items, the largest of a task first, and how many have fewer.

    Tasks whose items name no subject, or all the same, have none.
    """
    subjects, too_small = [], 0
    for task, paired in found.paired.items():
        places = defaultdict(list)
        for place, row in enumerate(paired.rows[found.base]):
            if row["subject"]:
                places[row["subject"]].append(place)
        if len(places) < 2:
            continue
        too_small += sum(len(items) < FEWEST for items in places.values())
        for subject, items in sorted(places.items(), key=lambda pair: (-len(pair[1]), pair[0])):
            if len(items) >= FEWEST:
                accuracy = {name: float(correct[items].mean()) for name, correct in paired.correct.items()}
                subjects.append(Subject(task, subject, len(items), accuracy))
    return subjects, too_small
