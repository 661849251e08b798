"""Figures: the same data gives the same bytes, nothing is lost or doubled on the page."""

import csv
import re
import xml.etree.ElementTree as ElementTree

import pytest

from results.page import curves, figures, panels


@pytest.fixture(scope="module")
def charts(found):
    shown, _ = panels.build(found)
    return {chart.name: chart for panel in shown for chart, _ in panel.charts}


@pytest.fixture(scope="module")
def inline(charts):
    return {name: chart.inline() for name, chart in charts.items()}


def test_every_figure_is_there_and_well_formed(inline):
    assert list(inline) == ["differences", "subjects", "reliability", "risk_coverage", "retrieval", "losses", "cost"]
    for svg in inline.values():
        root = ElementTree.fromstring(svg.replace(' xlink:href="', ' href="'))
        assert root.attrib["role"] == "img" and len(root.attrib["aria-label"]) > 30
        assert "<text" in svg and "DejaVu" not in svg and "<metadata" not in svg


def test_the_same_data_gives_the_same_bytes(charts, inline):
    for name, chart in charts.items():
        assert chart.inline() == inline[name]


def test_ids_of_different_figures_differ(inline):
    ids = [i for svg in inline.values() for i in re.findall(r' id="([^"]+)"', svg)]
    assert ids and len(ids) == len(set(ids))
    for svg in inline.values():
        used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
        assert used == set(re.findall(r' id="([^"]+)"', svg))


def test_figures_for_papers_have_a_journals_width(charts, tmp_path):
    from PIL import Image

    for name, pixels in (("differences", 2100), ("cost", 1050)):
        svg, png, table = figures.write(charts[name], tmp_path)
        assert Image.open(png).width == pixels
        assert ElementTree.parse(svg).getroot().attrib["width"] == f"{pixels / 300 * 72:g}pt"
        with table.open() as f:
            rows = list(csv.reader(f))
        assert tuple(rows[0]) == charts[name].columns and len(rows) == len(charts[name].rows) + 1
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    figures.write(charts["cost"], tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_forest_plot_draws_the_comparisons_numbers(charts, inline):
    rows = {(row[0], row[1]): row for row in charts["differences"].rows}
    assert list(rows) == [(t, v) for t in ("mean", "exam", "trial") for v in ("rag", "sft")]
    assert rows["exam", "sft"][3] == pytest.approx(20 / 24 - 0.5)
    svg = inline["differences"]
    assert ">+33.3<" in svg and "mean of tasks (n = 36)" in svg


def test_the_heat_map_has_a_number_in_every_cell(inline):
    svg = inline["subjects"]
    for text in ("Anatomy (n = 12)", "Surgery (n = 10)", ">50%<", ">+33<"):
        assert text in svg
    assert "Dental" not in svg


def test_risk_coverage_ends_at_the_error_rate():
    sure = [(1 - i / 1000, float(i % 4 > 0)) for i in range(400)]
    chart = curves.risk_coverage({"base": sure})
    assert len(chart.rows) == curves.POINTS
    assert chart.rows[-1] == ("base", 1.0, 0.25)
    few = curves.risk_coverage({"base": [(0.9, 1.0), (0.5, 0.0)]}).rows
    assert few == [("base", 0.5, 0.0), ("base", 1.0, 0.5)]


def test_names_of_many_runs_move_into_a_legend_and_a_slant():
    sure = [(0.9, 1.0), (0.5, 0.0)]
    few, many = (curves.risk_coverage({f"run{i}": sure for i in range(n)}).draw(4.5) for n in (3, 9))
    assert not few.legends and len(few.axes[0].texts) == 3
    assert len(many.legends) == 1 and not many.axes[0].texts
    signs = {(figures.colour(place), figures.marker(place)) for place in range(30)}
    assert len(signs) == 30


def test_reliability_bins_hold_their_accuracy(charts):
    for name, confidence, accuracy, low, high, n in charts["reliability"].rows:
        assert 0 <= low <= accuracy <= high <= 1 and 0.25 <= confidence <= 1 and n in (3, 4), name


def test_end_labels_do_not_overlap():
    with figures._style(8, "x"):
        figure, axes = figures.canvas(4, 3)
        axes.set_ylim(0, 100)
        figures.label_ends(axes, [(50.0, name, "black") for name in "abcd"], 2.5)
        places = [text.xyann[1] for text in axes.texts]
    gaps = [b - a for a, b in zip(places, places[1:], strict=False)]
    assert min(gaps) > 5 and sum(places) / 4 == pytest.approx(50)
