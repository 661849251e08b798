"""Which data and task files a step reads, and in which version: contents of folders and files, commits of the Hub."""

import functools
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from medtasks import benchmarks, catalogue, corpora, files, models, sources
from rag_model import settings, solved
from results.studies import recipes
from results.studies.dependencies import HASH
from results.studies.study import Study, Training, Variant

UNKNOWN = "unknown"
"""Version of data that cannot be told: a Hub dataset while offline, data of tasks that are not ours."""
TIMEOUT = 10
"""Seconds to wait for the Hub's answer."""
_MODULE = re.compile(r"\b(?:medtasks|rag_model)(?:\.[a-z_]\w*)+\b")


def tasks(names: Iterable[str], include_path: str | None = None) -> tuple[dict[str, str], set[str]]:
    """What a run of tasks and groups reads: the dependencies ``tasks.*`` and ``data.*``, and the modules of ours that
    their files name.

    Of tasks that are not ours only the version of lm-eval, or the content of ``include_path``, is known.

    Raises:
        InputError: data is in none of the chosen places.
    """
    manager = catalogue.our_tasks()
    found: dict[str, str] = {}
    modules: set[str] = set()
    if include_path is not None:
        found["tasks.include_path"] = _folder(Path(include_path).expanduser())
    for name in names:
        ours = manager.match_tasks([name])
        if not ours:
            found[f"data.{name}"] = UNKNOWN
        for member in ours:
            for leaf in dict.fromkeys((member, *catalogue.leaves(manager, member))):
                config = catalogue.task_config(Path(manager.task_index[leaf].yaml_path))
                found[f"tasks.{leaf}"] = files.sha256_json(config)[:HASH]
                if "group" not in config:
                    modules |= _modules(config)
                    found |= benchmark(config["dataset_kwargs"]["benchmark"])
    return found, modules


def _modules(config) -> set[str]:
    """The modules of the functions that a task file names anywhere."""
    if isinstance(config, dict | list):
        return set().union(*map(_modules, config.values() if isinstance(config, dict) else config))
    return {name.rpartition(".")[0] for name in _MODULE.findall(str(config))}


def benchmark(name: str) -> dict[str, str]:
    """The data of a benchmark: the files that it can come from, where they are there, or else its dataset."""
    about = catalogue.abouts()[name]
    found = [sources.find_file(names) for names in about.files]
    if about.files and (all(found) or not about.is_on_hub):
        return {
            f"data.{names[0]}": _file(path) if path else "missing"
            for names, path in zip(about.files, found, strict=True)
        }
    return dataset(dataset_of(name))


def dataset_of(name: str) -> str:
    """The Hub id of a benchmark's dataset."""
    return _datasets()[name]


@functools.cache
def _datasets() -> dict[str, str]:
    """Benchmark -> the Hub id of its dataset, as our task files say."""
    index = catalogue.our_tasks().task_index.values()
    configs = [catalogue.task_config(Path(entry.yaml_path)) for entry in index if entry.kind.name != "GROUP"]
    return {config["dataset_kwargs"]["benchmark"]: config["dataset_path"] for config in configs}


def dataset(hub_id: str) -> dict[str, str]:
    """The version of a dataset where ``MEDTASKS_DATA`` has it: a hash of its folder's files, or the Hub's commit.

    Raises:
        InputError: it is in none of the chosen places.
    """
    folder = sources.where(hub_id)
    return {f"data.{hub_id}": _folder(folder / hub_id) if folder is not None else commit(hub_id)}


def commit(hub_id: str) -> str:
    """The commit of a Hub dataset: today's, or the cached one while offline; :data:`UNKNOWN` without either."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if not constants.HF_HUB_OFFLINE and (found := _todays_commit(hub_id)) is not None:
        return found
    reference = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="dataset") / "refs" / "main"
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else UNKNOWN


@functools.cache
def _todays_commit(hub_id: str) -> str | None:
    """What the Hub answers, asked once; None if it does not."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(hub_id, timeout=TIMEOUT).sha
    except Exception:  # whatever keeps the Hub from answering, the cached commit is what would be read
        return None


