"""Which rows make up each split of each benchmark, and the published 200-question subsets.

Splits are named by their use here: ``test`` is measured, ``train`` is learned from and gives the few-shot
examples, ``validation`` is for choosing. MedMCQA's test labels are not public, so its validation split is its
usual test; PubMedQA publishes one split, whose official test half :func:`pubmedqa_halves` computes.
"""

import hashlib
import math
import random
from collections.abc import Iterable

from medtasks import items, medsafe, mirage, sources
from medtasks.errors import InputError

MEDQA = "GBaker/MedQA-USMLE-4-options"
MEDMCQA = "openlifescienceai/medmcqa"
PUBMEDQA = "qiaojin/PubMedQA"
MMLU = "cais/mmlu"

MMLU_SUBJECTS = (
    "anatomy",
    "clinical_knowledge",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
)
"""The six subjects of MultiMedQA (Singhal et al. 2023, doi:10.1038/s41586-023-06291-2)."""

FEWSHOT_POOL = 1_000
"""Training rows a task loads for few-shot examples (it takes the first n); trainers load all of them."""

SUBSET_SEED, SUBSET_SIZE = 4242, 200
MMLU_SUBSET_ORDER = (
    "anatomy",
    "clinical_knowledge",
    "professional_medicine",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
)
"""MedAdapt-LLM lists professional_medicine twice, so 12 of its 200 MMLU questions are duplicates. Kept, to compare."""

PUBMEDQA_LABELLED = 1_000
PUBMEDQA_TEST_DIGEST = "8cf42aa2181eb26c"


def _medqa():
    return {split: sources.load_rows(MEDQA, None, split) for split in ("train", "validation", "test")}


def _medmcqa():
    rows = sources.load_rows(MEDMCQA, None, "validation")
    return {"train": sources.load_rows(MEDMCQA, None, "train"), "test": rows}


def _pubmedqa(arrange=sorted):
    rows = sources.load_rows(PUBMEDQA, "pqa_labeled", "train")
    train, test = pubmedqa_halves(rows["pubid"], rows["final_decision"])
    return {"train": rows.select(arrange(train)), "test": rows.select(arrange(test))}


def _pubmedqa_lmeval():
    """Both halves in the order of the authors' split script, in which lm-eval's `pubmedqa` stands: all yes, then no,
    then maybe, so that a ``--limit`` asks the yes questions first."""
    return _pubmedqa(arrange=list)


def _mmlu(subject):
    splits = {split: sources.load_rows(MMLU, subject, split) for split in ("dev", "validation", "test")}
    return {"train": splits["dev"], "validation": splits["validation"], "test": splits["test"]}


def _mmlu_med():
    from datasets import concatenate_datasets

    subjects = [_mmlu(subject) for subject in MMLU_SUBJECTS]
    pooled = {split: concatenate_datasets([s[split] for s in subjects]) for split in ("train", "validation", "test")}
    order = _proportionally([len(s["test"]) for s in subjects])
    return pooled | {"test": pooled["test"].select(order)}


def _proportionally(sizes: list[int]) -> list[int]:
    """Positions in a concatenation of parts, reordered so that any first n hold each part in proportion to its size:
    a ``--limit`` then asks about all subjects."""
    starts = [sum(sizes[:part]) for part in range(len(sizes))]
    places = [((i + 0.5) / size, start + i) for size, start in zip(sizes, starts, strict=True) for i in range(size)]
    return [position for _, position in sorted(places)]


def _medqa_sub():
    splits = _medqa()
    return {"train": splits["train"], "test": _subset(splits["validation"])}


def _medmcqa_sub():
    splits = _medmcqa()
    return {"train": splits["train"], "test": _subset(splits["test"])}


