"""Whether the text says so: a statement of its own, or one whose only number is changed or only negation taken out."""

import re
from random import Random

from trainers.data.comprehension.sentences import RELATIVE, Reading
from trainers.data.comprehension.wording import put

CLAIM = (
    ("True or false, by the text: “{claim}”", "{verdict}.{says}"),
    ("Does the text say so? “{claim}”", "{yes}.{says}"),
    ("Is this statement in agreement with the passage? “{claim}”", "{yes}.{says}"),
)

NUMBER = re.compile(
    r"""(?<![\w.,/–-])(?P<number>\d{1,3})(?:(?=%)|(?=\s(?:percent|bones|pairs|years|days|weeks|months|hours|minutes|types?
    |chambers|liters|grams|milligrams|mg|g|kg|mL|L|cm|mm|inches|feet|pounds|calories|degrees|chromosomes|layers|lobes
    |stages|bases|cells|muscles|vertebrae|teeth|genes)\b))""",
    re.X,
)
"""A whole number of something."""

VAGUE = re.compile(
    r"\b(?:about|around|approximately|nearly|almost|roughly|over|under|up to|at least|at most|more|less|fewer|between"
    r"|to|or|than|estimated|average|some|every|within|least|first|per|and)\b|–"
)
"""Words beside which another number may be as right."""

NEGATION = re.compile(
    r"""\b(?:(?P<verb>is|are|was|were|should|will|must)\snot|cannot)\s(?!only|always|all|every|necessarily|just|simply
    |merely|the\ssame|enough|yet|fully|entirely|completely|usually|typically|often|well|limited|alone|so|as|too)""",
    re.X,
)
LIMITED = re.compile(
    r"\b(?:no|not|never|nor|neither|none|nothing|without|unless|but|although|however|until|rarely|instead|rather|only"
    r"|while|whereas|if|because|except|even|unlike|most|many|some|sometimes|often|usually|certain|may|might|can|always"
    r"|and|or)\b|n['’]t\b",
    re.I,
)
"""Words beside which a sentence and its opposite may both be right."""


def claim(reading: Reading, rng: Random) -> tuple[str, str] | None:
    """A statement of the text as it stands, or with its only number changed, or its only negation taken out."""
    found = []
    for sentence in reading.alone:
        changed = _other_number(sentence, rng) or _without_negation(sentence)
        if changed:
            found.append((sentence, changed))
    if not found:
        return None
    sentence, changed = rng.choice(found)
    if rng.random() < 0.5:
        return put(CLAIM, rng, claim=sentence, verdict="True", yes="Yes", says="")
    return put(CLAIM, rng, claim=changed, verdict="False", yes="No", says=f" It says: “{sentence}”")


def _other_number(sentence: str, rng: Random) -> str | None:
    """The sentence with another number, where it has one alone and says it without reserve."""
    if len(re.findall(r"\d+", sentence)) != 1 or VAGUE.search(sentence) or not (match := NUMBER.search(sentence)):
        return None
    number = int(match["number"])
    other = rng.choice([n for n in (number * 2, number * 3, number // 2) if n not in (number, 0, 1)] or [number + 1])
    if "%" in sentence or "percent" in sentence:
        other = 100 - number if number != 50 else 20
    return sentence[: match.start()] + str(other) + sentence[match.end() :]


def _without_negation(sentence: str) -> str | None:
    """The sentence with its "not" taken out, where that is in its main clause and nothing else denies or limits."""
    match = NEGATION.search(sentence)
    if match is None:
        return None
    before, after = sentence[: match.start()], sentence[match.end() :]
    if LIMITED.search(before + after) or RELATIVE.search(before):
        return None
    return f"{before}{match['verb'] or 'can'} {after}"
