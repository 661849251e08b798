"""Examples for supervised fine-tuning: exam questions, open questions, pairs and chats, as a recipe mixes them."""

from collections import Counter
from dataclasses import replace

from medtasks import benchmarks, contamination
from medtasks.errors import InputError
from medtasks.ngrams import exactly
from trainers.data import free_form, mixture, raft, reading
from trainers.data.arguments import SFTDataArguments
from trainers.data.collecting import (
    Check,
    Collection,
    Drawn,
    PersonalData,
    collect,
    faulty,
    holds_none_of,
    not_nearly_seen,
    not_seen,
)
from trainers.data.examples import Examples, Origin
from trainers.data.mixture import Source
from trainers.data.rendering import Draft

NO_PASSAGES = "no_passages"


def sft_examples(args: SFTDataArguments, seed: int) -> Examples:
    """Prompts and completions from ``args.sources``, in their order; ``dev`` holds those of ``args.dev_sources``.

    Args:
        seed: of everything that is drawn or shuffled.

    Raises:
        InputError: no source, one that is not there, or rows that cannot be learned from.
    """
    if not args.sources:
        raise InputError(f"no sources; name benchmarks ({', '.join(benchmarks.BENCHMARKS)}), files or Hub datasets")
    sources, dev_sources = map(mixture.parse_all, (args.sources, args.dev_sources))  # before what takes time
    tests = contamination.held_out() if args.decontaminate else None
    dev = _examples(args, dev_sources, seed, tests) if dev_sources else None
    examples = _examples(args, sources, seed, tests, dev, args.shuffle_options)
    return replace(examples, dev=dev)


def dev_examples(args: SFTDataArguments, seed: int) -> Examples | None:
    """The held-out examples from ``args.dev_sources``, options in their own order; None where it names none.

    Raises:
        InputError: as :func:`sft_examples`.
    """
    sources = mixture.parse_all(args.dev_sources)
    if not sources:
        return None
    return _examples(args, sources, seed, contamination.held_out() if args.decontaminate else None)


def _examples(
    args: SFTDataArguments,
    sources: list[Source],
    seed: int,
    tests: contamination.Overlap | None,
    dev: Examples | None = None,
    shuffle: bool = False,
) -> Examples:
    """The examples of ``sources``, less those that hold an item of ``tests`` or stand in ``dev``."""
    held_out = [draft.row for draft in dev.drafts] if dev else []
    passages = raft.Passages(raft.parse(args.raft), tests) if args.raft else None
    personal = PersonalData(args.personal_data)
    checks = _checks(args, tests, held_out, passages) | personal.checks | _seen(args)
    found = collect(sources, reading.rows, checks, seed, args.skip_faulty)
    _demand_passages(found, args.skip_faulty)
    rows = raft.attach(found.drawn, passages, seed) if passages else [one.row for one in found.drawn]
    drafts = [
        Draft(
            row, one.source.style or args.answer_style, args.chat, seed, shuffle, str(one.source), one.place, one.times
        )
        for one, row in zip(found.drawn, rows, strict=True)
    ]
    if not args.chat:
        _demand_no_chats(drafts)
    origins = [_origin(draft, one) for draft, one in zip(drafts, found.drawn, strict=True)]
    notes = Counter(note for origin in origins for note in origin.notes)
    notes["contaminated_passages"] = passages.contaminated if passages else 0
    return Examples(
        [draft.at(0) for draft in drafts],
        found.counts,
        found.taken,
        drafts,
        origins,
        found.dropped,
        found.sources,
        {what: n for what, n in notes.items() if n},
        personal.found_in(found),
    )


def _checks(args: SFTDataArguments, tests, held_out: list[dict], passages) -> dict[str, Check]:
    """Reason -> check, for what drops rows."""
    checks: dict[str, Check] = {}
    if tests:
        checks["contaminated"] = holds_none_of(tests)
    if held_out:
        checks["held_out"] = _is_not_held_out(held_out)
    checks["needs_its_options"] = lambda row, source, place: _needs_its_options(row, source.style or args.answer_style)
    if passages:
        checks[NO_PASSAGES] = lambda row, source, place: _lacks_passages(row, source, passages)
    return checks


def _seen(args: SFTDataArguments) -> dict[str, Check]:
    """Reason -> check, for what repeats an earlier row; the last ones, since what is dropped was not seen."""
    return {"duplicates": not_seen(lambda row: _asked(row) + _replied(row))} | not_nearly_seen(args.near_duplicates)


def _asked(row: dict) -> tuple:
    """What a row asks: an item's context, question and set of options, another row's question (its completion, where it
    has none), a chat's turns before its reply."""
    if "messages" in row:
        return (exactly(" ".join(contamination.texts(row["messages"]))),)
    if "options" not in row:
        return (exactly(row.get("question") or row["prompt"] or row["completion"]),)
    options = sorted(exactly(option) for option in row["options"])
    return exactly(row.get("context") or ""), exactly(row["question"]), *options


def _replied(row: dict) -> tuple:
    """What tells rows that ask the same apart: a text that is the answer. Of an item there is one answer."""
    return () if "options" in row else (exactly(row.get("reply") or row.get("completion") or ""),)


def _is_not_held_out(held_out: list[dict]) -> Check:
    """Drops what stands among the held-out rows, told as test items are, and by :func:`_asked`."""
    identities = {_asked(row) for row in held_out}
    holds = holds_none_of(overlap(held_out))

    def check(row: dict, source: Source, place: str) -> dict | None:
        return {} if _asked(row) in identities or holds(row, source, place) is not None else None

    return check


def overlap(rows: list[dict]) -> contamination.Overlap:
    """What tells whether a text holds what one of ``rows`` asks."""
    asked = [{"id": "", "question": _question(row), "options": row.get("options", [])} for row in rows]
    return contamination.Overlap(item for item in asked if item["question"])


def _question(row: dict) -> str:
    """A row's question, or its prompt, or the last turn before a chat's reply."""
    return row["messages"][-1]["content"] if "messages" in row else row.get("question") or row.get("prompt") or ""


def _needs_its_options(row: dict, style: str) -> dict | None:
    return {} if style == "free" and "options" in row and not free_form.stands_alone(row) else None


def _lacks_passages(row: dict, source: Source, passages: raft.Passages) -> dict | None:
    return {} if "options" in row and not source.replay and not passages.of(row) else None


def _demand_passages(found: Collection, skip_faulty: bool) -> None:
    lacking = [f"{row['place']}: no passages" for row in found.dropped if row["reason"] == NO_PASSAGES]
    if lacking and not skip_faulty:
        raise InputError(f"raft: {faulty(lacking, found.counts['read'])}")


def _demand_no_chats(drafts: list[Draft]) -> None:
    chats = [draft.place for draft in drafts if "messages" in draft.row]
    if chats:
        raise InputError(
            f"{chats[0]}: a chat of several turns, as {len(chats):,} rows are; say 'chat: true' to learn it"
        )


def _origin(draft: Draft, one: Drawn) -> Origin:
    """Where a draft comes from, and what there is to say of it."""
    row, notes = draft.row, one.notes()
    if "options" in row:
        notes += ("without_rationale",) * (draft.style == "rationale" and not row["rationale"])
        notes += ("with_their_best_passage",) * bool(row.get("n_best"))
        notes += ("with_distractors_alone",) * (row.get("n_best") == 0)
    return Origin(draft.source, draft.place, notes)
