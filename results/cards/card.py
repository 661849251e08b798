"""A model card for the Hub: what an adapter is, what it learned from, what was measured, and what it is not for.

Everything in it stands in the files of the training and of its runs; what they do not say, the card calls not known.
Its form is ``card.md.j2``; what it tells follows Mitchell et al. 2019 (arXiv:1810.03993).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from medtasks import __version__, hub
from medtasks.errors import InputError
from results.cards import card_results, card_text
from results.cards.evidence import Evidence
from results.cards.training_records import Training, base_licence
from results.rounding import p_value, percent


@dataclass(frozen=True)
class Subject:
    """What a card is about.

    Attributes:
        training: how the adapter was made.
        evidence: runs of the adapter, or None.
        model_id: where it will stand on the Hub, ORG/NAME, or None.
        base_model: the base's Hub id where it was trained from a folder, or None.
        licence: of the adapter, a Hub licence identifier, or None for the base's own.
        author: who answers for it, or None.
    """

    training: Training
    evidence: Evidence | None = None
    model_id: str | None = None
    base_model: str | None = None
    licence: str | None = None
    author: str | None = None

    def __post_init__(self):
        for name in filter(None, (self.model_id, self.base_model)):
            if not re.fullmatch(hub.ID, name):
                raise InputError(f"{name}: not a Hub id; give ORG/NAME")

    @property
    def title(self) -> str:
        """The adapter's name."""
        if self.model_id:
            return self.model_id.split("/")[1]
        return f"{Path(self.training.base).name}-{self.training.name}"

    @property
    def base_id(self) -> str | None:
        """The base on the Hub, as far as it is known."""
        recorded = self.training.base
        is_id = re.fullmatch(hub.ID, recorded) and not Path(recorded).exists()
        return self.base_model or (recorded if is_id else None)

    @property
    def origin(self) -> str | None:
        """Where the benchmarks' rows came from (:attr:`results.cards.evidence.Evidence.origin`)."""
        known = self.evidence.origin if self.evidence else None
        return known or self.training.last.about.get("data", {}).get("from")


def write(subject: Subject) -> str:
    """The card, metadata and text."""
    bases = [] if subject.licence else filter(None, (subject.training.base, subject.base_id))
    base_terms = next(filter(None, map(base_licence, bases)), None)
    metadata = _metadata(subject, subject.licence or base_terms or "other").to_yaml()
    body = _template().render(_context(subject) | card_text.licence(subject.licence, base_terms))
    return f"---\n{metadata}\n---\n\n{body}"


def _metadata(subject: Subject, licence: str):
    """``huggingface_hub.ModelCardData``."""
    from huggingface_hub import ModelCardData

    stages = subject.training.stages
    datasets = [source.dataset for stage in stages for source in stage.sources(subject.origin) if source.dataset]
    measured = {}
    if subject.evidence and (results := card_results.eval_results(subject.evidence)):
        measured = {"eval_results": results, "model_name": subject.title, "metrics": ["accuracy"]}
    return ModelCardData(
        language="en",
        license=licence,
        library_name="peft",
        pipeline_tag="text-generation",
        base_model=subject.base_id,
        datasets=list(dict.fromkeys(datasets)) or None,
        tags=["medical", "lora", "medadapt", "not-for-clinical-use", *(stage.name for stage in stages)],
        **measured,
    )


def _template():
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # what it makes is Markdown
    )
    environment.filters |= {
        "percent": percent,
        "points": lambda share: percent(share, "+"),
        "calibration": lambda value: "not known" if value is None else f"{value:.3f}",
        "p": lambda p: "" if p is None else p_value(p),
        "rows": lambda rows: "not recorded" if rows is None else f"{rows:,}",
        "dataset": card_text.dataset,
    }
    return environment.get_template("card.md.j2")


def _context(subject: Subject) -> dict:
    """What the template names, less the licence."""
    training, evidence = subject.training, subject.evidence
    config = training.last.about["config"]
    recorded = Path(training.base)
    tasks = evidence.tasks if evidence else []
    return {
        "title": subject.title,
        "citation_key": re.sub(r"\W+", "_", subject.title).lower(),
        "version": __version__,
        "model_id": subject.model_id,
        "author": subject.author,
        "summary": card_text.summary(training, evidence),
        "base_text": card_text.base(training, subject.base_id),
        "base_path": subject.base_id or (recorded.name if recorded.is_absolute() else str(recorded)),
        "adapter_text": card_text.adapter(training),
        "stages": [card_text.stage(stage, subject.origin) for stage in training.stages],
        "data_notes": card_text.data_notes(training, subject.origin),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(training.last.about["versions"].items())),
        "recipe": evidence.recipe if evidence else None,
        "energy": card_text.energy(evidence.joules if evidence else None),
        "limitations": card_text.limitations(training, tasks, subject.origin),
        "papers": card_text.papers(training, tasks, subject.origin),
        "dtype": config.get("dtype", "float32"),
        "is_chat": bool(config.get("chat")),
        "prompt": card_text.example_prompt(),
        "new_tokens": card_text.new_tokens(config),
        "tasks": ",".join(tasks) or "medadapt",
        "results": card_results.section(evidence) if evidence else None,
    }
