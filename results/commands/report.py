"""Write the report page of a study, or of runs: one HTML file, and figures for papers.

``medadapt report STUDY`` reads a study's folder; ``medadapt report RUN RUN ...`` compares runs of any lm-eval
(``--output_path`` with ``--log_samples``), the first being the base. The page needs no network and asks for nothing.
"""

import argparse
from pathlib import Path

from medtasks.errors import InputError
from medtasks.files import write_text
from results.commands import listed

ALL = "all"


def report(argv: list[str]) -> int:
    """``medadapt report``. Returns 0."""
    parser = argparse.ArgumentParser(prog="medadapt report", description=__doc__.split("\n\n")[1])
    parser.add_argument("paths", nargs="+", type=Path, metavar="STUDY|RUN", help="a study's folder, or several runs")
    parser.add_argument("--base", metavar="NAME", help="the run to compare with (default: the study's, or the first)")
    parser.add_argument("--names", default="", metavar="A,B", help="what to call the runs (default: their folders)")
    parser.add_argument("--metric", help="the right-or-wrong metric to read of runs (default: acc, exact_match)")
    parser.add_argument("--filter", help="the answer filter to read of runs, where a task has several")
    parser.add_argument(
        "--allow", default="", metavar="prompts,versions", help="compare although the prompts or task versions differ"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="also write each figure as SVG, PNG and CSV")
    parser.add_argument("--items", default="200", metavar="N|all", help="questions a task to browse (default: 200)")
    parser.add_argument("--no-questions", action="store_true", help="leave out texts of questions and passages")
    args = parser.parse_args(argv)
    items = _items(args.items)

    from results.page import evidence, figures, render

    names, allow = listed(args.names), listed(args.allow)
    found = evidence.gather(args.paths, args.base, names, allow, args.metric, args.filter)
    text, panels = render.report(found, items, texts=not args.no_questions)
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
