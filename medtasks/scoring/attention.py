"""Attention over packed token runs, registered with transformers under the name :data:`NAME`.

A packed batch is one row of tokens. Each of its runs attends to itself, causally, and to all of the runs above it (see
:mod:`medtasks.scoring.tree`), some of which lie in stored prefixes. Positions are given, so rotary and learned position
embeddings come out as in a row of its own. On a GPU in half precision one variable-length flash attention call serves
a layer (``torch.nn.attention.varlen``; Dao, FlashAttention-2, 2023); elsewhere each run is one call of
``scaled_dot_product_attention``, which is exact in every precision; on a CPU all runs below one prefix attend to it
in one call.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from medtasks.scoring.tree import Node, Root, Unit

NAME = "medadapt_packed"
IGNORED = {"dropout", "position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states"}
"""Keywords of transformers' attention functions that change nothing here."""
VARLEN_DTYPES = (torch.bfloat16, torch.float16)
VARLEN_HEAD_DIM = 256


class Unsupported(Exception):
    """A model's attention does something that packed runs cannot; its text names it."""


@dataclass
class Packed:
    """A batch of token runs, on the way through the model.

    Attributes:
        tokens, positions: int64 arrays (T,).
        runs: per run, its place among the tokens ``(start, end)`` and the rows of keys that it sees, as ranges
            ``[(start, end), ...]`` in sequence order; the last range is the run itself. Rows count from the stored
            prefixes on: first those of ``roots``, then the T of the batch.
        roots: the prefixes that are read.
        place: per path (by ``id``), the row of each of its tokens from ``first`` on.
        keep: keeps keys and values of every layer after the forward, for a batch that is a prefix.
    """

    tokens: np.ndarray
    positions: np.ndarray
    runs: list[tuple[tuple[int, int], list[tuple[int, int]]]]
    roots: list["Stored"] = field(default_factory=list)
    place: dict[int, np.ndarray] = field(default_factory=dict)
    keep: "Stored | None" = None
    _on_device: dict = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether each run sees only itself."""
        return all(len(ranges) == 1 for _, ranges in self.runs)

    def kernel_arguments(self, device: torch.device) -> tuple:
        """``(cumulative query lengths, cumulative key lengths, longest query, longest key, rows of keys or None)``."""
        if device not in self._on_device:
            queries = np.array([end - start for (start, end), _ in self.runs])
            keys = np.array([sum(end - start for start, end in ranges) for _, ranges in self.runs])
            rows = None
            if not self.is_plain:
                rows = np.concatenate([np.arange(start, end) for _, ranges in self.runs for start, end in ranges])
                rows = to_device(rows, device)
            cumulative = [
                to_device(np.concatenate([[0], np.cumsum(n)]).astype(np.int32), device) for n in (queries, keys)
            ]
            self._on_device[device] = (*cumulative, int(queries.max()), int(keys.max()), rows)
        return self._on_device[device]


@dataclass(eq=False)
class Stored:
    """Keys and values of a prefix: attention module -> two tensors (tokens, heads, head_dim)."""

    states: dict = field(default_factory=dict)


def pack(units: Sequence[Unit], stored: dict[Root, Stored]) -> Packed:
    """The packed batch of ``units``, whose roots are in ``stored``."""
    roots = list(dict.fromkeys(unit.root for unit in units if unit.root is not None))
    offsets, offset = {}, 0
    for root in roots:
        offsets[root] = offset
        offset += root.depth
    tokens, positions, runs, place = [], [], [], {}
    length = 0
    for unit in units:
        above = [(offsets[unit.root], offsets[unit.root] + unit.root.depth)] if unit.root else []
        stack: list[tuple[Node, list]] = [(unit.node, above)]
        while stack:
            node, above = stack.pop()
            size = node.end - node.start
            tokens.append(node.path.tokens[node.start : node.end])
            positions.append(np.arange(node.start, node.end))
            ranges = [*above, (offset + length, offset + length + size)]
            runs.append(((length, length + size), ranges))
            length += size
            for path in node.ends:
                needed = len(path.tokens) - path.first
                place[id(path)] = _last_rows(ranges, needed) - offset
            stack.extend((child, ranges) for child in reversed(node.children))
    return Packed(np.concatenate(tokens), np.concatenate(positions), runs, [stored[root] for root in roots], place)


def pack_root(root: Root) -> Packed:
    """The batch that computes a prefix and keeps its keys and values."""
    tokens = root.path.tokens[: root.depth]
    span = (0, root.depth)
    return Packed(tokens, np.arange(root.depth), [(span, [span])], keep=Stored())


def _last_rows(ranges: list[tuple[int, int]], n: int) -> np.ndarray:
    """The last ``n`` rows of ``ranges``."""
    parts = []
    for start, end in reversed(ranges):
        parts.append(np.arange(max(start, end - n), end))
        n -= len(parts[-1])
        if not n:
            break
    return np.concatenate(parts[::-1])


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """``array`` on ``device``, copied beside the computation where that can be (pinned memory)."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def from_device(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Start copying ``tensor`` to the host; returns a function that waits for the copy and gives it."""
    if tensor.device.type != "cuda":
        return lambda: tensor.cpu()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))

    def wait() -> torch.Tensor:
        event.synchronize()
        return copy

    return wait


