"""Sentences of a model card about how the adapter was made and what is not known of it."""

from collections.abc import Sequence
from pathlib import Path

from medtasks import mcq
from results.cards import card_results
from results.cards.evidence import Evidence
from results.cards.training_records import Source, Stage, Training

TITLES = {"sft": "supervised fine-tuning (SFT)", "cpt": "continued pretraining (CPT)"}
UNITS = {"sft": "examples", "cpt": "passages"}
DROPPED = {
    "duplicates": "repeat another",
    "contaminated": "hold a test question of a benchmark",
    "too_long": "are longer than `max_length`",
    "near_duplicates": "nearly repeat another",
    "faulty": "cannot be read",
    "held_out": "are held out",
    "needs_its_options": "cannot be asked without their options",
    "no_passages": "have no retrieved passages",
    "personal_data": "hold personal data",
    "not_drawn": "were not drawn",
}
PAPERS = {
    "GBaker/MedQA-USMLE-4-options": "MedQA (Jin et al. 2021, arXiv:2009.13081)",
    "openlifescienceai/medmcqa": "MedMCQA (Pal et al. 2022, arXiv:2203.14371)",
    "qiaojin/PubMedQA": "PubMedQA (Jin et al. 2019, arXiv:1909.06146)",
    "cais/mmlu": "MMLU (Hendrycks et al. 2021, arXiv:2009.03300)",
}
SAFETY = ("medhallu", "scifact", "medqa_abstain", "medqa_demographics")
"""Beginnings of names of tasks that ask about safety."""

EXAMPLE = {
    "question": "Lack of which vitamin causes scurvy?",
    "options": ["Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin D"],
}
LETTER_TOKENS, RATIONALE_TOKENS = 2, 512
"""To generate in the example."""

JOULES_PER_KWH = 3.6e6


def example_prompt() -> str:
    """A prompt as the adapter was trained on."""
    return mcq.render(EXAMPLE)


def dataset(source: Source) -> str:
    """A source's dataset with its address, and its split."""
    if source.dataset is None:
        return source.split
    return f"[{source.dataset}](https://huggingface.co/datasets/{source.dataset}), {source.split}"


def new_tokens(config: dict) -> int:
    """How many tokens an answer takes, by what was trained."""
    return RATIONALE_TOKENS if config.get("answer_style") == "rationale" else LETTER_TOKENS


def licence(given: str | None, of_base: str | None) -> dict[str, str]:
    """What is said of the adapter's licence."""
    if given:
        return {"licence_text": f"`{given}`; the base model's licence applies to the base"}
    if of_base:
        return {"licence_text": f"`{of_base}`, as its base model's README states for the base"}
    return {"licence_text": "not stated with the base model, whose licence binds an adapter of it: look it up there"}


def summary(training: Training, evidence: Evidence | None) -> str:
    """What it is and, if there are results, how far its mean is from the base's."""
    stages = [f"{TITLES[stage.name]}{_on(stage)}" for stage in training.stages]
    text = f"A LoRA adapter, trained by {', then '.join(stages)}."
    return f"{text} {card_results.headline(evidence)}" if evidence else text


def _on(stage: Stage) -> str:
    if not stage.counts:
        return ""
    part = "a part of " if stage.about["epochs"] < 1 else ""
    return f" on {part}{stage.counts['used']:,} {UNITS[stage.name]}"


def base(training: Training, base_id: str | None) -> str:
    """The base model, with its address where it is known."""
    fingerprint = f"; fingerprint `{training.last.about['base_fingerprint']}`"
    link = f"[{base_id}](https://huggingface.co/{base_id})" if base_id else None
    folder = Path(training.base).name
    if link and training.base != base_id:
        return f"{link}, as the local folder `{folder}`{fingerprint}"
    return (link or f"the local folder `{folder}`, whose origin is not recorded") + fingerprint


def adapter(training: Training) -> str:
    """Rank and shape, from ``adapter_config.json`` or as far as the recipe set them."""
    if found := training.adapter:
        modules = found.get("target_modules")
        shape = f"LoRA, r={found['r']}, alpha={found['lora_alpha']}, dropout={found['lora_dropout']:g}"
        shape += ", rank-stabilized" * bool(found.get("use_rslora")) + ", DoRA" * bool(found.get("use_dora"))
        return f"{shape}, on {', '.join(sorted(modules)) if isinstance(modules, list) else modules}"
    config = training.last.about["config"]
    shape = f"LoRA, r={config['lora_r']}" if "lora_r" in config else "LoRA"
    shape += ", rank-stabilized" * bool(config.get("use_rslora"))
    return f"{shape}, on {', '.join(config.get('lora_target_modules', ['not recorded']))}"


def stage(stage: Stage, origin: str | None) -> dict:
    """A stage as the template shows it."""
    return {
        "title": TITLES[stage.name],
        "sources": stage.sources(origin),
        "counts": _counts(stage),
        "fingerprint": stage.about["data_fingerprint"],
        "course": _course(stage.about),
        "settings": {key: _setting(value) for key, value in stage.settings.items()},
        "cost": _cost(stage.cost),
    }


