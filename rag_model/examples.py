"""Solved questions (:mod:`rag_model.solved`) as worked examples: which of them suit an item, and how they are shown.

The training questions nearest to the one that is asked, each with its answer, are the examples of kNN prompting (Liu et
al. 2022, arXiv:2101.06804; Medprompt, Nori et al. 2023, arXiv:2311.16452).
"""

from collections.abc import Iterable, Mapping, Sequence

from medtasks import mcq
from rag_model.chunking import ITEM
from rag_model.options import names_nothing
from rag_model.solved import worked

SEPARATOR = "\n\n"


def block(snippets: Sequence[dict], doc: Mapping) -> str:
    """The text that stands before an item when snippets are given, best first: worked examples, the best one last, then
    passages (:func:`medtasks.mcq.passage_block`).

    An example shows its own context as the item is shown what it is about: as an abstract where the item has one, as a
    passage where it gets passages, else not at all.

    Args:
        doc: the item that is asked.
    """
    passages = [snippet for snippet in snippets if ITEM not in snippet]
    examples = [_example(snippet[ITEM], doc, bool(passages)) for snippet in reversed(snippets) if ITEM in snippet]
    return "".join(examples) + mcq.passage_block(passages)


def _example(item: dict, doc: Mapping, has_passages: bool) -> str:
    if not item["context"] or doc.get("context"):
        return worked(item) + SEPARATOR
    passages = [{"text": item["context"]}] if has_passages else []
    return mcq.passage_block(passages) + worked(item | {"context": ""}) + SEPARATOR


class Suiting:
    """Which solved questions suit an item as examples: those that are answered alike.

    An item whose options name nothing (yes, no, maybe) suits those with the same options; all others suit one another.

    Args:
        snippets: of the index.
    """

    def __init__(self, snippets: Iterable[dict]):
        self._form = {snippet["id"]: _form(snippet[ITEM]["options"]) for snippet in snippets}
        self._ids: dict[tuple[str, ...], list[str]] = {}
        for snippet_id, form in self._form.items():
            self._ids.setdefault(form, []).append(snippet_id)

    def ids(self, doc: Mapping) -> list[str]:
        """The snippets that suit ``doc``, in index order; all, where there are none of its kind."""
        return self._ids.get(_form(doc.get("options")), list(self._form))

    def only(self, pairs: Iterable[tuple[str, float]], doc: Mapping) -> list[tuple[str, float]]:
        """Those of (snippet id, score) that suit ``doc``, in their order."""
        form = _form(doc.get("options"))
        return [pair for pair in pairs if form not in self._ids or self._form[pair[0]] == form]


def _form(options) -> tuple[str, ...]:
    """The options in a fixed order, if none of them names anything; () for others."""
    from medtasks.ngrams import normalize

    texts = [str(option) for option in options] if isinstance(options, list) else []
    return tuple(sorted(map(normalize, texts))) if all(map(names_nothing, texts)) else ()


def is_asked_by(snippet: dict, doc: Mapping, question: str) -> bool:
    """Whether a snippet is the solution of the very item that is asked.

    Args:
        question: of ``doc`` (:func:`rag_model.prompts.question_of`).
    """
    item = snippet.get(ITEM)
    if item is None or item["question"].strip() != question.strip():
        return False
    options = doc.get("options")
    return not isinstance(options, list) or sorted(map(str, options)) == sorted(map(str, item["options"]))
