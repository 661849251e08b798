"""Personal data: what is found, what is no such thing, and what a recipe can do about it."""

import json
import sys

import pytest

from medtasks.errors import InputError
from trainers import data
from trainers.data import CPTDataArguments, SFTDataArguments, privacy

FOUND = {
    "Write to jo.doe@mail.example.com today.": "EMAIL_ADDRESS",
    "Call (212) 555-2368 after noon.": "PHONE_NUMBER",
    "Her SSN is 536-22-1234.": "US_SSN",
    "Paid with 4111 1111 1111 1111.": "CREDIT_CARD",
    "Sent from 192.168.12.45 at night.": "IP_ADDRESS",
    "Patient with MRN: 00123456 seen.": "MEDICAL_RECORD_NUMBER",
    "Medical record number 12-3456-7.": "MEDICAL_RECORD_NUMBER",
    "Hospital ID: A-123456 on the wrist.": "MEDICAL_RECORD_NUMBER",
    "DOB 03/12/1961, male.": "DATE_OF_BIRTH",
    "D.O.B. 3/12/61 (age 45).": "DATE_OF_BIRTH",
    "He was born on March 3, 1961.": "DATE_OF_BIRTH",
}

NOTHING = (
    "Blood pressure was 120/80 mmHg in 2010-2015 (n = 123456789, NCT00123456).",
    "doi 10.1016/j.amjcard.2008.03.055, PMID 12345678, ISBN 978-3-16-148410-0",
    "Call 1-800-222-1222 for the poison control center.",
    "Tyrosine hydroxylase (EC 1.14.16.2) at a ratio of 1::2, 12:30:45.",
    "Born in 1961, he is 45 years old; record of 3 infections.",
    "Doses of 100-200-300 mg; patient 12 @ 40 weeks.",
)


@pytest.fixture(scope="module")
def scanner():
    pytest.importorskip("presidio_analyzer", reason="the extra 'privacy' is not installed")
    return privacy.Scanner()


@pytest.mark.parametrize(("text", "kind"), FOUND.items())
def test_what_has_a_form_of_its_own_is_found(scanner, text, kind):
    assert scanner.find(text) == {kind: 1}


@pytest.mark.parametrize("text", NOTHING)
def test_numbers_of_medicine_are_no_personal_data(scanner, text):
    assert not scanner.find(text)


def test_a_recipe_reports_or_drops(scanner, write_jsonl):
    rows = [{"question": f"Who is patient {n}?", "answer": text} for n, text in enumerate([*FOUND, *NOTHING])]
    path = write_jsonl(rows)
    off, report, drop = (
        data.sft_examples(SFTDataArguments([path], personal_data=mode, decontaminate=False), 1)
        for mode in ("off", "report", "drop")
    )
    assert off.personal_data == [] and off.rows == report.rows
    assert report.personal_data == drop.personal_data and len(report.personal_data) == len(FOUND)
    assert report.personal_data[0] == {"source": path, "place": f"{path}:1", "entities": {"EMAIL_ADDRESS": 1}}
    assert "jo.doe" not in json.dumps(drop.personal_data + drop.dropped)
    assert drop.counts["personal_data"] == len(FOUND) and len(drop.rows) == len(NOTHING)


def test_passages_are_searched_too(scanner, write_jsonl):
    path = write_jsonl([{"id": n, "text": text} for n, text in enumerate([*FOUND, *NOTHING])], "corpus.jsonl")
    examples = data.cpt_examples(CPTDataArguments([path], personal_data="drop", decontaminate=False))
    assert examples.counts["personal_data"] == len(FOUND)


def test_without_the_library_the_extra_is_named(monkeypatch, write_jsonl):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    path = write_jsonl([{"question": "Why?", "answer": "So."}])
    with pytest.raises(InputError, match=r"pip install 'medadapt\[privacy\]'"):
        data.sft_examples(SFTDataArguments([path], personal_data="report", decontaminate=False), 1)
    assert data.sft_examples(SFTDataArguments([path], decontaminate=False), 1).rows
