"""The steps of a study: build indexes, train adapters, evaluate variants. Each runs once, as a command of its own.

A step is done when its record ``steps/<name>.json`` holds the key of what it depends on: the command, the contents of
the files it reads, the keys of the steps before it, and the versions of the libraries that do the work. A step whose
key changed runs again; one that was killed is continued by its own tool or started again.
"""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from medtasks import models, sources
from medtasks.cli import require_tasks
from medtasks.errors import InputError
from medtasks.files import sha256_file, sha256_json, write_json
from results import runs
from results.study import Study

MODEL = "hf-mcq"
"""The harness model that answers in every variant, inside `rag` too."""

LIBRARIES = (
    "lm_eval",
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "chromadb",
    "llama-index-core",
)


@dataclass(frozen=True)
class Step:
    """One command. ``key`` changes with all that its result depends on; ``output`` is the file that it leaves last."""

    name: str
    kind: str
    command: list[str]
    key: str
    output: Path
    needs: tuple[str, ...] = ()


def plan(study: Study, out: Path) -> list[Step]:
    """The steps of ``study``, writing below ``out``, in an order that respects what needs what.

    Raises:
        InputError: the base model or a task is not there.
    """
    require_tasks(study.tasks)
    common = {
        "base": models.fingerprint(study.base),
        "source": study.source,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    wanted = list(study.variants.values())
    steps = [
        *(_index(study, name, out, common) for name in study.indexes if any(v.index == name for v in wanted)),
        *(_training(study, name, out, common) for name in study.trainings if any(v.training == name for v in wanted)),
    ]
    keys = {step.name: step.key for step in steps}
    return steps + [_evaluation(study, name, out, common, keys) for name in study.variants]


def _index(study: Study, name: str, out: Path, common: dict) -> Step:
    index = study.indexes[name]
    folder = out / "indexes" / name
    command = [sys.executable, "-m", "medtasks.cli", "index", "build", index.corpus, "--out", str(folder)]
    command += ["--embedder", index.embedder, *_flags(index.options)]
    corpus = sources.SAMPLE_DIR / "corpus.jsonl" if index.corpus == "sample" else Path(index.corpus)
    content = sha256_file(corpus) if corpus.is_file() else None
    key = sha256_json([asdict(index), content, common["versions"]])
    return Step(f"index-{name}", "index", command, key, folder / "index.json")


def _training(study: Study, name: str, out: Path, common: dict) -> Step:
    training = study.trainings[name]
    folder = out / "trainings" / name
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *training.launch]
    command += [
        "-m",
        f"trainers.{training.stage}",
        "--config",
        training.recipe,
        "--model_name_or_path",
        study.base,
        "--output_dir",
        str(folder),
    ]
    command += _flags(training.overrides)
    recipe = Path(training.recipe)
    contents = {file.name: sha256_file(file) for file in [recipe, *_named_recipes(recipe)]}
    key = sha256_json([asdict(training), contents, common])
    return Step(f"train-{name}", "training", command, key, folder / "training.json")


def _named_recipes(recipe: Path) -> list[Path]:
    """Recipes that a recipe names (msft names those of its two stages)."""
    import yaml

    values = (yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}).values()
    names = [value for value in values if isinstance(value, str) and value.endswith(".yaml")]
    return [path for name in names if (path := recipe.parent / name).is_file()]


def _evaluation(study: Study, name: str, out: Path, common: dict, keys: dict[str, str]) -> Step:
    variant = study.variants[name]
    model, arguments = MODEL, {"pretrained": study.base, **study.model_args}
    needs = []
    if variant.training is not None:
        needs.append(f"train-{variant.training}")
        arguments["peft"] = str(out / "trainings" / variant.training / "adapter")
    if variant.index is not None:
        needs.append(f"index-{variant.index}")
        model = "rag"
        arguments |= {"inner": MODEL, "index": str(out / "indexes" / variant.index), **variant.rag}
    command = [sys.executable, "-m", "medtasks.cli", "run", "--model", model, "--model_args"]
    command += [f"{key}={value}" for key, value in arguments.items()]
    command += [
        "--tasks",
        ",".join(study.tasks),
        "--log_samples",
        "--output_path",
        str(_output(out / "runs" / name)),
    ]
    command += _flags(study.run_args)
    key = sha256_json([command[3:], common, {need: keys[need] for need in needs}])
    return Step(f"eval-{name}", "evaluation", command, key, out / "runs" / name / runs.PREDICTIONS, tuple(needs))


