"""Who the patient of a clinical vignette is, and the same vignette with another patient.

Only the patient's own words are changed (man, she, 45-year-old, African American, and the article before them), and
only where grammar leaves one reading; a text that leaves two gives None. Which vignettes may be rewritten without
moving the right answer is decided elsewhere: :mod:`medtasks.demographic_rules`.
"""

import re

FEMALE_OF = {
    "man": "woman",
    "male": "female",
    "gentleman": "lady",
    "he": "she",
    "himself": "herself",
    "his": "her",
    "him": "her",
    "mr": "ms",
}
"""The patient's words, male to female; ``her`` alone has two ways back, which :func:`_case_of_her` tells apart."""

MALE_OF = {female: male for male, female in FEMALE_OF.items() if female != "her"}
_MALE = re.compile(rf"\b(?:{'|'.join(FEMALE_OF)})\b", re.I)
_FEMALE = re.compile(rf"\b(?:{'|'.join(MALE_OF)}|hers?)\b", re.I)  # "hers" has no way back: such a text is refused
SEX_OF_NOUN = dict.fromkeys(("man", "male", "gentleman", "boy"), "male") | dict.fromkeys(
    ("woman", "female", "lady", "girl"), "female"
)

RACES = {"black": "African American", "white": "Caucasian", "hispanic": "Hispanic", "asian": "Asian"}
"""Group -> the word written for it, MedQA's own most frequent one."""

RACE_OF_WORD = {
    "african american": "black",
    "black": "black",
    "caucasian": "white",
    "white": "white",
    "hispanic": "hispanic",
    "latino": "hispanic",
    "latina": "hispanic",
    "asian": "asian",
    "asian american": "asian",
}
"""Words that name a group, lower case, hyphens as blanks. Groups whose naming is a clue (Ashkenazi, Native American,
a nationality) are none of them: such a vignette names no race here."""

_RACE = re.compile(r"(?:african[ -]american|asian(?:[ -]american)?|black|caucasian|white|hispanic|latin[oa])\s*$", re.I)
_OPENING = re.compile(
    r"\b(?P<age>\d{1,3})[- ]year[- ]old,?\s+(?P<between>(?:[\w’'-]+,?\s+){0,5}?)"
    rf"(?P<noun>{'|'.join(SEX_OF_NOUN)})\b",
    re.I,
)
_SENTENCE_END = re.compile(r"[.?!](?:\s|$)")
_AGE = re.compile(r"\b(\d{1,3})(?=[- ]year[- ]old)", re.I)
_ARTICLE = re.compile(r"\b(a)n?\s$", re.I)
_VOWEL = re.compile(r"[aeiou]|8|1[18]\b", re.I)

_AFTER_OBJECT = re.compile(
    r"(?:a|about|after|again|alone|an|and|as|at|away|because|before|but|by|down|due|during|every|for|from|here|if|in|into|is|"
    r"of|off|on|once|or|out|over|regarding|secondary|since|so|that|than|the|there|these|this|three|through|to|today|too|"
    r"twice|until|up|upon|was|when|whenever|where|which|while|who|with|within|without)"
)
"""Words that follow an object ("brought her to"), hardly ever a possessive."""

_TWO_OBJECTS = re.compile(
    r"\b(?:accompani|advis|allow|ask|assist|bother|bring|brought|call|caus|consider|deem|deny|denied|feed|feel|felt|"
    r"find|found|gave|get|giv|got|grant|hand|help|inform|keep|kept|leav|left|let|mak|made|need|notic|observ|offer|"
    r"(?:over)?hear|prescrib|pronounc|put|refus|render|sav|saw|see|send|sent|serv|show|start|taught|teach|tak|tell|took|"
    r"told|wak|want|watch|witness|woke)(?:e|d|s|t|n|en|es|ed|ing|ting|ning)?\s$",
    re.I,
)
"""Verbs after which "her" may be an object although a noun or adjective follows ("gave her aspirin")."""


def attributes(question: str) -> dict:
    """``sex`` ("male", "female"), ``age`` (years) and ``race`` (a key of :data:`RACES`) that the opening names.

    The opening is the first sentence's "45-year-old African American man"; what it leaves out is None. A vignette
    that opens otherwise has none of the three.
    """
    opening = _opening(question)
    if opening is None:
        return {"sex": None, "age": None, "race": None}
    race = _RACE.search(opening["between"])
    return {
        "sex": SEX_OF_NOUN[opening["noun"].lower()],
        "age": int(opening["age"]),
        "race": RACE_OF_WORD[race[0].strip().lower().replace("-", " ")] if race else None,
    }


def _opening(question: str) -> re.Match | None:
    end = _SENTENCE_END.search(question)
    return _OPENING.search(question, 0, end.start() if end else len(question))


def ages(text: str) -> set[int]:
    """Every age in years that the text gives someone ("45-year-old")."""
    return {int(age) for age in _AGE.findall(text)}


def with_sex(text: str, sex: str) -> str | None:
    """The text with the patient's words in the other sex; None where a pronoun can be read in two ways.

    Words of ``sex`` itself stay. Writing the result back gives the text again, or this returns None.
    """
    back = {"female": "male", "male": "female"}[sex]
    changed = _swap(text, sex)
    return changed if changed is not None and _swap(changed, back) == text else None


def _swap(text: str, sex: str) -> str | None:
    pieces, end = [], 0
    for found in (_MALE if sex == "female" else _FEMALE).finditer(text):
        word = found[0].lower()
        before, after = text[: found.start()], text[found.end() :]
        new = _case_of_her(before, after) if word == "her" else (FEMALE_OF | MALE_OF).get(word)
        if new is None or found[0].isupper() or (found[0] == "His" and before.endswith(" of ")):  # HER-2, bundle of His
            return None
        pieces += [text[end : found.start()], new.capitalize() if found[0][0].isupper() else new]
        end = found.end()
    return "".join(pieces) + text[end:]


def _case_of_her(before: str, after: str) -> str | None:
    """The "his" or "him" for the "her" between two texts; None where both may be meant."""
    found = re.match(r"\s+[\"“(]?([\w’'-]+)", after)
    word = found[1].lower() if found else None
    if word is None or _AFTER_OBJECT.fullmatch(word):
        return "him"
    if _TWO_OBJECTS.search(before):
        return None
    if word in ("back", "home"):  # "brought her home" or "on her back"
        return "his" if re.search(r"(?:^|[.?!,;:]|\b(?:and|at|from|in|of|on|to))\s*$", before) else None
    if word.endswith("ing") and re.search(r"\b(?:by|in|of|to|with)\s$", before):  # "resulted in her falling"
        return None
    return "his"


def with_age(text: str, age: int) -> str:
    """The text with every "N-year-old" saying ``age``; for texts that name one age (see :func:`ages`)."""
    for found in reversed(list(_AGE.finditer(text))):
        text = _replaced(text, found.start(), found.end(), str(age))
    return text


def with_race(question: str, race: str) -> str:
    """The question with the opening's race word replaced by the word of ``race`` (a key of :data:`RACES`)."""
    opening = _opening(question)
    found = _RACE.search(opening["between"])
    start = opening.start("between") + found.start()
    return _replaced(question, start, start + len(found[0].rstrip()), RACES[race])


def _replaced(text: str, start: int, end: int, new: str) -> str:
    """``text[start:end]`` replaced by ``new``, and the article before it fitted."""
    article = _ARTICLE.search(text[:start])
    if article is None:
        return text[:start] + new + text[end:]
    fitted = article[1] + ("n" if _VOWEL.match(new) else "")
    return text[: article.start()] + fitted + text[article.end() - 1 : start] + new + text[end:]
