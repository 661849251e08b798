"""The sentences of a text, and which of them say something when they stand alone."""

import re
from dataclasses import dataclass
from functools import cached_property

ENDS = re.compile(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(]?[A-Z0-9])")
ABBREVIATED = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|vs|cf|ca|al|e\.g|i\.e|etc|Fig|No|Inc|approx|U\.S|Vol|sp|spp)|\b[A-Z])\.$"
)
"""The end of a piece that is not the end of a sentence."""

LEANS_ON_OTHERS = re.compile(
    r"""^(?:this|that|these|those|it|its|they|their|them|he|she|his|her|we|our|you|your|i|my|such|so|thus|hence|therefore
    |however|moreover|furthermore|additionally|also|instead|likewise|similarly|otherwise|nevertheless|nonetheless|but|and
    |or|nor|yet|then|here|there|both|either|neither|another|others?|one|some|each|again|finally|first|second|third|next
    |last|will|can|may|is|are|has|have|do|does|remove|ensure|avoid|use|take|make|keep|monitor
    |assess|administer|encourage|instruct|advise|teach|although|though|while|whereas|unlike|like|even|not|what|why|how|when|where|who|which|recall|note|remember|figure
    |table|let|consider|imagine|think|see|look|for\s(?:example|instance|this|these)|as\s(?:a\sresult|such|with|mentioned
    |noted|you|we)|by\scontrast|on\sthe\sother|because\sof\sth|(?:in|at|to|among|with|after|during|of)\sth(?:is|ese|ose|at)
    |in\s(?:addition|contrast|fact|turn|other|such)|at\sthe\ssame|to\sdo|more\s(?:specifically|generally|importantly)
    |the\s(?:latter|former|first|second|third|following|other|same|above|previous|next|results?|term|purpose|process|effect
    |rest|image|graph|study|studies|authors?|team|researchers?))\b""",
    re.I | re.X,
)
"""How a sentence begins that goes on from the one before, or names nothing."""

POINTS_ELSEWHERE = re.compile(
    r"""\b(?:figures?|tables?|shown|seen\s(?:here|in)|below|above|chapters?|sections?|modules?|following|earlier
    |previous(?:ly)?|credit|click|link|video|website|page|book|textbook|course|exercises?|this|these|those|such|former|latter
    |respectively|you|your|we|our|us|i|my|he|she|his|her|him|said|it|they|them|here)\b
    |https?:|www\.|[?!:;|•=<>@]|\.\.\.|…|--|\w\.[A-Z][a-z]|\(\s*(?:and|or|,|\))""",
    re.I | re.X,
)
"""What makes a sentence hang on a picture, another place or an earlier word."""

VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|can|cannot|may|will|must|should|does|do|did|could|would|might|includes?|causes?"
    r"|occurs?|uses?|helps?|makes?|contains?|leads?|produces?|provides?|requires?|allows?|increases?|decreases?|reduces?"
    r"|consists?|refers?|means|affects?|prevents?|becomes?|begins?|forms?|works?|acts?|binds?|results?|involves?"
    r"|describes?|develops?|carries|carry|controls?|gives?|remains?|plays?|takes?|comes?|serves?|varies|vary|covers?"
    r"|supports?|connects?|enters?|receives?|responds?|regulates?|stimulates?|inhibits?|breaks?|moves?|needs?)\b"
)
RELATIVE = re.compile(r"\b(?:which|who|whose|that|where|if|when|while)\b")
"""What begins a clause that has a verb for itself."""

LEAST, MOST = 7, 40
"""Words of a sentence that an exercise may be about."""


@dataclass(frozen=True)
class Reading:
    """A passage as the rules read it."""

    title: str
    text: str

    @cached_property
    def sentences(self) -> list[str]:
        """All sentences, in order."""
        return split(self.text)

    @cached_property
    def alone(self) -> list[str]:
        """Those that say something when they stand alone."""
        return [sentence for sentence in self.sentences if stands_alone(sentence)]


def split(text: str) -> list[str]:
    """The sentences of ``text`` in order; a line that ends without a full stop is none."""
    found = []
    for line in text.splitlines():
        piece = ""
        for part in ENDS.split(line.strip()):
            piece = f"{piece} {part}".strip()
            if not ABBREVIATED.search(piece):
                found.append(piece)
                piece = ""
    return [sentence for sentence in found if sentence.endswith(".")]


def stands_alone(sentence: str) -> bool:
    """Whether ``sentence`` can be understood without those around it, as far as its words tell."""
    return (
        LEAST <= len(sentence.split()) <= MOST
        and sentence[0].isupper()
        and sentence.count("(") == sentence.count(")")
        and sentence.count("“") == sentence.count("”")
        and sentence.count('"') % 2 == 0
        and not LEANS_ON_OTHERS.search(sentence)
        and not POINTS_ELSEWHERE.search(sentence)
        and len(VERB.findall(sentence)) > len(RELATIVE.findall(sentence))
    )


SMALL = re.compile(r"(?:the|an?|in|at|on|by|for|with|most|many|people|sometimes|health|older|[a-z]+(?:ing|ly))$")
"""First words that are no names, whether or not the text has them elsewhere."""


def lower_first(sentence: str, text: str) -> str:
    """``sentence`` as it goes on after other words: its first letter small, unless its first word may be a name."""
    first = re.match(r"[A-Za-z][a-z-]*\b", sentence)
    if first and (SMALL.match(first[0].lower()) or re.search(rf"\b{first[0].lower()}\b", text)):
        return sentence[0].lower() + sentence[1:]
    return sentence


def upper_first(text: str) -> str:
    """``text`` with its first letter large."""
    return text[:1].upper() + text[1:]
