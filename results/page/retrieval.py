"""What passages did to answers: how many they fixed, how many they broke, against the same model without them."""

from dataclasses import dataclass

from results.comparison import compare
from results.page import evidence
from results.page.evidence import Evidence


@dataclass(frozen=True)
class Effect:
    """A run with passages against its partner without.

    Attributes:
        partner: the run with the same adapter and no passages, or the base.
        same_model: whether the partner differs by the passages alone.
        rows: the comparison's rows, a task each.
    """

    variant: str
    partner: str
    same_model: bool
    rows: list[dict]


def of(found: Evidence) -> list[Effect]:
    """One effect a run with passages; none where no run has passages."""
    effects = []
    for name in found.variants:
        run = found.runs[name]
        if not evidence.passages(run):
            continue
        adapter = evidence.adapter(run)
        bare = [n for n, other in found.runs.items() if not evidence.passages(other)]
        same = [n for n in bare if evidence.adapter(found.runs[n]) == adapter]
        partner = (same or [found.base])[0]
        comparison = found.comparison if partner == found.base else compare([found.runs[partner], run], partner)
        rows = [row for row in comparison["comparisons"] if row["variant"] == name and row["task"] in found.tasks]
        effects.append(Effect(name, partner, bool(same), rows))
    return effects
