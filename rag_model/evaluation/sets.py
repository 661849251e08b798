"""Questions whose right passages are known, and the abstracts among which these are to be found.

=========== ============================================ ===========================================================
set         question                                     right
=========== ============================================ ===========================================================
pubmedqa    PubMedQA's question                          the abstract it was made from (Jin et al. 2019,
                                                         arXiv:1909.06146)
scifact     a claim that some abstract supports or       those abstracts (Wadden et al. 2020, arXiv:2004.14974)
            refutes
cited       any claim of SciFact                         all abstracts that it cites: BEIR's judgements (Thakur et
                                                         al. 2021, arXiv:2104.08663), to compare with others' figures
exams       a question of MedQA, MedMCQA or MMLU-med     not known; whether the right option's words are found
=========== ============================================ ===========================================================

For choosing (``dev``) there are PubMedQA's official training half, SciFact's training claims, and the validation or,
of MedMCQA, training questions of exams; for measuring (``test``) the official test half, SciFact's dev claims (its test
labels are not public), and the exams' test sets.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from medtasks import benchmarks, items, medsafe, sources
from medtasks.errors import InputError

EXAMS = {"medqa": "validation", "medmcqa": "train", "mmlu_med": "validation"}
"""Benchmark -> its split for choosing."""
SETS = ("pubmedqa", "scifact", "cited", "exams")
SPLITS = ("test", "dev")


class QuestionSet(NamedTuple):
    """Questions of one kind.

    ``items``: dicts with ``question`` and ``options``, of exams also ``answer``. ``relevant``: for each the ids of the
    passages to be found; None where these are not known.
    """

    name: str
    items: list[dict]
    relevant: list[frozenset[str]] | None


def load(names: Sequence[str], split: str) -> list[QuestionSet]:
    """The sets ``names`` (of :data:`SETS`), ``exams`` as one set a benchmark.

    Raises:
        InputError: no such set or split, or its data is not where ``MEDTASKS_DATA`` says.
    """
    for given, known, what in ((names, SETS, "set"), ([split], SPLITS, "split")):
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"unknown {what} '{unknown[0]}'; there are {', '.join(known)}")
    loaded = []
    for name in dict.fromkeys(names):
        if name == "exams":
            loaded += [_exam(benchmark, split) for benchmark in EXAMS]
        else:
            loaded.append(_pubmedqa(split) if name == "pubmedqa" else _claims(name, split))
    return loaded


def abstracts() -> Iterator[dict]:
    """Passages (:data:`medtasks.corpora.FIELDS`): the 1,000 abstracts of PubMedQA-labelled, SciFact's 5,183.

    PubMedQA's have no title, since its questions were made of the titles.

    Raises:
        InputError: the data is not where ``MEDTASKS_DATA`` says.
    """
    for row in sources.load_rows(benchmarks.PUBMEDQA, "pqa_labeled", "train"):
        item = items.pubmedqa_item(row)
        yield {"id": item["id"], "title": "", "text": item["context"], "source": "PubMedQA", "license": "MIT"}
    for number, title, text in medsafe.scifact_abstracts():
        about = {"source": "SciFact", "license": "ODC-By 1.0"}
        yield {"id": _scifact_id(number), "title": title, "text": text} | about


def _scifact_id(number: str) -> str:
    """The passage id of an abstract that SciFact numbers so."""
    return f"scifact_{number}"


def _pubmedqa(split: str) -> QuestionSet:
    rows = benchmarks.load("pubmedqa", "test" if split == "test" else "train")
    asked = [{"question": item["question"], "options": item["options"]} for item in rows]
    return QuestionSet("pubmedqa", asked, [frozenset([item["id"]]) for item in rows])


def _claims(name: str, split: str) -> QuestionSet:
    claims: dict[str, dict] = {}
    for row in medsafe.scifact()["test" if split == "test" else "train"]:
        claim = claims.setdefault(row["claim_id"], {"question": row["claim"], "options": [], "relevant": set()})
        if name == "cited" or row["label"] is not None:
            claim["relevant"].add(_scifact_id(row["doc_id"]))
    kept = [claim for claim in claims.values() if claim["relevant"]]
    relevant = [frozenset(claim.pop("relevant")) for claim in kept]
    return QuestionSet(name, kept, relevant)


def _exam(benchmark: str, split: str) -> QuestionSet:
    fields = ("question", "options", "answer")
    rows = benchmarks.load(benchmark, "test" if split == "test" else EXAMS[benchmark])
    return QuestionSet(benchmark, [{field: item[field] for field in fields} for item in rows], None)
