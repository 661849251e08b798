"""Every format shows every figure; the terminal's fits a terminal."""

import csv
import io

import pytest
from made_runs import answered, run

from results import comparison, tables

NAMES = ["base", "sft", "rag_k3"]


@pytest.fixture(scope="module")
def compared():
    answers = {
        "base": ([1, 0, 0, 0] * 10, [1, 1, 0, 0] * 10),
        "sft": ([1, 1, 1, 0] * 10, [1, 1, 0, 0] * 10),
        "rag_k3": ([1, 0, 0, 1] * 10, [0, 1, 0, 0] * 10),
    }
    made = [run(name, medqa=answered(a), pubmedqa=answered(b)) for name, (a, b) in answers.items()]
    made[0].tasks["extra"] = answered([1, 0])
    return comparison.compare(made, "base")


@pytest.fixture(scope="module")
def paired(compared):
    made = [run(name, medqa=answered([1, 0] * 20)) for name in NAMES]
    return comparison.compare(made, "base", all_pairs=True)


def test_text_has_a_block_a_task_and_aligned_columns(compared):
    lines = tables.text(compared).splitlines()
    assert [line for line in lines if line and line[0] != " "] == [
        "medqa, 40 items",
        "pubmedqa, 40 items",
        "mean, 80 items",
        "pooled, 80 items",
        "extra is left out: not in sft, rag_k3",
    ]
    assert lines[0].split("  ")[-1] == "ECE change"
    sft = next(line for line in lines if line.startswith("  sft"))
    assert "75.0 [59.8, 85.8]" in sft and "+50.0 [" in sft and "]*  <0.001" in sft and "20/0" in sft
    for title in tables.COLUMNS:
        assert sft[lines[0].index(title)] != " " and sft[lines[0].index(title) - 1] == " "
    base = next(line for line in lines if line.startswith("  base"))
    assert base.split() == ["base", "25.0", "[14.2,", "40.2]"]


def test_text_fits_a_terminal_with_six_tasks_of_five_variants():
    variants = ["base", "rag", "sft", "msft", "sft+rag"]
    made = [run(name, **{f"mmlu_med_pooled_{i}": answered([i % 2, 1, 0] * 20) for i in range(6)}) for name in variants]
    lines = tables.text(comparison.compare(made, "base")).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) == 1 + 8 * (1 + 5) + 7


def test_text_and_markdown_without_calibration_or_a_detectable_difference(compared):
    written = {"loglikelihoods": [], "choice": None}
    few = comparison.compare([run("a", t=answered([1, 0], **written)), run("b", t=answered([1, 1], **written))], "a")
    assert few["comparisons"][0]["detectable"] is None
    assert tables.text(few).splitlines()[-1].rstrip().endswith("1/0")


def test_a_run_alone_is_a_table_too():
    alone = comparison.compare([run("base", t=answered([1, 0, 1, 1]))], "base")
    assert tables.text(alone).splitlines()[-1].split() == ["base", "75.0", "[30.1,", "95.4]"]
    assert len(tables.methods(alone)) == 1
    assert tables.markdown(alone).splitlines()[2] == "| base | 75.0 [30.1, 95.4] |"


def test_other_pairs_have_lines_of_their_own(paired):
    assert "  rag_k3 - sft" in tables.text(paired)
    assert "+0.0 [-2.5, +2.5] (p=1.000) against sft" in tables.markdown(paired)
    assert r"\quad $-$ sft & +0.0" in tables.latex(paired)


def test_markdown_holds_every_cell(compared):
    lines = tables.markdown(compared).splitlines()
    assert lines[0] == "| variant | medqa | pubmedqa | mean | pooled |"
    assert len(lines[1].split("|")) == len(lines[0].split("|"))
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| base", "| sft", "| rag_k3"]
    assert rows[0].count("<br>") == 0 and rows[1].count("<br>") == 4
    assert rows[1].startswith("| sft | 75.0 [59.8, 85.8]<br>+50.0 [") and "(p<0.001)*" in rows[1]
    assert "Holm-corrected over all 8" in lines[-2]
    assert lines[-1] == "extra is left out: not in sft, rag_k3."


def test_csv_has_a_line_an_estimate_and_comparison_in_full(compared):
    rows = list(csv.DictReader(io.StringIO(tables.csv(compared))))
    assert [row["kind"] for row in rows] == ["estimate"] * 12 + ["comparison"] * 8
    for row, source in zip(rows, compared["estimates"] + compared["comparisons"], strict=True):
        for name, value in source.items():
            assert row[name] == str(value) or float(row[name]) == value
    assert rows[0]["p"] == ""


def test_latex_is_a_booktabs_table_with_escaped_names(compared):
    lines = tables.latex(compared).splitlines()
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    body = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    assert all(line.count(" & ") == 4 and line.endswith(r" \\") for line in body if line != r"\midrule")
    sft = body[body.index(next(line for line in body if line.startswith("sft"))) + 1]
    assert sft.startswith(r"\quad $-$ base & +50.0 {\scriptsize [") and "($<$0.001)$^{*}$" in sft
    assert any(line.startswith(r"rag\_k3 & 50.0") for line in body)
    caption = next(line for line in lines if line.startswith(r"\caption"))
    assert r"95\%" in caption and "Holm" in caption
    assert caption.count("{") == caption.count("}")


def test_numbers_are_rounded_alike_on_both_sides_of_zero():
    def shown(share):
        row = {"difference": share, "low": -share, "high": 0.0}
        return tables._difference(row)

    assert shown(0.0225) == "+2.3 [-2.3, +0.0]"
    assert shown(-0.0225) == "-2.3 [+2.3, +0.0]"
    assert shown(-0.0004) == "+0.0 [+0.0, +0.0]"
