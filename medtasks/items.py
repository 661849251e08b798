"""Every benchmark's rows in one shape, the item (fields: :data:`medtasks.mcq.FIELDS`).

The ``from_*`` functions are the tasks' ``process_docs``; :mod:`medtasks.benchmarks` gives the same items to trainers.
Rows carry the columns ``split`` and ``row`` that :func:`medtasks.sources.load_rows` adds.
"""

from medtasks import mcq

PUBMEDQA_OPTIONS = ["yes", "no", "maybe"]


def from_medqa(rows):
    """MedQA with four options (Jin et al. 2021, arXiv:2009.13081).

    Columns ``question, options{A..D}, answer_idx, meta_info``.
    """

    def one(row):
        letters = sorted(row["options"])
        return {
            "id": f"medqa-{row['split']}-{row['row']:05d}",
            "question": row["question"],
            "options": [row["options"][letter] for letter in letters],
            "answer": letters.index(row["answer_idx"]),
            "context": "",
            "subject": row.get("meta_info") or "",
            "rationale": row.get("rationale") or "",
        }

    return as_items(rows, one)


def from_medmcqa(rows):
    """MedMCQA (Pal et al. 2022, arXiv:2203.14371).

    Columns ``id, question, opa, opb, opc, opd, cop`` (0-based), ``exp, subject_name``.
    """

    def one(row):
        return {
            "id": f"medmcqa-{row['id']}",
            "question": row["question"],
            "options": [row[f"op{letter}"] for letter in "abcd"],
            "answer": row["cop"],
            "context": "",
            "subject": row.get("subject_name") or "",
            "rationale": row.get("exp") or "",
        }

    return as_items(rows, one)


def from_pubmedqa(rows):
    """PubMedQA, labelled (Jin et al. 2019, arXiv:1909.06146).

    Columns ``pubid, question, context{contexts}, long_answer, final_decision``. The abstract without its conclusion is
    the context, as in the paper's reasoning-required setting.
    """
    return as_items(rows, pubmedqa_item)


def from_pubmedqa_star(rows):
    """PubMedQA without its abstract, for retrieval to find (MIRAGE, Xiong et al. 2024, arXiv:2402.13178)."""
    return as_items(rows, lambda row: pubmedqa_item(row) | {"context": ""})


def pubmedqa_item(row: dict) -> dict:
    """The item of one row of PubMedQA, labelled or artificial."""
    return {
        "id": f"pubmedqa-{row['pubid']}",
        "question": row["question"],
        "options": PUBMEDQA_OPTIONS,
        "answer": PUBMEDQA_OPTIONS.index(row["final_decision"]),
        "context": "\n".join(row["context"]["contexts"]),
        "subject": "",
        "rationale": row.get("long_answer") or "",
    }


def from_mmlu(rows):
    """MMLU (Hendrycks et al. 2021, arXiv:2009.03300). Columns ``question, subject, choices, answer``."""

    def one(row):
        return {
            "id": f"mmlu-{row['subject']}-{row['split']}-{row['row']:05d}",
            "question": row["question"].strip(),
            "options": list(row["choices"]),
            "answer": row["answer"],
            "context": "",
            "subject": row["subject"],
            "rationale": "",
        }

    return as_items(rows, one)


def as_items(rows, one):
    """The items that ``one`` makes of each row: a ``datasets.Dataset`` with the fields of an item and no others."""
    import datasets

    text = datasets.Value("string")
    features = datasets.Features(
        {field: text for field in mcq.FIELDS} | {"options": datasets.List(text), "answer": datasets.Value("int64")}
    )
    return datasets.Dataset.from_list([one(row) for row in rows], features=features)