def corpus(name: str) -> dict[str, str]:
    """The version of a corpus (:func:`medtasks.corpora.locate`), or of solved questions (:mod:`rag_model.solved`).

    Raises:
        InputError: there is no such corpus.
    """
    if solved.are_solved([name]):
        return {f"data.{solved.shown_name(name)}": solved.version([name])[:HASH]}
    found = corpora.locate(name)
    if found.path is None:
        return dataset(found.name)
    return {"data.corpus" if found.name == "sample" else f"data.{found.name}": _folder(found.path)}


def held_out() -> dict[str, str]:
    """The data of every benchmark whose test items are kept out of trainings and indexes."""
    found: dict[str, str] = {}
    for name in benchmarks.BENCHMARKS:
        found |= benchmark(name)
    return found


def training(study: Study, planned: Training) -> dict[str, str]:
    """What a training reads: its recipes' keys (``recipe.<stage>.<key>``) less those that change nothing in what is
    learned, and the data of its stages.

    Raises:
        InputError: a recipe or its data is not there.
    """
    from trainers.run_folder import INERT

    found: dict[str, str] = {}
    source = study.source
    for stage, recipe in recipes.stages(planned).items():
        for name, value in recipe.items():
            if name not in INERT:
                found[f"recipe.{stage}.{name}"] = str(value)
        source = recipes.source_in(recipe, source)
        with sources.reading_from(source):
            for learned in (*recipes.learned_from(stage, recipe), *recipes.looked_at(recipe)):
                found |= _learned(stage, learned.source)
            if recipe.get("decontaminate", True):
                found |= held_out()
        for name in ("passages", "snippets"):
            if file := _raft(recipe).get(name):
                found[f"data.{Path(file).name}"] = _folder(Path(file).expanduser())
        if recipe.get("adapter"):
            found["adapter"] = _folder(Path(str(recipe["adapter"])).expanduser())
    return found


def retrieved(variant: Variant) -> dict[str, str]:
    """What `rag` reads beside its index, by the settings of a variant: the file of tuned settings, a cross-encoder.

    Raises:
        InputError: one is not there, or a setting is none of `rag`.
    """
    found, chosen = {}, rag_settings(variant)
    if tuned := variant.rag.get("tuned"):
        found["rag.tuned"] = _file(Path(tuned).expanduser())
    if chosen["rerank"]:
        found["rag.rerank"] = models.fingerprint(chosen["rerank"])
    return found


def rag_settings(variant: Variant) -> dict:
    """The arguments of `rag` in a variant, completed by its tuned settings and the defaults.

    Raises:
        InputError: there is no such file of tuned settings, or it is damaged.
    """
    tuned = variant.rag.get("tuned")
    return settings.complete(variant.rag, settings.read_tuned(tuned) if tuned else None)


def _raft(recipe: dict) -> dict:
    """The recipe's mapping of retrieved passages (:mod:`trainers.data.raft`); {} where it has none."""
    given = recipe.get("raft") or {}
    return json.loads(given) if isinstance(given, str) else given


def _learned(stage: str, name: str) -> dict[str, str]:
    if stage == "cpt":
        return corpus(name)
    if name in benchmarks.BENCHMARKS:
        return benchmark(name)
    path = Path(name).expanduser()
    return {f"data.{path.name}": _file(path)} if path.is_file() else dataset("/".join(name.split("/")[:2]))


def base(study: Study) -> str:
    """The base's fingerprint.

    Raises:
        InputError: there is no such model.
    """
    return models.fingerprint(study.base, study.model_args.get("revision"))


def tokenizer(study: Study) -> str:
    """The fingerprint of the base's tokenizer.

    Raises:
        InputError: there is no such model.
    """
    return models.tokenizer_fingerprint(study.base, study.model_args.get("revision"))


def _folder(path: Path) -> str:
    """A hash of the names and contents of all files below a folder (or of a file), hidden ones left out."""
    if path.is_file():
        return _file(path)
    found = {}
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith((".", "__pycache__")))
        for name in sorted(names):
            if not name.startswith("."):
                file = Path(folder) / name
                found[file.relative_to(path).as_posix()] = _file(file)
    return files.sha256_json(found)[:HASH] if found else "missing"


def _file(path: Path) -> str:
    stat = path.stat()
    return _hashed(path.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hashed(path: Path, size: int, modified: int) -> str:
    """The hash of a file's content; read again where size or time of change are others."""
    return files.sha256_file(path)[:HASH]
