"""The harness model ``rag``: any other harness model, answering with passages that were looked up.

``lm_eval --model rag --model_args pretrained=MODEL,index=DIR,k=3 --tasks medqa``
"""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook, TemplateLM, hash_args
from lm_eval.models.utils import normalize_gen_kwargs

from medtasks import files
from medtasks.errors import InputError
from rag_model import cache, prompts
from rag_model.embedding import Embedder
from rag_model.index import open_index
from rag_model.retrieval import Retrieval

logger = logging.getLogger(__name__)

NOT_PART_OF_THE_ANSWER = ("batch_size", "max_batch_size", "max_batch_tokens", "compile_layers", "device")
ROOM_FOR_A_BYTE = 2
"""Tokens that a byte of text becomes at most, normalization included; a text short by this need not be tokenized."""
DEFAULT_MAX_GEN_TOKS = 256
"""lm-eval's, where a model names none."""
CACHED_ROWS = "passages:"
"""Prefix of the keys under which ``--use_cache`` files also keep what an item saw."""


class RAG(LM):
    """Puts the passages nearest to an item's question before the item, and lets the inner model answer.

    Log-likelihood and generation requests get passages; rolling log-likelihoods and empty contexts (the unconditional
    half of ``acc_mutual_info``) hold no question and go through unchanged. With ``k=0`` everything does.

    Args:
        index: folder of the index.
        inner: lm-eval's name of the model that answers: ``hf-mcq`` (see :mod:`medtasks.scoring`), ``hf``, ``vllm``, ...
        k: passages an item gets.
        search: ``exact``, ``bm25``, ``rrf``, ... (see :class:`rag_model.retrieval.Retrieval`).
        embedder: where the index's embedder lies, if not where it lay at the build.
        sidecar: folder for ``<task>.jsonl``, a line an item, sorted by ``doc_id``: ``task, doc_id, item`` (its id),
            ``query, passages`` (id and score of each, best first), ``n_cut`` (how many were left out or shortened to
            fit into the model), ``rag`` (the configuration's fingerprint). None for no such files.
        inner_args: everything else is the inner model's.

    Raises:
        InputError: a bad argument or index; later, an item without a question or place for passages, or a prompt
            that is too long even without them.
    """

    def __init__(
        self,
        index: str | None = None,
        inner: str = "hf-mcq",
        k: int = 3,
        search: str = "exact",
        embedder: str | Embedder | None = None,
        sidecar: str | None = None,
        **inner_args,
    ):
        super().__init__()
        if index is None:
            raise InputError("rag needs an index: --model_args pretrained=MODEL,index=DIR,k=3")
        if not isinstance(k, int) or k < 0:
            raise InputError(f"k={k}: the number of passages must be a whole number, 0 or more")
        opened = open_index(index)
        self.meta, self.k, self.how = opened.meta, k, search
        self.inner = _inner(inner, inner_args)
        device = self.inner.device
        device = str(device) if device else None
        self.retrieval = Retrieval(opened, search=search, embedder=embedder, device=device) if k else None
        self.sidecar = Path(sidecar).expanduser() if sidecar else None
        self.fingerprint = files.sha256_json(
            {
                "index": self.meta["fingerprint"],
                "k": k,
                "search": search,
                "inner": inner,
                "inner_args": {a: str(v) for a, v in inner_args.items() if a not in NOT_PART_OF_THE_ANSWER},
            }
        )[:16]
        self._found: dict[str, list[tuple[str, float]]] = {}
        self._rows: dict[tuple[str, int], dict] = {}
        self._originals: dict[str, tuple] = {}

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether greedy decoding gives it) of each continuation, in the order given."""
        return self.inner.loglikelihood(self._with_passages("loglikelihood", requests))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The text generated after each prompt, in the order given."""
        return self.inner.generate_until(self._with_passages("generate_until", requests))

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The inner model's answer: a text to be scored as a whole asks no question."""
        return self.inner.loglikelihood_rolling(requests)

    def get_model_info(self) -> dict:
        """The inner model's, and what was looked up where; lm-eval merges it into ``results["config"]``."""
        info = self.inner.get_model_info() if hasattr(self.inner, "get_model_info") else {}
        return info | {
            "rag_index": self.meta["fingerprint"],
            "rag_corpus": self.meta["corpus"],
            "rag_embedder": self.meta["embedder"],
            "rag_chunking": self.meta["chunking"],
            "rag_k": self.k,
            "rag_search": self.how,
            "rag_items": len(self._rows),
            "rag_items_cut": sum(row["n_cut"] > 0 for row in self._rows.values()),
        }

    # Passages

    def _with_passages(self, method: str, requests: list[Instance]) -> list[Instance]:
        """New requests, in the same order, whose prompts hold passages; the ones given stay as they are."""
        if not self.k:
            return requests
        prompts_of: dict[tuple, list[Instance]] = defaultdict(list)
        for request in requests:
            if request.args[0] != "":
                prompts_of[_prompt_key(request)].append(request)
        self._look_up([prompts.question_of(group[0].doc, group[0].task_name) for group in prompts_of.values()])
        new_prompt = {key: self._new_prompt(method, group) for key, group in prompts_of.items()}
        self._record([key[:2] for key in prompts_of])
        new = [
            dataclasses.replace(
                request,
                arguments=(new_prompt.get(_prompt_key(request), request.args[0]), *request.args[1:]),
                resps=[],
                filtered_resps={},
            )
            for request in requests
        ]
        if self.cache_hook.dbdict is not None:
            for request, augmented in zip(requests, new, strict=True):
                self._originals[hash_args(method, augmented.args)] = request.args
        return new

    def _look_up(self, queries: Sequence[str]) -> None:
        """Search for the queries that are new, each once, in one batch."""
        new = [query for query in dict.fromkeys(queries) if query not in self._found]
        if new:
            logger.info("rag: looking up %d questions", len(new))
            found = self.retrieval.find([{"question": query} for query in new], self.k)
            self._found.update(zip(new, found, strict=True))

    def _new_prompt(self, method: str, group: list[Instance]):
        """The prompt with passages of requests that share one; notes what the item sees."""
        doc, task, doc_id, prompt = group[0].doc, group[0].task_name, group[0].doc_id, group[0].args[0]
        query = prompts.question_of(doc, task)
        passages = self.retrieval.passages(self._found[query])
        fits = self._fits(method, group)

        def render(shown):
            return prompts.insert(prompt, doc, task, shown)

        shown = prompts.fit(passages, render, fits)
        if not shown and not fits(prompt):
            raise InputError(
                f"task {task}, item {doc_id}: the prompt is too long for the model ({self.inner.max_length} tokens) "
                "even without passages; use fewer few-shot examples, fewer tokens to generate, or a larger max_length"
            )
        whole = sum(snippet == passage for snippet, passage in zip(shown, passages, strict=False))
        self._rows[task, doc_id] = {
            "task": task,
            "doc_id": doc_id,
            "item": doc.get("id"),
            "query": query,
            "passages": [{"id": i, "score": round(score, 6)} for i, score in self._found[query][: len(shown)]],
            "n_cut": len(passages) - whole,
            "rag": self.fingerprint,
        }
        return render(shown)

    def _fits(self, method: str, group: list[Instance]):
        """A function that says whether a prompt, with the longest answer of ``group``, fits into the inner model."""
        inner = self.inner
        if not isinstance(inner, TemplateLM) or inner.tokenizer is None or not isinstance(group[0].args[0], str):
            return lambda prompt: True
        if method == "loglikelihood":
            longest, generated = max((r.args[1] for r in group), key=lambda answer: len(inner.tok_encode(answer))), 0
        else:
            default = getattr(inner, "max_gen_toks", DEFAULT_MAX_GEN_TOKS)
            longest, generated = "", max(normalize_gen_kwargs(r.args[1], default)["max_gen_toks"] for r in group)
        room = inner.max_length - generated - 1  # one for a start token, which some models add only when they answer
        longest_bytes = ROOM_FOR_A_BYTE * len(longest.encode())

        def fits(prompt: str) -> bool:
            if longest_bytes + ROOM_FOR_A_BYTE * len(prompt.encode()) <= room:
                return True
            return len(inner.tok_encode(prompt + longest)) <= room

        return fits

    # What was seen, and --use_cache

    def _record(self, seen: Sequence[tuple[str, int]]) -> None:
        """Say how many prompts were shortened; keep what items saw in the cache, if there is one, and the sidecar."""
        if n_cut := sum(self._rows[key]["n_cut"] > 0 for key in seen):
            logger.warning(
                "rag: %d of %d items lost passages, or the end of one, to fit into %d tokens (n_cut in the sidecar)",
                n_cut,
                len(seen),
                self.inner.max_length,
            )
        if self.cache_hook.dbdict is not None:
            self.cache_hook.dbdict.update({f"{CACHED_ROWS}{key}": (key, self._rows[key]) for key in seen})
        if self.world_size == 1:
            self._write_sidecar()

    def _write_sidecar(self) -> None:
        """Write ``<task>.jsonl`` for all tasks so far, sorted by document. Several processes must call it together."""
        if self.world_size > 1:
            for part in self.inner.gather_object(self._rows, dst=0) or ():
                self._rows.update(part)
        if self.sidecar is None or self.rank != 0:
            return
        for task in sorted({task for task, _ in self._rows}):
            keys = sorted(key for key in self._rows if key[0] == task)
            files.write_jsonl(self.sidecar / f"{task}.jsonl", (self._rows[key] for key in keys))

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Answer from, and fill, a part of the ``--use_cache`` file that is this configuration's own.

        lm-eval files an answer under its prompt *before* passages, which is the same whatever is looked up. So each
        configuration (index, k, search, inner model) gets a table of its own in the file, and what the inner model
        files under a prompt with passages goes under the prompt without.
        """
        super().set_cache_hook(cache_hook)
        if cache_hook.dbdict is None:
            return
        cache.own_table(cache_hook.dbdict, f"rag_{self.fingerprint}")
        cached = [key for key in cache_hook.dbdict if key.startswith(CACHED_ROWS)]
        self._rows.update(cache_hook.dbdict[key] for key in cached)
        if self.world_size == 1:
            self._write_sidecar()
        self.inner.set_cache_hook(cache.PartialAnswers(cache_hook, self._originals))

    # The rest is the inner model's. LM defines these, so each must be named; __getattr__ sees only what LM lacks.

    @property
    def rank(self) -> int:
        return self.inner.rank

    @property
    def world_size(self) -> int:
        return self.inner.world_size

    @property
    def device(self):
        return self.inner.device

    @property
    def tokenizer_name(self) -> str:
        return self.inner.tokenizer_name

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.inner.apply_chat_template(chat_history, add_generation_prompt=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.inner.chat_template(chat_template)

    def all_gather(self, tensor):
        return self.inner.all_gather(tensor)

    def gather_object(self, obj, dst=0):
        return self.inner.gather_object(obj, dst=dst)

    def barrier(self) -> None:
        """The inner model's. lm-eval calls it in every process after each kind of request, also where all were cached,
        so here the processes bring together what their items saw."""
        self.inner.barrier()
        if self.world_size > 1:
            self._write_sidecar()

    def __getattr__(self, name: str):
        if name == "inner":  # not there until __init__ has made it
            raise AttributeError(name)
        return getattr(self.inner, name)


def _prompt_key(request: Instance) -> tuple:
    return request.task_name, request.doc_id, request.args[0]


def _inner(name: str, arguments: dict) -> LM:
    """The model that answers.

    Raises:
        InputError: lm-eval has no model of this name.
    """
    from lm_eval.api.registry import get_model

    from medtasks.cli import register_models

    if name == "rag":
        raise InputError("inner=rag: rag cannot answer through itself; give hf-mcq, hf, vllm or another model")
    register_models()
    try:
        model = get_model(name)
    except ValueError as error:
        raise InputError(f"inner={name}: {str(error).splitlines()[0]}") from error
    return model.create_from_arg_obj(arguments)
