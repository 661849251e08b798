"""What there is to ask: `medadapt ls` lists suites, tasks and their data; `medadapt validate` loads them for real."""

import contextlib
import functools
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtasks import TASKS_DIR, sources
from medtasks.errors import InputError
from medtasks.medsafe import ABSTRACTS, CLAIMS, MEDHALLU_FILES
from medtasks.mirage import FILES as MIRAGE_FILES

SHOWN = 1_200
"""Characters of a rendered prompt that `validate` prints; longer ones lose their middle."""


@dataclass(frozen=True)
class About:
    """What one knows of a benchmark without loading it.

    Attributes:
        items: of its test split.
        split: the published split that is measured.
        licence: of the data.
        files: the files in a folder of ``MEDTASKS_DATA`` that it can come from, each by all the names it may have.
        is_on_hub: whether it can come from the Hub too.
    """

    items: int
    split: str
    licence: str
    files: tuple[tuple[str, ...], ...] = ()
    is_on_hub: bool = True


def abouts() -> dict[str, About]:
    """Benchmark -> what is known of it (``tests/medtasks/test_hub.py`` checks the sizes)."""
    from medtasks import benchmarks

    subjects = (135, 265, 144, 173, 100, 272)
    claims = tuple(name.format("dev") for name in CLAIMS)
    return {
        "medqa": About(1_273, "test", "MIT"),
        "medmcqa": About(4_183, "validation", "Apache-2.0"),
        "pubmedqa": About(500, "official test half", "MIT"),
        "pubmedqa_lmeval": About(500, "official test half", "MIT"),
        "pubmedqa_star": About(500, "official test half", "MIT"),
        "mmlu_med": About(1_089, "test", "MIT"),
        "medqa_sub": About(200, "validation, subset", "MIT"),
        "medmcqa_sub": About(200, "validation, subset", "Apache-2.0"),
        "pubmedqa_sub": About(200, "all 1,000, subset", "MIT"),
        "mmlu_med_sub": About(200, "test, subset", "MIT"),
        "medhallu": About(1_000, "pqa_labeled", "MIT", (MEDHALLU_FILES,)),
        "medhallu_knowledge": About(1_000, "pqa_labeled", "MIT", (MEDHALLU_FILES,)),
        "scifact": About(340, "dev", "CC BY 4.0", (claims, ABSTRACTS), is_on_hub=False),
        "bioasq": About(618, "test", "CC BY 2.5", (MIRAGE_FILES,), is_on_hub=False),
    } | {
        f"mmlu_med_{subject}": About(items, "test", "MIT")
        for subject, items in zip(benchmarks.MMLU_SUBJECTS, subjects, strict=True)
    }


def our_tasks():
    """lm-eval's task manager with our tasks alone."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS_DIR), include_defaults=False)


@dataclass(frozen=True)
class Task:
    """A task of ours: its benchmark, what is known of that, and the dataset on the Hub that it is made of."""

    benchmark: str
    about: About
    dataset: str


@functools.cache
def tasks() -> dict[str, Task]:
    """Our tasks by name, in order of their names."""
    known, found = abouts(), {}
    for name, entry in sorted(our_tasks().task_index.items()):
        if entry.kind.name != "GROUP":
            config = task_config(Path(entry.yaml_path))
            benchmark = config["dataset_kwargs"]["benchmark"]
            found[name] = Task(benchmark, known[benchmark], config["dataset_path"])
    return found


def table() -> str:
    """Suites first, then tasks: name, items, split, licence, and where the data comes from."""
    manager, ours = our_tasks(), tasks()
    rows = [
        (name, f"{task.about.items:,}", task.about.split, task.about.licence, _data(task.dataset, task.about))
        for name, task in ours.items()
    ]
    suites = [
        (name, f"{sum(ours[leaf].about.items for leaf in leaves(manager, name)):,}", ", ".join(_members(entry)))
        for name, entry in sorted(manager.task_index.items())
        if entry.kind.name == "GROUP"
    ]
    heads = ("task", "items", "split", "licence", "data")
    return "\n".join(
        [
            *_aligned([("suite", "items", "tasks"), *suites]),
            "",
            *_aligned([heads, *rows]),
            "",
            "`to download` comes from the Hub on first use; a `file` must be fetched once (README.md of its suite).",
        ]
    )


def task_config(path: Path) -> dict:
    """A task file with what it includes, functions left as names."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads ``!function`` as text."""

    Loader.add_constructor("!function", lambda loader, node: node.value)
    config = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 (a SafeLoader)
    if included := config.pop("include", None):
        config = task_config(path.parent / included) | config
    return config


