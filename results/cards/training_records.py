"""What a training left about itself: its stages, the data of each with licences, its settings, its cost."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medtasks import benchmarks, catalogue, hub, models
from medtasks.errors import InputError
from trainers import run_folder
from trainers.data import mixture

TRAIN_SPLITS = {
    benchmarks.MEDQA: "train",
    benchmarks.MEDMCQA: "train",
    benchmarks.PUBMEDQA: "official training half of pqa_labeled",
    benchmarks.MMLU: "dev",
}
"""Where ``medtasks.benchmarks`` takes training rows of a dataset from."""

NOT_LEARNING = run_folder.INERT | {
    "sources",
    "corpus",
    "average_tokens_across_devices",
    "dataloader_in_order",
    "dataloader_pin_memory",
    "eval_do_concat_batches",
    "include_num_input_tokens_seen",
    "log_on_each_node",
    "logging_nan_inf_filter",
    "logging_steps",
    "remove_unused_columns",
    "save_steps",
    "save_strategy",
    "skip_memory_metrics",
    "use_peft",
}
"""Keys of a configuration that say nothing about what is learned, or are said elsewhere."""

PROVENANCE = ("stage", "base_fingerprint", "data_fingerprint", "config")
"""What two records of the same training have in common."""


@dataclass(frozen=True)
class Source:
    """Training data: its name in the recipe, dataset on the Hub, split, rows taken, licence; None is not known."""

    name: str
    dataset: str | None
    split: str
    rows: int | None
    licence: str


@dataclass(frozen=True)
class Stage:
    """One stage of training, SFT or CPT.

    Attributes:
        about: ``training.json``, or the adapter's ``medadapt.json``, which lacks counts and losses.
        cost: ``cost.json``, empty where it is not there.
    """

    about: dict
    cost: dict

    @property
    def name(self) -> str:
        """``sft`` or ``cpt``."""
        return self.about["stage"]

    @property
    def counts(self) -> dict[str, int]:
        """``read, duplicates, contaminated, too_long, used``; empty where they are not recorded."""
        return self.about.get("data", {}).get("counts", {})

    @cached_property
    def settings(self) -> dict:
        """The recipe's keys that were set and bear on what is learned."""
        return {key: value for key, value in sorted(self.about["config"].items()) if key not in NOT_LEARNING}

    def sources(self, origin: str | None) -> list[Source]:
        """Its data, in the recipe's order.

        Args:
            origin: where the benchmarks' rows came from: ``sample``, ``hub``, a folder of the same schema, or None if
                that is not known.
        """
        taken = self.about.get("data", {}).get("sources", {})
        named = self.about["config"].get("sources" if self.name == "sft" else "corpus", [])
        return [_source(name, taken.get(name), origin) for name in named]


@dataclass(frozen=True)
class Training:
    """A whole training.

    Attributes:
        folder: what was given.
        stages: in the order in which they were trained; the last made the adapter.
        adapter: ``adapter_config.json``; empty where the adapter is not there.
    """

    folder: Path
    stages: list[Stage]
    adapter: dict

    @property
    def last(self) -> Stage:
        """The stage that made the adapter."""
        return self.stages[-1]

    @property
    def base(self) -> str:
        """The base model as the recipe named it: a folder or a Hub id."""
        return self.last.about["base"]

    @property
    def name(self) -> str:
        """The training's name: that of its output folder."""
        folder = self.folder.resolve()
        return folder.parent.name if folder.name == "adapter" else folder.name

    @property
    def continues_unknown(self) -> bool:
        """Whether it learned on from an adapter of which nothing is known here."""
        return self.stages[0].about["continues"] is not None

    def is_same(self, about: dict) -> bool:
        """Whether ``about``, of a ``training.json``, is the same training."""
        return all(self.last.about.get(key) == about.get(key) for key in PROVENANCE)


