"""The steps of a study: build indexes, train adapters, evaluate variants. Each is a command of its own.

A step's key is the hash of all that its result depends on (:mod:`results.studies.dependencies`): its command, the base,
our code and the libraries that do the work, task files, recipes, data, and the keys of the steps before it. Where the
study's folder lies does not count.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medtasks import sources
from medtasks.cli import require_tasks
from medtasks.errors import InputError
from results import runs
from results.studies import dependencies, inputs, recipes
from results.studies.study import Study

MODEL = "hf-mcq"
"""The harness model that answers in every variant, inside `rag` too."""

LIBRARIES = {
    "index": ("torch", "transformers", "sentence-transformers", "llama-index-core", "numpy"),
    "training": ("torch", "transformers", "peft", "trl", "accelerate", "datasets"),
    "evaluation": ("lm_eval", "torch", "transformers", "accelerate", "datasets"),
}
"""What does the work of each kind of step."""
SEARCH_LIBRARIES = {"chroma": ("chromadb",), "bm25": ("bm25s", "PyStemmer"), "rrf": ("bm25s", "PyStemmer")}
"""What a variant's ``search`` needs beside an embedder."""
STUDY = Path("STUDY")
"""Stands for the study's folder where a command is compared."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        kind: ``index``, ``training`` or ``evaluation``.
        output: the file that it leaves last.
        depends: name -> version, value or hash of all that its result depends on.
        needs: names of the steps that must be done before it.
        problem: why it cannot be run at all, in one line; None if it can.
    """

    name: str
    kind: str
    command: list[str]
    output: Path
    depends: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def key(self) -> str:
        """Changes with anything that the step depends on."""
        return dependencies.key(self.depends)


def plan(study: Study, out: Path, only: Sequence[str] | None = None) -> list[Step]:
    """The steps of ``study``, writing below ``out``, in an order that respects what needs what.

    Args:
        only: variants to evaluate, with what they need; all if None.

    Raises:
        InputError: the base model, a task or a variant is not there.
    """
    if unknown := [name for name in only or () if name not in study.variants]:
        raise InputError(f"no variant '{unknown[0]}' in this study; there are {', '.join(study.variants)}")
    names = [name for name in study.variants if only is None or name in only]
    wanted = [study.variants[name] for name in names]
    require_tasks(study.tasks, study.run_args.get("include_path"))
    base = {"base": inputs.base(study), "tokenizer": inputs.tokenizer(study)}
    steps = [
        *(_index(study, name, out) for name in study.indexes if any(name in v.indexes for v in wanted)),
        *(_training(study, name, out, base) for name in study.trainings if any(v.training == name for v in wanted)),
    ]
    before = {f"steps.{step.name}": step.key for step in steps}
    asked = _asked(study)
    return steps + [_evaluation(study, name, out, base, before, asked) for name in names]


def _step(name: str, kind: str, command: Callable[[Path], list[str]], out: Path, output: str, needs, depends) -> Step:
    """A step whose ``command`` is a function of the study's folder, and ``depends`` one that may find a problem."""
    compared = {"command": " ".join(["python", *command(STUDY)])}
    try:
        found, problem = compared | depends(), None
    except InputError as error:
        found, problem = compared, str(error)
    return Step(name, kind, [sys.executable, *command(out)], out / output, found, tuple(needs), problem)


def _index(study: Study, name: str, out: Path) -> Step:
    index = study.indexes[name]
    options = {key: value for key, value in index.options.items() if key != "decontaminate"}
    if not (checked := index.options.get("decontaminate", True)):
        options["no-decontaminate"] = True

    def command(folder: Path) -> list[str]:
        words = ["-m", "medtasks.cli", "index", "build", *index.corpora, "--out", str(folder / "indexes" / name)]
        return [*words, "--embedder", index.embedder, *_flags(options)]

    def depends() -> dict[str, str]:
        from rag_model.embedding import Embedder

        found = {"embedder": Embedder(index.embedder).fingerprint} | dependencies.versions(*LIBRARIES["index"])
        found |= dependencies.code(["rag_model.build", "rag_model.embedding"])
        with sources.reading_from(study.source):
            for corpus in index.corpora:
                found |= inputs.corpus(corpus)
            if checked:
                found |= inputs.held_out()
        return found

    return _step(f"index-{name}", "index", command, out, f"indexes/{name}/index.json", (), depends)