def _data(dataset: str, about: About) -> str:
    """Whether a benchmark's data is here, and where."""
    missing = [names[0] for names in about.files if sources.find_file(names) is None]
    if about.files and not missing:
        return "file, there"
    if not about.is_on_hub:
        return f"file to fetch: {', '.join(missing)}"
    try:
        folder = sources.where(dataset)
    except InputError:
        return f"{dataset}, in no folder of {sources.ENV}"
    if folder is not None:
        return f"{dataset}, in {'the sample' if folder == sources.SAMPLE_DIR else folder}"
    return f"{dataset}, {'downloaded' if _is_cached(dataset) else 'to download'}"


def _is_cached(dataset: str) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    snapshots = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=dataset, repo_type="dataset") / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]


def validate(names: Sequence[str], include_path: str | None = None) -> int:
    """Load every task for real and print one rendered item of each; returns 1 if one cannot be loaded, else 0.

    Args:
        names: tasks and groups; none means all of ours.
        include_path: a folder with more tasks.
    """
    from lm_eval.tasks import TaskManager

    ours = our_tasks()
    wanted = list(names) or sorted(name for name, entry in ours.task_index.items() if entry.kind.name != "GROUP")
    is_ours = all(ours.match_tasks([name]) for name in wanted)
    manager = TaskManager(
        include_path=[str(TASKS_DIR), *([include_path] if include_path else [])],
        include_defaults=not is_ours and not include_path,
    )
    failed, loaded = [], 0
    for name in dict.fromkeys(leaf for wanted_name in wanted for leaf in leaves(manager, wanted_name)):
        try:
            with _quiet():
                task = manager.load([name])["tasks"][name]
                docs = list(task.eval_docs)
                shown = _rendered(task, docs)
        except InputError as error:
            failed.append(name)
            print(f"== {name}: NOT LOADED\n{error}\n")
            continue
        loaded += 1
        print(f"== {name}: {len(docs):,} to answer\n{shown}\n")
    print(f"{loaded} tasks loaded" + (f", {len(failed)} not: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def leaves(manager, name: str) -> Iterator[str]:
    """The tasks below ``name``, itself if it is one."""
    entry = manager.task_index.get(name)
    if entry is None or entry.kind.name != "GROUP" or not isinstance(entry.cfg.get("task"), list):
        yield from manager.match_tasks([name]) or [name]
        return
    for member in _members(entry):
        yield from leaves(manager, member)


def _members(group) -> list[str]:
    """The names in a group's entry."""
    return [member if isinstance(member, str) else member["task"] for member in group.cfg["task"]]


def _rendered(task, docs: Sequence[dict]) -> str:
    """The first document as a model gets it, and what is scored or expected."""
    if not docs:
        raise InputError("its test split is empty")
    prompt = task.doc_to_text(docs[0])
    if len(prompt) > SHOWN:
        prompt = f"{prompt[: SHOWN // 2]}\n[... {len(prompt) - SHOWN:,} characters ...]\n{prompt[-SHOWN // 2 :]}"
    target = task.doc_to_target(docs[0])
    if task.OUTPUT_TYPE != "multiple_choice":
        return f"{prompt}\n-- generates; right: {target}"
    choices = task.doc_to_choice(docs[0])
    right = choices[target] if isinstance(target, int) else target
    return f"{prompt}\n-- scores: {' | '.join(choices)}; right: {right}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's notices and progress bars, which would stand between the rendered items."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