def _output(run: Path) -> Path:
    """Where lm-eval writes before its output becomes the run folder ``run``."""
    return run.with_name(f".{run.name}.output")


def _flags(options: dict) -> list[str]:
    """``{"batch_size": 8}`` as ``["--batch_size", "8"]``; True as a bare flag, None and False as nothing."""
    flags = []
    for name, value in options.items():
        if value is True:
            flags.append(f"--{name}")
        elif value is not None and value is not False:
            flags += [f"--{name}", str(value)]
    return flags


def is_done(step: Step, out: Path) -> bool:
    """Whether the step's result is there and was made from what it depends on now."""
    record = out / "steps" / f"{step.name}.json"
    return (
        step.output.is_file() and record.is_file() and json.loads(record.read_text(encoding="utf-8"))["key"] == step.key
    )


def run(steps: list[Step], study: Study, out: Path) -> dict[str, str]:
    """Run what is missing. A step that fails does not stop those that do not need it.

    Returns:
        Failed or skipped steps with the reason; empty if all is done.
    """
    failures: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        title = f"[{number}/{len(steps)}] {step.name}"
        if blocked := [need for need in step.needs if need in failures]:
            failures[step.name] = f"needs {blocked[0]}"
            print(f"{title}: skipped, needs {blocked[0]}", flush=True)
        elif is_done(step, out):
            print(f"{title}: done before", flush=True)
        else:
            print(f"{title}: running", flush=True)
            started, cpu = time.monotonic(), _cpu_seconds()
            if code := _execute(step, study, out):
                failures[step.name] = f"exit code {code}"
                print(f"{title}: failed with exit code {code}", flush=True)
            else:
                cost = {"seconds": time.monotonic() - started, "cpu_seconds": _cpu_seconds() - cpu}
                record = {"key": step.key} | {name: round(value, 1) for name, value in cost.items()}
                write_json(out / "steps" / f"{step.name}.json", record)
                print(f"{title}: {cost['seconds']:.0f} s", flush=True)
    return failures


def _cpu_seconds() -> float:
    """Processor time, over all cores, of the commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _execute(step: Step, study: Study, out: Path) -> int:
    """Run one step's command to its end; returns its exit code. An evaluation's output becomes a run folder."""
    record = out / "steps" / f"{step.name}.json"
    stale = record.is_file() and step.output.is_file()
    if stale and step.kind != "evaluation":
        print(f"{step.name}: what it depends on has changed, so it is made again", flush=True)
        shutil.rmtree(step.output.parent)
    record.unlink(missing_ok=True)
    output = _output(step.output.parent)
    if step.kind == "evaluation":
        shutil.rmtree(output, ignore_errors=True)
    code = subprocess.run(step.command, env=environment(study), check=False).returncode
    if code == 0 and step.kind == "evaluation":
        runs.collect(output, step.output.parent)
        shutil.rmtree(output)
    if code == 0 and not step.output.is_file():
        raise InputError(f"{step.name}: the command ended well but left no {step.output}; see its messages above")
    return code


def environment(study: Study) -> dict[str, str]:
    """The environment of a step: this one's, with the study's source, and lm-eval's chatter kept to warnings."""
    env = {
        "LMEVAL_LOG_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        "ANONYMIZED_TELEMETRY": "False",
        **os.environ,
    }
    if study.source == "hub":
        env.pop(sources.ENV, None)
    elif study.source is not None:
        env[sources.ENV] = study.source
    return env


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the study's folder against a second process.

    Raises:
        InputError: another process is running this study here.
    """
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"{out}: another process is running this study here; wait for it or give another --out"
        ) from None
