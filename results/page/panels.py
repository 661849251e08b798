"""The panels of a report, each with figures or tables; what a study does not hold becomes a sentence, not a panel."""

import re
from dataclasses import dataclass, field

from results.calibration import Answers
from results.comparison import POOLED
from results.page import charts, costs, curves, evidence, retrieval, subjects
from results.page.evidence import Evidence
from results.page.figures import Chart
from results.page.words import percent, points, signed

GIGABYTE, KILOJOULE = 1e9, 1e3


@dataclass(frozen=True)
class Table:
    """``rows``: cells as text, the first of each names the row."""

    caption: str
    columns: list[str]
    rows: list[list[str]]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone, with intervals, counts and units of time, or nothing."""
        number = re.compile(r"[−+\d.,%()\[\] –]*(s|min|h)?")
        return [all(number.fullmatch(row[i]) for row in self.rows) for i in range(len(self.columns))]


@dataclass(frozen=True)
class Panel:
    """One section of the page: ``text`` stands first, then ``charts`` with their captions, then ``table``."""

    id: str
    title: str
    text: str
    charts: list[tuple[Chart, str]] = field(default_factory=list)
    table: Table | None = None


def build(found: Evidence) -> tuple[list[Panel], list[str]]:
    """The panels that the evidence allows, and a sentence for each that it does not."""
    made = [
        differences(found),
        by_subject(found),
        calibrated(found),
        retrieved(found),
        trained(found),
        spent(found),
    ]
    return [p for p in made if isinstance(p, Panel)], [p for p in made if isinstance(p, str)]


def differences(found: Evidence) -> Panel | str:
    """The forest plot."""
    if not found.variants:
        return f"Differences: only {found.base} has been evaluated, so there is nothing to compare."
    caption = (
        f"Difference in accuracy to {found.base} with 95% intervals, on the same questions. Filled markers: p below 5% "
        "after Holm's correction. Open markers: the difference may be luck."
    )
    text = "Right of the line a variant answers more questions correctly than the base, left of it fewer."
    return Panel("differences", f"Differences to {found.base}", text, [(charts.forest(found), caption)])


def by_subject(found: Evidence) -> Panel | str:
    """The heat map."""
    if not found.variants:
        return "Subjects: no heat map, because there is nothing to compare."
    rows, too_small = subjects.of(found)
    if not rows:
        why = "have fewer than 5 questions each" if too_small else "are not recorded in these runs"
        return f"Subjects: no heat map, because the subjects of the questions {why}."
    caption = (
        f"Difference in accuracy to {found.base} by subject, in percentage points (blue: better, orange: worse), and "
        f"the accuracy of {found.base}. Subjects are small: single cells are not significant by themselves."
    )
    left_out = f" Left out: {too_small} with fewer than {subjects.FEWEST} questions." if too_small else ""
    text = f"Where gains and losses come from.{left_out}"
    return Panel("subjects", "Subjects", text, [(charts.heat_map(found, rows), caption)])


def calibrated(found: Evidence) -> Panel | str:
    """Reliability diagrams, risk-coverage curves and a table of calibration."""
    known = {name: values for name in found.runs if (values := _confidences(found, name))}
    if found.base not in known:
        return "Calibration: not all answers are choices with probabilities (some were written), so none are judged."
    task = POOLED if len(found.tasks) > 1 else found.overall
    estimates = {name: found.estimate(name, task) for name in known}
    ece = {name: row["ece"] for name, row in estimates.items()}
    rows = [[name, _three(row["ece"]), _three(row["brier"])] for name, row in estimates.items()]
    for row in rows:
        if row[0] in found.variants:
            gap = found.difference(row[0], task)
            row += [_gap(gap, "ece"), _gap(gap, "brier")]
        else:
            row += ["", ""]
    columns = ["variant", "ECE", "Brier score", f"ECE, difference to {found.base}", "Brier score, difference"]
    table = Table("Calibration, all items together; lower is better", columns, rows)
    bars = (
        "Accuracy against confidence in ten bins with as many answers each; vertical lines are 95% intervals. On the "
        "dashed line, confidence is what accuracy will be; below it, the model is too sure of itself. "
        f"Grey: {found.base}."
    )
    risk = (
        "Error rate when only the surest answers are given. The lower a curve, the better confidence tells right from "
        "wrong; at the right end all questions are answered."
    )
    text = "Does the model know when it does not know? Confidence is the chosen option's probability among all options."
    figures = [(curves.reliability(known, ece), bars), (curves.risk_coverage(known), risk)]
    return Panel("calibration", "Calibration", text, figures, table)


def _confidences(found: Evidence, name: str) -> list[tuple[float, float]]:
    """(confidence, right or wrong) of all answers of a run; [] where answers have no probabilities."""
    answers = [Answers.of(paired.rows[name]) for paired in found.paired.values()]
    if any(task is None for task in answers):
        return []
    together = Answers.together(answers)
    return list(zip(together.confidence.tolist(), together.correct.tolist(), strict=True))


def _three(value: float | None) -> str:
    return _cell(value, ".3f")


def _gap(row: dict, metric: str) -> str:
    value, low, high = (row[f"{metric}_{part}"] for part in ("difference", "low", "high"))
    return "–" if value is None else f"{signed(value, 3)} [{signed(low, 3)}, {signed(high, 3)}]"


def retrieved(found: Evidence) -> Panel | str:
    """What passages fixed and broke."""
    effects = retrieval.of(found)
    if not effects:
        return "Retrieval: no variant was given passages."
    rows = []
    for effect in effects:
        for row in effect.rows:
            fixed, broken = row["fixed"] / row["n_distinct"], row["broken"] / row["n_distinct"]
            net = points(fixed - broken)
            agreement = "–" if row["agreement"] is None else f"{percent(row['agreement'])}%"
            cells = [f"{percent(fixed)}% ({row['fixed']})", f"{percent(broken)}% ({row['broken']})", net, agreement]
            rows.append([f"{effect.variant} against {effect.partner}", row["task"], *cells])
    columns = ["variant", "task", "fixed", "broken", "net, points", "same answer"]
    table = Table("What passages changed, distinct questions", columns, rows)
    other = [effect.variant for effect in effects if not effect.same_model]
    text = "Passages fix an answer that was wrong without them, and break one that was right." + (
        f" There is no run of the same model without passages for {', '.join(other)}, so the comparison is with "
        f"{found.base} and holds the effect of training too."
        if other
        else " Each variant is compared with the same model without passages."
    )
    caption = "Answers fixed and broken by passages, share of all distinct questions, and the net effect (diamonds)."
    return Panel("retrieval", "Retrieval", text, [(charts.fixed_and_broken(effects), caption)], table)


def trained(found: Evidence) -> Panel | str:
    """Loss curves."""
    histories = {name: rows for name, rows in costs.losses(found).items() if rows}
    if not histories:
        return "Training: no loss curves, because no training with a loss history belongs to these runs."
    rows = []
    for name in histories:
        about = found.record("trainings", *name.split("/"), "training.json") or {}
        used = about.get("data", {}).get("counts", {}).get("used")
        counts = [_cell(value, ",") for value in (used, about.get("steps"))]
        losses = [_cell(about.get(key), ".3f") for key in ("first_loss", "final_loss")]
        rows.append([name, about.get("stage", "–"), *counts, _cell(about.get("epochs"), ".3g"), *losses])
    columns = ["training", "stage", "examples", "steps", "epochs", "first loss", "final loss"]
    trained_by = [evidence.trained_by(run) for run in found.runs.values()]
    places = {name: trained_by.index(root) if (root := name.split("/")[0]) in trained_by else 0 for name in histories}
    caption = "Training loss (faint: as logged; strong: exponential moving average)."
    text = "Losses of different stages are of different texts and do not compare with each other."
    table = Table("Trainings", columns, rows)
    return Panel("training", "Training", text, [(curves.losses(histories, places), caption)], table)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def spent(found: Evidence) -> Panel | str:
    """Cost against accuracy."""
    known = costs.of(found)
    without = [name for name in found.runs if name not in known]
    if not known:
        return "Cost: nothing is recorded, because these runs are not part of a study with records of its steps."
    unit = costs.unit(known)
    kinds = [kind for kind in ("index", "training", "evaluation") if any(kind in cost.hours for cost in known.values())]
    rows = []
    for name, cost in known.items():
        hours = [_duration(cost.hours[kind]) if kind in cost.hours else "–" for kind in kinds]
        speed = [cost.training_tokens_per_second, cost.evaluation_tokens_per_second]
        rows.append(
            [name, *hours, _duration(cost.total), _scaled(cost.joules, KILOJOULE), _scaled(cost.peak_bytes, GIGABYTE)]
            + [_cell(value, ",.0f") for value in speed]
            + [", ".join(cost.devices) or "–"]
        )
    columns = ["variant", *kinds, "all", "energy, kJ", "peak memory, GB", "training, tokens/s", "evaluation, tokens/s"]
    columns.append("device")
    unknown = [i for i in range(1, len(columns)) if all(row[i] == "–" for row in rows)]
    missing = [columns[i] for i in unknown]
    rows = [[cell for i, cell in enumerate(row) if i not in unknown] for row in rows]
    table = Table("Cost", [column for i, column in enumerate(columns) if i not in unknown], rows)
    text = (
        "Wall time of the steps that a variant needs, times the number of GPUs. Steps that several variants share (an "
        "index, a training) count in each."
        + (f" Not recorded: {'; '.join(missing)}." if missing else "")
        + (f" Without records of all their steps: {', '.join(without)}." if without else "")
    )
    caption = f"Accuracy with its 95% interval against {unit.name} of index, training and evaluation."
    return Panel("cost", "Cost", text, [(charts.cost_and_accuracy(found, known, unit), caption)], table)


def _duration(hours: float) -> str:
    seconds = 3600 * hours
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min" if seconds < 7200 else f"{hours:.1f} h"


def _scaled(value: float | None, unit: float) -> str:
    return "–" if value is None else f"{value / unit:.1f}"
