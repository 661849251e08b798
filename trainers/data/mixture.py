"""What a recipe's list of sources names, and how much of each is drawn.

An entry is a string (``medqa``, ``file.jsonl``, ``ORG/NAME/CONFIG``, ``SOURCE:N``) or a mapping of :class:`Source`'s
keys. Lists of a recipe hold strings (TRL's parser), so a mapping travels as JSON (:func:`trainers.recipe.parse` sees to
it), which the command line may give too: ``--sources medqa '{"source": "notes.jsonl", "weight": 0.5}'``.
"""

import json
import random
import re
from dataclasses import dataclass, field, fields

from medtasks import benchmarks
from medtasks.errors import InputError
from trainers.data import schemas
from trainers.data.arguments import STYLES
from trainers.recipe import did_you_mean

CORPUS_KEYS = ("source", "take", "weight", "replay")
"""What a corpus may say of itself: passages have no style, and one split."""

TEST_SPLIT = re.compile(r"\btest(?:ing)?\b", re.I)

MEASURED = {
    (benchmarks.MEDMCQA, "validation"): "medmcqa",
    (f"{benchmarks.PUBMEDQA}/pqa_labeled", "train"): "pubmedqa",
}
"""(Dataset, split) -> the benchmark that measures on it, for splits that are not called test."""


@dataclass(frozen=True)
class Source:
    """One source of examples."""

    source: str
    """A benchmark, a file or a Hub dataset."""
    split: str = "train"
    take: int | None = None
    """The first so many usable rows; None for all."""
    weight: float = 1.0
    """Share of the usable rows that is drawn: 0.5 half of them, 2 each twice, 1.3 each once and 30% a second time."""
    style: str | None = None
    """One of :data:`trainers.data.arguments.STYLES`, if not the recipe's ``answer_style``."""
    columns: dict[str, str] = field(default_factory=dict)
    """Name of a known schema -> the column that holds it."""
    replay: bool = False
    """General data, there to keep what the model knows."""
    given: str = ""
    """The entry as the recipe has it."""

    def __str__(self) -> str:
        split = f" {self.split}" if self.split != "train" else ""
        take = f":{self.take}" if self.take is not None else ""
        style = f" {self.style}" if self.style else ""
        columns = "".join(f" {name}={column}" for name, column in sorted(self.columns.items()))
        return f"{self.source}{take}{split}{style}{columns}" + (f" x{self.weight:g}" if self.weight != 1 else "")


def parse_all(entries: list[str], keys: tuple[str, ...] | None = None) -> list[Source]:
    """The sources that a recipe lists; ``keys`` as of :func:`parse`.

    Raises:
        InputError: as of :func:`parse`, or of a source nothing is left by an earlier entry.
    """
    sources = [parse(entry, keys) for entry in entries]
    for number, source in enumerate(sources):
        if any(_leaves_nothing(earlier, source) for earlier in sources[:number]):
            raise InputError(
                f"{source}: is listed twice, and duplicates are dropped; list it once (with 'weight: 2', each row is "
                "learned twice), or give each entry a 'take' of its own"
            )
    return sources


def _leaves_nothing(earlier: Source, source: Source) -> bool:
    """Whether both read the same rows, and the first takes all of them or goes by the same name."""
    same_rows = all(getattr(earlier, key) == getattr(source, key) for key in ("source", "split", "columns"))
    return same_rows and (earlier.take is None or str(earlier) == str(source))


def parse(entry: str, keys: tuple[str, ...] | None = None) -> Source:
    """The source that an entry names; ``keys`` are those that its mapping may have (None: all).

    Raises:
        InputError: an unknown key, a value of the wrong kind, or a split that is there for measuring.
    """
    if not entry.lstrip().startswith("{"):
        name, take = split_cap(entry)
        return _allowed(Source(name, take=take, given=entry))
    try:
        found = json.loads(entry)
    except json.JSONDecodeError as error:
        raise InputError(f'{entry}: not JSON ({error.msg}); give a mapping as {{"source": NAME, ...}}') from error
    known = keys or tuple(f.name for f in fields(Source) if f.name != "given")
    found = {key: value for key, value in found.items() if value is not None or key == "source"}
    for key in found:
        if key not in known:
            raise InputError(f"a source has no key '{key}'{did_you_mean(key, known)}; its keys are {', '.join(known)}")
    if not isinstance(found.get("source"), str):
        raise InputError(f"{entry}: no 'source'; name a benchmark, a file or a Hub dataset")
    name, take = split_cap(found["source"])
    _check_values(name, found)
    return _allowed(Source(**{"take": take} | found | {"source": name, "given": entry}))


def split_cap(name: str) -> tuple[str, int | None]:
    """``medqa:500`` -> ("medqa", 500); ``medqa`` -> ("medqa", None).

    Raises:
        InputError: none are to be taken.
    """
    source, _, cap = name.rpartition(":")
    if source and cap.isdigit() and not int(cap):
        raise InputError(f"{name}: takes no row; give a number from 1, or leave it out")
    return (source, int(cap)) if source and cap.isdigit() else (name, None)


def _check_values(name: str, found: dict) -> None:
    number = (int, float)
    needed = {
        "split": ("a split's name", lambda value: isinstance(value, str) and bool(value)),
        "take": ("a whole number from 1", lambda value: type(value) is int and value > 0),
        "weight": ("a number above 0", lambda value: type(value) in number and 0 < value < float("inf")),
        "style": (f"one of {', '.join(STYLES)}", lambda value: value in STYLES),
        "replay": ("true or false", lambda value: isinstance(value, bool)),
        "columns": ("a mapping NAME: COLUMN", _is_mapping_of_names),
    }
    for key, (what, holds) in needed.items():
        if key in found and not holds(found[key]):
            raise InputError(f"{name}: {key} is {found[key]!r}; it must be {what}")
    _check_columns(name, found.get("columns", {}))


def _is_mapping_of_names(value) -> bool:
    return isinstance(value, dict) and all(isinstance(column, str) for column in value.values())


def _check_columns(name: str, columns: dict[str, str]) -> None:
    if columns and name in benchmarks.BENCHMARKS:
        raise InputError(f"{name}: the columns of a benchmark are known; take 'columns' out")
    if unknown := [column for column in columns if column not in schemas.KNOWN]:
        raise InputError(
            f"{name}: columns: no row is read by '{unknown[0]}'{did_you_mean(unknown[0], schemas.KNOWN)}; "
            f"known names are {', '.join(schemas.KNOWN)}"
        )


def _allowed(source: Source) -> Source:
    """``source``, unless test items stand in it."""
    if TEST_SPLIT.search(source.split):
        raise InputError(
            f"{source.source}: split {source.split} is for measuring; learn from train, choose on validation"
        )
    whole = [part.partition("[")[0].strip() for part in source.split.split("+")]  # of "train[:600]+validation"
    if benchmark := next(filter(None, (MEASURED.get((source.source, split)) for split in whole)), None):
        raise InputError(
            f"{source.source}: {source.split} holds {benchmark}'s test questions; name '{benchmark}' instead"
        )
    return source


def draw(n: int, weight: float, seed: str) -> list[tuple[int, int]]:
    """(row, how often it was drawn before), for a source of ``n`` usable rows; the same for the same ``seed``."""
    whole = int(weight)
    again = sorted(random.Random(seed).sample(range(n), round((weight - whole) * n)))
    return [(row, times) for times in range(whole) for row in range(n)] + [(row, whole) for row in again]
