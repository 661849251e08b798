"""Count what is wrong with the benchmarks themselves: the tables of known flaws in the suites' READMEs.

    python -m medtasks.flaws [BENCHMARK ...]

A README's table is what this prints over the official test sets; a test compares them.
"""

import re
import sys
from collections import Counter
from collections.abc import Sequence

from medtasks import benchmarks
from medtasks.errors import InputError
from medtasks.ngrams import words

IMAGE = re.compile(
    r"\b(?:shown|pictured|depicted|illustrated|displayed|given) (?:below|above|here)(?=\s*[.?,(])"
    r"|\b(?:shown|pictured|depicted|seen|given) in (?:the |this )?(?:\w+ )?"
    r"(?:image|figure|picture|photograph|exhibit|diagram)\b"
    r"|\b(?:image|figure|picture|photograph|photomicrograph|diagram|exhibit)s? "
    r"(?:(?:is|are) )?(?:below|above|shown|given|provided)\b"
    r"|\b(?:radiograph|x-?ray|ct scan|mri|ecg|electrocardiogram|specimen) is (?:shown|provided|depicted)\b",
    re.IGNORECASE,
)
"""A question that points at a picture, which nobody sees here."""
ALL_OR_NONE = re.compile(r"\b(?:all|none|both|any) of (?:the |these )?(?:above|these|options)\b|^(?:all|none)$", re.I)
"""An option about the other options, whose meaning changes with their order."""

FLAWS = {
    "items": "items",
    "repeated": "repeat an earlier item (question and options)",
    "repeated_question": "repeat an earlier question with other options",
    "in_train": "stand in the training split too (question and options)",
    "same_options": "offer the same option twice",
    "empty": "have an empty question or option",
    "answer_missing": "have an answer that is not among their options",
    "image": "point at a picture that is not there",
    "all_or_none": 'offer "all/none of the above"',
    "longest": "are answered by the longest option alone (%)",
    "constant": "are answered by one letter alone (%)",
}
"""Column -> what it counts, of a test split's items."""


def count(benchmark: str) -> dict[str, float]:
    """How many items of the test split have each of :data:`FLAWS`; the last two are percentages.

    Raises:
        InputError: no such benchmark, or its rows cannot be loaded.
    """
    test = benchmarks.load(benchmark, "test")
    learnt = {_whole(item) for item in _train(benchmark)}
    wholes, questions = Counter(map(_whole, test)), Counter(_question(item) for item in test)
    n = len(test)
    longest = [max(range(len(item["options"])), key=lambda i, o=item["options"]: len(o[i])) for item in test]
    return {
        "items": n,
        "repeated": n - len(wholes),
        "repeated_question": len(wholes) - len(questions),
        "in_train": sum(_whole(item) in learnt for item in test),
        "same_options": sum(len(set(map(_plain, item["options"]))) < len(item["options"]) for item in test),
        "empty": sum(not all(map(str.strip, [item["question"], *item["options"]])) for item in test),
        "answer_missing": _answers_missing(benchmark, test),
        "image": sum(bool(IMAGE.search(item["question"])) for item in test),
        "all_or_none": sum(any(ALL_OR_NONE.search(option.strip()) for option in item["options"]) for item in test),
        "longest": round(100 * sum(item["answer"] == i for item, i in zip(test, longest, strict=True)) / n, 1),
        "constant": round(100 * max(Counter(item["answer"] for item in test).values()) / n, 1),
    }


def table(names: Sequence[str]) -> str:
    """A Markdown table: a line a benchmark, a column a flaw."""
    lines = ["| benchmark | " + " | ".join(FLAWS) + " |", "|---" * (1 + len(FLAWS)) + "|"]
    for name in names:
        counts = count(name)
        lines.append(f"| {name} | " + " | ".join(f"{counts[flaw]:,}" for flaw in FLAWS) + " |")
    return "\n".join(lines)


def _train(benchmark: str) -> list[dict]:
    try:
        return benchmarks.load(benchmark, "train")
    except InputError as error:
        if "has no split" in str(error):
            return []
        raise


def _answers_missing(benchmark: str, test: list[dict]) -> int:
    """Items whose answer is no option, or (MedQA) whose rows spell an answer that is not the option they point at."""
    missing = sum(not 0 <= item["answer"] < len(item["options"]) for item in test)
    if benchmark in ("medqa", "medqa_sub"):
        rows = benchmarks.rows(benchmark)["test"]
        missing += sum(_plain(row["answer"]) != _plain(row["options"][row["answer_idx"]]) for row in rows)
    return missing


def _plain(text: str) -> str:
    return " ".join(words(text)) or text.strip()


def _question(item: dict) -> tuple:
    return _plain(item["question"]), _plain(item["context"])


def _whole(item: dict) -> tuple:
    return (*_question(item), *sorted(map(_plain, item["options"])))


def main(names: Sequence[str]) -> int:
    """Print the table of ``names``; of the four benchmarks of the group ``medadapt`` if there are none."""
    try:
        print(table(names or ("medqa", "medmcqa", "pubmedqa", "mmlu_med")))
    except InputError as error:
        print(f"medtasks.flaws: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
