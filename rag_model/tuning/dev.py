"""The items that settings are chosen by: of splits that nothing is measured on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from medtasks import benchmarks, contamination, files
from medtasks.errors import InputError

SPLITS = ("validation", "train")
"""Where a benchmark's dev items are looked for: the first that it has. MedQA and MMLU have a validation split; MedMCQA
gives training items, its validation split being its usual test, and PubMedQA does, whose official halves are train and
test."""
TEST = "test"
SHOWN = ("question", "options", "context")
"""What of an item stands in its prompt."""
SEED = 0


@dataclass(frozen=True)
class Dev:
    """The dev items of one benchmark.

    Attributes:
        items: with the fields of :data:`medtasks.mcq.FIELDS`.
        splits: where they come from.
        left_out: how many others hold a test item.
    """

    items: list[dict]
    splits: tuple[str, ...]
    left_out: int

    @property
    def record(self) -> dict:
        """What a tuned file says of them; ``ids`` are in order."""
        return {
            "splits": list(self.splits),
            "items": len(self.items),
            "left_out": self.left_out,
            "sha256": files.sha256_json(self.items)[:16],
            "ids": sorted(item["id"] for item in self.items),
        }


def load(names: Sequence[str], splits: Sequence[str] = (), limit: int | None = None) -> dict[str, Dev]:
    """Benchmark -> its dev items, without those that hold a test item of any of the benchmarks ``names``.

    Args:
        splits: to take them from, all that a benchmark has; the first of :data:`SPLITS` if none is given.
        limit: a random sample of so many items a benchmark, always the same.

    Raises:
        InputError: no such benchmark or split, a split that is there for measuring, or no items.
    """
    if TEST in splits:
        raise InputError("splits: test is for measuring, and nothing may be chosen by it; give validation or train")
    if unknown := [name for name in names if name not in benchmarks.ALL]:
        raise InputError(f"unknown benchmark '{unknown[0]}'; there are {', '.join(benchmarks.ALL)}")
    tests = contamination.Overlap(item for name in names for item in benchmarks.load(name, TEST))
    return {name: _of(name, splits, limit, tests) for name in dict.fromkeys(names)}


def _of(name: str, splits: Sequence[str], limit: int | None, tests: contamination.Overlap) -> Dev:
    there = benchmarks.ALL[name][0]()
    chosen = [split for split in splits if split in there] or [s for s in SPLITS if s in there and not splits][:1]
    if not chosen:
        usable = ", ".join(split for split in there if split != TEST) or "none"
        raise InputError(f"{name}: no split {' or '.join(splits or SPLITS)}; those to choose by are: {usable}")
    whole = [item for split in chosen for item in benchmarks.load(name, split)]
    clean = [item for item in whole if not tests.is_contaminated({field: item[field] for field in SHOWN})]
    if not clean:
        raise InputError(f"{name}: every item of {' and '.join(chosen)} holds a test item; give other splits")
    drawn = random.Random(SEED).sample(range(len(clean)), min(limit or len(clean), len(clean)))
    return Dev([clean[i] for i in sorted(drawn)], tuple(chosen), len(whole) - len(clean))
