"""Which items can be asked without their options, and answered in words."""

import re

from trainers.data.rendering import NAMES_OTHER_OPTIONS

NAMES_ITS_OPTIONS = re.compile(
    r"""^following\b|\b(?:
        (?:all|any|both|each|either|neither|none|one|some|two|which)\s(?:one\s|ones\s)?of\s(?:the|these|those)\b
      | (?:the|these)\s(?:following|options?|choices?|alternatives?|statements?|answers?)\b
      | (?<=of\s)following\b
      | (?:given|listed|mentioned|shown)\s(?:below|above|here)\b
      | except(?!ion)(?:ing|ed)?\b(?:\s*[:.?]?\s*$|\s*(?:for\s*)?[:_-])
      | all\s(?:\w+\s){0,4}(?:except|but)\b
      | (?:in)?correct\s(?:\w+\s){0,2}(?:statements?|options?|answers?|order|sequence|match|pair(?:ing)?|combination)\b
      | (?:in)?correctly\s(?:matched|paired)\b
      | (?:true|false|correct|incorrect|right|wrong|untrue)\s*(?:is|are|about|regarding|concerning|of|for|:|\?|$)
      | (?:is|are|is\snot|are\snot)\s(?:not\s)?(?:true|false|correct|incorrect|wrong|untrue)\b
      | indicate\s(?:the|which)|(?:point\sout|mark|choose|select|identify)\s(?:the|which)
      | (?:statement|option|choice|alternative|pair)s?\b
      | which\s(?:\w+\s){0,2}(?:least|not)\b
      | (?:not|never|least)\s(?:a|an|the|likely|seen|found|used|associated|caused|included|involved|affected|part)\b
    )""",
    re.I | re.X,
)
"""Words of a question that send the reader to the options, or that many answers beside the right one would fit."""

NEGATED = re.compile(r"\b(?:NOT|EXCEPT|LEAST|FALSE|INCORRECT)\b")
"""In capitals, what sets off one option from the others."""

ONLY_A_TOPIC = re.compile(
    r"^(?:regarding|concerning|about|with (?:respect|regard) to|in relation to|as (?:for|to))\b[^?]*[:.,]?$", re.I
)
"""A question that names its subject alone: any true sentence would answer it."""

STANDS_FOR_OTHERS = re.compile(
    r"\b(?:all|none|any|neither|both|some|two) of (?:the |these|those|them)|\b(?:all|none)\b[ .]*$"
    r"|\b(?:above|previous|other options?|other answers?|aforementioned)\b",
    re.I,
)
"""An option that means other options, or their absence."""

SAYS_SOMETHING = re.compile(r"^(?:it|they|its|their|he|she|there)\b", re.I)
"""An option that is a sentence about the subject of the question."""


def stands_alone(item: dict) -> bool:
    """Whether an item can be answered without a look at its options: by its question, and by what they say."""
    question = item["question"].strip()
    if NAMES_ITS_OPTIONS.search(question) or NEGATED.search(question) or ONLY_A_TOPIC.search(question):
        return False
    right = item["options"][item["answer"]].strip(" .")
    if not right or (not question.endswith("?") and SAYS_SOMETHING.search(right)):
        return False
    return not any(
        STANDS_FOR_OTHERS.search(option) or NAMES_OTHER_OPTIONS.fullmatch(option.strip(" ."))
        for option in item["options"]
    )