_active: list[Packed] = []


@contextlib.contextmanager
def installed(model: torch.nn.Module) -> Iterator[None]:
    """Within this, ``model`` (a transformers model, or PEFT's around one) attends as this module does.

    Raises:
        Unsupported: the model's attention cannot be chosen.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = inner.config._attn_implementation
    inner.set_attn_implementation(NAME)
    try:
        if inner.config._attn_implementation != NAME:
            raise Unsupported(f"{type(inner).__name__} does not let its attention be chosen")
        yield
    finally:
        inner.set_attn_implementation(before)


@contextlib.contextmanager
def active(packed: Packed) -> Iterator[None]:
    """Within this, ``packed`` is what a model computes."""
    _active.append(packed)
    try:
        yield
    finally:
        _active.pop()


@torch.compiler.disable
def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **keywords,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface over the active packed batch.

    Args:
        query: (1, heads, T, head_dim); ``key`` and ``value`` likewise, perhaps with fewer heads (grouped queries).
        sliding_window: how many positions a token sees, itself included.

    Returns:
        (1, T, heads, head_dim), None.

    Raises:
        Unsupported: anything but plain causal attention with a scale and a window is asked for.
    """
    packed = _active[-1]
    if unknown := [name for name, given in keywords.items() if given is not None and name not in IGNORED]:
        raise Unsupported(f"attention with '{unknown[0]}'")
    if attention_mask is not None or is_causal is False or not getattr(module, "is_causal", True):
        raise Unsupported("attention that is not plainly causal")
    if query.shape[0] != 1 or query.shape[2] != len(packed.tokens) or key.shape[2] != len(packed.tokens):
        raise Unsupported("tokens that the prompt does not have (a cache, virtual tokens)")
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))  # (T, heads, head_dim)
    if packed.keep is not None:
        packed.keep.states[module] = (key.clone(), value.clone())
    if packed.roots:
        key = torch.cat([*(root.states[module][0] for root in packed.roots), key])
        value = torch.cat([*(root.states[module][1] for root in packed.roots), value])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if _varlen_can(query, value):
        attend = _varlen
    elif _two_parts_can(packed, query, value, sliding_window):
        attend = _in_two_parts
    else:
        attend = _one_by_one
    return attend(packed, query, key, value, scale, sliding_window)[None], None


def _varlen_can(query: torch.Tensor, value: torch.Tensor) -> bool:
    return (
        query.device.type == "cuda"
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and query.dtype in VARLEN_DTYPES
        and value.dtype == query.dtype
        and value.shape[-1] == query.shape[-1] <= VARLEN_HEAD_DIM
        and query.shape[-1] % 8 == 0
    )


