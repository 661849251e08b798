"""Read sources one after the other, drop what must not be learned, draw by weight, and keep account of all of it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from medtasks import contamination
from medtasks.errors import InputError
from medtasks.item_rows import CountsOtherwise
from trainers.data import privacy
from trainers.data.mixture import Source, draw
from trainers.data.near_duplicates import NearDuplicates

SHOWN = 3
"""Faulty rows that an error line names."""

USUAL = ("duplicates", "contaminated", "too_long")
"""Reasons that are counted even where no row was dropped for them."""

Check = Callable[[dict, Source, str], dict | None]
"""Whether a row of a source, at a place, is dropped: None, or what there is to note of it."""


@dataclass(frozen=True)
class Drawn:
    """A row that was drawn."""

    row: dict
    source: Source
    place: str
    times: int
    """How often the same row was drawn before."""

    def notes(self) -> tuple[str, ...]:
        """What there is to say of how it was drawn (keys of :attr:`trainers.data.examples.Examples.notes`)."""
        return ("replay",) * self.source.replay + ("repeated",) * (self.times > 0)


@dataclass
class Collection:
    """What was drawn from all sources, and what became of the rest."""

    drawn: list[Drawn] = field(default_factory=list)
    dropped: list[dict] = field(default_factory=list)
    sources: list[dict] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def drop(self, source: Source, place: str, reason: str, **details) -> None:
        """Note a row that is not used."""
        self.dropped.append({"source": str(source), "place": place, "reason": reason, **details})

    @property
    def counts(self) -> dict[str, int]:
        """``read``; rows dropped, by reason; ``not_drawn``, where weights left some; ``used``."""
        reasons = Counter(row["reason"] for row in self.dropped)
        left = sum(max(about["usable"] - about["drawn"], 0) for about in self.sources)
        return (
            {"read": sum(about["read"] for about in self.sources)}
            | dict.fromkeys(USUAL, 0)
            | dict(sorted(reasons.items()))
            | ({"not_drawn": left} if left else {})
            | {"used": len(self.drawn)}
        )

    @property
    def taken(self) -> dict[str, int]:
        """Source as the recipe has it -> rows drawn from it."""
        return {about["given"]: sum(d.source.given == about["given"] for d in self.drawn) for about in self.sources}


def collect(
    sources: Iterable[Source],
    read: Callable[[Source], Iterator[tuple[str, dict | Exception]]],
    checks: dict[str, Check],
    seed: int,
    skip_faulty: bool = False,
) -> Collection:
    """The rows of ``sources`` that pass all ``checks`` (reason -> check, tried in their order), drawn by weight.

    Args:
        read: gives (place, row, or what is wrong with it) for each row of a source.

    Raises:
        InputError: rows are faulty and ``skip_faulty`` is false (the line names the first ones), or none is left.
    """
    found = Collection()
    for number, source in enumerate(sources):
        usable, n_read = _usable(source, read(source), checks, found)
        chosen = draw(len(usable), source.weight, f"{seed} {number} {source.source}")
        found.drawn += [Drawn(usable[i][1], source, usable[i][0], times) for i, times in chosen]
        found.sources.append(
            {
                "source": str(source),
                "given": source.given,
                "read": n_read,
                "usable": len(usable),
                "drawn": len(chosen),
                "replay": source.replay,
            }
        )
    if found.faults and not skip_faulty:
        raise InputError(faulty(found.faults, found.counts["read"]))
    if not found.drawn:
        names = ", ".join(about["source"] for about in found.sources)
        raise InputError(f"no example is left of {names}: {found.counts}")
    return found


def _usable(source: Source, rows, checks: dict[str, Check], found: Collection) -> tuple[list[tuple[str, dict]], int]:
    """(place, row) of the source's usable rows, and how many rows were read for them."""
    usable: list[tuple[str, dict]] = []
    n_read = 0
    for place, row in rows:
        if len(usable) == source.take:
            break
        n_read += 1
        if isinstance(row, CountsOtherwise):
            raise InputError(f"{place}: {row}")
        if isinstance(row, Exception):
            found.faults.append(f"{place}: {row}")
            found.drop(source, place, "faulty", why=str(row))
            continue
        for reason, check in checks.items():
            if (details := check(row, source, place)) is not None:
                found.drop(source, place, reason, **details)
                break
        else:
            usable.append((place, row))
    return usable, n_read


