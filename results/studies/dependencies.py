"""What a step's result depends on, itemized: a flat dict of name -> version, value or hash. Its hash is the step's key.

Names begin with what they are of: ``versions.torch``, ``code.medtasks.items``, ``tasks.medqa``, ``data.cais/mmlu``,
``recipe.sft.learning_rate``, ``steps.train-sft``, and ``base`` and ``command``. Two such dicts are compared by
:func:`changes`, which is how a step that runs again can say why.
"""

import ast
import functools
import hashlib
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import medtasks
from medtasks.files import sha256_json

ROOT = Path(medtasks.__file__).parents[1]
"""The folder that holds the rooms' packages."""
ROOMS = ("medtasks", "rag_model", "trainers")
ARRANGE = frozenset(("medtasks", "medtasks.cli", "medtasks.catalogue", "medtasks.cost", "medtasks.errors"))
"""Modules that start, list, measure or complain, and compute nothing of a result. An edit in them redoes no step."""

HASH = 16
"""Hex digits of the hashes."""
SHOWN, NAMED = 40, 3
"""Characters of a value that :func:`changes` shows, and how many changes it names."""


def key(depends: dict[str, str]) -> str:
    """The hex SHA-256 of all that a step depends on."""
    return sha256_json(depends)


def changes(before: dict[str, str], now: dict[str, str]) -> str:
    """What differs, in words: ``versions.torch changed (2.11.0 -> 2.13.0)``; hashes are named and not shown."""
    different = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    texts = [f"{name} {_change(before.get(name), now.get(name))}" for name in different[:NAMED]]
    more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
    return ", ".join(texts) + more


def _change(before: str | None, now: str | None) -> str:
    if before is None:
        return "is new"
    if now is None:
        return "is gone"
    old, new = _differing_words(before, now)
    if _is_hash(before) or _is_hash(now) or max(len(old), len(new)) > SHOWN:
        return "changed"
    return f"changed ({old} -> {new})"


def _is_hash(value: str) -> bool:
    return len(value) in (HASH, 40, 64) and set(value) <= set("0123456789abcdef")


def _differing_words(before: str, now: str) -> tuple[str, str]:
    """Both texts without the words that they begin and end with together, less one to the left for orientation."""
    old, new = before.split(), now.split()
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    stop = 0
    while stop < min(len(old), len(new)) - start and old[-1 - stop] == new[-1 - stop]:
        stop += 1
    start = max(0, start - 1)
    return tuple(" ".join(words[start : len(words) - stop]) or "nothing" for words in (old, new))


def versions(*libraries: str) -> dict[str, str]:
    """The versions of installed ``libraries``, of Python (major and minor) and of this project."""
    found = {"versions.medadapt": medtasks.__version__, "versions.python": python()}
    for library in libraries:
        try:
            found[f"versions.{library}"] = version(library)
        except PackageNotFoundError:
            found[f"versions.{library}"] = "not installed"
    return found


def python() -> str:
    """Python's version, as far as it may change a result."""
    return ".".join(platform.python_version_tuple()[:2])


def code(modules: Iterable[str]) -> dict[str, str]:
    """A hash of each of ``modules`` and of what they import of our rooms, directly or not.

    Comments, docstrings and formatting do not count, and neither does :data:`ARRANGE`.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        file = _file(module)
        if f"code.{module}" in found or module in ARRANGE or file is None:
            continue
        stat = file.stat()
        found[f"code.{module}"], imported = _parsed(file, stat.st_size, stat.st_mtime_ns)
        waiting += imported
    return found


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if module.partition(".")[0] in ROOMS and file.is_file():
            return file
    return None


@functools.cache
def _parsed(file: Path, size: int, modified: int) -> tuple[str, tuple[str, ...]]:
    """The hash of a module's code, and the modules of ours that it imports anywhere in it."""
    tree = ast.parse(file.read_bytes())
    imported = tuple(name for name in _imports(tree) if _file(name) is not None)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [child for child in body if not _is_text(child)] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:HASH], imported


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring, of a module, class, function or name."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Every name that may be a module: of ``from a.b import c``, both ``a.b`` and ``a.b.c``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
