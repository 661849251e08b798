"""RAFT: items behind retrieved passages, the best of them among distractors or left out (Zhang et al. 2024,
arXiv:2403.10131), so that a model learns to use what helps and to pass over what does not.

What is trained is what ``--model rag`` asks: passages before the item, the best one last (:func:`medtasks.mcq.render`).
Passages come from files alone: the sidecar that ``--model rag`` leaves for each task (``retrieval/TASK.jsonl``: ``item,
query, passages`` with ids) and the index's ``snippets.jsonl``, or lines of ``id`` or ``question`` and ``passages`` with
``title`` and ``text``, best first.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from medtasks import contamination, corpora
from medtasks.errors import InputError
from medtasks.ngrams import normalize
from trainers.data.collecting import Drawn
from trainers.recipe import did_you_mean

SNIPPETS = "snippets.jsonl"
"""In the folder of an index (``rag_model.index``)."""


@dataclass(frozen=True)
class Raft:
    """The recipe's ``raft`` mapping."""

    passages: str
    """The file that says which passages belong to which item."""
    snippets: str | None = None
    """The index, or its snippets.jsonl, that a sidecar's ids are of."""
    distractors: int = 3
    """Passages of other items."""
    best: int = 1
    """Passages of the item itself, the best ones."""
    oracle_share: float = 0.8
    """Share of the items that get their own passages; the paper finds 0.4 to 1 best, by data set."""


def parse(given: dict | str) -> Raft:
    """The mapping of a recipe, or its JSON on the command line.

    Raises:
        InputError: an unknown key, or a value of the wrong kind.
    """
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except json.JSONDecodeError as error:
        raise InputError(f"raft: not JSON ({error.msg}); give a mapping with 'passages'") from error
    known = [f.name for f in fields(Raft)]
    if not isinstance(found, dict) or not isinstance(found.get("passages"), str):
        raise InputError(f"raft: a mapping with 'passages', a file, is needed; its keys are {', '.join(known)}")
    for key in found:
        if key not in known:
            raise InputError(f"raft has no key '{key}'{did_you_mean(key, known)}; its keys are {', '.join(known)}")
    raft = Raft(**found)
    for key, least in (("distractors", 0), ("best", 1)):
        if type(value := getattr(raft, key)) is not int or value < least:
            raise InputError(f"raft: {key} is {value!r}; it must be a whole number from {least}")
    if type(raft.oracle_share) not in (int, float) or not 0 <= raft.oracle_share <= 1:
        raise InputError(f"raft: oracle_share is {raft.oracle_share!r}; it must be a number from 0 to 1")
    return raft


class Passages:
    """Which passages belong to which item, by its id or its question."""

    def __init__(self, raft: Raft, tests: contamination.Overlap | None = None):
        """Read the files; passages that hold an item of ``tests`` are left out (``contaminated`` counts them).

        Raises:
            InputError: one is not there, or a line lacks what it needs.
        """
        self.raft = raft
        self._of: dict[str, list[dict]] = {}
        clean: dict[tuple[str, str], bool] = {}
        lines = list(_lines(raft.passages))
        snippets = _snippets(raft, _ids(lines))
        for place, line in lines:
            passages = _passages_of(line, snippets, place, raft)
            keys = _keys(line, place)
            for passage in passages if tests else ():
                clean[_text(passage)] = clean.get(_text(passage), not tests.is_contaminated(passage))
            self._of |= dict.fromkeys(keys, [passage for passage in passages if clean.get(_text(passage), True)])
        self.contaminated = sum(not is_clean for is_clean in clean.values())

    def of(self, item: dict) -> list[dict]:
        """The item's passages, best first; [] where the file has none for it. Its question comes before its id, which
        an item of another source may have too."""
        return self._of.get(normalize(item["question"])) or self._of.get(item["id"], [])


def attach(drawn: list[Drawn], passages: Passages, seed: int) -> list[dict]:
    """The rows of ``drawn``; items that have passages with those that are shown: ``passages``, best first, and
    ``n_best``, how many of them are the item's own.

    Distractors are passages of other items, chosen by ``seed`` and question. Rows that are no items stay as they are.
    """
    raft = passages.raft
    pool: dict[tuple[str, str], dict] = {}
    for one in drawn:
        if "options" in one.row:
            pool |= {_text(passage): passage for passage in passages.of(one.row)}
    texts, rows = list(pool.values()), []
    for one in drawn:
        own = passages.of(one.row) if "options" in one.row else []
        rows.append(one.row | _shown(one.row, own, texts, raft, seed) if own else one.row)
    return rows


