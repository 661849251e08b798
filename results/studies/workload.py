"""How much a step has to do: items and prompt tokens to score, tokens to train, snippets to embed.

Counted where the data lies in a folder; of the Hub's data, what is published (:mod:`medtasks.catalogue`) and was
measured before (:data:`TOKENS`). Nothing is downloaded. What cannot be told is None.
"""

import functools
import gzip
import math
import os
from dataclasses import dataclass
from pathlib import Path

from medtasks import benchmarks, catalogue, corpora, mcq, sources
from rag_model import answering, settings, solved
from results.studies import inputs, recipes
from results.studies.inputs import dataset_of
from results.studies.study import Index, Study, Training, Variant
from trainers.planning import setup as planning
from trainers.planning.setup import Setup

CHARACTERS = 4
"""Of English text in a token. Measured on the prompts of the four benchmarks: 3.6 (MedMCQA) to 4.2 (SmolLM2)."""
TOKENS = {
    "medqa": 213,
    "medmcqa": 56,
    "pubmedqa": 356,
    "pubmedqa_star": 35,
    "mmlu_med": 105,
    "medhallu": 124,
    "medhallu_knowledge": 438,
}
"""Mean tokens of a 0-shot prompt by SmolLM2's tokenizer, on the published test sets; a subset has its benchmark's."""
USUAL_TOKENS = 150
"""Of a prompt of any other benchmark."""
TRAIN_ITEMS = {"medqa": 10_178, "medmcqa": 182_822, "pubmedqa": 500, "mmlu_med": 30}
"""Of the published train splits (of PubMedQA the official training half, of MMLU the dev examples)."""
VERSIONS = 4
"""Of an item in a robustness task."""
SNIPPET_TOKENS = 200
"""Of a snippet that a prompt shows: 28,655 snippets of books at the default chunk size have 825 bytes a row."""
MEASURED_ITEMS = 200
"""Items of a benchmark whose length is measured."""
MEASURED_BYTES = 32_000_000
"""Of a corpus; a longer one is taken to go on like its beginning."""
CHUNKS = {"size": 1_000, "overlap": 200}
"""rag_model's defaults, in characters."""
EPOCHS, BATCH, MAX_LENGTH = 3, 8, 1024
"""TRL's defaults."""


@dataclass(frozen=True)
class Asked:
    """What an evaluation scores. ``tokens`` is None where answers are generated."""

    items: int
    tokens: int | None


@dataclass(frozen=True)
class Stage:
    """What a stage of training does: ``tokens`` in all steps (None if unknown), and how (``setup``)."""

    tokens: int | None
    setup: Setup


def asked(study: Study, variant: Variant) -> Asked:
    """Items and prompt tokens of an evaluation, passages included.

    What prompts share (few-shot examples) is computed once and not counted.
    """
    manager = catalogue.our_tasks()
    items, tokens = 0, 0
    with sources.reading_from(study.source):
        for task in dict.fromkeys(leaf for name in study.tasks for leaf in catalogue.leaves(manager, name)):
            if task not in manager.task_index:
                return Asked(items, None)
            config = catalogue.task_config(Path(manager.task_index[task].yaml_path))
            n, length = prompts(config["dataset_kwargs"]["benchmark"], "test")
            n *= VERSIONS if "robustness" in str(config["custom_dataset"]) else 1
            if limit := study.run_args.get("limit"):
                n = min(n, math.ceil(limit * n) if limit < 1 else int(limit))
            items += n
            if config.get("output_type") != "multiple_choice" or tokens is None:
                tokens = None
            else:
                tokens += int(n * _tokens(study, variant, length))
    return Asked(items, tokens)


