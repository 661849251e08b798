"""The figures that compare runs: differences to the base, subjects, what passages changed, cost and accuracy."""

from results.comparison import MEAN, is_significant
from results.page.costs import Cost, Unit
from results.page.evidence import Evidence
from results.page.figures import INK, MANY, MUTED, RULE, WIDE, Chart, canvas, colour, marker
from results.page.retrieval import Effect
from results.page.subjects import Subject
from results.page.words import p_value, points

BAND = "#eef1f4"
ROW, TOP = 0.21, 0.75
"""Inches a row of a forest plot or heat map is high, and those above and below them."""


def forest(found: Evidence) -> Chart:
    """Each variant's difference to the base with its interval: over all tasks, then task by task."""
    tasks = [found.overall, *(task for task in found.tasks if task != found.overall)]
    rows = [(task, found.difference(variant, task)) for task in tasks for variant in found.variants]

    def draw(width: float):
        figure, axes = canvas(width, TOP + ROW * (len(rows) + len(tasks)))
        y, ticks = 0, {}
        for task in tasks:
            _heading(axes, y, _task(found, task))
            y += 1
            for variant in found.variants:
                _interval(axes, y, found.difference(variant, task), colour(list(found.runs).index(variant)))
                ticks[y] = variant
                y += 1
        _around_zero(axes, ticks, y)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"worse  ←  difference to {found.base}, percentage points  →  better")
        return figure

    data = [(task, r["variant"], r["n"], r["difference"], r["low"], r["high"], r["p"], r["p_holm"]) for task, r in rows]
    shown = "; ".join(
        f"{row['variant']} {points(row['difference'])} ({points(row['low'])} to {points(row['high'])})"
        for task, row in rows
        if task == found.overall
    )
    alt = f"Forest plot of differences in accuracy to {found.base}, in percentage points. {found.overall}: {shown}."
    columns = ("task", "variant", "n", "difference", "low", "high", "p", "p_holm")
    return Chart("differences", alt, columns, data, draw, WIDE)


def _around_zero(axes, ticks: dict[float, str], rows: int) -> None:
    """Draw zero and name the rows, which go from top to bottom."""
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(axis="x")


def _heading(axes, y: int, text: str) -> None:
    """A band across row ``y`` that names the rows below it."""
    axes.axhspan(y - 0.5, y + 0.5, color=BAND, linewidth=0, zorder=2)
    axes.text(0.01, y, text, transform=axes.get_yaxis_transform(), va="center", weight="bold", zorder=3)


def _task(found: Evidence, task: str) -> str:
    n = found.estimate(found.base, task)["n"]
    return f"{'mean of tasks' if task == MEAN else task} (n = {n:,})"


def _interval(axes, y: int, row: dict, shade: str) -> None:
    """A marker, filled where the difference holds after correction; its interval; and both in numbers at the right."""
    low, high = row["low"], row["high"]
    if low is not None:
        axes.plot([100 * low, 100 * high], [y, y], color=shade, linewidth=1.4, solid_capstyle="butt")
    face = shade if is_significant(row) else "white"
    axes.plot(100 * row["difference"], y, "o", markersize=5, markerfacecolor=face, markeredgecolor=shade, zorder=3)
    interval = f"[{points(low)}, {points(high)}]" if low is not None else ""
    _beside(axes, y, 3.8, points(row["difference"]), ha="right", weight="bold")
    _beside(axes, y, 11.8, interval, ha="right")
    p = f"Holm {p_value(row['p_holm'])}"
    _beside(axes, y, 12.6, p, color=INK if is_significant(row) else MUTED)


def _beside(axes, y: int, ems: float, text: str, **style) -> None:
    """Text in row ``y``, so many times the font's size to the right of the axes."""
    import matplotlib

    offset = (ems * matplotlib.rcParams["font.size"], 0)
    place = axes.get_yaxis_transform()
    axes.annotate(text, (1, y), offset, xycoords=place, textcoords="offset points", va="center", **style)


def _overall(found: Evidence) -> str:
    return "mean of tasks" if found.overall == MEAN else found.overall


