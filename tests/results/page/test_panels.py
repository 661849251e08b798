"""Panels are there when their data is, and a sentence says what is missing when it is not."""

import json
import shutil

import pytest
from made_up import write_lm_eval_output

from results.page import evidence, panels


def built(*paths):
    return panels.build(evidence.gather(list(paths)))


def test_a_whole_study_has_every_panel(whole_study):
    shown, missing = built(whole_study)
    assert [panel.id for panel in shown] == ["differences", "subjects", "calibration", "retrieval", "training", "cost"]
    assert missing == []
    assert all(panel.charts and panel.text for panel in shown)


def test_plain_runs_say_what_they_lack(tmp_path):
    for variant in ("base", "sft"):
        write_lm_eval_output(tmp_path / variant, variant)
    shown, missing = built(tmp_path / "base", tmp_path / "sft")
    assert [panel.id for panel in shown] == ["differences", "subjects", "calibration"]
    assert [sentence.split(":")[0] for sentence in missing] == ["Retrieval", "Training", "Cost"]


def test_runs_without_subjects_or_probabilities_say_so(study):
    for file in study.glob("runs/*/predictions.jsonl"):
        rows = [json.loads(line) | {"subject": "", "loglikelihoods": []} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown, missing = built(study)
    assert [panel.id for panel in shown] == ["differences", "retrieval", "training", "cost"]
    assert missing[0].startswith("Subjects: no heat map, because the subjects of the questions are not recorded")
    assert missing[1].startswith("Calibration: not all answers are choices")


def test_a_base_alone_has_nothing_to_compare(study):
    for name in ("rag", "sft"):
        shutil.rmtree(study / "runs" / name)
    shown, missing = built(study)
    assert [panel.id for panel in shown] == ["calibration", "training", "cost"]
    assert missing[0].startswith("Differences: only base has been evaluated")
    assert missing[1] == "Subjects: no heat map, because there is nothing to compare."


def test_the_calibration_table_has_the_comparisons_numbers(found):
    table = panels.calibrated(found).table
    assert [row[0] for row in table.rows] == ["base", "rag", "sft"]
    assert table.rows[1][1] == f"{found.estimate('rag', 'pooled')['ece']:.3f}"
    assert table.rows[0][3:] == ["", ""] and "[" in table.rows[2][3]
    assert table.numeric == [False, True, True, True, True]


def test_the_cost_table_leaves_out_what_nothing_recorded(study):
    table = panels.spent(evidence.gather([study])).table
    assert table.columns == [
        "variant", "index", "training", "evaluation", "all", "energy, kJ", "peak memory, GB", "training, tokens/s",
        "evaluation, tokens/s", "device",
    ]  # fmt: skip
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["rag"] == ["6.0 min", "–", "6.0 min", "12.0 min", "6.0", "2.0", "–", "200", "1 x NVIDIA X"]
    for file in (study / "steps").glob("*.json"):
        file.write_text(json.dumps({"seconds": 90}))
    panel = panels.spent(evidence.gather([study]))
    assert "energy, kJ" not in panel.table.columns
    assert panel.text.endswith("Not recorded: energy, kJ; evaluation, tokens/s.")
    (study / "steps" / "index-books.json").unlink()
    panel = panels.spent(evidence.gather([study]))
    assert [row[0] for row in panel.table.rows] == ["base", "sft"], "half a cost is none"
    assert panel.text.endswith("Without records of all their steps: rag.")


def test_the_retrieval_table_says_shares_and_counts(found):
    panel = panels.retrieved(found)
    assert panel.table.rows[0] == ["rag against base", "exam", "12.5% (3)", "25.0% (6)", "−12.5", "62.5%"]
    assert panel.text.endswith("the same model without passages.")


def test_a_partner_that_is_another_model_is_said(study):
    results = study / "runs" / "rag" / "results.json"
    changed = json.loads(results.read_text())
    changed["config"]["model_args"]["peft"] = "other/adapter"
    results.write_text(json.dumps(changed))
    panel = panels.retrieved(evidence.gather([study]))
    assert "There is no run of the same model without passages for rag" in panel.text


def test_the_training_table_says_what_was_trained(found):
    assert panels.trained(found).table.rows == [["sft", "sft", "1,234", "29", "1", "3.000", "0.100"]]


@pytest.mark.parametrize(("hours", "text"), [(0.01, "36 s"), (0.5, "30.0 min"), (30, "30.0 h")])
def test_durations_are_readable(hours, text):
    assert panels._duration(hours) == text