PARAGRAPHS = re.compile(r"\n\s*\n")


def faulty(faults: list[str], n_read: int) -> str:
    """The error line for faulty rows: how many, the first ones, and the mend."""
    first = "; ".join(faults[:SHOWN]) + ("; ..." if len(faults) > SHOWN else "")
    return (
        f"{len(faults):,} of {n_read:,} rows cannot be learned from: {first} (mend them, name their columns with "
        "'columns' of the source, or leave them out with 'skip_faulty: true')"
    )


# Checks


def not_seen(identity: Callable[[dict], object]) -> Check:
    """Drops rows whose ``identity`` an earlier row had."""
    seen = set()

    def check(row: dict, source: Source, place: str) -> dict | None:
        key = identity(row)
        if key in seen:
            return {}
        seen.add(key)
        return None

    return check


def not_nearly_seen(share: float) -> dict[str, Check]:
    """Drops rows, items excepted, of whose n-grams at least ``share`` stand in one earlier row; no check for 0.

    Raises:
        InputError: the share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise InputError(f"near_duplicates is {share}; it is a share of a row's words in order, from 0 (off) to 1")
    seen = NearDuplicates(share)

    def check(row: dict, source: Source, place: str) -> dict | None:
        earlier = None if "options" in row else seen.find(row, place)
        return None if earlier is None else {"of": earlier}

    return {"near_duplicates": check} if share else {}


def holds_none_of(held_out: contamination.Overlap) -> Check:
    """Drops rows that hold an item of ``held_out``, and notes how and which. Of what is asked each paragraph counts: a
    short question may follow an instruction, which many rows share."""

    def check(row: dict, source: Source, place: str) -> dict | None:
        asked = [value for name, value in row.items() if name in ("question", "prompt", "messages")]
        texts = map(PARAGRAPHS.split, contamination.texts(asked))
        parts = [part for paragraphs in texts if len(paragraphs) > 1 for part in paragraphs]
        leaks = [finding for finding in held_out.find(row | {"parts": parts}) if finding.kind in contamination.LEAKS]
        if not leaks:
            return None
        worst = min(leaks, key=lambda finding: contamination.LEAKS.index(finding.kind))
        return {"kind": worst.kind, "item": held_out.items[worst.position]["id"]}

    return check


class PersonalData:
    """The recipe's ``personal_data``: a check that drops rows, and an account of what was found."""

    def __init__(self, mode: str):
        """``mode``: one of :data:`trainers.data.arguments.PERSONAL_DATA`.

        Raises:
            InputError: it is to be looked for, and the library is not installed.
        """
        self._mode = mode
        self._scanner = privacy.Scanner() if mode != "off" else None

    @property
    def checks(self) -> dict[str, Check]:
        """The check, where it is to drop rows."""
        return {"personal_data": self._check} if self._mode == "drop" else {}

    def found_in(self, found: Collection) -> list[dict]:
        """``source, place, entities`` (kind -> times) of each row that holds some: of those that were dropped for it,
        or else of those that are used."""
        if self._mode == "drop":
            rows = [row for row in found.dropped if row["reason"] == "personal_data"]
            return [{key: row[key] for key in ("source", "place", "entities")} for row in rows]
        if self._mode == "off":
            return []
        rows = [
            {"source": str(one.source), "place": one.place} | (self._check(one.row, one.source, one.place) or {})
            for one in found.drawn
            if not one.times
        ]
        return [row for row in rows if "entities" in row]

    def _check(self, row: dict, source: Source, place: str) -> dict | None:
        told = {name: value for name, value in row.items() if name not in ("id", "license", "source")}
        entities = self._scanner.find("\n".join(contamination.texts(told)))
        return {"entities": dict(sorted(entities.items()))} if entities else None
