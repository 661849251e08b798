"""Which option a written answer declares: the reading half of the chain-of-thought tasks (:mod:`medtasks.cot`).

A small grammar over what :mod:`medtasks.plain_text` leaves of an output: no thoughts, no markup. The last declaration
counts. Three things declare an option:

- a *cue* and a value: ``Answer: C``, ``the correct option is (C)``, ``I would choose warfarin``, ``\\boxed{C}``;
- a *claim*: ``option C is correct``, ``C is the best answer``;
- a first or last *line* that is nothing but an option: ``C``, ``(C)``, ``C. Warfarin``, ``Warfarin``.

A value is a letter or the whole text of an option. A letter must end like one: ``Answer: A 45-year-old`` and
``Answer: B cells`` hold none. A letter beats a text that contradicts it: letters are what the prompt asks for. A value
of several options, a letter beyond the options, or "none of the above" declares no option, and takes back what was
declared before. Anything else after a cue (nothing, where the output was cut off) is no declaration, so that an
earlier one stands.

No pattern has an unbounded repeat (plain text has single spaces and no blank lines), so the time is linear in the
length of the output.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from medtasks import plain_text
from medtasks.mcq import LETTERS

_MOST_FILLERS = 9
_BEFORE = 60
"""Characters before a cue or claim that are looked at."""

# What a value is made of.
_WORD_END = r"(?!\w|[.,]\d)"
_LETTER = re.compile(r"(?P<letter>[A-Za-z])(?![\w'])(?P<close>[)\]}>]{0,2})")
_FILLER = re.compile(  # words and signs that may stand between a cue and its value
    r"(?i:the|my|option|choice|letter|statement|number|most|likely|probably|clearly|definitely|therefore|thus|hence"
    r"|indeed|actually|correct|right|one|that|of|would|be|both|either)\b[:,.]? ?|[(\[{<:=,>-] ?| "
)
_NONE = re.compile(r"(?i:(?:none|neither|more than one|(?:all|both|two) of)\b)")
_JOINT = re.compile(
    r" ?[(\[]?(?:[,/&+]|,? ?\b(?:and/or|and|or|as well as)\b) ?(?:(?:option|choice|answer|or|and) )?[(\[]?"
)
_WHY = (  # what may follow a value without a stop
    r"(?:because|since|as|due|given|based|which|according|the|this|it|explanation|rationale|reason(?:ing)?|rather|over"
    r"|instead|not|but|here|for|in|from|by|and (?:not|the|this|it|we|he|she|they)|are"
    r"|(?:is|was)(?! (?:not|never|incorrect|wrong|false|ruled|unlikely|excluded)))\b"
)
_STOP = re.compile(rf"$|\n| ?[,;:!?)\]}}<(\[|]|\.(?! ?[a-z0-9])|\. (?={_WHY})| - |[°-](?!\w)")
_END = re.compile(rf"{_STOP.pattern}|(?i: {_WHY})")
_PREDICATE = re.compile(r" (?:is|was)\b")

# Cues.
_KIND = r"(?:correct|right|best|final|chosen|selected|preferred|appropriate|likely|suitable|accurate|my|our)"
_SUBJECT = (  # "the answer", "the correct option", "answer to this question"
    rf"\b(?:answer|ans|{_KIND} (?:option|choice|one|statement|response|letter))(?: (?:choice|option|letter|key))?"
    r"(?: (?:to|for|here|among|of)\b[^.:;\n]{0,40}?)?"
)
_IS = (
    r",?(?: (?:therefore|thus|then|hence),?)? "
    r"(?:is|was|remains|(?:would|must|should|will|has to)(?: \w{2,12}){0,2} be)\b"
)
_CUES = (
    re.compile(rf"(?i:{_SUBJECT}(?:{_IS})? ?(?:[:=→]|-{{1,2}}[ >])(?P<below>\n)?)"),  # Answer: C
    re.compile(rf"(?i:{_SUBJECT}{_IS}(?P<below>\n)?)"),  # the answer is C
    re.compile(r"(?i:(?:^|\n)(?:(?:my|the|final|correct|best) ){0,2}answer(?P<below>\n))"),  # a heading, then C
    re.compile(
        r"(?i:\b(?:i|we|id|ill|im)(?: (?:would|will|am|therefore|must)){0,2} (?:choose|select|pick|go(?:ing)? with))"
    ),
    re.compile(  # the answer is not A but C
        rf"(?i:{_SUBJECT}(?: is not| not| isnt|: not) [^.\n]{{1,60}}?\b(?:but|rather|instead|its|it is)\b(?: rather)?)"
    ),
)
_SUPPOSED = re.compile(  # directly before a cue or claim: it is weighed or denied, not declared
    r"(?i:\b(?:if|whether|unless|not|wrong|incorrect|false|worst|second|next|tempt\w{0,4} to \w{2,8}|unlikely"
    r"|(?:not|never|cannot|\w{2,5}nt)(?: be)? (?:think|believe|say|conclude|mean|certain|sure|clear))"
    r"(?: (?:that|if|whether))?(?: (?:the|my|our|this|an?))?(?: (?:correct|right|best|final)){0,2} ?$)"
)

# Claims.
_CLAIMANT = re.compile(
    r"(?:^|[\n.;:,!?] ?|\b(?i:option|choice|answer|statement|letter|that|so|thus|hence|therefore) )\(?"
)
_ASIDE = re.compile(r" ?\([^()\n]{1,80}\)")
_IS_THE_ANSWER = re.compile(
    r"(?i:,? (?:is|was|must be)(?: \w{2,12}ly| thus)? (?:the|my)"
    r"(?: (?!wrong|incorrect|worst|least|not|second|other|next)\w{2,12}){0,3} (?:answer|option|choice)\b)"
)
_IS_CORRECT = re.compile(
    r"(?i:,? (?:is|must be)(?: \w{2,12}ly| thus)? (?:correct\b(?! (?:if|when|only|in|about))|right(?=[.,;:!\n]|$)))"
)

# Lines.
_LABEL = re.compile(r"[-•>(\[{< ]{0,3}(?i:(?:(?:the )?(?:final |correct |best )?(?:answer|option|choice):? )?)[(\[]?")
_LINE_END = re.compile(r"[^\w\n]{0,3}(?=\n|$)")


class _Name(NamedTuple):
    """An option named somewhere in a text."""

    option: int | None  # None: a letter beyond the options, or a text that several options have
    end: int  # where in the text it ends
    closed: bool  # it cannot be the beginning of something else: a bracket or its option's text follows the letter
    kind: str  # "letter", "letter and text" or "text"


def extract(output: str, options: Sequence[str]) -> int | None:
    """Index of the option that ``output`` declares last; None if it declares none, or none that can be told.

    Args:
        output: what a model wrote, thoughts and markup included.
        options: the item's options, at most ten.
    """
    text, names = plain_text.plain(plain_text.spoken(output)), _Names(options)
    found = [*_after_cues(text, names), *_claims(text, names), *_lines(text, names)]
    return max(found, key=lambda declaration: declaration[0])[1] if found else None


class _Names:
    """How the options of one item are named: by letter, and by text where the text is no letter of another."""

    def __init__(self, options: Sequence[str]):
        self.letters = list(LETTERS[: len(options)])
        patterns = [_pattern(option) for option in options]
        self.texts = {p: i if patterns.count(p) == 1 else None for i, p in enumerate(patterns) if p}
        self.longest_first = sorted((p for p in self.texts if p.upper() not in self.letters), key=len, reverse=True)
        either = "|".join(f"({pattern})" for pattern in self.longest_first) or "(?!)"
        self.text = re.compile(rf"(?:(?:an?|[Tt]he) )?(?i:{either}){_WORD_END}")
        self.own_text = [_own_text(option, p) for option, p in zip(options, patterns, strict=True)]

    def text_at(self, text: str, place: int) -> _Name | None:
        """The option whose whole text stands at ``place``, the longest if one begins with another."""
        match = self.text.match(text, place)
        if not match:
            return None
        return _Name(self.texts[self.longest_first[match.lastindex - 1]], match.end(), False, "text")

    def at(self, text: str, place: int) -> _Name | None:
        """The option that is named at ``place``, by its text or by a letter."""
        if name := self.text_at(text, place):
            return name
        if not (match := _LETTER.match(text, place)):
            return None
        letter, closed = match["letter"].upper(), bool(match["close"])
        if letter not in self.letters:
            return _Name(None, match.end(), closed, "letter")
        option = self.letters.index(letter)
        if own := self.own_text[option].match(text, match.end()):
            return _Name(option, own.end(), True, "letter and text")
        return _Name(option, match.end(), closed, "letter")


def _words(text: str) -> list[str]:
    """Words, numbers and the signs that carry meaning, in lower case; hyphens, stops and spaces may differ."""
    return re.findall(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[<>≤≥↑↓+%]", unicodedata.normalize("NFKC", text).lower())


def _pattern(option: str) -> str:
    """A pattern for the whole text of an option, whatever stands between its words; "" for one without a word."""
    pattern = ""
    for before, word in itertools.pairwise(["", *_words(option)]):
        numbers = before[:1].isdigit() and word[:1].isdigit()  # 2-4 is not 24
        pattern += (rf"[\W_]{{{int(numbers)},6}}" if before else "") + re.escape(word)
    return pattern


def _own_text(option: str, pattern: str) -> re.Pattern:
    """What shows that a letter before it is one: the text of the letter's option, or at least its first word."""
    first = next((re.escape(word) for word in _words(option)[:1] if len(word) > 1), "(?!)")
    return re.compile(rf"[).:,\]}}]{{0,2}} ?(?:- ?)?(?i:{pattern or '(?!)'}|{first}){_WORD_END}")


