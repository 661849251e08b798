"""What many prompts share is computed once: prompts as a tree of token runs, cut into batches of a given weight.

A multiple-choice run asks thousands of prompts that begin alike (few-shot examples, a system prompt, one passage block
asked about twice) and options that continue one prompt. Sorted, they form a trie; here the trie keeps only those
branching points that save work. A run of tokens between two branching points is a :class:`Node`: its tokens attend to
themselves and to the runs above them, so a batch of runs needs neither padding nor repeated prefixes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

WORTH_SHARING = 0.15
"""Share of a group's tokens that a shared run must save to be split off: each run below it costs a copy of the keys
and values above, in every layer."""


@dataclass(frozen=True)
class Path:
    """One sequence to compute.

    Attributes:
        tokens: int64 array (length,).
        first: the first of its positions whose logits are needed; they are needed from there to the end.
        requests: what is scored along it, as indices of the caller.
    """

    tokens: np.ndarray
    first: int
    requests: tuple[int, ...] = ()


@dataclass
class Node:
    """A run of tokens, positions ``start`` to ``end`` of ``path`` and of every path below; ``ends`` are paths that end
    with it. ``weight`` is that of the whole subtree, ``first`` the smallest ``first`` in it."""

    path: Path
    start: int
    end: int
    children: list["Node"] = field(default_factory=list)
    ends: list[Path] = field(default_factory=list)
    weight: float = 0
    first: int = 0

    def __iter__(self) -> Iterator["Node"]:
        """The subtree, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))


@dataclass(frozen=True)
class Unit:
    """A subtree that one batch computes, below a stored prefix (None: below none)."""

    node: Node
    root: "Root | None"


@dataclass(frozen=True, eq=False)
class Root:
    """A prefix that several batches share: its keys and values are computed once and kept while they are needed."""

    path: Path
    depth: int


def build(paths: Sequence[Path]) -> list[Node]:
    """The trees of ``paths``, which must be distinct. What would save less than :data:`WORTH_SHARING` stays apart."""
    keys = [path.tokens.astype(">u4").tobytes() for path in paths]
    order = sorted(range(len(paths)), key=keys.__getitem__)
    paths = [paths[i] for i in order]
    shared = [_common(a.tokens, b.tokens) for a, b in zip(paths, paths[1:], strict=False)]
    lengths = np.concatenate([[0], np.cumsum([len(path.tokens) for path in paths])])
    top: list[Node] = []
    work = [(_intervals(shared, len(paths)), 0, top)]
    while work:
        (common, low, high, inner), depth, siblings = work.pop()
        saved = (common - depth) * (high - low - 1)
        apart = int(lengths[high] - lengths[low]) - (high - low) * depth
        below = siblings
        if high - low > 1 and saved > 0 and saved >= WORTH_SHARING * apart:
            node = Node(paths[low], depth, common)
            siblings.append(node)
            below, depth = node.children, common
            if len(paths[low].tokens) == common:  # sorted, the one path that ends here comes first
                node.ends.append(paths[low])
                low += 1
        inside = {interval[1]: interval for interval in inner}
        position = low
        while position < high:
            if position in inside:
                work.append((inside[position], depth, below))
                position = inside[position][2]
            else:
                below.append(Node(paths[position], depth, len(paths[position].tokens), ends=[paths[position]]))
                position += 1
    return top


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two sequences share at the beginning."""
    n = min(len(a), len(b))
    different = a[:n] != b[:n]
    place = int(different.argmax()) if n else 0
    return place if n and different[place] else n


def _intervals(shared: Sequence[int], n: int) -> tuple:
    """The tree of groups of neighbours in sorted order: ``(tokens in common, low, high, [inner groups])``.

    Enumerates the intervals of the array of longest common prefixes with a stack (Abouelhoda, Kurtz and Ohlebusch,
    Replacing suffix trees with enhanced suffix arrays, 2004).
    """
    stack = [[0, 0, None, []]]
    for i, common in enumerate([*shared, -1], 1):
        low, last = i - 1, None
        while stack and common < stack[-1][0]:
            last = stack.pop()
            last[2], low = i, last[1]
            if stack and common <= stack[-1][0]:
                stack[-1][3].append(tuple(last))
                last = None
        if stack and common > stack[-1][0]:
            stack.append([common, low, None, [tuple(last)] if last else []])
    return (0, 0, n, tuple(last[3])) if n > 1 else (0, 0, n, ())


def _weigh(top: Node, position_weight: float) -> None:
    """Fill in weights and first needed positions, children first."""
    for node in reversed(list(top)):
        needed = sum(len(path.tokens) - path.first for path in node.ends)
        node.weight = node.end - node.start + position_weight * needed + sum(child.weight for child in node.children)
        node.first = min([path.first for path in node.ends] + [child.first for child in node.children])


def batches(top: Sequence[Node], budget: int, position_weight: float = 0) -> Iterator[list[Unit]]:
    """Units in batches of weight ``budget`` at most, unless one unit alone is heavier.

    A token weighs 1, a position whose logits are needed ``position_weight`` more.

    A subtree over the budget is opened: its first run becomes a stored prefix (up to the first position whose logits
    are needed, so that every path is scored within one batch) and what hangs below is spread over batches.
    """
    for node in top:
        _weigh(node, position_weight)
    batch: list[Unit] = []
    size = 0
    for unit in _units(top, None, budget):
        if batch and size + unit.node.weight > budget:
            yield batch
            batch, size = [], 0
        batch.append(unit)
        size += unit.node.weight
    if batch:
        yield batch


def can_be_opened(unit: Unit) -> bool:
    """Whether a unit over the budget would be spread over several batches, or lose its prefix."""
    return bool(unit.node.children) and min(unit.node.end, unit.node.first) > unit.node.start


def _units(nodes: Sequence[Node], root: Root | None, budget: int) -> Iterator[Unit]:
    for node in nodes:
        depth = min(node.end, node.first)
        if node.weight <= budget or not can_be_opened(Unit(node, root)):
            yield Unit(node, root)
        elif depth < node.end:  # logits are needed within the run: its rest and all below it stay together
            weight = node.weight - (depth - node.start)
            rest = Node(node.path, depth, node.end, node.children, node.ends, weight, node.first)
            yield Unit(rest, Root(node.path, depth))
        else:
            yield from _units(node.children, Root(node.path, depth), budget)