def _tokens(study: Study, variant: Variant, length: float) -> float:
    """Prompt tokens of an item in all the arms that its mode scores; a gate is taken to open every book. Prompts with a
    content-free question share their passages with the others, which are computed once."""
    if variant.index is None:
        return length
    chosen = inputs.rag_settings(variant)
    mode = answering.parse(chosen["mode"], **{name: chosen.get(name) for name in settings.STEP_OF})
    k = {"none": 0, "oracle": 1}.get(chosen.get("context"), int(chosen["k"]))
    searched = study.indexes[variant.index]
    size = searched.options.get("chunk-size")
    snippet = min(SNIPPET_TOKENS, int(size) // CHARACTERS) if size else SNIPPET_TOKENS
    passages = k * (length if solved.are_solved(searched.corpora) else snippet)
    passages += length * int(chosen.get("shots", settings.SHOTS)) if variant.examples is not None else 0
    prompts_opened = max(1, k) if mode.per_passage else 1
    opened = prompts_opened * length * (2 if mode.needs_neutral else 1) + passages
    return opened + (length if mode.needs_closed else 0)


def prompts(benchmark: str, split: str) -> tuple[int, float]:
    """How many items a split of a benchmark has, and the mean tokens of their prompts."""
    return _prompts(benchmark, split, os.environ.get(sources.ENV))


@functools.cache
def _prompts(benchmark: str, split: str, _source: str | None) -> tuple[int, float]:
    about = catalogue.abouts()[benchmark]
    is_here = about.files and all(sources.find_file(names) for names in about.files)
    if is_here or (about.is_on_hub and sources.where(dataset_of(benchmark)) is not None):
        splits, convert = benchmarks.ALL[benchmark]
        rows = splits()[split]
        every = rows.select(range(0, len(rows), max(1, len(rows) // MEASURED_ITEMS)))
        lengths = [len(mcq.render(item)) for item in convert(every)]
        return len(rows), sum(lengths) / len(lengths) / CHARACTERS
    family = max((name for name in TOKENS if benchmark.startswith(name)), key=len, default=None)
    items = about.items if split == "test" else TRAIN_ITEMS.get((family or "").removesuffix("_star"), 0)
    return items, TOKENS.get(family, USUAL_TOKENS)


def trained(study: Study, training: Training) -> list[Stage]:
    """What each stage of a training does."""
    processes = next((int(b) for a, b in _pairs(training.launch) if a.strip("-") == "num_processes"), 1)
    found, source = [], study.source
    for stage, recipe in recipes.stages(training).items():
        source = recipes.source_in(recipe, source)
        with sources.reading_from(source):
            found.append(_stage(stage, recipe, processes))
    return found


def _pairs(words: list[str]):
    return zip(words, words[1:], strict=False)


def _stage(stage: str, recipe: dict, processes: int) -> Stage:
    batch, length = int(recipe.get("per_device_train_batch_size", BATCH)), int(recipe.get("max_length", MAX_LENGTH))
    a_step = batch * int(recipe.get("gradient_accumulation_steps", 1)) * processes
    steps = int(recipe.get("max_steps", -1))
    if steps > 0 and recipe.get("packing"):
        tokens = steps * a_step * length
    else:
        examples, mean = _examples(stage, recipe)
        seen = steps * a_step if steps > 0 else float(recipe.get("num_train_epochs", EPOCHS)) * examples
        tokens = seen * mean if mean is not None else None
    how = planning.of({"answer_style": "letter" if stage == "sft" else None} | recipe, gpus=processes)
    return Stage(None if tokens is None else int(tokens), how)


def _examples(stage: str, recipe: dict) -> tuple[int, float | None]:
    """How many examples a stage learns from, and their mean tokens (None if a source cannot be measured)."""
    total, tokens = 0, 0.0
    for learned in recipes.learned_from(stage, recipe):
        if stage == "sft" and learned.source in benchmarks.BENCHMARKS:
            rows, mean = prompts(learned.source, learned.split)
        else:
            rows, characters = text_size(learned.source)
            mean = characters / rows / CHARACTERS if rows else None
        if mean is None:
            return 0, None
        rows = round((min(rows, learned.take) if learned.take is not None else rows) * learned.weight)
        total, tokens = total + rows, tokens + rows * mean
    return total, tokens / total if total else None


@dataclass(frozen=True)
class Embedded:
    """What an index embeds."""

    snippets: int
    tokens: int


def embedded(index: Index) -> Embedded | None:
    """The snippets that an index's corpus gives, about; None if it is not a file here."""
    sizes = [_size(corpus) for corpus in index.corpora]
    rows, characters = map(sum, zip(*sizes, strict=True)) if all(rows for rows, _ in sizes) else (0, 0)
    if solved.are_solved(index.corpora):
        return Embedded(rows, characters // CHARACTERS) if rows else None
    size, overlap = (int(index.options.get(f"chunk-{name}", usual)) for name, usual in CHUNKS.items())
    return Embedded(max(rows, characters // (size - overlap)), characters // CHARACTERS) if rows else None


def _size(corpus: str) -> tuple[int, int]:
    """Rows and characters of a corpus or of solved questions, about; (0, 0) if they cannot be told."""
    if not solved.are_solved([corpus]):
        return text_size(corpus)
    source = corpus.removeprefix(solved.PREFIX)
    if rows := TRAIN_ITEMS.get(source, 0):
        return rows, rows * TOKENS[source] * CHARACTERS
    return text_size(source)


@functools.cache
def text_size(corpus: str) -> tuple[int, int]:
    """Rows and characters of a corpus or file of rows; (0, 0) if it is no such file here."""
    path = corpora.SAMPLE if corpus == "sample" else Path(corpus).expanduser()
    if not path.is_file() or not path.name.endswith(corpora.JSONL):
        return 0, 0
    rows = characters = 0
    with path.open("rb") as raw, gzip.open(raw) if path.name.endswith(".gz") else raw as lines:
        for line in lines:
            rows, characters = rows + 1, characters + len(line)
            if characters > MEASURED_BYTES:
                share = path.stat().st_size / raw.tell()
                return int(rows * share), int(characters * share)
    return rows, characters