def _ends(text: str, name: _Name) -> bool:
    """Whether what follows ``name`` lets it be a value. A small letter needs a stop: "a" may be an article."""
    small = name.kind == "letter" and text[name.end - 1].islower()
    return name.closed or bool((_STOP if small else _END).match(text, name.end))


def _value(text: str, place: int, names: _Names) -> tuple[int, int | None] | None:
    """The declaration (where it stands, option or None) that begins at ``place``, after a cue; None if none does."""
    for _ in range(_MOST_FILLERS):
        if names.text_at(text, place) or not (filler := _FILLER.match(text, place)):
            break
        if _NONE.match(text, place):
            return place, None
        place = filler.end()
    if not (name := names.at(text, place)):
        return (place, None) if _NONE.match(text, place) else None
    if _joined(text, name, names) or _listed(text, name, names):
        return place, None
    return (place, name.option) if _ends(text, name) else None


def _joined(text: str, name: _Name, names: _Names) -> bool:
    """Whether ``name`` and another are named together: ``A or B``, ``A (Aspirin) and C``; not ``A, B is wrong``."""
    aside = _ASIDE.match(text, name.end)
    for joint in (_JOINT.match(text, name.end), aside and _JOINT.match(text, aside.end())):
        other = joint and names.at(text, joint.end())
        if other and _ends(text, other) and not _PREDICATE.match(text, other.end):
            return other.option is None or other.option != name.option
    return False


