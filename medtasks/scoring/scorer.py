"""Log-likelihoods by packed forward passes: plan batches, compute them, halve them where memory runs out."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers.modeling_layers import GradientCheckpointingLayer

from medtasks.scoring import attention, tree
from medtasks.scoring.attention import Packed, Stored, Unsupported
from medtasks.scoring.packing import packed_linears
from medtasks.scoring.tree import Path, Root, Unit

logger = logging.getLogger(__name__)

CPU_TOKENS = 2048
"""Tokens of a batch on a CPU (SmolLM2-135M, 2 cores: 1,024 took as long, 512 longer)."""
FIRST_TOKENS = 8192
"""Tokens of the first batch on a GPU; what it takes sets the size of the others."""
MOST_TOKENS = 65_536
"""Tokens of a batch on a GPU at most: twice as many were no faster (1.5B model, H100)."""
SHARE_OF_FREE = 0.8
"""Share of the free GPU memory that a batch may take."""
COMPILE_PAYS = 1e16
"""Floating-point operations from which compiling the layers pays on a GPU. It took 12 s, cold, on an H100 and saved 30%
of the forward passes (1.5B model). On a CPU it saved no more than :mod:`medtasks.scoring.packing` does at once."""
CHECK_TOKENS = 24
"""Tokens of the parts of the made-up prompts that check a model before it is trusted with packed runs."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF = 0.2
"""How far, relative to their spread, packed logits may lie from plain ones in that check. Rounding in bfloat16 moved
them by 0.05 (SmolLM2-135M), a state carried from one prompt into the next by 1.3 and more (a small Mamba)."""


@dataclass(frozen=True)
class Request:
    """One continuation to score.

    Attributes:
        path: int64 array (length,): context and continuation without its last token.
        targets: the continuation's tokens, predicted at the last ``len(targets)`` positions of ``path``.
    """

    path: np.ndarray
    targets: list[int]


Answer = tuple[float, bool]


class Chunk:
    """Requests by their index, with the tree of what they share; made anywhere, a thread of its own for one."""

    def __init__(self, requests: Mapping[int, Request]):
        self.requests = requests
        self.paths = _paths(requests)
        self.top = tree.build(self.paths)


