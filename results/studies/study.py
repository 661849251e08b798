"""A study: one base model, variants of it, tasks. Read from the YAML file that describes it, or from its own folder."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from medtasks.errors import InputError
from medtasks.files import write_text
from results import runs

STAGES = ("sft", "cpt", "msft")
FILE = "study.json"
"""In a study's folder: the study as it was run."""
AS_RUN = "as_run"
"""Key in :data:`FILE` of what the definition does not say: the base's fingerprint, versions, the recipes' contents."""


@dataclass(frozen=True)
class Index:
    """A retrieval index to build: ``medadapt index build CORPUS --out ... OPTIONS``; ``corpus`` is one or a list."""

    corpus: str | list[str]
    embedder: str = "sentence-transformers/all-MiniLM-L6-v2"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def corpora(self) -> list[str]:
        """``corpus`` as a list."""
        return [self.corpus] if isinstance(self.corpus, str) else list(self.corpus)


@dataclass(frozen=True)
class Training:
    """An adapter to train: ``accelerate launch LAUNCH -m trainers.STAGE --config RECIPE OVERRIDES``."""

    stage: str
    recipe: str
    overrides: dict[str, Any] = field(default_factory=dict)
    launch: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Variant:
    """What is evaluated: the base, with an adapter, passages, or both. ``rag`` holds `rag`'s arguments (k, ...);
    ``examples`` is the index of solved questions that stand before passages."""

    training: str | None = None
    index: str | None = None
    rag: dict[str, Any] = field(default_factory=dict)
    examples: str | None = None

    @property
    def indexes(self) -> list[str]:
        """The indexes that it searches."""
        return [name for name in (self.index, self.examples) if name is not None]


@dataclass(frozen=True)
class Study:
    """A study file. Paths in it are relative to the folder the command is run in, as in recipes.

    Attributes:
        name: names its result files.
        base: model folder or Hub id.
        tasks: lm-eval task names, each with per-item accuracy (groups stand for their tasks).
        variants: name -> what it adds to the base; the one that adds nothing is what the others are compared with.
        indexes, trainings: what variants refer to by name.
        source: ``MEDTASKS_DATA`` for every step (``hub``, ``sample`` or a folder); None leaves the environment's.
        model_args: for the harness model, e.g. ``dtype``.
        run_args: lm-eval options of every evaluation, e.g. ``batch_size``, ``limit``, ``num_fewshot``.
    """

    name: str
    base: str
    tasks: list[str]
    variants: dict[str, Variant]
    indexes: dict[str, Index] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    source: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    run_args: dict[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The variant without adapter and passages, which the others are compared with."""
        return next(name for name, variant in self.variants.items() if variant == Variant())


def load(path: str | Path) -> Study:
    """Read and check a study file.

    Raises:
        InputError: no such file, not YAML, an unknown or missing key, or a name that nothing defines.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such study file")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    study = _from_mapping(raw, path)
    for name, training in study.trainings.items():
        if not Path(training.recipe).is_file():
            raise InputError(
                f"{path}: trainings.{name}: no recipe file {training.recipe} (relative to {Path.cwd().name}/)"
            )
        if empty := [key for key, value in training.overrides.items() if value is None]:
            raise InputError(
                f"{path}: trainings.{name}: overrides.{empty[0]} is null, which cannot be said on a command line; give "
                "a value, or take the key out of the recipe"
            )
    return study


def save(study: Study, folder: Path, as_run: dict) -> None:
    """Write ``study.json`` into a study's folder: the definition, its variants in their order, and ``as_run``."""
    text = json.dumps(asdict(study) | {AS_RUN: as_run}, indent=2, ensure_ascii=False, default=str)
    write_text(folder / FILE, text + "\n")


def of_folder(folder: str | Path) -> Study:
    """The study that a folder holds, as it was run; reads nothing outside the folder.

    Raises:
        InputError: the folder is none of a study, or its ``study.json`` is damaged.
    """
    file = Path(folder).expanduser() / FILE
    if not file.is_file():
        raise InputError(f"{folder}: no {FILE}, so not the folder of a study; `medadapt study FILE.yaml` makes one")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: damaged ({error}); run the study's YAML file again with --out {folder}") from error
    if isinstance(raw, dict):
        raw.pop(AS_RUN, None)
    return _from_mapping(raw, file)


def runs_of(folder: str | Path) -> dict[str, Path]:
    """Variant -> its run folder, of the variants whose evaluation is finished, in the study's order.

    Raises:
        InputError: the folder is none of a study.
    """
    found = {name: Path(folder).expanduser() / "runs" / name for name in of_folder(folder).variants}
    return {name: run for name, run in found.items() if runs.is_finished(run)}


def _from_mapping(raw, path: Path) -> Study:
    """Build and check a study."""
    study = _build(Study, raw, str(path))
    for kind, cls in (("variants", Variant), ("indexes", Index), ("trainings", Training)):
        given = getattr(study, kind)
        if not isinstance(given, dict):
            raise InputError(f"{path}: '{kind}' must map names to settings")
        for name, settings in given.items():
            given[name] = _build(cls, settings or {}, f"{path}: {kind}.{name}")
    _check(study, path)
    return study


def _build(cls, raw, where: str):
    """Build a dataclass from a mapping, naming unknown and missing keys."""
    if not isinstance(raw, dict):
        raise InputError(f"{where}: must be a mapping of keys to values")
    known = {f.name: f for f in fields(cls)}
    if unknown := set(raw) - set(known):
        raise InputError(f"{where}: unknown key '{sorted(unknown)[0]}'; there are {', '.join(known)}")
    try:
        return cls(**raw)
    except TypeError:
        from dataclasses import MISSING

        needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in raw]
        raise InputError(f"{where}: the key '{needed[0]}' is missing") from None


def _check(study: Study, path: Path) -> None:
    if not isinstance(study.tasks, list) or not study.tasks:
        raise InputError(f"{path}: 'tasks' must be a list of task names")
    references = [name for name, variant in study.variants.items() if variant == Variant()]
    if len(references) != 1:
        raise InputError(
            f"{path}: exactly one variant must add nothing (the base to compare with), not {len(references)}"
        )
    for name, variant in study.variants.items():
        if variant.training is not None and variant.training not in study.trainings:
            raise InputError(f"{path}: variants.{name}: no training '{variant.training}' under 'trainings'")
        if missing := [index for index in variant.indexes if index not in study.indexes]:
            raise InputError(f"{path}: variants.{name}: no index '{missing[0]}' under 'indexes'")
        if (variant.rag or variant.examples) and variant.index is None:
            what = "'rag' settings need" if variant.rag else "'examples' need"
            raise InputError(f"{path}: variants.{name}: {what} an 'index'")
    for name, training in study.trainings.items():
        if training.stage not in STAGES:
            raise InputError(
                f"{path}: trainings.{name}: unknown stage '{training.stage}'; there are {', '.join(STAGES)}"
            )