def _listed(text: str, name: _Name, names: _Names) -> bool:
    """Whether ``name`` begins a list: the next option is named in the same way on the next line."""
    end = _LINE_END.match(text, name.end)
    below = _whole_line(text, end.end() + 1, names) if end else None
    return below is not None and below.kind == name.kind and below.option == (name.option or 0) + 1


def _whole_line(text: str, place: int, names: _Names) -> _Name | None:
    """The option that the line at ``place`` names, if it holds nothing else."""
    name = names.at(text, _LABEL.match(text, place).end())
    return name if name and _LINE_END.match(text, name.end) else None


def _after_cues(text: str, names: _Names) -> Iterator[tuple[int, int | None]]:
    for pattern in _CUES:
        for cue in pattern.finditer(text):
            if _supposed(text, cue.start()):
                continue
            if not cue.groupdict().get("below"):
                declaration = _value(text, cue.end(), names)
            elif name := _whole_line(text, cue.end(), names):
                declaration = cue.end(), None if _listed(text, name, names) else name.option
            else:
                declaration = None
            if declaration:
                yield declaration


def _claims(text: str, names: _Names) -> Iterator[tuple[int, int | None]]:
    """``C is the answer``; and ``C is correct``, unless that is said of several options, as of statements."""
    correct = []
    for claimant in _CLAIMANT.finditer(text):
        name = names.at(text, claimant.end())
        if not name or _supposed(text, claimant.start()):
            continue
        aside = _ASIDE.match(text, name.end)
        end = aside.end() if aside else name.end
        if _IS_THE_ANSWER.match(text, end):
            yield claimant.end(), name.option
        elif name.kind != "text" and _IS_CORRECT.match(text, end):
            correct.append((claimant.end(), name.option))
    if len({option for _, option in correct}) == 1:
        yield from correct


def _supposed(text: str, place: int) -> bool:
    return bool(_SUPPOSED.search(text[max(0, place - _BEFORE) : place]))


def _lines(text: str, names: _Names) -> Iterator[tuple[int, int | None]]:
    """The first and last line, where it is nothing but an option and no line of a list of options."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    found = {start: _whole_line(text, start, names) for start in starts}
    named = {start: name for start, name in found.items() if name and name.option is not None}
    for start in {starts[0], starts[-1]} & set(named):
        if {name.option for name in named.values() if name.kind == named[start].kind} == {named[start].option}:
            yield start, named[start].option