def _shown(item: dict, own: list[dict], pool: list[dict], raft: Raft, seed: int) -> dict:
    rng = random.Random(f"{seed} raft {item['question']}")
    best = own[: raft.best] if rng.random() < raft.oracle_share else []
    mine = {_text(passage) for passage in own}
    others: list[dict] = []
    for passage in rng.sample(pool, min(len(pool), raft.distractors + len(mine))):
        if _text(passage) not in mine and len(others) < raft.distractors:
            others.append(passage)
    return {"passages": [*best, *others], "n_best": len(best)}


def _text(passage: dict) -> tuple[str, str]:
    return passage["title"], passage["text"]


# Files


def _lines(file: str) -> Iterator[tuple[str, dict]]:
    path = Path(file).expanduser()
    if not path.is_file() or not path.name.endswith(corpora.JSONL):
        raise InputError(f"raft: {file}: no such {' or '.join(corpora.JSONL)} file")
    for place, line in corpora.file_rows(path):
        if not isinstance(line, dict) or not isinstance(line.get("passages"), list):
            raise InputError(f"{place}: no list of passages; is it the sidecar of --model rag?")
        yield place, line


def _keys(line: dict, place: str) -> list[str]:
    """What names the item of a line: ids as they stand there, and normalized questions."""
    ids = [_id(line[name], place) for name in ("item", "id") if line.get(name) not in (None, "")]
    questions = [line[name] for name in ("question", "query") if line.get(name)]
    if not all(isinstance(question, str) for question in questions):
        raise InputError(f"{place}: the question is not a text")
    if not ids and not questions:
        raise InputError(f"{place}: neither id nor question; a line needs one of them, and passages")
    return [*ids, *map(normalize, questions)]


def _id(value, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{place}: an id is neither a text nor a whole number")
    return str(value)


def _ids(lines: list[tuple[str, dict]]) -> set[str]:
    """The ids of the passages that come without a text."""
    passages = ((place, passage) for place, line in lines for passage in line["passages"])
    return {_id(passage["id"], place) for place, passage in passages if _names_a_snippet(passage)}


def _names_a_snippet(passage) -> bool:
    return isinstance(passage, dict) and passage.get("text") is None and passage.get("id") is not None


def _snippets(raft: Raft, wanted: set[str]) -> dict[str, dict]:
    """Id -> snippet, for the ids in ``wanted``."""
    if not wanted:
        return {}
    if raft.snippets is None:
        raise InputError(f"raft: {raft.passages} names passages by id; name the index that they are of as 'snippets'")
    path = Path(raft.snippets).expanduser()
    path = path / SNIPPETS if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"raft: {path}: no such file; 'snippets' is the folder of an index")
    found = {}
    for place, row in corpora.file_rows(path):
        if not isinstance(row, dict) or "id" not in row:
            raise InputError(f"{place}: no id; is it the {SNIPPETS} of an index?")
        if (name := _id(row["id"], place)) in wanted:
            found[name] = _passage(row, place)
    return found


def _passages_of(line: dict, snippets: dict[str, dict], place: str, raft: Raft) -> list[dict]:
    found = []
    for passage in line["passages"]:
        if not _names_a_snippet(passage):
            found.append(_passage(passage, place))
        elif (name := _id(passage["id"], place)) in snippets:
            found.append(snippets[name])
        else:
            raise InputError(f"{place}: {raft.snippets} has no snippet '{name}'; is it the same index?")
    return found


def _passage(passage, place: str) -> dict:
    """``title`` and ``text`` of a passage.

    Raises:
        InputError: it has no text.
    """
    if not isinstance(passage, dict) or not isinstance(passage.get("text"), str) or not passage["text"].strip():
        raise InputError(f"{place}: a passage needs a text (and title), or the id of a snippet")
    if not isinstance(passage.get("title"), str | None):
        raise InputError(f"{place}: the title of a passage is not a text")
    return {"title": passage.get("title") or "", "text": passage["text"]}
