"""What is missing in a sentence of the text: a term, or its end."""

import re
from collections import Counter
from random import Random

from medtasks.ngrams import words
from trainers.data.comprehension.sentences import Reading, upper_first
from trainers.data.comprehension.wording import put

MISSING = (
    ("Fill in the missing word: “{gap}”", "{term}"),
    ("Which word of the text stands for the blank? “{gap}”", "{term}"),
    ("Complete the statement with a term from the text: “{gap}”", "{term}"),
)
NEXT = (
    ("Complete the sentence as the text has it: “{beginning} ...”", "“... {end}”"),
    ("How does this sentence of the text end? “{beginning} ...”", "{end}"),
    ("Finish the statement from the passage: “{beginning} ...”", "{end}"),
)

COMMON = frozenset(
    words(
        """about above according across activity adults affects against along although among amount another appropriate
        areas associated average because become before begins behavior being believe better between body brought called
        cannot carries cause causes certain change changes characteristics children client clients common commonly
        complete condition conditions consider contain contains context countries country current decrease decreases
        depending describe describes develop development difference differences different difficult directly doctor
        doctors during effect effective effects either enough environment especially example examples expected
        experience experiences factor factors families family females field following forms found function functions
        further general generally greater group groups health healthcare healthy higher however human humans identify
        importance important improve include includes increase increases individual individuals influence information
        instead interest introduction involves issues knowledge larger later level levels likely location longer lower
        makes males material materials measure measures medical members method methods million months more mostly nature
        near nearly needs normal nothing number numbers nurses often order other others outcome outcomes over overall
        overview parents part particular parts patient patients pattern people percent perform performance perhaps
        period periods person physical place point points population populations position possible potential practice
        presence present pressure prevent primary problem problems process processes produce produces product products
        program programs protect provide provider providers provides public purpose quality quantity question questions
        reason reasons receive recent reduce reduces refers regarding region related relationship relationships reports
        require required requires research researchers resource resources response result results role sample second
        section separate several severe should similar since single size skills social society someone something
        sometimes source sources special specific stage stages standard states strategies strategy structure structures
        student students studies study subject substance substances such support surface symptom symptoms system systems
        technique techniques test tests than their them then theory therefore these they things third those through
        times today together toward towards traditional treat treatment treatments type types typical typically under
        united until used useful uses usually value values variety various very view volume week weeks well what when
        where whether which while whole whom whose with within without women words work worker workers world would year
        years young"""
    )
)
"""Words that are no terms of a subject, long as they are."""


def missing_term(reading: Reading, rng: Random) -> tuple[str, str] | None:
    """A word that the text uses again and again, left out of one of its sentences."""
    counts = Counter(re.findall(r"\b[a-z]{7,}\b", reading.text))
    named = set(re.findall(r"[a-z]{5,}", reading.title.lower().rpartition(" > ")[2]))
    terms = [word for word, n in counts.items() if (n > 2 or word in named) and is_term(word)]
    found = []
    for sentence in reading.alone:
        for term in terms:
            if len(re.findall(rf"\b{term[:-1]}", sentence, re.I)) == 1 and re.search(rf"\b{term}\b(?!-)", sentence):
                found.append((sentence, term))
    if not found:
        return None
    sentence, term = rng.choice(found)
    return put(MISSING, rng, gap=re.sub(rf"\b{term}\b", "____", sentence, count=1), term=upper_first(term))


def is_term(word: str) -> bool:
    """Whether a word looks like one of a subject, by its ending and by what it is not."""
    return word not in COMMON and not re.search(r"(?:ly|ing|ed|ful|ous|est|ward|able|ible)$", word)


GOES_ON = re.compile(r"\b(?:that|which|by|into|from|such as|including|so that|in order to|during|through)\s")
"""Where a sentence may be cut in two."""


def next_words(reading: Reading, rng: Random) -> tuple[str, str] | None:
    """The end of a sentence, from a comma or a word after which it goes on."""
    found = []
    for sentence in reading.alone:
        for match in GOES_ON.finditer(sentence):
            beginning, end = sentence[: match.end()].strip(), sentence[match.end() :]
            if len(beginning.split()) > 5 and len(end.split()) > 3 and "“" not in sentence:
                found.append((beginning, end))
    if not found:
        return None
    beginning, end = rng.choice(found)
    return put(NEXT, rng, beginning=beginning, end=end)