def _pubmedqa_sub():
    rows = sources.load_rows(PUBMEDQA, "pqa_labeled", "train")
    test = _subset(rows, min(SUBSET_SIZE, len(rows) // 2))  # the sample is smaller: leave it questions to learn from
    asked = set(test["pubid"])
    train, _ = pubmedqa_halves(rows["pubid"], rows["final_decision"])
    return {"train": rows.select([i for i in sorted(train) if rows[i]["pubid"] not in asked]), "test": test}


def _mmlu_med_sub():
    from datasets import concatenate_datasets

    subjects = {subject: _mmlu(subject) for subject in MMLU_SUBJECTS}
    fifties = [_subset(subjects[subject]["test"], 50) for subject in MMLU_SUBSET_ORDER]
    train = concatenate_datasets([subjects[subject]["train"] for subject in MMLU_SUBJECTS])
    return {"train": train, "test": _subset(concatenate_datasets(fifties))}


def _subset(rows, size: int = SUBSET_SIZE):
    """MedAdapt-LLM's choice: ``shuffle(seed=4242).select(range(size))``; of a smaller split (the sample), all of it."""
    return rows.shuffle(seed=SUBSET_SEED).select(range(min(size, len(rows))))


def pubmedqa_halves(pubids: Iterable, labels: Iterable[str]) -> tuple[list[int], list[int]]:
    """Positions of the official (train, test) halves of PubMedQA-labelled, in the order of the authors' script.

    The rule of the authors' split script (github.com/pubmedqa/pubmedqa): seed 0, shuffle the ids of each label in
    the order yes, no, maybe; the first half of each is for training, the second for testing.

    Raises:
        InputError: the 1,000 rows do not give the official 500 test ids, so they are not in the official order.
    """
    pubids = [str(pubid) for pubid in pubids]
    by_label = {"yes": [], "no": [], "maybe": []}
    for position, label in enumerate(labels):
        by_label[label].append(position)
    rng = random.Random(0)
    train, test = [], []
    for group in by_label.values():
        rng.shuffle(group)
        half = math.ceil(len(group) / 2)
        train += group[:half]
        test += group[half:]
    if len(pubids) == PUBMEDQA_LABELLED:
        found = hashlib.sha256(" ".join(sorted(pubids[i] for i in test)).encode()).hexdigest()[:16]
        if found != PUBMEDQA_TEST_DIGEST:
            raise InputError(
                f"{PUBMEDQA}: the 1,000 labelled rows are not in the official order, so the official test half "
                "cannot be told; use the dataset as published"
            )
    return train, test


BENCHMARKS = {
    "medqa": (_medqa, items.from_medqa),
    "medmcqa": (_medmcqa, items.from_medmcqa),
    "pubmedqa": (_pubmedqa, items.from_pubmedqa),
    "mmlu_med": (_mmlu_med, items.from_mmlu),
    "medqa_sub": (_medqa_sub, items.from_medqa),
    "medmcqa_sub": (_medmcqa_sub, items.from_medmcqa),
    "pubmedqa_sub": (_pubmedqa_sub, items.from_pubmedqa),
    "mmlu_med_sub": (_mmlu_med_sub, items.from_mmlu),
} | {f"mmlu_med_{subject}": (lambda subject=subject: _mmlu(subject), items.from_mmlu) for subject in MMLU_SUBJECTS}
"""name -> (its splits' rows, the conversion of rows to items). All of these are on the Hub."""

VIEWS = {
    "pubmedqa_lmeval": (_pubmedqa_lmeval, items.from_pubmedqa),
    "pubmedqa_star": (_pubmedqa, items.from_pubmedqa_star),
}
"""Likewise, of questions that stand in :data:`BENCHMARKS` already, in another order or with less shown: nothing more to
keep out of training."""

OF_FILES = {
    "medhallu": (medsafe.medhallu, medsafe.from_medhallu),
    "medhallu_knowledge": (medsafe.medhallu, medsafe.from_medhallu_knowledge),
    "scifact": (medsafe.scifact, medsafe.from_scifact),
    "bioasq": (mirage.bioasq, mirage.from_bioasq),
}
"""Likewise, of data that a user may have to fetch as files."""

ALL = BENCHMARKS | VIEWS | OF_FILES


def rows(benchmark: str, **_) -> dict:
    """A task's ``custom_dataset``: split name -> rows. lm-eval adds metadata and model arguments, which are ignored."""
    splits = ALL[benchmark][0]()
    if "train" in splits:
        splits["train"] = splits["train"].select(range(min(FEWSHOT_POOL, len(splits["train"]))))
    return splits


def load(benchmark: str, split: str) -> list[dict]:
    """The items of one split, for trainers and studies.

    Raises:
        InputError: no such benchmark or split, or its rows cannot be loaded.
    """
    if benchmark not in ALL:
        raise InputError(f"unknown benchmark '{benchmark}'; there are {', '.join(ALL)}")
    splits, convert = ALL[benchmark]
    found = splits()
    if split not in found:
        raise InputError(f"{benchmark} has no split '{split}'; it has {', '.join(found)}")
    return list(convert(found[split]))
