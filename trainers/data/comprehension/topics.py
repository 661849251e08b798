"""What a passage is about, what its terms mean, and what has which name."""

import re
from random import Random

from trainers.data.comprehension.cloze import COMMON
from trainers.data.comprehension.sentences import Reading, upper_first
from trainers.data.comprehension.wording import put

GENERIC_TITLE = re.compile(
    r"^(?:introduction|summary|glossary|conclusion|overview|references|preface|background|abstract|chapter\b.*|learning\b.*"
    r"|key\b.*|.*\b(?:objectives|outcomes|review|questions|summary|introduction|exercises)|what\b.*\?|how\b.*\?)$|\?$",
    re.I,
)
"""Titles that do not say what a text is about."""

TOPIC = (
    ("What is the text about?", "{topic}."),
    ("Which topic does the passage deal with?", "{topic}."),
    ("What would be a fitting title for this text?", "{topic}"),
    ("Name the subject of the passage.", "{topic}."),
)
MEANING = (
    ("What does the term “{term}” mean?", "{meaning}."),
    ("How does the text define {term}?", "{meaning}."),
    ("Define: {term}.", "{meaning}."),
)
NAME = (
    ("What is the name for {meaning}?", "{term}."),
    ("Which term stands for {meaning}?", "{term}."),
    ("What {verb} {meaning} called?", "{term}."),
)


LEAST_WORDS = 40
"""Of a text that has a topic to be told."""


def topic(reading: Reading, rng: Random) -> tuple[str, str] | None:
    """What the passage is about: the last part of its title, where the text speaks of it."""
    name, text = reading.title.strip(" >").rpartition(" > ")[2].strip(" ."), reading.text
    terms = [word for word in re.findall(r"[a-z]{4,}", name.lower()) if word not in COMMON]
    spoken_of = [word for word in terms if word[:5] in text.lower()]
    if (
        not terms
        or len(spoken_of) * 2 < len(terms)
        or GENERIC_TITLE.search(name)
        or ":" in name
        or len(text.split()) < 40
    ):
        return None
    return put(TOPIC, rng, topic=name)


GLOSSARY = re.compile(r"^(?P<term>[^:.\n]{3,60}):\s+(?P<meaning>[^:\n]{15,300}?)\.?$")
DEFINED = re.compile(
    r"^(?:An?\s|The\s)?(?P<term>[\w’'-]+(?:\s[\w’'-]+){0,3}?)(?:\s\([A-Z][\w-]*\))?,?\s"
    r"(?:(?:is|are)\sdefined\sas|refers?\sto|means|(?:is|are)\sthe\s(?:term|name|medical\sterm)\sfor)\s"
    r"(?P<meaning>[^,(][^(]{14,250})\.$"
)
IS_A = re.compile(
    r"^(?:An?\s|The\s)?(?P<term>[\w’'-]+(?:\s[\w’'-]+){0,3}?)(?:\s\((?P<short>[A-Z][\w-]*)\))?\s(?:is|are)\s"
    r"(?P<meaning>an?\s(?!lot|bit|few|matter|result|good|great|part|little|number|major|common|key|type\b(?!\sof)"
    r"|important|concern|challenge|must|leading|primary|significant|risk|possibility|chance)[^(;]{14,250})\.$"
)
CALLED = re.compile(
    r"^(?P<meaning>(?:An?|The)\s[^,(]{15,150}?)\s(?P<verb>is|are)\s(?:called|termed|known\sas|referred\sto\sas)\s"
    r"(?P<term>(?:an?\s|the\s)?[\w’'-]+(?:\s[\w’'-]+){0,3})\.$"
)
NO_TERM = re.compile(
    r"^(?:it|this|that|which|who|what|there|they|one|he|she|we|you|most|many|some|several|all|few|people|there|his|her|its"
    r"|their|our|your|another|each|every|both|such|these|those|in|on|at|by|for|to|from|if|when|as|not|no)\b"
    r"|\b(?:is|are|was|were|that|which|who|and|or|of this|has|have|had|can|may|will|do|does|in|to|for|with|on|not)\b",
    re.I,
)
"""Words in what looks like a term that is none."""


LOOSE = re.compile(
    r"\b(?:and|but|because|when|while|if|is|are|was|were|has|have|it|they|other|also|often|most|main|common)\b"
)
"""Words of a meaning that holds a clause of its own, or is no meaning of one term."""


def definition(reading: Reading, rng: Random) -> tuple[str, str] | None:
    """What a term means, or which term has a meaning, of a sentence that defines it."""
    text = reading.text.strip()
    if "\n" not in text and (entry := GLOSSARY.match(text)) and "Glossary" in reading.title:
        return put(MEANING, rng, **_defined(entry["term"], entry["meaning"]))
    found = []
    for sentence in reading.alone:
        if (match := DEFINED.match(sentence) or IS_A.match(sentence)) and _is_term(match["term"]):
            found.append((MEANING, _defined(match["term"], match["meaning"])))
        elif (match := CALLED.match(sentence)) and not (
            NO_TERM.search(match["term"]) or LOOSE.search(match["meaning"])
        ):
            meaning = match["meaning"][0].lower() + match["meaning"][1:]
            found.append((NAME, {"term": upper_first(match["term"]), "meaning": meaning, "verb": match["verb"]}))
    if not found:
        return None
    templates, words = rng.choice(found)
    return put(templates, rng, **words)


def _is_term(text: str) -> bool:
    return text.lower() not in COMMON and not NO_TERM.search(text)


def _defined(term: str, meaning: str) -> dict[str, str]:
    return {"term": term, "meaning": upper_first(re.sub(r"^\(.*?\)\s", "", meaning))}