def _varlen(packed, query, key, value, scale, window) -> torch.Tensor:
    """(T, heads, head_dim) by one kernel call for all runs; causal masks count from each run's end."""
    from torch.nn.attention.varlen import varlen_attn

    query_starts, key_starts, longest_query, longest_key, rows = packed.kernel_arguments(query.device)
    if rows is not None:
        key, value = key.index_select(0, rows), value.index_select(0, rows)
    keywords = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0)}
    if _varlen_names_grouping():
        keywords["enable_gqa"] = query.shape[1] != key.shape[1]
    return varlen_attn(query, key, value, query_starts, key_starts, longest_query, longest_key, **keywords)


@functools.cache
def _varlen_names_grouping() -> bool:
    """Whether this torch wants to be told of grouped queries (2.11 takes them as they come)."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def _two_parts_can(packed: Packed, query: torch.Tensor, value: torch.Tensor, window: int | None) -> bool:
    return (
        query.device.type == "cpu"
        and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")
        and query.shape[-1] == value.shape[-1]
        and not packed.is_plain
        and (window is None or packed.kernel_arguments(query.device)[3] <= window)
    )


def _in_two_parts(packed, query, key, value, scale, window) -> torch.Tensor:
    """(T, heads, head_dim): each run's attention to itself, merged with its attention to the runs above it, which all
    runs below the same ones compute in one call.

    The parts are weighted by the sums of their exponentials, as in flash decoding and Hydragen (Juravsky et al. 2024,
    arXiv:2402.05099), so the result is the attention over both.
    """
    repeats = query.shape[1] // key.shape[1]
    query, key, value = (states.transpose(0, 1) for states in (query, key, value))  # (heads, T, head_dim)
    key, value = (states.repeat_interleave(repeats, dim=0) for states in (key, value))
    out = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    sums = torch.empty(query.shape[1], query.shape[0], dtype=torch.promote_types(query.dtype, torch.float32))
    below: dict[tuple, list[tuple[int, int]]] = {}
    for (start, end), ranges in packed.runs:
        a, b = ranges[-1]
        out[start:end], sums[start:end] = _with_sums(query[:, start:end], key[:, a:b], value[:, a:b], True, scale)
        if ranges[:-1]:
            below.setdefault(tuple(ranges[:-1]), []).append((start, end))
    for above, runs in below.items():
        keys, values = (torch.cat([states[:, a:b] for a, b in above], dim=1) for states in (key, value))
        rows = torch.cat([torch.arange(start, end) for start, end in runs])
        more, more_sums = _with_sums(query[:, rows], keys, values, False, scale)
        own_sums = sums[rows]
        total = torch.logaddexp(own_sums, more_sums)
        own = out[rows] * (own_sums - total).exp()[..., None]
        out[rows] = (own + more * (more_sums - total).exp()[..., None]).to(out.dtype)
    return out


def _with_sums(query, key, value, is_causal: bool, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, heads, value_dim) and the log-sum-exps (T, heads), of (heads, T, head_dim) states."""
    attended, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query[None], key[None], value[None], 0.0, is_causal, scale=scale
    )
    return attended[0].transpose(0, 1), sums[0].T


def _one_by_one(packed, query, key, value, scale, window) -> torch.Tensor:
    """(T, heads, value_dim), a call for each run."""
    grouped = query.shape[1] != key.shape[1]
    query, key, value = (states.transpose(0, 1) for states in (query, key, value))  # (heads, T, head_dim)
    out = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    for (start, end), ranges in packed.runs:
        keys = [key[:, a:b] for a, b in ranges]
        values = [value[:, a:b] for a, b in ranges]
        keys, values = (s[0] if len(ranges) == 1 else torch.cat(s, dim=1) for s in (keys, values))
        mask = _mask(end - start, keys.shape[1], window, query.device)
        attended = F.scaled_dot_product_attention(
            query[None, :, start:end],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=grouped,
        )
        out[start:end] = attended[0].transpose(0, 1)
    return out


def _mask(queries: int, keys: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """What the last ``queries`` of ``keys`` positions see, (queries, keys); None where causal attention says it."""
    if queries == keys and (window is None or keys <= window):
        return None
    position = torch.arange(keys, device=device)
    behind = position[keys - queries :, None] - position
    return (behind >= 0) if window is None else (behind >= 0) & (behind < window)


AttentionInterface.register(NAME, attention)
