"""The ranked table: accuracies with intervals; runs that the intervals cannot tell apart share a rank."""

from dataclasses import dataclass

from results.page import evidence
from results.page.evidence import Evidence


@dataclass(frozen=True)
class Place:
    """A run in the table.

    Attributes:
        rank: 1 + the number of runs whose interval lies wholly above this one's.
        adds: what the run's model is, in words.
        overall: the comparison's estimate over all tasks.
        tasks: its estimate of each task.
        left, right, middle: the interval and the accuracy as shares of the drawn range, 0 to 1.
    """

    name: str
    rank: int
    adds: str
    overall: dict
    tasks: list[dict]
    left: float
    right: float
    middle: float


def ranking(found: Evidence) -> list[Place]:
    """All runs, the most accurate first."""
    overall = {name: found.estimate(name, found.overall) for name in found.runs}
    low, high = min(row["low"] for row in overall.values()), max(row["high"] for row in overall.values())
    places = []
    for name, row in sorted(overall.items(), key=lambda pair: -pair[1]["accuracy"]):
        rank = 1 + sum(other["low"] > row["high"] for other in overall.values())
        drawn = ((row[key] - low) / ((high - low) or 1) for key in ("low", "high", "accuracy"))
        tasks = [found.estimate(name, task) for task in found.tasks if task != found.overall]
        places.append(Place(name, rank, evidence.adds(found.runs[name], found.runs[found.base]), row, tasks, *drawn))
    return places
