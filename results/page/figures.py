"""How figures look and how they are written: inline SVG for the page; SVG, PNG and CSV for papers.

Everything is deterministic: the same data gives the same bytes on every machine with this matplotlib.
"""

import csv
import html
import io
import re
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtasks.files import atomic_write, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW, WIDE = "narrow", "wide"
PAGE_INCHES = {NARROW: 4.5, WIDE: 7.0}
PAPER_INCHES = {NARROW: 3.5, WIDE: 7.0}
"""Widths of one and two columns of a journal."""
PAGE_FONT, PAPER_FONT = 9.0, 7.0
"""Points; a CSS pixel is 0.75 points."""
PNG_DPI = 300
FONTS = "'Helvetica Neue', Helvetica, Arial, sans-serif"
"""What text in SVG is shown in. It is laid out in DejaVu Sans, which matplotlib brings and which is wider."""

INK, MUTED, RULE = "#1f2933", "#5b6770", "#d5dbe1"
BASE_COLOUR = "#5b6770"
COLOURS = ("#0072b2", "#c4500a", "#00795a", "#9a4c8f", "#8a6d00", "#2f8fbf", "#b3364b")
"""After Okabe and Ito (2008), darkened for contrast on white; never the only sign: markers and names go with them."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")
LINES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)))
"""As many of each as make their combinations with colours differ for long."""
MANY = 6
"""More names than this need another place than beside their lines or columns."""


@dataclass(frozen=True)
class Chart:
    """A figure and the data behind it.

    Attributes:
        name: of its files.
        alt: what it shows, in words, for those who do not see it.
        columns, rows: the data, as they go into a CSV file.
        draw: ``draw(width in inches)`` gives the matplotlib figure.
        size: :data:`NARROW` or :data:`WIDE`.
    """

    name: str
    alt: str
    columns: tuple[str, ...]
    rows: list[tuple]
    draw: "Callable[[float], Figure]"
    size: str = NARROW

    def inline(self) -> str:
        """The figure as an ``<svg>`` element for the page."""
        text = _svg(self, PAGE_INCHES[self.size], PAGE_FONT)
        return f'<svg role="img" aria-label="{html.escape(self.alt)}"{text[text.index("<svg ") + 4 :]}'


def colour(place: int) -> str:
    """The colour of the ``place``-th run; the base is the 0th."""
    return COLOURS[(place - 1) % len(COLOURS)] if place else BASE_COLOUR


def marker(place: int) -> str:
    """The marker of the ``place``-th run."""
    return MARKERS[place % len(MARKERS)]


def line(place: int):
    """The line style of the ``place``-th run."""
    return LINES[place % len(LINES)]


def write(chart: Chart, folder: Path) -> list[Path]:
    """Write ``<name>.svg``, ``<name>.png`` (:data:`PNG_DPI`, a journal's width) and ``<name>.csv`` into ``folder``."""
    width = PAPER_INCHES[chart.size]
    files = [folder / f"{chart.name}.{kind}" for kind in ("svg", "png", "csv")]
    write_text(files[0], _svg(chart, width, PAPER_FONT))
    with _style(PAPER_FONT, chart.name), atomic_write(files[1], "wb") as f:
        chart.draw(width).savefig(f, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    with atomic_write(files[2]) as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerows([chart.columns, *chart.rows])
    return files


def _svg(chart: Chart, width: float, font: float) -> str:
    stream = io.StringIO()
    with _style(font, chart.name):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        chart.draw(width).savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue().replace("'DejaVu Sans', sans-serif", FONTS).replace("'DejaVu Sans'", FONTS)
    return _own_ids(text, chart.name)


def _own_ids(text: str, name: str) -> str:
    """Ids that something refers to get the figure's name before them; the others go: a page has several figures."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)


@contextmanager
def _style(font: float, salt: str):
    import matplotlib

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "DejaVu Sans",
        "font.size": font,
        "axes.titlesize": font + 0.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": font,
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.6,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "hatch.linewidth": 0.6,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with matplotlib.rc_context(settings):
        yield


def canvas(width: float, height: float, **grid) -> "tuple[Figure, Axes]":
    """A new figure of ``width`` x ``height`` inches and its axes (an array of them with ``nrows``, ``ncols``)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**grid)


def label_ends(axes: "Axes", ends: Iterable[tuple[float, str, str]], height: float) -> None:
    """Name lines at their right ends, beside the axes, moved apart where they would overlap.

    Args:
        ends: y in data units, text, colour.
        height: of the axes, in inches (about).
    """
    import matplotlib

    low, high = axes.get_ylim()
    step = 1.35 * matplotlib.rcParams["font.size"] / 72 / height * (high - low)
    ends, places = sorted(ends), []
    for y, _, _ in ends:
        places.append(max(y, places[-1] + step) if places else y)
    shift = sum(place - y for place, (y, _, _) in zip(places, ends, strict=True)) / len(ends)
    for above, (y, text, shade) in zip(places, ends, strict=True):
        place = above - shift
        axes.annotate(
            text,
            (1, y),
            (1.05, place),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            color=shade,
            va="center",
            arrowprops={"arrowstyle": "-", "color": shade, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 0},
            annotation_clip=False,
        )
