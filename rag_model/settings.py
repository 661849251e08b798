"""The arguments of ``rag`` that decide how it answers: given by hand, or fitted by ``medadapt rag tune``."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import files
from medtasks.errors import InputError
from rag_model import answering, prompts

if TYPE_CHECKING:
    from lm_eval.api.model import LM

NOT_PART_OF_THE_ANSWER = ("batch_size", "max_batch_size", "max_batch_tokens", "compile_layers", "device")
"""Arguments of the inner model that change its speed alone."""
OF_RETRIEVAL = {"search": "exact", "query": "question", "rerank": None, "filter": None, "mmr": None, "fuse": "rrf"}
"""Arguments that say how passages are found, with their defaults."""
OF_LAYOUT = {"order": prompts.BEST_LAST, "cite": False, "max_context_tokens": None, "neighbours": 0}
"""Arguments that say how they are shown, with their defaults."""
DEFAULTS = {"k": 3, "mode": answering.ALWAYS} | OF_RETRIEVAL | OF_LAYOUT
"""Of the arguments that a tuned file may hold."""
SHOTS = 4
"""Examples before passages, where there are any, if not said otherwise."""
STEP_OF = {"gate_margin": "gate", "calibration": "calibrate", "w": "mix"}
"""An argument -> the step of a mode that takes it."""


@dataclass(frozen=True)
class Tuned:
    """What ``medadapt rag tune`` wrote.

    Attributes:
        settings: the arguments that it chose.
        items: ids of the dev items that it chose by.
        record: what a run keeps of it: the file's hash, and the index and model that it was fitted with.
    """

    settings: Mapping[str, object]
    items: frozenset[str]
    record: Mapping[str, object]

    def refuse(self, doc: Mapping[str, object], task: str) -> None:
        """Refuse an item that the settings were chosen by.

        Raises:
            InputError: it is one.
        """
        if doc.get("id") in self.items:
            raise InputError(
                f"task {task}: the settings in 'tuned' were chosen on its item {doc['id']}, so it cannot measure them; "
                "run it with other settings, or tune on other splits"
            )


def read_tuned(file: str | Path) -> Tuned:
    """Read ``tuned.json``.

    Raises:
        InputError: no such file, or not one of ``medadapt rag tune``.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"tuned={file}: no such file; medadapt rag tune --out {file} writes it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        record = {"sha256": files.sha256_file(path)[:16], "index": found["index"], "model": found["model"]}
        items = frozenset(item for task in found["data"].values() for item in task["ids"])
        return Tuned(dict(found["chosen"]["settings"]), items, record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"tuned={file}: not what medadapt rag tune writes ({error!r}); tune again") from error


def fingerprint(index: str, chosen: Mapping[str, object], inner: "str | LM", inner_args: Mapping[str, object]) -> str:
    """16 hex digits that change with whatever changes an answer: index, settings, and the inner model's arguments."""
    content = {
        "index": index,
        "settings": dict(chosen),
        "inner": inner if isinstance(inner, str) else type(inner).__name__,
        "inner_args": {name: str(v) for name, v in inner_args.items() if name not in NOT_PART_OF_THE_ANSWER},
    }
    return files.sha256_json(content)[:16]


def check_places(**given: object) -> None:
    """Check arguments that name files or folders, each by its own name; None is one that is not given.

    Raises:
        InputError: one is empty, or no text.
    """
    for name, value in given.items():
        if value is not None and (not isinstance(value, str | os.PathLike) or not str(value).strip()):
            raise InputError(f"{name}={value}: names no file or folder; give one, or take {name}= out")


def complete(given: Mapping[str, object], tuned: Tuned | None) -> dict[str, object]:
    """The arguments in ``given`` that are not None, completed by ``tuned``, and then by :data:`DEFAULTS`.

    A mode that is given gets no setting of a step that it does not have.

    Raises:
        InputError: ``k`` is no whole number from 0.
    """
    mine = {name: value for name, value in given.items() if value is not None}
    theirs = dict(tuned.settings) if tuned else {}
    if "mode" in mine:
        steps = str(mine["mode"]).split("+")
        theirs = {name: value for name, value in theirs.items() if STEP_OF.get(name, steps[0]) in steps}
    found = DEFAULTS | theirs | mine
    if type(found["k"]) is not int or found["k"] < 0:
        raise InputError(f"k={found['k']}: the number of passages must be a whole number, 0 or more")
    return found
