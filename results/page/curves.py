"""The figures with curves: calibration, risk against coverage, losses of trainings."""

import math

from medtasks import metrics
from results import statistics
from results.page.figures import BASE_COLOUR, MANY, MUTED, RULE, WIDE, Chart, canvas, colour, label_ends, line, marker
from trainers.smoothing import smoothed

POINTS = 100
"""Points that a risk-coverage curve is drawn from."""
COLUMNS = 3

Confidences = dict[str, list[tuple[float, float]]]
"""Run -> (confidence, right or wrong) of its answers; the base first."""


def reliability(confidences: Confidences, ece: dict[str, float | None]) -> Chart:
    """Accuracy against confidence in bins of equal mass: one panel a run, the base's curve in all."""
    bins = {name: metrics.reliability(values) for name, values in confidences.items()}
    names = list(confidences)

    def draw(width: float):
        columns = min(COLUMNS, len(names))
        rows = math.ceil(len(names) / columns)
        figure, grid = canvas(
            width, 0.35 + rows * (width / COLUMNS + 0.15), nrows=rows, ncols=columns, squeeze=False,
            sharex=True, sharey=True,
        )  # fmt: skip
        for place, axes in enumerate(grid.flat):
            axes.set_visible(place < len(names))
            if place < len(names):
                _reliability_panel(axes, place, names, bins, ece)
                axes.set_ylabel("accuracy, %" if place % columns == 0 else None)
                axes.tick_params(labelbottom=place + columns >= len(names))
        figure.supxlabel("confidence: probability of the chosen option, %", fontsize="medium")
        return figure

    data = [(name, *_bin(row)) for name in names for row in bins[name]]
    shown = "; ".join(f"{name} ECE {_shown(ece[name])}" for name in names)
    columns = ("variant", "confidence", "accuracy", "low", "high", "n")
    return Chart("reliability", f"Reliability diagrams, one a variant. {shown}.", columns, data, draw, WIDE)


def _reliability_panel(axes, place: int, names: list[str], bins: dict, ece: dict[str, float | None]) -> None:
    name = names[place]
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    if place:
        base = [(100 * confidence, 100 * accuracy) for confidence, accuracy, _ in bins[names[0]]]
        axes.plot(*zip(*base, strict=True), color=BASE_COLOUR, alpha=0.45, linewidth=1)
    for confidence, _, low, high, _ in map(_bin, bins[name]):
        axes.plot([100 * confidence] * 2, [100 * low, 100 * high], color=colour(place), linewidth=1)
    drawn = [(100 * confidence, 100 * accuracy) for confidence, accuracy, _ in bins[name]]
    axes.plot(*zip(*drawn, strict=True), marker=marker(place), color=colour(place), markersize=4, linewidth=1.2)
    axes.set_title(name)
    axes.text(0.04, 0.95, f"ECE {_shown(ece[name])}", transform=axes.transAxes, va="top", color=MUTED)
    axes.set(xlim=(0, 102), ylim=(0, 102), xticks=(0, 25, 50, 75, 100), yticks=(0, 25, 50, 75, 100), aspect="equal")
    axes.grid(color=RULE)


def _bin(row: tuple[float, float, int]) -> tuple[float, float, float, float, int]:
    """Confidence, accuracy with its interval, items. Tied confidences give bins a share of right answers that is no
    whole number of items; the interval takes the nearest."""
    confidence, accuracy, n = row
    right = round(accuracy * n)
    estimate = statistics.accuracy([1] * right + [0] * (n - right))
    return confidence, accuracy, min(estimate.low, accuracy), max(estimate.high, accuracy), n


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def risk_coverage(confidences: Confidences) -> Chart:
    """Error rate among the most confident answers, against the share of questions answered."""
    curves = {name: _thinned(metrics.risk_coverage(values)) for name, values in confidences.items()}

    def draw(width: float):
        figure, axes = canvas(width, 0.62 * width)
        for place, (name, curve) in enumerate(curves.items()):
            x, y = zip(*((100 * coverage, 100 * risk) for coverage, risk in curve), strict=True)
            axes.plot(x, y, color=colour(place), linestyle=line(place), linewidth=1.5, label=name)
        axes.set(xlim=(0, 100), xlabel="coverage: share of questions answered, the surest first, %")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("risk: error rate among them, %")
        axes.grid(color=RULE)
        if len(curves) > MANY:
            figure.legend(loc="outside right upper", handlelength=3)
        else:
            ends = [(100 * curve[-1][1], name, colour(place)) for place, (name, curve) in enumerate(curves.items())]
            label_ends(axes, ends, 0.5 * width)
        return figure

    data = [(name, coverage, risk) for name, curve in curves.items() for coverage, risk in curve]
    shown = "; ".join(f"{name} AURC {metrics.aurc(values):.3f}" for name, values in confidences.items())
    return Chart("risk_coverage", f"Risk-coverage curves. {shown}.", ("variant", "coverage", "risk"), data, draw)


def _thinned(risks) -> list[tuple[float, float]]:
    """(coverage, risk) at :data:`POINTS` coverages at most, the full one among them."""
    n = len(risks)
    places = sorted({math.ceil(n * (i + 1) / POINTS) - 1 for i in range(POINTS)})
    return [((place + 1) / n, float(risks[place])) for place in places]


def losses(histories: dict[str, list[dict]], places: dict[str, int]) -> Chart:
    """Training losses: each logged one faint, their moving average strong.

    Args:
        places: training -> place of the run that has its adapter, whose colour it gets.
    """
    curves = {
        name: [(row["step"], row["loss"]) for row in rows if row["loss"] is not None]
        for name, rows in histories.items()
        if rows
    }
    averages = {name: smoothed([loss for _, loss in curve]) for name, curve in curves.items()}

    def draw(width: float):
        figure, axes = canvas(width, 0.62 * width)
        for number, (name, curve) in enumerate(curves.items()):
            steps, shade = [step for step, _ in curve], colour(places[name])
            axes.plot(steps, [loss for _, loss in curve], color=shade, alpha=0.3, linewidth=0.8)
            axes.plot(steps, averages[name], color=shade, linestyle=line(number), linewidth=1.6, label=name)
        axes.set(xlabel="step", ylabel="training loss")
        axes.set_xlim(0)
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=RULE)
        figure.legend(loc="outside upper right", ncols=min(len(curves), COLUMNS))
        return figure

    data = [(name, step, loss) for name, curve in curves.items() for step, loss in curve]
    shown = "; ".join(f"{name} from {curve[0][1]:.2f} to {averages[name][-1]:.2f}" for name, curve in curves.items())
    return Chart("losses", f"Training losses. {shown}.", ("training", "step", "loss"), data, draw)
