"""The recipes that a study's trainings follow: each stage's keys as its trainer will see them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks import sources
from medtasks.errors import InputError
from results.studies.study import Training

if TYPE_CHECKING:
    from trainers.data.mixture import Source

DATA_KEYS = {"sft": "sources", "cpt": "corpus"}
"""stage -> the recipe key that lists what it learns from."""


def stages(training: Training) -> dict[str, dict]:
    """Stage (``cpt``, ``sft``) -> its recipe, overrides applied, in the order in which they are trained.

    Raises:
        InputError: a recipe is not there, or is none.
    """
    from trainers import recipe

    path = recipe.find(training.recipe)
    content = recipe.read(path)
    if training.stage != "msft":
        return {training.stage: content | training.overrides}
    shared = {name: value for name, value in content.items() if name not in ("cpt", "sft")}
    found = {}
    for stage in ("cpt", "sft"):
        if not isinstance(content.get(stage), str):
            raise InputError(f"{path}: has no {stage}; it needs cpt and sft (recipes)")
        file = recipe.find(str(path.parent / content[stage]))
        found[stage] = recipe.read(file) | shared | training.overrides
    return found


def answers_with(training: Training, out: Path, base: str) -> dict[str, str]:
    """The harness model's ``pretrained`` and ``peft`` that load what a training leaves in ``out``.

    An adapter on the study's base, or on the model that MSFT's first stage made (``join: merge``, or all weights
    trained), or a model without adapter, where all weights were trained last.

    Raises:
        InputError: a recipe is not there, or is none.
    """
    from trainers import recipe

    *before, last = stages(training).values()
    if last.get("full_finetuning"):
        return {"pretrained": str(out / "model")}
    if before and before[0].get("full_finetuning"):
        base = str(out / "cpt" / "model")
    elif before and (recipe.read(recipe.find(training.recipe)) | training.overrides).get("join") == "merge":
        base = str(out / "cpt" / "merged")
    return {"pretrained": base, "peft": str(out / "adapter")}


def learned_from(stage: str, recipe: dict) -> "list[Source]":
    """What a stage learns from.

    Raises:
        InputError: an entry is none.
    """
    return _sources(recipe.get(DATA_KEYS[stage]))


def looked_at(recipe: dict) -> "list[Source]":
    """What a stage holds out, to be measured on while it trains.

    Raises:
        InputError: an entry is none.
    """
    return _sources(recipe.get("dev_sources"))


def _sources(named) -> "list[Source]":
    from trainers.data import mixture

    entries = named if isinstance(named, list) else [named] if named else []
    return [mixture.parse(json.dumps(entry) if isinstance(entry, dict) else str(entry)) for entry in entries]


def source_in(recipe: dict, given: str | None) -> str | None:
    """The ``MEDTASKS_DATA`` under which a recipe is trained: its own ``env``, or else the study's."""
    own = (recipe.get("env") or {}).get(sources.ENV)
    return given if own is None else str(own)
