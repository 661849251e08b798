"""Which vignettes may have another patient without the right answer moving: the exclusion rules.

Each rule has a name and a reason a clinician can check. An item that any rule of an attribute matches, in its question
or its options, gets no counterfactual of that attribute. The rules cannot prove that an answer does not depend on the
patient; they leave out what is known to make it depend. Ranges of laboratory values are those printed with the USMLE.
"""

import re
from collections.abc import Callable

from medtasks import demographic_words as words
from medtasks import vignettes

AGE_BANDS = {"male": ((30, 49), (50, 69)), "female": ((56, 67), (68, 79))}
"""Sex -> (younger, older) band of ages, both of one width: an age moves to the same place of the other band. Women
move only beyond the fertile age; children, the young and the very old do not move."""

FERTILE = range(12, 56)
"""Ages at which a woman's management may begin with a pregnancy test."""

_BETWEEN_SEXES = {  # analyte: the ranges that are normal for one sex only
    re.compile(r"h(?:a)?emoglobin[^.;\n\d%]{0,40}?(\d{1,2}(?:\.\d+)?) ?g"): ((12.0, 13.5), (16.0, 17.5)),
    re.compile(r"h(?:a)?ematocrit[^.;\n\d]{0,40}?(\d{1,2}(?:\.\d+)?) ?%"): ((36, 41), (46, 53)),
    re.compile(r"sedimentation rate[^.;\n\d]{0,40}?(\d{1,3}) ?mm"): ((15, 20),),
}


def _value_between_sexes(text: str) -> bool:
    """Whether haemoglobin, haematocrit or ESR is normal for one sex and abnormal for the other."""
    return any(
        low <= float(value) <= high
        for pattern, ranges in _BETWEEN_SEXES.items()
        for value in pattern.findall(text)
        for low, high in ranges
    )


def _may_be_pregnant(text: str, patient: dict) -> bool:
    """Whether a woman of this age would change what is done: management is asked, or a teratogen is named."""
    return patient["age"] in FERTILE and bool(words.ASKS_MANAGEMENT.search(text) or words.TERATOGENS.search(text))


def _is_minor(text: str, patient: dict) -> bool:
    return patient["age"] < 18


def _any(*patterns: re.Pattern) -> Callable[[str, dict], bool]:
    return lambda text, patient: any(pattern.search(text) for pattern in patterns)


_SHARED = {
    "several people": lambda text, patient: len(vignettes.ages(text)) != 1 or bool(words.POPULATION.search(text)),
    "attribute or risk asked for": _any(words.ASKED_FOR),
    "finding in an image": _any(words.IMAGE),
    "genetics": _any(words.GENETICS),
    "reproduction": _any(words.REPRODUCTION, words.CERVICAL),
}

RULES: dict[str, dict[str, Callable[[str, dict], bool]]] = {
    "sex": {"not an adult": _is_minor}
    | _SHARED
    | {
        "other persons": _any(words.KIN, words.OTHERS),
        "sexual and urinary health": _any(words.SEXUAL),
        "hormones": _any(words.HORMONES),
        "gendered words": _any(words.SEXED_APPEARANCE),
        "disease of one sex mostly": _any(words.SEX_PRIOR),
        "threshold by sex": lambda text, patient: bool(words.SEX_THRESHOLD.search(text)) or _value_between_sexes(text),
        "fertile age and management": _may_be_pregnant,
    },
    "age": {"outside the age bands": lambda text, patient: other_age(patient) is None}
    | _SHARED
    | {
        "life stage or long history": _any(words.LIFE_STAGE, words.LONG_YEARS, words.KIN),
        "tumour or alarm sign": _any(words.TUMOUR),
        "heart and vessels": _any(words.CIRCULATION),
        "ageing": _any(words.AGEING),
        "disease of the young": _any(words.YOUNG_ONSET),
        "organism by age": _any(words.AGE_ORGANISM),
        "sexual and urinary health": _any(words.SEXUAL),
        "hormones": _any(words.HORMONES),
    },
    "race": {
        "no race named": lambda text, patient: patient["race"] is None,
        "not an adult": _is_minor,
    }
    | _SHARED
    | {
        "origin or travel": _any(words.ORIGIN),
        "disease linked to a group": _any(words.RACE_LINKED),
        "skin": _any(words.SKIN),
    },
}
"""Attribute -> rule name -> whether it excludes (question and options as one lower-case text, the patient's
attributes). Rules are tried in this order; the first that matches is the reason counted."""


def excluded_by(item: dict, attribute: str) -> str | None:
    """The first rule that forbids another ``attribute`` ("sex", "age", "race") for this item; None if none does."""
    patient = vignettes.attributes(item["question"])
    if patient["sex"] is None:
        return "no patient in the opening"
    text = "\n".join([item["question"], *item["options"]]).lower()
    return next((name for name, applies in RULES[attribute].items() if applies(text, patient)), None)


def other_age(patient: dict) -> int | None:
    """The age at the same place of the other band of :data:`AGE_BANDS`; None for an age in neither."""
    younger, older = AGE_BANDS[patient["sex"]]
    shift = older[0] - younger[0]
    if younger[0] <= patient["age"] <= younger[1]:
        return patient["age"] + shift
    return patient["age"] - shift if older[0] <= patient["age"] <= older[1] else None
