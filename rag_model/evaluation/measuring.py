"""Measure retrievals on sets of questions, and show it as a table."""

from collections.abc import Mapping, Sequence

from medtasks.errors import InputError
from rag_model.chunking import embedded_text, passage_and_number
from rag_model.evaluation.metrics import estimate, ndcg, recall, reciprocal_rank
from rag_model.evaluation.sets import QuestionSet
from rag_model.retrieval import Found, Retrieval

NDCG_AT = 10
SNIPPETS_A_DOCUMENT = 5
"""Snippets that are asked for, for each document wanted: several may be of one."""


def measure(retrievals: Mapping[str, Retrieval], question_sets: Sequence[QuestionSet], ks: Sequence[int]) -> list[dict]:
    """A row for each set and each of ``retrievals`` (by name; all of one index).

    A row has ``set``, ``retriever``, ``n`` (questions), ``settings``, and ``metrics``: by name ``mean``, ``low`` and
    ``high`` (95%), between 0 and 1; but for the first retriever also ``differences``, likewise, to the first, question
    by question.

    - where passages are known: ``recall@k`` for each of ``ks``, ``ndcg@10``, ``mrr``. What is ranked are documents, the
      passages of the corpus, each by its best snippet; ``mrr`` looks at the first ``max(ks, 10)``.
    - of exams, for each of ``ks``: ``right@k``, the share of questions with the right option's words, normalized, in
      one of the first ``k`` snippets; ``wrong@k``, the mean share of wrong options; ``right-wrong@k``. Passages that
      name any disease hold many options: what tells is the difference.

    Raises:
        InputError: the index lacks passages that are to be found.
    """
    import numpy as np

    rows = []
    for questions in question_sets:
        first: dict[str, np.ndarray] = {}
        for name, retrieval in retrievals.items():
            values = _exam(retrieval, questions, ks) if questions.relevant is None else _known(retrieval, questions, ks)
            arrays = {metric: np.array(of_question) for metric, of_question in values.items()}
            row = {"set": questions.name, "retriever": name, "n": len(questions.items), "settings": retrieval.settings}
            row["metrics"] = {metric: estimate(of_question)._asdict() for metric, of_question in arrays.items()}
            if first:
                row["differences"] = {metric: estimate(arrays[metric] - first[metric])._asdict() for metric in first}
            first = first or arrays
            rows.append(row)
    return rows


def table(rows: Sequence[dict]) -> str:
    """``rows`` of :func:`measure` as markdown: a table a set, in percent, with 95% intervals; in the last column the
    difference to the first retriever in nDCG or, of exams, in what tells."""
    tables = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        metrics = list(own[0]["metrics"])
        telling = next(metric for metric in reversed(metrics) if metric.startswith(("ndcg", "right-wrong")))
        heads = ["retriever", *metrics, f"{telling}, difference to {own[0]['retriever']}"]
        lines = [f"{name}, {own[0]['n']:,} questions:", "", _line(heads), "|---" * len(heads) + "|"]
        for row in own:
            cells = [_cell(row["metrics"][metric]) for metric in metrics]
            difference = _cell(row["differences"][telling], "+") if "differences" in row else ""
            lines.append(_line([row["retriever"], *cells, difference]))
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(of: Mapping[str, float], sign: str = "") -> str:
    mean, low, high = (format(100 * of[name], f"{sign}.1f") for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _known(retrieval: Retrieval, questions: QuestionSet, ks: Sequence[int]) -> dict[str, list[float]]:
    """Metric -> its value for each question."""
    present = {document_of(snippet_id) for snippet_id in retrieval.index.ids}
    wanted = frozenset().union(*questions.relevant)
    if missing := wanted - present:
        raise InputError(
            f"{retrieval.index.folder}: lacks {len(missing):,} of the {len(wanted):,} passages to be found for "
            f"{questions.name} ('{min(missing)}'); give an index of a corpus that holds them (--corpus FILE makes one)"
        )
    n_documents = max(*ks, NDCG_AT)
    found = retrieval.find(questions.items, SNIPPETS_A_DOCUMENT * n_documents)
    pairs = [
        (documents(of_item)[:n_documents], right) for of_item, right in zip(found, questions.relevant, strict=True)
    ]
    return {
        **{f"recall@{k}": [recall(ranking, right, k) for ranking, right in pairs] for k in ks},
        f"ndcg@{NDCG_AT}": [ndcg(ranking, right, NDCG_AT) for ranking, right in pairs],
        "mrr": [reciprocal_rank(ranking, right) for ranking, right in pairs],
    }


def document_of(snippet_id: str) -> str:
    """The id of the passage that a snippet was cut from."""
    return passage_and_number(snippet_id)[0]


def documents(found: Found) -> list[str]:
    """The documents of snippets, each at the place of its best one (Dai & Callan 2019, arXiv:1905.09217, MaxP)."""
    return list(dict.fromkeys(document_of(snippet_id) for snippet_id, _ in found))


def _exam(retrieval: Retrieval, questions: QuestionSet, ks: Sequence[int]) -> dict[str, list[float]]:
    from medtasks.ngrams import normalize

    found = retrieval.find(questions.items, max(ks))
    right: dict[int, list[float]] = {k: [] for k in ks}
    wrong: dict[int, list[float]] = {k: [] for k in ks}
    for item, of_item in zip(questions.items, found, strict=True):
        texts = [f" {normalize(embedded_text(passage))} " for passage in retrieval.passages(of_item)]
        options = [f" {normalize(option)} " for option in item["options"]]
        for k in ks:
            held = [any(option in text for text in texts[:k]) for option in options]
            right[k].append(float(held.pop(item["answer"])))
            wrong[k].append(sum(held) / len(held))
    values = {}
    for k in ks:
        values[f"right@{k}"], values[f"wrong@{k}"] = right[k], wrong[k]
        values[f"right-wrong@{k}"] = [r - w for r, w in zip(right[k], wrong[k], strict=True)]
    return values
