"""Why something is so, and what follows from it."""

import re
from random import Random

from trainers.data.comprehension.sentences import POINTS_ELSEWHERE, Reading, lower_first, stands_alone, upper_first
from trainers.data.comprehension.wording import put

WHY = (
    ("According to the text, what is the reason that {effect}?", "{cause}."),
    ("“{Effect}.” How does the text explain this?", "{cause}."),
    ("Why does the text say that {effect}?", "{cause}."),
)
FOLLOWS = (
    ("“{cause}” What follows from this?", "{effect}"),
    ("What does the text conclude from this: “{cause}”", "{effect}"),
    ("“{cause}” To what does this lead, by the text?", "{effect}"),
)

BECAUSE = re.compile(r"^(?P<effect>[^,]{20,160}?),?\s(?P<cause>because(?:\sof)?\s[^,]{15,180})\.$")
HEDGED = re.compile(
    r"\b(?:not|only|just|simply|merely|partly|part|perhaps|even|whether|either|especially|probably|if|when|but)$|n['’]t$",
    re.I,
)
"""The word before "because" where the reason is not given for the whole of it."""

RESULT = re.compile(r"^(?:As a result|Therefore|Consequently|Thus|Hence|For this reason), (?P<effect>.{25,250}\.)$")


def cause(reading: Reading, rng: Random) -> tuple[str, str] | None:
    """Why something is so, or what follows from it: "because", or "therefore" and the sentence before it."""
    found = []
    for before, sentence in zip(["", *reading.sentences], reading.sentences, strict=False):
        if stands_alone(sentence) and (match := BECAUSE.match(sentence)) and not HEDGED.search(match["effect"]):
            if len(match["effect"].split()) > 3 and sentence.lower().count("because") == 1:
                words = {"effect": lower_first(match["effect"], reading.text), "Effect": match["effect"]}
                found.append((WHY, words | {"cause": upper_first(match["cause"])}))
        elif (match := RESULT.match(sentence)) and stands_alone(before):
            if POINTS_ELSEWHERE.search(match["effect"]):
                continue
            found.append((FOLLOWS, {"cause": before, "effect": upper_first(match["effect"])}))
    if not found:
        return None
    templates, words = rng.choice(found)
    return put(templates, rng, **words)
