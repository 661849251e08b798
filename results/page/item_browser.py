"""The data of the item browser: what was asked, which passages were seen, what each run answered.

The keys are short because they stand once an item; ``browser.js`` reads them::

    {"base", "variants": [name], "tasks": [{"name", "n", "shown"}], "passages": [{"id", "title", "text"}],
     "items": [{"t": place of the task, "d": doc_id, "id", "s": subject, "q": question, "c": context, "o": [option],
                "g": right option or null,
                "a": [{"c": choice or null, "k": 0 or 1, "p": [probability],
                       "r": [[place of the passage, score]], "cut": passages left out or shortened}]}]}
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.page import questions
from results.page.evidence import Evidence
from results.page.passages import Passages
from results.pairing import PairedTask

DEFAULT_ITEMS = 200
SEED = 0
DIGITS = 3


@dataclass(frozen=True)
class Browser:
    """``data``: as above. ``notes``: sentences that say what is not shown, and why."""

    data: dict
    notes: list[str]


def build(found: Evidence, limit: int | None = DEFAULT_ITEMS, texts: bool = True) -> Browser:
    """The browser's data.

    Args:
        limit: most items of a task; None for all. Those that a variant fixes or breaks come first, then others, both
            drawn with a fixed seed; the items are shown in their document order.
        texts: False leaves out questions, options and passages' texts: for licensed test sets.
    """
    tasks, items, without_words = [], [], []
    passages = Passages(found, texts)
    for number, (task, paired) in enumerate(found.paired.items()):
        shown = _chosen(paired, found.base, limit)
        words = _words(found, task, shown) if texts else {}
        if not words:
            without_words.append(task)
        seen = {
            name: passages.of(found.runs[name], task, [paired.rows[name][place]["doc_id"] for place in shown])
            for name in found.runs
        }
        tasks.append({"name": task, "n": paired.n, "shown": len(shown)})
        for place in shown:
            rows = {name: paired.rows[name][place] for name in found.runs}
            asked = rows[found.base]
            item = {"t": number, "d": asked["doc_id"], "id": asked["id"], "s": asked["subject"], "g": asked["gold"]}
            item |= words.get(place, {})
            item["a"] = [_answer(row, seen[name].get(row["doc_id"])) for name, row in rows.items()]
            items.append(item)
    data = {"base": found.base, "variants": list(found.runs), "tasks": tasks, "passages": passages.known}
    return Browser(data | {"items": items}, _notes(tasks, without_words, passages, texts))


def _chosen(paired: PairedTask, base: str, limit: int | None) -> list[int]:
    """Places in ``paired`` of the items to show, in the base's document order."""
    places = sorted(range(paired.n), key=lambda place: paired.rows[base][place]["doc_id"])
    if limit is None or paired.n <= limit:
        return places
    changed = np.any([correct != paired.correct[base] for correct in paired.correct.values()], axis=0)
    first, others = [p for p in places if changed[p]], [p for p in places if not changed[p]]
    draw = random.Random(SEED)
    draw.shuffle(first)
    draw.shuffle(others)
    kept = set([*first, *others][:limit])
    return [place for place in places if place in kept]


def _words(found: Evidence, task: str, places: list[int]) -> dict[int, dict]:
    """Place -> question, context and options, from the first run that kept its samples."""
    for name, run in found.runs.items():
        if file := questions.logs(run).get(task):
            doc_ids = {place: found.paired[task].rows[name][place]["doc_id"] for place in places}
            words = questions.read(file, doc_ids.values())
            return {place: words[doc_id] for place, doc_id in doc_ids.items() if doc_id in words}
    return {}


def probabilities(loglikelihoods: Sequence[float]) -> list[float]:
    """The options' probabilities among themselves: a softmax over their log-likelihoods; [] of none."""
    weights = np.exp(np.asarray(loglikelihoods) - max(loglikelihoods, default=0.0))
    return (weights / weights.sum()).tolist()


def _answer(row: dict, saw: dict | None) -> dict:
    shares = [round(share, DIGITS) for share in probabilities(row["loglikelihoods"])]
    answer = {"c": row["choice"], "k": row["correct"], "p": shares}
    return answer | {"r": saw["seen"], "cut": saw["cut"]} if saw else answer


def _notes(tasks: list[dict], without_words: list[str], passages: Passages, texts: bool) -> list[str]:
    """What is not shown, and why."""
    notes, some = [], [task for task in tasks if task["shown"] < task["n"]]
    if some:
        parts = [f"{task['shown']:,} of {task['n']:,} of {task['name']}" for task in some]
        notes.append(
            f"Shown are {', '.join(parts)}: first those that a variant fixes or breaks, then a random sample "
            "(--items N or --items all changes this)."
        )
    if not texts:
        notes.append("Questions, options and the texts of passages were left out of this page (--no-questions).")
    elif without_words:
        notes.append(
            f"The questions of {', '.join(without_words)} are not shown, because these runs keep no samples (published "
            "folders leave out test questions); evaluating again brings them back."
        )
    if passages.without_list:
        notes.append(f"Which passages {', '.join(passages.without_list)} saw is not recorded in these runs.")
    if texts and passages.without_text:
        notes.append(
            f"Passages that {', '.join(passages.without_text)} saw are shown by id and score alone, because the index "
            "is not there."
        )
    return notes
