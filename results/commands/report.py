"""Write the report page of a study, or of runs: one HTML file, and figures for papers.

``medadapt report STUDY`` reads a study's folder; ``medadapt report RUN RUN ...`` compares runs of any lm-eval
(``--output_path`` with ``--log_samples``), the first being the base. The page needs no network and asks for nothing.
"""

import argparse
from pathlib import Path

from medtasks.errors import InputError
from medtasks.files import write_text

ALL = "all"


def report(argv: list[str]) -> int:
    """``medadapt report``. Returns 0."""
    parser = argparse.ArgumentParser(prog="medadapt report", description=__doc__.split("\n\n")[1])
    parser.add_argument("paths", nargs="+", type=Path, metavar="STUDY|RUN", help="a study's folder, or several runs")
    parser.add_argument("--base", help="the run to compare with (default: the study's base, or the first run)")
    parser.add_argument("--allow", nargs="+", default=(), help="differences to let pass, as in medadapt compare")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="also write each figure as SVG, PNG and CSV")
    parser.add_argument("--items", default="200", metavar="N|all", help="questions a task to browse (default: 200)")
    parser.add_argument("--no-questions", action="store_true", help="leave out texts of questions and passages")
    args = parser.parse_args(argv)
    items = _items(args.items)

    from results.page import evidence, figures, render

    text, panels = render.report(evidence.gather(args.paths, args.base, args.allow), items, texts=not args.no_questions)
    write_text(args.out, text)
    print(f"report    {args.out} ({len(text.encode()) / 1e6:.1f} MB)")
    if args.figures:
        charts = [chart for panel in panels for chart, _ in panel.charts]
        for chart in charts:
            figures.write(chart, args.figures)
        print(f"figures   {args.figures} ({', '.join(chart.name for chart in charts)}: SVG, PNG, CSV)")
    return 0


def _items(given: str) -> int | None:
    if given == ALL:
        return None
    if not given.isdecimal():
        raise InputError(f"--items {given}: give a number of questions a task, or 'all'")
    return int(given)
