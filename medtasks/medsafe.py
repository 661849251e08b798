"""Rows and items of the safety suite's own data: MedHallu (hallucinated answers), SciFact (claims against abstracts).

The rows come from files in a folder of ``MEDTASKS_DATA``, MedHallu's also from the Hub; how to get them says the
suite's README (``medtasks/medsafe``).
"""

import hashlib
from collections.abc import Iterator

from medtasks import corpora, sources
from medtasks.errors import InputError
from medtasks.items import as_items

MEDHALLU = "UTAustin-AIHealth/MedHallu"
MEDHALLU_FILES = ("medhallu.jsonl.gz", "medhallu.jsonl")

CLAIMS = ("scifact/claims_{}.jsonl", "scifact_claims_{}.jsonl.gz", "scifact_claims_{}.jsonl")
ABSTRACTS = ("scifact/corpus.jsonl", "scifact_corpus.jsonl.gz", "scifact_corpus.jsonl", "scifact.jsonl.gz")
SCIFACT_LABELS = {"SUPPORT": "supported", "CONTRADICT": "refuted", None: "not enough information"}
GET_SCIFACT = f"unpack its release as FOLDER/scifact and set {sources.ENV}=FOLDER,hub (medtasks/medsafe/README.md)"


def medhallu() -> dict:
    """MedHallu's rows of PubMedQA-labelled questions, all for testing."""
    import datasets

    file = sources.find_file(MEDHALLU_FILES)
    if file is None:
        return {"test": sources.load_rows(MEDHALLU, "pqa_labeled", "train")}
    rows = [row for _, row in corpora.file_rows(file)]
    return {"test": sources.with_places(datasets.Dataset.from_list(rows), "train")}


def from_medhallu(rows):
    """MedHallu (Pandit et al. 2025, arXiv:2502.14302): which of two answers is true, which hallucinated.

    Columns ``Question, Ground Truth, Hallucinated Answer, Difficulty Level``. Which stands first is drawn by a hash of
    the question, so it is the same in every run; ``subject`` is the difficulty.
    """
    return as_items(rows, lambda row: _medhallu_item(row, "Which answer is factually right?"))


def from_medhallu_knowledge(rows):
    """As :func:`from_medhallu`, with the column ``Knowledge``, the abstract that the question is about, as context."""

    def one(row):
        item = _medhallu_item(row, "Which answer is faithful to the abstract?")
        return item | {"context": "\n".join(row["Knowledge"])}

    return as_items(rows, one)


def _medhallu_item(row: dict, asked: str) -> dict:
    right, wrong = row["Ground Truth"].strip(), row["Hallucinated Answer"].strip()
    answer = hashlib.sha256(row["Question"].encode()).digest()[0] % 2
    return {
        "id": f"medhallu-{row['row']:05d}",
        "question": f"{row['Question'].strip()} {asked}",
        "options": [wrong, right] if answer else [right, wrong],
        "answer": answer,
        "context": "",
        "subject": row["Difficulty Level"],
        "rationale": "",
    }


def scifact() -> dict:
    """SciFact's claims, a row for each abstract that a claim cites: training claims, and the dev claims as the test.

    The test claims' labels are not public.

    Raises:
        InputError: a file is missing, or a claim cites an abstract that the corpus lacks.
    """
    import datasets

    abstracts = {number: f"{title} {text}".strip() for number, title, text in scifact_abstracts()}
    splits = {}
    for split, name in (("train", "train"), ("test", "dev")):
        rows = []
        for place, claim in corpora.file_rows(_file([pattern.format(name) for pattern in CLAIMS])):
            for number in map(str, claim["cited_doc_ids"]):
                if number not in abstracts:
                    raise InputError(
                        f"{place}: cites the abstract {number}, which {_file(ABSTRACTS)} lacks; take one release's"
                    )
                evidence = claim["evidence"].get(number)
                rows.append(
                    {"claim_id": str(claim["id"]), "doc_id": number, "claim": claim["claim"].strip()}
                    | {"abstract": abstracts[number], "label": evidence[0]["label"] if evidence else None}
                )
        splits[split] = sources.with_places(datasets.Dataset.from_list(rows), name)
    return splits


def scifact_abstracts() -> Iterator[tuple[str, str, str]]:
    """(number, title, text) of the abstracts of SciFact's corpus, in its order.

    Raises:
        InputError: its file is missing or damaged.
    """
    for _, row in corpora.file_rows(_file(ABSTRACTS)):
        text = row["text"] if "text" in row else " ".join(sentence.strip() for sentence in row["abstract"])
        yield str(row.get("doc_id", row.get("id"))).removeprefix("scifact_"), row["title"].strip(), text.strip()


def _file(names):
    if found := sources.find_file(names):
        return found
    raise InputError(f"SciFact: no file {' or '.join(names)} in a folder of {sources.ENV}; {GET_SCIFACT}")


def from_scifact(rows):
    """SciFact (Wadden et al. 2020, arXiv:2004.14974): does the abstract support or refute the claim, or neither?

    An abstract that a claim cites without evidence in it says neither, as in the paper's abstract-level labels.
    """
    options = list(SCIFACT_LABELS.values())

    def one(row):
        return {
            "id": f"scifact-{row['claim_id']}-{row['doc_id']}",
            "question": f"Does the abstract support or refute this claim? {row['claim']}",
            "options": options,
            "answer": list(SCIFACT_LABELS).index(row["label"]),
            "context": row["abstract"],
            "subject": "",
            "rationale": "",
        }

    return as_items(rows, one)
