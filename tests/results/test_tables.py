import pytest

from medtasks.errors import InputError
from results import tables


def predictions(correct, ids=None):
    return [{"id": str(i if ids is None else ids[i]), "correct": c} for i, c in enumerate(correct)]


RUNS = {
    "base": {"medqa": predictions([1, 0, 0, 0] * 10), "pubmedqa": predictions([1, 1, 0, 0] * 10)},
    "sft": {"medqa": predictions([1, 1, 1, 0] * 10), "pubmedqa": predictions([1, 1, 0, 0] * 10)},
}


def rows_of(runs):
    return {(row["variant"], row["task"]): row for row in tables.compare(runs, "base")}


def test_rows_hold_accuracy_and_what_changed_against_the_base():
    rows = rows_of(RUNS)
    assert list(rows) == [(v, t) for v in ("base", "sft") for t in ("medqa", "pubmedqa", "mean")]
    sft = rows["sft", "medqa"]
    assert (sft["n"], sft["accuracy"], sft["difference"], sft["fixed"], sft["broken"]) == (40, 0.75, 0.5, 20, 0)
    assert sft["p"] == pytest.approx(2 * 0.5**20)
    assert rows["sft", "pubmedqa"]["p"] == 1
    mean = rows["sft", "mean"]
    assert mean["difference"] == pytest.approx(0.25)
    assert mean["difference_low"] < 0.25 < mean["difference_high"]
    assert "p" not in rows["base", "mean"]


def test_a_repeated_item_counts_in_the_accuracy_and_once_in_the_test():
    ids = [0, 1, 2, 2]
    runs = {"base": {"mmlu": predictions([0, 0, 1, 1], ids)}, "rag": {"mmlu": predictions([1, 0, 0, 0], ids)}}
    row = rows_of(runs)["rag", "mmlu"]
    assert (row["n"], row["n_distinct"], row["accuracy"]) == (4, 3, 0.25)
    assert (row["fixed"], row["broken"], row["p"]) == (1, 1, 1)
    assert row["difference"] == -0.25


def test_runs_of_different_items_are_refused():
    other = {"base": RUNS["base"], "sft": {"medqa": predictions([1] * 40, range(1, 41)), "pubmedqa": []}}
    with pytest.raises(InputError, match="sft and the base did not answer the same items of medqa"):
        tables.compare(other, "base")


def test_text_and_markdown_show_every_cell():
    rows = tables.compare(RUNS, "base")
    text = tables.text(rows)
    assert "sft" in text and "+50.0 (p<0.001)" in text and "25.0 [14.2, 40.2]" in text
    markdown = tables.markdown(rows).splitlines()
    assert markdown[0] == "| variant | medqa | pubmedqa | mean |"
    assert markdown[3].startswith("| sft | 75.0 [")
    assert markdown[3].count("<br>") == 3 and "<br>" not in markdown[2]