def _course(about: dict) -> str:
    if "steps" not in about:
        return "Steps and losses are not recorded with the adapter."
    return (
        f"{about['steps']:,} steps, {about['epochs']:.3g} epochs, seed {about['seed']}; training loss "
        f"{about['first_loss']:.2f} at the first logged step, {about['final_loss']:.2f} at the last."
    )


def _cost(cost: dict) -> list[str]:
    """Hardware, training time, tokens and peak memory."""
    if not cost:
        return ["not recorded"] * 4
    time = f"{cost['train_seconds']:,.0f} s ({cost['wall_seconds']:,.0f} s with loading)"
    return [cost["device"], time, f"{cost['tokens_seen']:,}", f"{cost['peak_memory_bytes'] / 1e9:.1f} GB"]


def _setting(value) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _counts(stage: Stage) -> str:
    """What became of the rows that were read."""
    counts, unit = stage.counts, UNITS[stage.name]
    if not counts:
        return "How many rows were read and dropped is not recorded with the adapter."
    dropped = [f"{counts[key]:,} that {reason}" for key, reason in DROPPED.items() if counts.get(key)]
    checked = stage.about["config"].get("decontaminate", True)
    return f"Read: {counts['read']:,} {unit}. Used: {counts['used']:,}. Dropped: {', '.join(dropped) or 'none'}." + (
        "" if checked else " **Test questions were not looked for.**"
    )


def data_notes(training: Training, origin: str | None) -> list[str]:
    """What is known of where the rows came from."""
    notes = []
    if _learned(training, origin) and origin is None:
        notes.append(
            "Rows came from these datasets, or from a local folder of the same schema (MEDTASKS_DATA) with a part of "
            "them or medadapt's sample; which one is not recorded."
        )
    elif _learned(training, origin) and origin not in ("hub", "sample"):
        notes.append(
            "Rows came from a local folder of these datasets' schema (MEDTASKS_DATA), which may hold a part of them."
        )
    if training.continues_unknown:
        notes.append("It learned on from another adapter, of which nothing is recorded here but a hash.")
    return [*notes, "How the datasets were made, and whether they describe persons, is for their own cards to say."]


def energy(joules: float | None) -> str:
    """Energy where it was measured; emissions, which depend on the grid, are not guessed."""
    if joules is None:
        return "Energy and emissions were not measured."
    return f"The GPU took {joules / JOULES_PER_KWH:.3g} kWh in this training, measured. Emissions were not measured."


def limitations(training: Training, tasks: Sequence[str], origin: str | None) -> list[str]:
    """What a reader must not conclude, from what was and was not done."""
    found = [
        "Examinations measure which of a few given options it prefers. Nothing is known here of text that it writes "
        "freely, and outside examination questions it may be worse than its base."
    ]
    if shared := _learned(training, origin) & _measured(tasks):
        found.append(
            f"It was trained and measured on parts of the same datasets ({', '.join(sorted(shared))}): results say how "
            "well it answers questions of their kind, and less of others."
        )
    found += [
        "What the base model saw in pretraining is not known; it may have held test questions. Both it and the adapter "
        "would profit, and no check of the training data can show it.",
        "Examination questions follow the curricula, guidelines, populations and years that they were written for, and "
        "benchmarks have flaws, which medadapt counts in `medtasks/README.md`.",
    ]
    if not any(task.startswith(SAFETY) for task in tasks):
        found.append(
            "Not measured: hallucination, admitting ignorance, differences between patient groups (medadapt's suite "
            "`medsafe` asks about them), privacy."
        )
    if training.last.about["config"].get("load_in_4bit"):
        found.append("It was trained over a base in 4 bits. With the base in another precision its answers differ.")
    return found


def papers(training: Training, tasks: Sequence[str], origin: str | None) -> str:
    """What the card's figures rest on."""
    datasets = _learned(training, origin) | _measured(tasks)
    found = [paper for dataset, paper in PAPERS.items() if dataset in datasets]
    config = training.last.about["config"]
    found.append("LoRA (Hu et al. 2022, arXiv:2106.09685)")
    if config.get("use_rslora"):
        found.append("rank-stabilized LoRA (Kalajdzievski 2023, arXiv:2312.03732)")
    if config.get("load_in_4bit"):
        found.append("QLoRA (Dettmers et al. 2023, arXiv:2305.14314)")
    return "; ".join([*found, "lm-evaluation-harness (Gao et al. 2024, doi:10.5281/zenodo.12608602)"])


def _learned(training: Training, origin: str | None) -> set[str]:
    """Datasets that were trained on."""
    return {source.dataset for stage in training.stages for source in stage.sources(origin) if source.dataset}


def _measured(tasks: Sequence[str]) -> set[str]:
    """Datasets that were measured on."""
    return {known.dataset for task in tasks if (known := card_results.benchmark_of(task))}