def read(folder: str | Path) -> Training:
    """The training in an output folder of ``trainers``, or that made the adapter in an adapter folder.

    Raises:
        InputError: neither, or damaged, or all weights were trained.
    """
    training = _read(Path(folder).expanduser())
    if training.last.about["config"].get("full_finetuning"):
        raise InputError(f"{folder}: all weights were trained here; cards are written of adapters")
    return training


def _read(folder: Path) -> Training:
    if (folder / run_folder.FINISHED).is_file():
        return _of_training(folder, folder)
    card = folder / models.ADAPTER_CARD
    if not card.is_file():
        raise InputError(
            f"{folder}: neither a training's output_dir (no {run_folder.FINISHED}) nor an adapter of these trainers "
            f"(no {models.ADAPTER_CARD})"
        )
    alone = Training(folder, [Stage(_json(card), {})], _json(folder / "adapter_config.json"))
    beside = folder.parent / run_folder.FINISHED
    return _of_training(folder.parent, folder) if beside.is_file() and alone.is_same(_json(beside)) else alone


def _of_training(out: Path, given: Path) -> Training:
    """The training with output_dir ``out``; continued pretraining in ``out/cpt`` is its first stage, whose adapter the
    last one continues, or whose model it has for its base."""
    last = _stage(out)
    before = [_stage(out / "cpt")] if (out / "cpt" / run_folder.FINISHED).is_file() else []
    if before and not last.about["continues"]:
        before = before if before[0].about["base_fingerprint"] != last.about["base_fingerprint"] else []
    config = out / "adapter" / "adapter_config.json"
    return Training(given, [*before, last], _json(config) if config.is_file() else {})


def _stage(out: Path) -> Stage:
    cost = out / "cost.json"
    return Stage(_json(out / run_folder.FINISHED), _json(cost) if cost.is_file() else {})


def _json(file: Path) -> dict:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: damaged or not there ({error}); train again or fetch it whole") from error
    if file.name in (run_folder.FINISHED, models.ADAPTER_CARD):
        missing = [key for key in (*PROVENANCE, "base", "continues", "versions") if key not in found]
        if missing:
            raise InputError(f"{file}: no '{missing[0]}', so not written by these trainers")
    return found


def _source(name: str, rows: int | None, origin: str | None) -> Source:
    named = mixture.parse(name)
    source, name = named.source, str(named) if named.given.startswith("{") else name
    if source in benchmarks.BENCHMARKS:
        if origin == "sample":
            return Source(name, None, "bundled sample, written for medadapt", rows, "MIT")
        dataset = _dataset(source)
        split = TRAIN_SPLITS[dataset] if named.split == "train" else named.split
        return Source(name, dataset, split, rows, catalogue.abouts()[source].licence)
    if source == "sample":
        return Source(name, None, "bundled sample, written for medadapt", rows, "MIT")
    if re.fullmatch(rf"{hub.ID}(/[\w.-]+)?", source) and not source.endswith((".jsonl", ".gz")):
        return Source(name, "/".join(source.split("/")[:2]), named.split, rows, "see the dataset")
    return Source(Path(name).name, None, "a file", rows, "not recorded; ask who made the file")


def _dataset(benchmark: str) -> str:
    """The dataset on the Hub that a benchmark is made of."""
    return next(task.dataset for task in catalogue.tasks().values() if task.benchmark == benchmark)


def base_licence(base: str) -> str | None:
    """The licence that a base model's own README states, of a folder or on the Hub; None if there is none to be had."""
    from huggingface_hub import ModelCard, hf_hub_download

    readme = Path(base).expanduser() / "README.md"
    if not Path(base).expanduser().is_dir() and re.fullmatch(hub.ID, base):
        try:
            readme = Path(hf_hub_download(base, "README.md"))
        except Exception:  # noqa: BLE001  whatever keeps it from being read: then it is not known
            return None
    if not readme.is_file():
        return None
    licence = ModelCard.load(readme, ignore_metadata_errors=True).data.get("license")
    return licence if isinstance(licence, str) else None
