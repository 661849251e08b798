"""The same items in several versions: with other orders of the options, other letters, another wording of the prompt.

A document of these tasks is one version of an item, with the columns ``original_id`` (the item's id) and ``version``
(its name) beside the item's own. The versions of an item stand next to each other; items stand in a fixed random order,
so that ``--limit`` takes a random sample of them.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from medtasks import benchmarks, mcq
from medtasks.errors import InputError
from medtasks.robustness_metrics import Cell

SEED = 0
"""Of the order of the items."""

POSITIONS = "ABCD"
"""The positions whose share of the choices is reported."""


@dataclass(frozen=True)
class Style:
    """How options are lettered. ``{}`` in ``mark`` and ``answer`` stands for the letter."""

    letters: Sequence
    mark: str
    """Before an option."""
    answer: str
    """What is scored after the prompt."""


STYLES = {
    "upper": Style(mcq.LETTERS, "{}.", "{}"),
    "paren": Style(mcq.LETTERS, "({})", "({})"),
    "lower": Style(mcq.LETTERS.lower(), "{})", "{}"),
    "number": Style(range(1, len(mcq.LETTERS) + 1), "{}.", "{}"),
}
"""``upper`` is :func:`medtasks.mcq.render`'s."""


@dataclass(frozen=True)
class Wording:
    """What stands around an item's texts in a prompt. Labels end in a colon, by which retrieval finds an item."""

    opening: str = ""
    context: str = "Abstract: "
    question: str = "Question: "
    options: str = ""
    closing: str = "Answer:"


WORDINGS = {
    "plain": Wording(),
    "instruction": Wording(opening="Read the medical question below and reply with the letter of the best option.\n\n"),
    "exam": Wording(
        opening="Medical examination, one right answer per item.\n\n",
        context="Excerpt: ",
        question="Item: ",
        options="Options:\n",
        closing="Right answer:",
    ),
    "closing": Wording(context="Text: ", question="Q: ", closing="Which option is correct? Option"),
}
"""``plain`` is :func:`medtasks.mcq.render`'s; the others are this project's own."""


def splits(benchmark: str, **_) -> dict:
    """The tasks' ``custom_dataset``: split name -> the benchmark's items, not yet in versions."""
    convert = benchmarks.BENCHMARKS[benchmark][1]
    return {split: convert(rows) for split, rows in benchmarks.rows(benchmark).items()}


def by_order(items):
    """Every cyclic shift of the options. Version ``k`` begins with option k, and the answer moves along.

    Raises:
        InputError: the items differ in their number of options.
    """
    n = len(items[0]["options"])
    for name, options in zip(items["id"], items["options"], strict=True):
        if len(options) != n:
            raise InputError(
                f"item {name} has {len(options)} options, the first one has {n}: shifts need the same number in all; "
                "leave the others out of the dataset"
            )

    def shifted(item: dict, version: str) -> dict:
        options, shift = item["options"], int(version)
        return {"options": options[shift:] + options[:shift], "answer": (item["answer"] - shift) % n}

    return _expand(items, [str(shift) for shift in range(n)], shifted)


def by_letters(items):
    """Every item in each of :data:`STYLES`."""
    return _expand(items, STYLES)


def by_wording(items):
    """Every item in each of :data:`WORDINGS`."""
    return _expand(items, WORDINGS)


def _expand(items, versions: Iterable[str], change: Callable[[dict, str], dict] = lambda item, version: {}):
    """A ``datasets.Dataset`` of all ``versions`` of all items; ``change`` gives the fields that differ."""
    import datasets

    shuffled = list(items)
    random.Random(SEED).shuffle(shuffled)
    docs = [
        item | change(item, version) | {"id": f"{item['id']}-{version}", "original_id": item["id"], "version": version}
        for item in shuffled
        for version in versions
    ]
    text = datasets.Value("string")
    features = datasets.Features({**items.features, "original_id": text, "version": text})
    return datasets.Dataset.from_list(docs, features=features)


def render(item: dict, style: Style = STYLES["upper"], wording: Wording = WORDINGS["plain"]) -> str:
    """The prompt of an item in a style of letters and a wording; the defaults give :func:`medtasks.mcq.render`'s."""
    lines = [wording.context + item["context"]] if item.get("context") else []
    lines.append(wording.question + item["question"])
    marked = zip(style.letters, item["options"], strict=False)
    lines.append(wording.options + "\n".join(f"{style.mark.format(letter)} {option}" for letter, option in marked))
    lines.append(wording.closing)
    return wording.opening + "\n".join(lines)


def letters_prompt(doc: dict) -> str:
    """The prompt in the document's style of letters."""
    return render(doc, style=STYLES[doc["version"]])


def letters_choices(doc: dict) -> list[str]:
    """The letters to score in the document's style, as its prompt shows them: ``A``, ``(A)``, ``a`` or ``1``."""
    style = STYLES[doc["version"]]
    return [style.answer.format(letter) for letter, _ in zip(style.letters, doc["options"], strict=False)]


def wording_prompt(doc: dict) -> str:
    """The prompt in the document's wording."""
    return render(doc, wording=WORDINGS[doc["version"]])


def order_results(doc: dict, results: Sequence) -> dict:
    """Values of the ``*_order`` metrics: whether right, and which option and which position was chosen."""
    position, n = _chosen(results), len(doc["options"])
    option, right = (position + int(doc["version"])) % n, int(position == doc["answer"])

    def cell(number: int | None, version: str | int = doc["version"]) -> Cell:
        return Cell(doc["original_id"], version, n, number)

    return {
        "acc": cell(right),
        "acc_spread": cell(right),
        "consistency": cell(option),
        "position_bias": cell(position),
        "recall_std": cell(right, version=doc["answer"]),
        **{f"choice_{p}": cell(int(position == i) if i < n else None) for i, p in enumerate(POSITIONS)},
    }


def letters_results(doc: dict, results: Sequence) -> dict:
    """Values of the ``*_letters`` metrics: whether right, which option was chosen, and accuracy by style."""
    return _named_results(doc, results, STYLES)


def wording_results(doc: dict, results: Sequence) -> dict:
    """Values of the ``*_wording`` metrics: whether right, which option was chosen, and accuracy by wording."""
    return _named_results(doc, results, WORDINGS)


def _named_results(doc: dict, results: Sequence, versions: dict) -> dict:
    option = _chosen(results)
    right = int(option == doc["answer"])
    version = doc["original_id"], doc["version"], len(versions)
    return {
        "acc": Cell(*version, right),
        "acc_spread": Cell(*version, right),
        "consistency": Cell(*version, option),
        **{f"acc_{name}": right if name == doc["version"] else None for name in versions},
    }


def _chosen(results: Sequence) -> int:
    return mcq.likeliest([likelihood for likelihood, _ in results])
