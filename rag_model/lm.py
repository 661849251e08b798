"""The harness model ``rag``: any other harness model, answering with passages that were looked up.

``lm_eval --model rag --model_args pretrained=MODEL,index=DIR,k=3 --tasks medqa``
"""

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook

from medtasks import files
from medtasks.errors import InputError
from rag_model import answering, arms, cache, prompts, settings
from rag_model.budget import Budget
from rag_model.context import Context, Key, Passage, checked_kind
from rag_model.embedding import Embedder
from rag_model.index import open_index
from rag_model.inner import Around, make, written
from rag_model.open_book import Layout, OpenBook, opened
from rag_model.records import Records
from rag_model.retrieval import Retrieval

logger = logging.getLogger(__name__)


class RAG(Around):
    """Puts the passages found for an item before it, and lets the inner model answer.

    Log-likelihood and generation requests get passages; rolling log-likelihoods and empty contexts (the unconditional
    half of ``acc_mutual_info``) hold no question and go through unchanged. With ``k=0`` everything does.

    The log-likelihood requests of a document are the options of one item. Texts can be generated in mode ``always``
    alone: the other modes weigh options, which a text does not have.

    Args:
        index: folder of the index.
        inner: lm-eval's name of the model that answers: ``hf-mcq`` (see :mod:`medtasks.scoring`), ``hf``, ``vllm`` and
            so on; or that model.
        k: passages an item gets (default 3); where ``index`` is one of solved questions (:mod:`rag_model.solved`), they
            are worked examples.
        examples: folder of an index of solved questions, whose ``shots`` (default 4) nearest ones stand before the
            passages; they are the first to be left out where room is short.
        search, query, rerank, filter, mmr, fuse: how they are found (:class:`rag_model.retrieval.Retrieval`; default:
            exact search for the question).
        embedder: where the embedder of the index (and of the examples') lies, if not where it lay at the build.
        context: whether items get the passages found for them, or those of a control arm (:mod:`rag_model.context`).
        context_seed: of the arms that draw.
        mode, gate_margin, calibration, w: how the answer is made of scores with and without passages
            (:mod:`rag_model.answering`).
        order: ``best_last`` (the default), the best passage nearest to the question, or ``best_first``.
        cite: whether passages are numbered by rank, and a generated text's ``[2]`` noted in the sidecar, as an id.
        neighbours: how many snippets before and after each found one are shown with it (default 0); those that meet
            become one passage.
        max_context_tokens: most tokens of an item's passages; they never take more than the model's window leaves.
        tuned: a file of ``medadapt rag tune``; arguments given here win over its own.
        sidecar: folder for ``<task>.jsonl``, a line an item, sorted by ``doc_id``: ``task, doc_id, item`` (its id),
            ``query`` (its question), ``passages`` (``id`` and ``score`` of each that it was shown, best first; with
            neighbours ``shows``, the ids of all whose text it has), ``n_cut`` (how many were left out or shortened to
            fit), ``rag`` (the configuration's fingerprint); with a gate ``margin``
            (nats, closed book) and ``opened``; with ``cite`` ``cited`` (ids). None for no such files.
        inner_args: everything else is the inner model's.

    Raises:
        InputError: a bad argument or index; later, an item without a question, place for passages or what its arm
            needs, a prompt that is too long even without passages, or an item that the settings were tuned on.
    """

    def __init__(
        self,
        index: str | None = None,
        inner: str | LM = "hf-mcq",
        k: int | None = None,
        examples: str | None = None,
        shots: int | None = None,
        search: str | None = None,
        query: str | None = None,
        rerank: str | None = None,
        filter: float | None = None,
        mmr: float | None = None,
        fuse: str | None = None,
        embedder: str | Embedder | None = None,
        context: str = "retrieved",
        context_seed: int = 0,
        mode: str | None = None,
        gate_margin: float | None = None,
        calibration: float | None = None,
        w: float | None = None,
        order: str | None = None,
        cite: bool | None = None,
        max_context_tokens: int | None = None,
        neighbours: int | None = None,
        tuned: str | None = None,
        sidecar: str | None = None,
        **inner_args,
    ):
        if index is None:
            raise InputError("rag needs an index: --model_args pretrained=MODEL,index=DIR,k=3")
        settings.check_places(index=index, examples=examples, tuned=tuned, sidecar=sidecar)
        if sidecar is not None:
            files.output_folder(sidecar)
        self.tuned = settings.read_tuned(tuned) if tuned else None
        given = {"k": k, "search": search, "query": query, "rerank": rerank, "filter": filter, "mmr": mmr, "fuse": fuse}
        given |= {"mode": mode, "gate_margin": gate_margin, "calibration": calibration, "w": w}
        given |= {"order": order, "cite": cite, "max_context_tokens": max_context_tokens, "neighbours": neighbours}
        chosen = settings.complete(given, self.tuned)
        self.k = chosen["k"]
        self.mode = answering.parse(chosen["mode"], **{name: chosen.get(name) for name in settings.STEP_OF})
        self.layout = Layout(chosen["order"], chosen["cite"], self.mode.per_passage, self.mode.needs_neutral)
        found_in = open_index(index)
        self.meta = found_in.meta
        if neighbours and (not self.k or found_in.is_solved):
            why = f"index={index} holds solved questions, which have none" if self.k else "k=0 finds nothing to go with"
            raise InputError(f"neighbours={neighbours}: {why}; take it out")
        super().__init__(make(inner, inner_args, ARGUMENTS))
        self.answers = cache.Answers(self.inner)
        self.budget = Budget(self.inner, chosen["max_context_tokens"])
        kind = checked_kind(context)
        self.context, retrieval = None, None
        device = str(self.device) if self.device else None
        if self.k:
            how = {name: chosen[name] for name in settings.OF_RETRIEVAL}
            retrieval = Retrieval(found_in, **how, embedder=embedder, device=device, write=self.write)
            self.context = Context(kind, retrieval, self.k, context_seed, chosen["neighbours"])
        self.examples = self._examples(examples, shots, kind, context_seed, embedder=embedder, device=device)
        self.settings = {
            "k": {"none": 0, "oracle": min(1, self.k)}.get(kind, self.k),
            "search": chosen["search"],
            "query": chosen["query"],
            "retrieval": retrieval.settings if retrieval else None,
            "context": kind,
            "context_seed": context_seed,
            "mode": self.mode.name,
            **self.mode.settings,
            **{name: chosen[name] for name in settings.OF_LAYOUT},
        }
        if self.examples:
            self.settings["examples"] = self.examples.retrieval.settings | {"shots": self.examples.k}
        self.fingerprint = settings.fingerprint(self.meta["fingerprint"], self.settings, inner, inner_args)
        self.records = Records(sidecar, self.fingerprint)
        if self.tuned and self.tuned.record["index"] != self.meta["fingerprint"]:
            logger.warning("rag: %s was fitted with another index (%s)", tuned, self.tuned.record["index"])

    def _examples(self, folder: str | None, shots: int | None, kind: str, seed: int, **how) -> Context | None:
        """What finds the examples that stand before passages.

        Args:
            how: arguments of their :class:`~rag_model.retrieval.Retrieval`.
        """
        if folder is None:
            if shots is not None:
                raise InputError(f"shots={shots} needs examples=DIR, an index of solved questions")
            return None
        shots = settings.SHOTS if shots is None else shots
        if type(shots) is not int or shots < 1:
            raise InputError(f"shots={shots}: the number of examples must be a whole number, 1 or more")
        index = open_index(folder)
        if not index.is_solved:
            raise InputError(f"examples={folder}: holds texts, not solved questions; medadapt index build items:medqa")
        if self.context is None:
            raise InputError(f"examples={folder} stand before passages: k=0 gives none; for them alone, index={folder}")
        if self.mode.per_passage or kind == "shuffled":
            what = "context=shuffled" if kind == "shuffled" else f"mode={self.mode.name}"
            raise InputError(f"examples={folder} cannot be given with {what}")
        return Context("retrieved" if kind == "oracle" else kind, Retrieval(index, **how), shots, seed)

    # Answers

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether greedy decoding gives it) of each continuation, in the order given."""
        if self.context is None:
            return self.answers.ask("loglikelihood", requests)
        items: dict[Key, dict[tuple, Instance]] = {}
        for request in requests:
            if request.args[0] != "":
                items.setdefault(_key(request), {}).setdefault(request.args, request)
        found = self.answers.filed_items({key: list(group) for key, group in items.items()})
        found |= self._answered({key: list(group.values()) for key, group in items.items() if key not in found})
        unasked = iter(self.answers.ask("loglikelihood", [request for request in requests if request.args[0] == ""]))
        return [next(unasked) if r.args[0] == "" else found[_key(r)][r.args] for r in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The text generated after each prompt, in the order given."""
        if self.context is None:
            return self.answers.ask("generate_until", requests)
        if self.mode.steps:
            raise InputError(
                f"task {requests[0].task_name} generates text, and mode={self.mode.name} weighs options; "
                "give mode=always for it"
            )
        sharing: dict[tuple, list[int]] = {}
        for i, request in enumerate(requests):
            if request.args[0] != "":
                sharing.setdefault((_key(request), request.args[0]), []).append(i)
        docs = {key: requests[group[0]].doc for (key, _), group in sharing.items()}
        self._check(docs)
        passages = self._passages(docs, list(docs))
        asked, books = list(requests), {}
        for (key, _), group in sharing.items():
            books[key] = self._opened("generate_until", key, [requests[i] for i in group], passages[key])
            for i, request in zip(group, books[key].requests[0], strict=True):
                asked[i] = request
        texts = self.answers.ask("generate_until", asked)
        for (key, _), group in sharing.items():
            cited = prompts.citations("\n".join(texts[i] for i in group), len(books[key].shown))
            ids = [books[key].shown[rank - 1].snippet["id"] for rank in cited]
            self.records.note(key, docs[key], books[key], **({"cited": ids} if self.layout.cite else {}))
        self._keep(docs)
        return texts

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The inner model's answer: a text to be scored as a whole asks no question."""
        return self.answers.ask("loglikelihood_rolling", requests)

    def score(self, items: Mapping[Key, Sequence[Instance]]) -> dict[Key, arms.Scored]:
        """The arms of each item, as the mode needs them; ``items`` holds a request for each option."""
        docs = {key: group[0].doc for key, group in items.items()}

        def open_books(keys: Sequence[Key]) -> dict[Key, OpenBook]:
            passages = self._passages(docs, keys)
            return {key: self._opened(arms.METHOD, key, items[key], passages[key]) for key in keys}

        return arms.score(items, self.mode, self.answers, open_books)

    def write(self, texts: Sequence[str]) -> list[str]:
        """What the inner model writes after each of ``texts``: something to search with."""
        return written(self.answers, texts)

    def _answered(self, items: Mapping[Key, Sequence[Instance]]) -> dict[Key, dict[tuple, tuple[float, bool]]]:
        """Answer by request arguments, for every item; keeps what the items saw."""
        docs = {key: group[0].doc for key, group in items.items()}
        self._check(docs)
        found = {}
        for key, scored in self.score(items).items():
            answers = scored.answers(self.mode)
            found[key] = {request.args: answer for request, answer in zip(items[key], answers, strict=True)}
            self.records.note(key, docs[key], scored.book, **scored.gated(self.mode))
        self._keep(docs)
        if self.mode.steps:
            self.answers.file_items(found)
        return found

    def _check(self, docs: Mapping[Key, dict]) -> None:
        """Refuse items without a question, and those that the settings were tuned on."""
        for (task, _), doc in docs.items():
            prompts.question_of(doc, task)
            if self.tuned:
                self.tuned.refuse(doc, task)

    def _passages(self, docs: Mapping[Key, dict], wanted: Sequence[Key]) -> dict[Key, list[Passage]]:
        logger.info("rag: passages (%s) for %d of %d items", self.context.kind, len(wanted), len(docs))
        found = self.context.of(docs, wanted)
        if self.examples:
            shown = self.examples.of(docs, wanted)
            found = {key: [*passages, *shown[key]] for key, passages in found.items()}
        return found

    def _opened(self, method: str, key: Key, requests: Sequence[Instance], passages: Sequence[Passage]) -> OpenBook:
        return opened(self.layout, self.budget, method, key, requests, passages)

    # What was seen, and --use_cache

    def _keep(self, keys: Iterable[Key]) -> None:
        """Say how many items lost passages; keep what they saw in the cache, if there is one, and the sidecar."""
        seen = {key: self.records.rows[key] for key in keys}
        if n_cut := sum(row["n_cut"] > 0 for row in seen.values()):
            logger.warning(
                "rag: %d of %d items lost passages, or the end of one, to fit into %s (n_cut in the sidecar)",
                n_cut,
                len(seen),
                self.budget.limits,
            )
        self.answers.file_shown({key: (row, self.context.lent.get(key)) for key, row in seen.items()})
        if self.world_size == 1:
            self.records.write()

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Answer from, and fill, a part of the ``--use_cache`` file that is this configuration's own."""
        super().set_cache_hook(cache_hook)
        if cache_hook.dbdict is None:
            return
        cache.own_table(cache_hook.dbdict, f"rag_{self.fingerprint}")
        self.answers.file_in(cache_hook.dbdict)
        for key, (row, lent) in self.answers.filed_shown().items():
            self.records.rows[key] = row
            if lent is not None:
                self.context.lent[key] = lent
        if self.world_size == 1:
            self.records.write()

    def barrier(self) -> None:
        """The inner model's. lm-eval calls it in every process after each kind of request, also where all were filed,
        so here the processes bring together what their items saw."""
        super().barrier()
        if self.world_size > 1:
            for part in self.gather_object(self.records.rows, dst=0) or ():
                self.records.rows.update(part)
            if self.rank == 0:
                self.records.write()

    def get_model_info(self) -> dict:
        """The inner model's, and what was looked up where and how; lm-eval merges it into ``results["config"]``."""
        info = self.inner.get_model_info() if hasattr(self.inner, "get_model_info") else {}
        found = {name: self.meta[name] for name in ("corpus", "embedder", "chunking")}
        found |= {"index": self.meta["fingerprint"], "fingerprint": self.fingerprint}
        found |= self.settings | self.records.counts | ({"tuned": self.tuned.record} if self.tuned else {})
        return info | {f"rag_{name}": value for name, value in found.items()}


ARGUMENTS = tuple(name for name in inspect.signature(RAG).parameters if name != "inner_args")
"""Names of the arguments that are not the inner model's."""


def _key(request: Instance) -> Key:
    return request.task_name, request.doc_id
