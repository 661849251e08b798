"""The tree of shared prefixes and its batches: every path once, whole, and within the budget."""

import numpy as np
import pytest

from medtasks.scoring import attention, tree
from medtasks.scoring.tree import Path


def path(*tokens, scored=1, request=0):
    return Path(np.array(tokens), len(tokens) - scored, (request,))


def random_paths(seed, n=60):
    """Paths below a few common beginnings of several depths, some of them the beginning of others."""
    draw = np.random.default_rng(seed)
    beginnings = [draw.integers(50, size=size) for size in (0, 5, 40)]
    beginnings += [np.concatenate([beginnings[2], draw.integers(50, size=30)])]
    made = {}
    for _ in range(n):
        parts = beginnings[draw.integers(len(beginnings))], draw.integers(50, size=draw.integers(1, 12))
        tokens = np.concatenate(parts)
        made[tokens.tobytes()] = tokens
        if draw.random() < 0.3:
            longer = np.concatenate([tokens, draw.integers(50, size=3)])
            made[longer.tobytes()] = longer
    return [Path(t, len(t) - int(draw.integers(1, min(4, len(t)) + 1)), (i,)) for i, t in enumerate(made.values())]


def ways(top):
    """(path, the nodes from the top to its end) of each path."""
    stack = [(node, [node]) for node in top]
    while stack:
        node, above = stack.pop()
        yield from ((ending, above) for ending in node.ends)
        stack.extend((child, [*above, child]) for child in node.children)


@pytest.mark.parametrize("seed", range(20))
def test_the_runs_above_a_path_spell_it(seed):
    paths = random_paths(seed)
    found = list(ways(tree.build(paths)))
    assert sorted(map(id, paths)) == sorted(id(ending) for ending, _ in found)
    for ending, above in found:
        runs = [node.path.tokens[node.start : node.end] for node in above]
        assert np.array_equal(np.concatenate(runs), ending.tokens)
        assert [node.start for node in above] == [0, *(node.end for node in above[:-1])]


def test_what_is_shared_is_one_run():
    block = range(100)
    top = tree.build([path(*block, 1, 2, 3), path(*block, 4, 5), path(*block, 6), path(7, 8)])
    assert sorted(node.end - node.start for root in top for node in root) == [1, 2, 2, 3, 100]


def test_little_sharing_is_not_worth_a_run():
    top = tree.build([path(0, *range(1, 20)), path(0, *range(30, 50))])
    assert [len(list(root)) for root in top] == [1, 1]


def test_a_path_that_begins_another_ends_at_the_shared_run():
    short, long = path(*range(10)), path(*range(10), 77, 78)
    (root,) = tree.build([short, long])
    assert root.ends == [short] and [child.ends for child in root.children] == [[long]]


@pytest.mark.parametrize("budget", (1, 10, 60, 200, 10_000))
@pytest.mark.parametrize("seed", range(8))
def test_batches_hold_each_path_once_and_keep_to_the_budget(seed, budget):
    paths = random_paths(seed)
    plan = list(tree.batches(tree.build(paths), budget, position_weight=2))
    seen = [ending for units in plan for unit in units for node in unit.node for ending in node.ends]
    assert sorted(map(id, seen)) == sorted(map(id, paths))
    for units in plan:
        weight = sum(
            node.end - node.start + 2 * sum(len(p.tokens) - p.first for p in node.ends)
            for u in units
            for node in u.node
        )
        assert weight == sum(unit.node.weight for unit in units)
        assert weight <= budget or len(units) == 1
        for unit in units:
            assert unit.root is None or unit.root.depth == unit.node.start
            assert unit.node.first >= unit.node.start, "logits would be needed within a stored prefix"


@pytest.mark.parametrize("budget", (1, 60, 10_000))
@pytest.mark.parametrize("seed", range(8))
def test_packed_runs_see_exactly_their_own_path(seed, budget):
    """Each row of keys is labelled by the token that stands there: what a path's last row sees must spell the path."""
    for units in tree.batches(tree.build(random_paths(seed)), budget):
        roots = list(dict.fromkeys(unit.root for unit in units if unit.root))
        stored = {root: attention.Stored() for root in roots}
        packed = attention.pack(units, stored)
        rows = np.concatenate([*(root.path.tokens[: root.depth] for root in roots), packed.tokens])
        offset = len(rows) - len(packed.tokens)
        ranges_of = {row: ranges for (start, end), ranges in packed.runs for row in range(start, end)}
        for ending in (p for unit in units for node in unit.node for p in node.ends):
            needed = packed.place[id(ending)]
            assert np.array_equal(packed.tokens[needed], ending.tokens[ending.first :])
            assert np.array_equal(packed.positions[needed], np.arange(ending.first, len(ending.tokens)))
            seen = np.concatenate([rows[a:b] for a, b in ranges_of[needed[-1]]])
            assert np.array_equal(seen[: len(ending.tokens)], ending.tokens)
            assert offset + needed[-1] < len(rows)