def heat_map(found: Evidence, subjects: list[Subject]) -> Chart:
    """Each variant's difference to the base by subject, and the base's accuracy."""
    tasks = list(dict.fromkeys(subject.task for subject in subjects))
    gaps = {
        (subject.task, subject.name, variant): 100 * (subject.accuracy[variant] - subject.accuracy[found.base])
        for subject in subjects
        for variant in found.variants
    }
    most = max((abs(gap) for gap in gaps.values()), default=0) or 1

    def draw(width: float):
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.patches import Rectangle

        shades = LinearSegmentedColormap.from_list("worse-better", ["#b35806", "#f7f7f7", "#2166ac"])
        figure, axes = canvas(width, TOP + ROW * (len(subjects) + len(tasks)))
        y, ticks = 0, {}
        for task in tasks:
            _heading(axes, y, task)
            y += 1
            for subject in (subject for subject in subjects if subject.task == task):
                ticks[y] = f"{subject.name} (n = {subject.n:,})"
                axes.text(0, y, f"{100 * subject.accuracy[found.base]:.0f}%", va="center", ha="center", color=MUTED)
                for x, variant in enumerate(found.variants, 1):
                    gap = gaps[task, subject.name, variant]
                    shade = shades(0.5 + gap / most / 2)
                    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=shade, edgecolor="white"))
                    ink = "white" if abs(gap) > 0.6 * most else INK
                    axes.text(x, y, points(gap / 100, digits=0), va="center", ha="center", color=ink)
                y += 1
        slanted = {"rotation": 35, "ha": "left"} if len(found.runs) > MANY else {}
        axes.set_xlim(-0.5, len(found.variants) + 0.5)
        axes.set_ylim(y - 0.5, -0.5)
        axes.set_yticks(list(ticks), list(ticks.values()))
        axes.set_xticks(range(len(found.runs)), [f"{found.base}, %", *found.variants], **slanted)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure

    data = [(s.task, s.name, s.n, name, s.accuracy[name]) for s in subjects for name in found.runs]
    extremes = sorted(gaps, key=gaps.get)
    best, worst = (f"{key[2]} on {key[1]} {gaps[key]:+.0f}" for key in (extremes[-1], extremes[0]))
    alt = (
        f"Heat map of {len(subjects)} subjects by {len(found.variants)} variants: difference in accuracy to "
        f"{found.base} in percentage points. Largest gain: {best}; largest loss: {worst}."
    )
    return Chart("subjects", alt, ("task", "subject", "n", "variant", "accuracy"), data, draw, WIDE)


def fixed_and_broken(effects: list[Effect]) -> Chart:
    """Shares of answers that passages fixed (to the right) and broke (to the left), and their net effect."""
    rows = [(effect, row) for effect in effects for row in effect.rows]

    def draw(width: float):
        figure, axes = canvas(width, TOP + ROW * (len(rows) + len(effects)))
        y, ticks = 0, {}
        for effect in effects:
            _heading(axes, y, f"{effect.variant} against {effect.partner}")
            y += 1
            for row in effect.rows:
                fixed, broken = (100 * row[kind] / row["n_distinct"] for kind in ("fixed", "broken"))
                first = y == 1
                axes.barh(y, fixed, 0.62, color="#0072b2", label="fixed" if first else None)
                axes.barh(
                    y, -broken, 0.62, facecolor="#f3c9a8", edgecolor="#c4500a", hatch="////", linewidth=0.6,
                    label="broken" if first else None,
                )  # fmt: skip
                axes.plot(
                    fixed - broken, y, "D", color="white", markeredgecolor=INK, markersize=4.5, linestyle="none",
                    label="net" if first else None,
                )  # fmt: skip
                ticks[y] = row["task"]
                y += 1
        _around_zero(axes, ticks, y)
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("broken  ←  share of answers, %  →  fixed")
        net, *bars = axes.get_legend_handles_labels()[0]  # lines come before patches
        figure.legend(handles=[*bars, net], loc="outside upper right", ncols=3, handlelength=1.2)
        return figure

    columns = ("variant", "partner", "task", "n_distinct", "fixed", "broken", "agreement")
    data = [(e.variant, e.partner, r["task"], *(r[key] for key in columns[3:])) for e, r in rows]
    shown = "; ".join(f"{e.variant} on {r['task']} fixed {r['fixed']}, broke {r['broken']}" for e, r in rows)
    return Chart("retrieval", f"Answers that passages fixed and broke. {shown}.", columns, data, draw)


def cost_and_accuracy(found: Evidence, costs: dict[str, Cost], unit: Unit) -> Chart:
    """Accuracy over all tasks against the time that a variant took."""
    estimates = {name: found.estimate(name, found.overall) for name in costs}

    def draw(width: float):
        figure, axes = canvas(width, 0.62 * width)
        for name, cost in costs.items():
            place, estimate = list(found.runs).index(name), estimates[name]
            middle, low, high = (100 * estimate[key] for key in ("accuracy", "low", "high"))
            x, y, shade = [cost.total * unit.per_hour] * 2, [low, high], colour(place)
            axes.plot(x, y, color=shade, linewidth=1.1)
            axes.plot(x[0], middle, marker(place), color=shade, markersize=6, label=name)
        totals = [cost.total * unit.per_hour for cost in costs.values()]
        if min(totals) > 0 and max(totals) > 8 * min(totals):
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.margins(0.12)
        axes.grid(color=RULE)
        axes.set_xlabel(f"{unit.name} of the steps that the variant needs")
        axes.set_ylabel(f"accuracy ({_overall(found)}), %")
        figure.legend(loc="outside right upper")
        return figure

    columns = ("variant", "hours", "accuracy", "low", "high")
    data = [(name, round(costs[name].total, 6), *(e[key] for key in columns[2:])) for name, e in estimates.items()]
    shown = "; ".join(f"{row[0]} {row[1] * unit.per_hour:.2g} {unit.name}, {100 * row[2]:.1f}%" for row in data)
    return Chart("cost", f"Accuracy against cost. {shown}.", columns, data, draw)
