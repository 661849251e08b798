"""The requests of an item with its passages in their prompts, as many as fit."""

import dataclasses
from collections.abc import Mapping, Sequence

from lm_eval.api.instance import Instance

from medtasks.errors import InputError
from rag_model import prompts
from rag_model.budget import Budget
from rag_model.context import Key, Passage


@dataclasses.dataclass(frozen=True)
class OpenBook:
    """An item's requests, with passages.

    Attributes:
        requests: one list for each prompt with passages (one, or one a passage), each in the order of the item's own.
        neutral: the same with a content-free question; [] if not asked for.
        scores: the retrieval's, one a prompt; 0 for the only prompt.
        shown: the passages, best first.
        n_cut: passages that were left out, or lost their end, to fit.
    """

    requests: list[list[Instance]]
    neutral: list[list[Instance]]
    scores: list[float]
    shown: list[Passage]
    n_cut: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """How passages are put into prompts.

    Attributes:
        order: of :data:`rag_model.prompts.ORDERS`.
        cite: whether they are numbered, so that a text can cite them.
        per_passage: whether each has a prompt of its own.
        neutral: whether prompts with a content-free question are made too.
    """

    order: str = prompts.BEST_LAST
    cite: bool = False
    per_passage: bool = False
    neutral: bool = False

    def __post_init__(self):
        if self.order not in prompts.ORDERS:
            raise InputError(f"order={self.order}: there are {', '.join(prompts.ORDERS)}")
        if not isinstance(self.cite, bool):
            raise InputError(f"cite={self.cite}: must be True or False")


def opened(
    layout: Layout, budget: Budget, method: str, key: Key, requests: Sequence[Instance], passages: Sequence[Passage]
) -> OpenBook:
    """Put ``passages``, best first, into the prompts of an item's ``requests``.

    Args:
        method: ``loglikelihood`` or ``generate_until``.

    Raises:
        InputError: a prompt has no place for passages, or is too long for the model even without them.
    """
    sharing: dict = {}
    for request in requests:
        sharing.setdefault(request.args[0], []).append(request)
    fitting = {prompt: budget.window(method, group) for prompt, group in sharing.items()}
    doc, task = requests[0].doc, key[0]
    parts = [[passage] for passage in passages] if layout.per_passage and passages else [list(passages)]
    fits = [_fitting(layout, budget, key, requests, fitting, part) for part in parts]
    kept = [(part, snippets) for part, snippets in fits if snippets]
    rows, neutral = [], []
    for _, snippets in kept or [([], [])]:
        arranged = prompts.arranged(snippets, layout.order, layout.cite)
        new = {prompt: prompts.insert(prompt, doc, task, arranged) for prompt in sharing}
        rows.append(_asked_with(requests, new))
        if layout.neutral:
            bare = {prompt: prompts.without_question(text, doc, task) for prompt, text in new.items()}
            neutral.append(_asked_with(requests, bare))
    scores = [part[0].score for part, _ in kept] if layout.per_passage and kept else [0.0]
    shown = [pair for part, snippets in kept for pair in zip(part, snippets, strict=False)]
    whole = sum(passage.snippet == snippet and passage in passages for passage, snippet in shown)
    return OpenBook(rows, neutral, scores, [passage for passage, _ in shown], len(passages) - whole)


def _fitting(
    layout: Layout, budget: Budget, key: Key, requests: Sequence[Instance], fitting: Mapping, part: Sequence[Passage]
) -> tuple[Sequence[Passage], list[dict]]:
    """The passages of ``part``, without their neighbours where these do not fit, and what of their snippets, best
    first, does in every prompt of the item."""
    doc, (task, doc_id) = requests[0].doc, key

    def fits(snippets: Sequence[dict]) -> bool:
        arranged = prompts.arranged(snippets, layout.order, layout.cite)
        return budget.allows(arranged, doc) and all(
            within(prompts.insert(prompt, doc, task, arranged)) for prompt, within in fitting.items()
        )

    if any(passage.shows for passage in part) and not fits([passage.snippet for passage in part]):
        part = [_alone(passage) for passage in part]
    kept = prompts.fit([passage.snippet for passage in part], fits)
    if not kept and not all(within(prompt) for prompt, within in fitting.items()):
        raise InputError(
            f"task {task}, item {doc_id}: the prompt is too long for the model ({budget.inner.max_length} tokens) "
            "even without passages; use fewer few-shot examples, fewer tokens to generate, or a larger max_length"
        )
    return part, kept


def _alone(passage: Passage) -> Passage:
    return (
        passage if passage.alone is None else dataclasses.replace(passage, snippet=passage.alone, shows=(), alone=None)
    )


def _asked_with(requests: Sequence[Instance], prompt_of: Mapping) -> list[Instance]:
    """New requests, in the same order, with other prompts; the ones given stay as they are."""
    return [
        dataclasses.replace(
            request, arguments=(prompt_of[request.args[0]], *request.args[1:]), resps=[], filtered_resps={}
        )
        for request in requests
    ]
