"""Examples that are ready for TRL, and what became of the rows that are not among them."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from medtasks import files
from medtasks.errors import InputError
from trainers.data.rendering import Draft


@dataclass(frozen=True)
class Origin:
    """Where a row comes from, and what there is to say of it (the keys of :attr:`Examples.notes`)."""

    source: str
    place: str
    notes: tuple[str, ...] = ()


@dataclass
class Examples:
    """Rows ready for TRL, and what became of the rest."""

    rows: list[dict]
    """``prompt`` and ``completion`` (str, or messages with ``chat``) for SFT; ``text`` for CPT."""
    counts: dict[str, int]
    """``read``; dropped as ``duplicates``, ``contaminated``, ``too_long`` or for another reason; ``used``."""
    taken: dict[str, int]
    """Source as the recipe has it -> rows drawn from it, too long ones included."""
    drafts: list[Draft] = field(default_factory=list)
    """What the rows are rendered from, in their order; empty where they are the same in every epoch."""
    origins: list["Origin"] = field(default_factory=list)
    """Where each row comes from; empty where that is not known."""
    dropped: list[dict] = field(default_factory=list)
    """A dict for each row that was dropped: ``source, place, reason``, and what else is known of it."""
    sources: list[dict] = field(default_factory=list)
    """A dict for each source: ``source, read, usable, drawn, replay`` and ``dropped`` (reason -> rows)."""
    notes: dict[str, int] = field(default_factory=dict)
    """What else there is to say of rows that are used: ``replay``, ``repeated``, ``without_rationale``, ..."""
    personal_data: list[dict] = field(default_factory=list)
    """A dict for each row in which some was found: ``source, place, entities`` (name -> times)."""

    lengths: list[tuple[int, int]] = field(default_factory=list)
    """(tokens of the prompt, of the rest) of each row in epoch 0, where they have been counted."""
    dev: "Examples | None" = None
    """What is held out, to be measured on while training."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any row, their order, and how they read in another epoch."""
        seeds = sorted({draft.seed for draft in self.drafts if draft.moves})
        return files.sha256_json([self.rows, seeds] if seeds else self.rows)[:16]

    def epoch(self, number: int) -> list[dict]:
        """The rows of epoch ``number`` (from 0): the same examples in the same order, options and loose passages
        shuffled anew. Epoch 0 is ``rows``."""
        if number == 0 or not self.drafts:
            return self.rows
        return [draft.at(number) if draft.moves else row for draft, row in zip(self.drafts, self.rows, strict=True)]

    def place(self, number: int) -> str:
        """Where row ``number`` came from, as far as it is known."""
        return self.origins[number].place if self.origins else f"example {number}"

    def __str__(self) -> str:
        dropped = ", ".join(f"{n:,} {what}" for what, n in self.counts.items() if what not in ("read", "used"))
        used = ", ".join(f"{source} {n:,}" for source, n in self.taken.items())
        notes = "".join(f"; {n:,} {what}" for what, n in self.notes.items())
        return f"data: {self.counts['used']:,} examples ({used}); dropped {dropped}{notes}"

    def without(self, positions: Sequence[int], reason: str) -> "Examples":
        """These examples less the rows at ``positions``, which are counted under ``reason``."""
        gone = set(positions)

        def kept(values: list) -> list:
            return [value for position, value in enumerate(values) if position not in gone]

        counts = self.counts | {
            reason: self.counts.get(reason, 0) + len(gone),
            "used": self.counts["used"] - len(gone),
        }
        origins = [self.origins[position] for position in sorted(gone) if self.origins]
        first = dict.fromkeys((origin.source, origin.place) for origin in origins)  # a row may have been drawn twice
        dropped = [{"source": source, "place": place, "reason": reason} for source, place in first]
        notes = Counter(self.notes)
        notes.subtract(note for origin in origins for note in origin.notes)
        return replace(
            self,
            rows=kept(self.rows),
            drafts=kept(self.drafts),
            origins=kept(self.origins),
            notes={what: n for what, n in notes.items() if n},
            lengths=kept(self.lengths),
            counts=counts,
            dropped=[*self.dropped, *dropped],
        )


def hold_out(examples: Examples, share: float, seed: int) -> Examples:
    """``examples`` without a random ``share`` of their texts, which is their ``dev`` (None for 0).

    Raises:
        InputError: the share is not in [0, 1), or one side would be empty.
    """
    if not 0 <= share < 1:
        raise InputError(f"dev_share is {share}; it is a share of the passages, from 0 to below 1")
    if not share:
        return examples
    chosen = [i for i, row in enumerate(examples.rows) if random.Random(f"{seed} {row['text']}").random() < share]
    if not 0 < len(chosen) < len(examples.rows):
        raise InputError(f"dev_share {share} of {len(examples.rows)} passages leaves one side empty; change it")
    held = {examples.rows[i]["text"]: i for i in reversed(chosen)}  # once, however often it was drawn
    once = sorted(held.values())
    origins = [examples.origins[i] for i in once]
    taken = Counter(origin.source for origin in origins)
    sources = [{"source": source, "read": n, "usable": n, "drawn": n, "replay": False} for source, n in taken.items()]
    rows = [examples.rows[i] for i in once]
    dev = Examples(rows, {"read": len(rows), "used": len(rows)}, dict(taken), origins=origins, sources=sources)
    return replace(examples.without(chosen, "held_out"), dev=dev)
