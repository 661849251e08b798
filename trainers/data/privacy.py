"""Personal data in texts, by the patterns and checksums of Microsoft's Presidio (presidio-analyzer, MIT).

Only what has a form of its own is looked for, so no language model is needed. Names and addresses are not found. A date
of birth, and the number of a medical record, are told by the words before them, for which Presidio has no recognizer.
"""

import re
from collections import Counter
from functools import cached_property

from medtasks.errors import InputError

CERTAIN = 0.4
"""Presidio's score from which a finding counts: below are bare runs of digits, which need words around them."""

REGION = "US"
"""Whose phone numbers are known without the prefix of their country."""

LENIENCY = 2
"""Of phonenumbers, STRICT_GROUPING: digits stand in the groups of a phone number, not of a range or a study's id."""

RECORD_NUMBER = (
    r"\b(?:MRN|(?:medical|patient|hospital|health)\s+(?:record|chart|file|identification|ID)(?:\s+(?:number|no\.?|#))?"
    r"|patient\s+(?:number|no\.))\s*(?:is|:|=|#)?\s*#?\s*(?=[A-Z-]*\d)[A-Z]{0,4}-?\d[\d-]{3,14}\b"
)
DATE_OF_BIRTH = (
    r"\b(?:DOB|D\.O\.B\.|date\s+of\s+birth|birth\s?date|born(?:\s+on)?)\s*(?:is|was|:|=)?\s*(?:on\s+)?"
    r"(?:\d{1,2}[/.-]\d{1,2}[/.-](?:\d{4}|\d{2})|\d{4}-\d{2}-\d{2}|\d{1,2}(?:st|nd|rd|th)?\s+MONTH\w*\.?,?\s+\d{4}"
    r"|MONTH\w*\.?\s+\d{1,2}(?:st|nd|rd|th)?,?\s+\d{4})"
).replace("MONTH", "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)")

ENZYME = re.compile(r"\bE\.?C\.?[ :]{0,2}\Z")
"""What stands before four numbers with points between that name an enzyme: EC 1.14.16.2."""

POSSIBLE = re.compile(
    r"@|\d(?:[^\w\n]{0,3}\d){6}|\d(?:\.\d{1,3}){3}|\b(?:MRN|patient|record|chart|file|ID|identification|birth|DOB|D\.O\.B|born)\b",
    re.I,
)
"""What every text that holds personal data of these kinds has; others need not be searched."""


class Scanner:
    """Finds personal data of the kinds ``EMAIL_ADDRESS, PHONE_NUMBER, US_SSN, CREDIT_CARD, IP_ADDRESS,
    MEDICAL_RECORD_NUMBER, DATE_OF_BIRTH``. Asks no network.

    Raises:
        InputError: presidio-analyzer is not installed.
    """

    def __init__(self):
        try:
            import presidio_analyzer  # noqa: F401
        except ImportError as error:
            raise InputError(
                "personal_data needs the package presidio-analyzer; pip install 'medadapt[privacy]', or say "
                "'personal_data: off'"
            ) from error

    def find(self, text: str) -> Counter[str]:
        """Kind -> how often it stands in ``text``; of findings that overlap, the surest one counts."""
        if not POSSIBLE.search(text):
            return Counter()
        found = [result for recognizer in self._recognizers for result in recognizer.analyze(text, None)]
        found = sorted((r for r in found if r.score >= CERTAIN), key=lambda r: (-r.score, r.start, -r.end))
        kept = []
        for result in found:
            if all(result.end <= other.start or result.start >= other.end for other in kept):
                kept.append(result)
        return Counter(result.entity_type for result in kept)

    @cached_property
    def _recognizers(self) -> list:
        import phonenumbers
        import tldextract
        from presidio_analyzer import Pattern, PatternRecognizer
        from presidio_analyzer import predefined_recognizers as presidio

        domains = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # the list that comes with the package

        class Email(presidio.EmailRecognizer):
            def validate_result(self, pattern_text: str) -> bool:
                return bool(domains(pattern_text.rpartition("@")[2]).fqdn)

        class Phone(presidio.PhoneRecognizer):
            def analyze(self, text: str, entities, nlp_artifacts=None) -> list:
                found = super().analyze(text, entities, nlp_artifacts)
                return [result for result in found if not is_hotline(text[result.start : result.end])]

        class Ip(presidio.IpRecognizer):
            PATTERNS = [pattern for pattern in presidio.IpRecognizer.PATTERNS if pattern.name == "IPv4"]

            def analyze(self, text: str, entities, nlp_artifacts=None, regex_flags=None) -> list:
                found = super().analyze(text, entities, nlp_artifacts, regex_flags)
                return [result for result in found if not ENZYME.search(text, 0, result.start)]

        def is_hotline(number: str) -> bool:
            """Whether whoever is called pays, as an organization does."""
            parsed = phonenumbers.parse(number, REGION)
            return phonenumbers.number_type(parsed) == phonenumbers.PhoneNumberType.TOLL_FREE

        return [
            Email(),
            Ip(),
            presidio.UsSsnRecognizer(),
            presidio.CreditCardRecognizer(),
            Phone(supported_regions=(REGION,), leniency=LENIENCY),
            PatternRecognizer("MEDICAL_RECORD_NUMBER", patterns=[Pattern("after its name", RECORD_NUMBER, 0.8)]),
            PatternRecognizer("DATE_OF_BIRTH", patterns=[Pattern("after its name", DATE_OF_BIRTH, 0.8)]),
        ]