def _training(study: Study, name: str, out: Path, base: dict[str, str]) -> Step:
    training = study.trainings[name]

    def command(folder: Path) -> list[str]:
        words = ["-m", "accelerate.commands.launch", "--quiet", *training.launch, "-m", f"trainers.{training.stage}"]
        words += ["--config", training.recipe, "--model_name_or_path", study.base]
        return [*words, "--output_dir", str(folder / "trainings" / name), *_recipe_keys(training.overrides)]

    def depends() -> dict[str, str]:
        stages = recipes.stages(training).values()
        quantized = ["bitsandbytes"] if any(stage.get("load_in_4bit") for stage in stages) else []
        return {
            **base,
            **dependencies.versions(*LIBRARIES["training"], *quantized),
            **dependencies.code([f"trainers.{training.stage}"]),
            **inputs.training(study, training),
        }

    return _step(f"train-{name}", "training", command, out, f"trainings/{name}/training.json", (), depends)


def _asked(study: Study) -> tuple[dict[str, str], set[str]] | InputError:
    """What every evaluation reads (:func:`results.studies.inputs.tasks`), or what is wrong with it."""
    try:
        with sources.reading_from(study.source):
            return inputs.tasks(study.tasks, study.run_args.get("include_path"))
    except InputError as error:
        return error


def _evaluation(study: Study, name: str, out: Path, base: dict[str, str], keys: dict[str, str], asked) -> Step:
    variant = study.variants[name]
    needs = [f"train-{variant.training}"] if variant.training is not None else []
    needs += [f"index-{index}" for index in variant.indexes]

    def command(folder: Path) -> list[str]:
        model, arguments = MODEL, {"pretrained": study.base, **study.model_args}
        if variant.training is not None:
            arguments |= _trained(study, variant.training, folder / "trainings" / variant.training)
        if variant.index is not None:
            model = "rag"
            arguments |= {"inner": MODEL, "index": folder / "indexes" / variant.index, **variant.rag}
        if variant.examples is not None:
            arguments["examples"] = folder / "indexes" / variant.examples
        words = ["-m", "medtasks.cli", "run", "--model", model, "--model_args"]
        words += [f"{key}={value}" for key, value in arguments.items()]
        words += ["--tasks", ",".join(study.tasks), "--log_samples"]
        return [*words, "--output_path", str(evaluated(folder / "runs" / name)), *_flags(study.run_args)]

    def depends() -> dict[str, str]:
        if isinstance(asked, InputError):
            raise asked
        found, modules = asked
        modules = modules | {"medtasks.scoring.lm"} | ({"rag_model.lm"} if variant.index is not None else set())
        libraries = [*LIBRARIES["evaluation"]]
        libraries += ["peft"] if variant.training is not None else []
        if variant.index is not None:
            found = found | inputs.retrieved(variant)
            libraries += ["sentence-transformers"]
            libraries += SEARCH_LIBRARIES.get(inputs.rag_settings(variant)["search"], ())
        libraries += ["bitsandbytes"] if study.model_args.get("load_in_4bit") else []
        before = {f"steps.{need}": keys[f"steps.{need}"] for need in needs}
        return base | found | before | dependencies.versions(*libraries) | dependencies.code(modules)

    return _step(f"eval-{name}", "evaluation", command, out, f"runs/{name}/{runs.PREDICTIONS}", needs, depends)


def _trained(study: Study, name: str, out: Path) -> dict[str, str]:
    """What loads training ``name`` from ``out``; a recipe that is not there is the training's problem, not ours."""
    try:
        return recipes.answers_with(study.trainings[name], out, study.base)
    except InputError:
        return {"pretrained": study.base, "peft": str(out / "adapter")}


def evaluated(run: Path) -> Path:
    """Where lm-eval writes before its output becomes the run folder ``run``."""
    return run.with_name(f".{run.name}.output")


def _recipe_keys(overrides: dict) -> list[str]:
    """A recipe's overrides as trainers read them: true and false are both said, and a mapping is JSON."""

    def told(value):
        if isinstance(value, list):
            return [told(item) for item in value]
        return json.dumps(value, sort_keys=True) if isinstance(value, dict | bool) else value

    return _flags({name: told(value) for name, value in overrides.items()})


def _flags(options: dict) -> list[str]:
    """``{"batch_size": 8}`` as ``["--batch_size", "8"]``; True as a bare flag, None and False as nothing, a list as
    several values."""
    flags = []
    for name, value in options.items():
        if value is True:
            flags.append(f"--{name}")
        elif isinstance(value, list):
            flags += [f"--{name}", *map(str, value)]
        elif value is not None and value is not False:
            flags += [f"--{name}", str(value)]
    return flags