class Scorer:
    """Scores requests with one model.

    Args:
        model: a causal language model of transformers, or PEFT's around one.
        autocast: a context of mixed precision, entered at each forward.
        softmax_dtype: of the log-softmax; None is the logits' own, as in lm-eval's ``hf``.
        max_tokens: tokens of a batch; None finds it from the free memory.
        reordered: precisions whose weights are reordered for a CPU.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
        softmax_dtype: torch.dtype | None = None,
        max_tokens: int | None = None,
        reordered: Sequence[torch.dtype] = (torch.bfloat16,),
    ):
        self.model, self.autocast, self.softmax_dtype, self.max_tokens = model, autocast, softmax_dtype, max_tokens
        self.reordered = reordered
        self.device = next(model.parameters()).device
        self.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        self.batches: list[int] = []
        """Tokens of each batch computed so far."""
        self._bytes_per_token: float | None = None
        self._position_weight = 0.0
        self.is_compiled = False

    def score(self, chunks: Iterable["Chunk"], done: Callable[[int, Answer], None]) -> list[int]:
        """Score all requests of ``chunks``; calls ``done(index, (log-probability in nats, is greedy))`` as batches
        finish, in any order. On a GPU the next chunk is made while one is computed.

        Returns:
            Indices of requests that did not fit into memory even alone.

        Raises:
            Unsupported: the model's attention is more than packed runs can do.
        """
        unfit = []
        on_gpu = self.device.type == "cuda"
        with attention.installed(self.model), self._packed_weights():
            for chunk in _ahead(chunks) if on_gpu else chunks:
                top = chunk.top
                if self.max_tokens is None and on_gpu and self._bytes_per_token is None:
                    few, rest = _split(chunk.paths, FIRST_TOKENS)
                    with self._measured():
                        unfit += self._run(tree.build(few), few, chunk, done, FIRST_TOKENS)
                    chunk.paths, top = rest, tree.build(rest)
                unfit += self._run(top, chunk.paths, chunk, done, self.max_tokens or self._budget())
        return unfit

    def _run(self, top: list[tree.Node], paths: list[Path], chunk: "Chunk", done, budget: int) -> list[int]:
        """Score along ``paths``, whose tree is ``top``, in batches of ``budget``, halved whenever memory runs out;
        returns what never fitted."""
        unfit: list[int] = []
        while paths:
            left = {id(path): path for path in paths}
            too_big = None
            for units, answers in self._in_order(top, budget, chunk.requests):
                if answers is None:
                    too_big = units
                    break
                for index, answer in answers():
                    done(index, answer)
                for path in _paths_of(units):
                    del left[id(path)]
            paths = list(left.values())
            if too_big is None:
                break
            clear_device_cache(garbage_collection=True)
            weight = int(sum(unit.node.weight for unit in too_big))
            if len(too_big) == 1 and not tree.can_be_opened(too_big[0]):
                lost = {id(path) for path in _paths_of(too_big)}
                unfit += [index for path in paths if id(path) in lost for index in path.requests]
                paths = [path for path in paths if id(path) not in lost]
            else:
                budget = min(budget, weight) // 2
                logger.warning("hf-mcq: out of memory at %d tokens; going on with %d a batch", weight, budget)
            top = tree.build(paths) if paths else []
        return unfit

    def _in_order(
        self, top: list[tree.Node], budget: int, requests: Mapping[int, Request]
    ) -> Iterator[tuple[list[Unit], Callable | None]]:
        """Each batch with a function that waits for its answers, one batch late, so that the device never waits for us.

        Ends with ``(units, None)`` where memory ran out.
        """
        plan = list(tree.batches(top, budget, self._position_weight))
        last_use = {unit.root: number for number, units in enumerate(plan) for unit in units}
        stored: dict[Root, Stored] = {}
        waiting = None
        for number, units in enumerate(plan):
            try:
                self._store_roots(units, stored)
                answers = self._answers(units, attention.pack(units, stored), requests)
            except Exception as error:
                if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                    raise
                answers = None
            if waiting is not None:
                yield waiting
            waiting = units, answers
            if answers is None:
                break
            stored = {root: kept for root, kept in stored.items() if last_use[root] > number}
        if waiting is not None:
            yield waiting

    def _store_roots(self, units: list[Unit], stored: dict[Root, Stored]) -> None:
        """Compute the prefixes that ``units`` need and ``stored`` lacks."""
        for root in dict.fromkeys(unit.root for unit in units):
            if root is not None and root not in stored:
                prefix = attention.pack_root(root)
                self._logits(prefix, np.zeros(1, dtype=np.int64))
                stored[root] = prefix.keep

    def _answers(self, units: list[Unit], packed: Packed, requests: Mapping[int, Request]) -> Callable[[], Iterator]:
        """Start computing; returns a function that waits and yields ``(index, answer)``."""
        indices, rows, targets = [], [], []
        for path in _paths_of(units):
            needed = packed.place[id(path)]
            for index in path.requests:
                indices.append(index)
                targets.append(requests[index].targets)
                rows.append(needed[len(needed) - len(targets[-1]) :])
        kept, inverse = np.unique(np.concatenate(rows), return_inverse=True)
        lengths = np.array([len(t) for t in targets])
        filled = np.arange(lengths.max()) < lengths[:, None]  # (requests, longest continuation)
        at, wanted = np.zeros(filled.shape, dtype=np.int64), np.zeros(filled.shape, dtype=np.int64)
        at[filled], wanted[filled] = inverse, list(itertools.chain.from_iterable(targets))
        logits = self._logits(packed, kept)
        at, wanted, filled = (attention.to_device(array, logits.device) for array in (at, wanted, filled))
        log_probabilities = F.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
        greedy = ((log_probabilities.argmax(dim=-1)[at] == wanted) | ~filled).all(dim=1)
        sums = (log_probabilities[at, wanted] * filled).sum(dim=1)
        arrived = attention.from_device(torch.stack([sums.double(), greedy.double()]))
        return lambda: ((i, (total, bool(best))) for i, total, best in zip(indices, *arrived().tolist(), strict=True))

    def _logits(self, packed: Packed, rows: np.ndarray) -> torch.Tensor:
        """(rows, vocabulary): the logits at ``rows`` of a packed batch.

        The head sees no other position: a hook picks the rows, wherever the head lies and whatever comes after it.
        """
        head = self.model.get_output_embeddings()
        if head is None:
            raise Unsupported("no output embeddings to pick positions for")

        def pick(module, args):
            return (args[0][:, attention.to_device(rows, args[0].device)], *args[1:])

        hook = head.register_forward_pre_hook(pick)
        try:
            with torch.no_grad(), self.autocast(), attention.active(packed):
                logits = self.model(
                    input_ids=attention.to_device(packed.tokens, self.device)[None],
                    position_ids=attention.to_device(packed.positions, self.device)[None],
                    use_cache=False,
                ).logits
        finally:
            hook.remove()
        if logits.shape[:2] != (1, len(rows)):
            raise Unsupported("a head that is not called as a module")
        self.batches.append(len(packed.tokens))
        return logits[0]

    def compile(self) -> None:
        """Fuse the element-wise work between the products of each decoder layer; all layers share one compilation.

        Outside :meth:`score`, call the model under ``torch.compiler.set_stance("force_eager")``: other shapes and a
        cache would be compiled too.
        """
        if not self.is_compiled:
            for layer in self.model.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.compile(dynamic=True)
        self.is_compiled = True

    def compile_if_it_pays(self, tokens: int) -> None:
        """Compile if this is a GPU and computing ``tokens`` tokens takes much longer than compiling."""
        parameters = sum(p.numel() for p in self.model.parameters()) - self.model.get_output_embeddings().weight.numel()
        if self.device.type == "cuda" and 2 * parameters * tokens >= COMPILE_PAYS:
            self.compile()

    def _packed_weights(self) -> contextlib.AbstractContextManager:
        if self.device.type != "cpu" or self.is_compiled:  # compilers cannot look into packed weights
            return contextlib.nullcontext()
        return packed_linears(self.model, self.max_tokens or CPU_TOKENS, self.reordered)

    # Memory

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        """Notes how many bytes a token takes, from the peak within."""
        devices = {parameter.device for parameter in self.model.parameters() if parameter.device.type == "cuda"}
        before = {}
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
            before[device] = torch.cuda.memory_allocated(device)
        n = len(self.batches)
        yield
        if tokens := max(self.batches[n:], default=0):
            peak = max(torch.cuda.max_memory_allocated(device) - before[device] for device in devices)
            self._bytes_per_token = peak / tokens
            head = self.model.get_output_embeddings()
            per_position = 4 * head.weight.shape[0] * head.weight.element_size()  # logits, log-softmax, and room
            self._position_weight = per_position / self._bytes_per_token

    def _budget(self) -> int:
        """Tokens of a batch that the memory which is free now holds."""
        if self.device.type != "cuda":
            return CPU_TOKENS
        devices = {parameter.device for parameter in self.model.parameters() if parameter.device.type == "cuda"}
        free = min(
            torch.cuda.mem_get_info(device)[0]
            + torch.cuda.memory_reserved(device)
            - torch.cuda.memory_allocated(device)
            for device in devices
        )
        return max(FIRST_TOKENS, min(MOST_TOKENS, int(SHARE_OF_FREE * free / self._bytes_per_token)))

    # Whether the model can be trusted with packed runs

    def check(self) -> str | None:
        """Compare packed runs with plain rows on made-up prompts; returns why they cannot be used, None if they can.

        Three prompts, of which two begin alike, go through transformers' own attention a row each, and packed: once as
        one tree, once below a stored prefix. A model whose layers pass information along the row (state spaces, linear
        attention) or attend in a way of their own does not agree with itself, and is left to lm-eval's ``hf``.
        """
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        draw = np.random.default_rng(0).integers
        begin, a, b, c = (draw(vocabulary // 10, vocabulary // 2, CHECK_TOKENS) for _ in range(4))
        rows = [np.concatenate(parts) for parts in ((begin, a), (begin, b[:-5]), (c, a))]
        try:
            plain = [self._plain_logits(row) for row in rows]
            tolerance = TOLERANCE.get(min(self.dtype, plain[0].dtype, key=lambda dtype: dtype.itemsize), HALF)
            with attention.installed(self.model):
                for first, budget in ((0, sum(map(len, rows))), (CHECK_TOKENS, CHECK_TOKENS)):
                    paths = [Path(row, first, (i,)) for i, row in enumerate(rows)]
                    for i, logits in self._check_logits(paths, budget):
                        difference = _distance(logits, plain[i][first:])
                        if not difference <= tolerance:
                            return f"packed logits are {difference:.2g} off, relative to their spread"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        finally:
            self.batches.clear()
        return None

    def _plain_logits(self, row: np.ndarray) -> torch.Tensor:
        with torch.no_grad(), self.autocast():
            return self.model(attention.to_device(row, self.device)[None], use_cache=False).logits[0].cpu()

    def _check_logits(self, paths: list[Path], budget: int) -> Iterator[tuple[int, torch.Tensor]]:
        """The number and the needed logits of each of ``paths``, in batches of ``budget``."""
        stored: dict[Root, Stored] = {}
        for units in tree.batches(tree.build(paths), budget):
            self._store_roots(units, stored)
            packed = attention.pack(units, stored)
            for path in _paths_of(units):
                yield path.requests[0], self._logits(packed, packed.place[id(path)]).cpu()


def _distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """How far two (positions, vocabulary) logits lie apart, relative to their spread, where they do most."""
    ours, theirs = ours.float(), theirs.float()
    return float(((ours - theirs).std(dim=-1) / theirs.std(dim=-1)).max())


def _paths(requests: Mapping[int, Request]) -> list[Path]:
    """The distinct paths of ``requests``, each with those that are scored along it."""
    along: dict[bytes, list[int]] = {}
    key_of: dict[int, bytes] = {}  # many requests share one array
    for index, request in requests.items():
        key = key_of.get(id(request.path))
        if key is None:
            key = key_of[id(request.path)] = request.path.tobytes()
        along.setdefault(key, []).append(index)
    paths = []
    for indices in along.values():
        tokens = requests[indices[0]].path
        longest = max(len(requests[index].targets) for index in indices)
        paths.append(Path(tokens, len(tokens) - longest, tuple(indices)))
    return paths


def _ahead(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """``chunks``, each made while the one before it is used."""
    iterator = iter(chunks)
    with ThreadPoolExecutor(1) as executor:
        coming = executor.submit(next, iterator, None)
        while (chunk := coming.result()) is not None:
            coming = executor.submit(next, iterator, None)
            yield chunk


def _paths_of(units: Sequence[Unit]) -> Iterator[Path]:
    for unit in units:
        for node in unit.node:
            yield from node.ends


def _split(paths: list[Path], tokens: int) -> tuple[list[Path], list[Path]]:
    """The first of ``paths``, up to ``tokens`` in all (but one at least), and the rest."""
    ends = np.cumsum([len(path.tokens) for path in paths])
    n = max(1, int(np.searchsorted(ends, tokens, side="right")))
    return paths[:n], paths[n:]
