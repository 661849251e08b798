"""Examples for continued pretraining: the passages of corpora, alone or with exercises on what they say."""

import random
from collections import Counter
from collections.abc import Iterator

from medtasks import contamination, corpora
from medtasks.errors import InputError
from medtasks.ngrams import exactly
from trainers.data import comprehension, mixture
from trainers.data.arguments import CPTDataArguments
from trainers.data.collecting import Check, PersonalData, collect, holds_none_of, not_nearly_seen, not_seen
from trainers.data.examples import Examples, Origin, hold_out
from trainers.data.mixture import Source


def cpt_examples(args: CPTDataArguments, seed: int = 0) -> Examples:
    """Texts (title, blank line, text, and exercises if asked for) of the passages of ``args.corpus``, in their order;
    ``dev`` holds the share of them that is held out.

    Args:
        seed: of what is drawn by weight, and of which passages get exercises in a mixture, and which ones.

    Raises:
        InputError: no corpus, one that is not there, or a row without text.
    """
    if not args.corpus:
        raise InputError("no corpus; name 'sample', a .jsonl(.gz) file or a Hub dataset")
    sources = mixture.parse_all(args.corpus, mixture.CORPUS_KEYS)
    share = {"raw": 0.0, "comprehension": 1.0, "mixed": args.comprehension_share}[args.text_style]
    if not 0 <= share <= 1:
        raise InputError(f"comprehension_share is {share}; it is a share of the passages, from 0 to 1")
    personal = PersonalData(args.personal_data)
    checks: dict[str, Check] = {}
    if args.decontaminate:
        checks["contaminated"] = holds_none_of(contamination.held_out())
    checks |= personal.checks  # what repeats an earlier row comes last, since what is dropped was not seen
    checks |= {"duplicates": not_seen(lambda passage: exactly(passage["text"]))} | not_nearly_seen(args.near_duplicates)
    found = collect(sources, _read, checks, seed)
    exercised = [_exercised(one.row, share, seed) for one in found.drawn]
    rows = [
        {"text": comprehension.text(one.row, seed) if chosen else comprehension.plain(one.row)}
        for one, chosen in zip(found.drawn, exercised, strict=True)
    ]
    origins = [
        Origin(
            str(one.source),
            one.place,
            one.notes() + ("with_exercises",) * (row["text"] != comprehension.plain(one.row)),
        )
        for row, one in zip(rows, found.drawn, strict=True)
    ]
    examples = Examples(
        rows,
        found.counts,
        found.taken,
        dropped=found.dropped,
        sources=found.sources,
        notes=dict(Counter(note for origin in origins for note in origin.notes)),
        origins=origins,
        personal_data=personal.found_in(found),
    )
    return hold_out(examples, args.dev_share, seed)


def _read(source: Source) -> Iterator[tuple[str, dict]]:
    """(place, passage) for each row of a corpus, duplicates too.

    A passage is called by its id, or, where an earlier one has the same, by its file and line.
    """
    names = set()
    for place, passage in corpora.passages(source.source):
        name = place if passage["id"] in names else passage["id"]
        names.add(name)
        yield name, passage


def _exercised(passage: dict, share: float, seed: int) -> bool:
    return random.Random(f"{seed} style {passage['text']}").random() < share
