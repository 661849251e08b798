"""What `compare` says of runs, and which it refuses."""

from dataclasses import replace

import pytest
from made_runs import answered, prediction, run

from medtasks.errors import InputError
from results import comparison, runs, statistics

BASE = [1, 0, 0, 0] * 10
BETTER = [1, 1, 1, 0] * 10
HALF = [1, 1, 0, 0] * 15


def study():
    return [
        run("base", medqa=answered(BASE), pubmedqa=answered(HALF)),
        run("sft", medqa=answered(BETTER), pubmedqa=answered(HALF)),
        run("rag", medqa=answered(BASE[::-1]), pubmedqa=answered(HALF[::-1])),
    ]


def cell(compared, part, *key):
    names = ("variant", "task") if part == "estimates" else ("variant", "base", "task")
    found = [row for row in compared[part] if tuple(row[name] for name in names) == key]
    assert len(found) == 1
    return found[0]


def test_estimates_and_comparisons_of_every_task_the_mean_and_the_pool():
    compared = comparison.compare(study(), "base")
    tasks = ["medqa", "pubmedqa", "mean", "pooled"]
    assert [(r["variant"], r["task"]) for r in compared["estimates"]] == [
        (v, t) for v in ("base", "sft", "rag") for t in tasks
    ]
    assert [(r["variant"], r["task"]) for r in compared["comparisons"]] == [
        (v, t) for v in ("sft", "rag") for t in tasks
    ]
    assert (compared["base"], compared["left_out"]) == ("base", {})
    medqa = cell(compared, "comparisons", "sft", "base", "medqa")
    assert (medqa["n"], medqa["n_distinct"], medqa["fixed"], medqa["broken"]) == (40, 40, 20, 0)
    assert medqa["difference"] == 0.5 and medqa["low"] < 0.5 < medqa["high"]
    assert medqa["p"] == pytest.approx(2 * 0.5**20)
    assert medqa["agreement"] == 0.5
    assert cell(compared, "comparisons", "sft", "base", "pubmedqa")["p"] == 1
    mean, pooled = (cell(compared, "comparisons", "sft", "base", task) for task in ("mean", "pooled"))
    assert mean["difference"] == pytest.approx(0.25) and pooled["difference"] == pytest.approx(20 / 100)
    assert (mean["agreement"], pooled["agreement"]) == pytest.approx((0.75, 0.8))
    assert pooled["p"] == medqa["p"] == 1.907348633e-06 and mean["fixed"] == pooled["fixed"] == 20
    assert cell(compared, "estimates", "sft", "mean")["accuracy"] == pytest.approx((0.75 + 0.5) / 2)
    assert cell(compared, "estimates", "sft", "pooled")["accuracy"] == pytest.approx(60 / 100)
    expected = statistics.accuracy(BETTER)
    estimate = cell(compared, "estimates", "sft", "medqa")
    found = (estimate["accuracy"], estimate["low"], estimate["high"])
    assert found == pytest.approx((expected.value, expected.low, expected.high))


def test_one_task_has_neither_mean_nor_pool():
    compared = comparison.compare([run("a", t=answered(BASE)), run("b", t=answered(BETTER))], "a")
    assert {row["task"] for row in compared["estimates"] + compared["comparisons"]} == {"t"}


def test_p_values_are_corrected_over_the_whole_table():
    rows = comparison.compare(study(), "base", all_pairs=True)["comparisons"]
    assert len(rows) == 3 * 4
    assert [row["p_holm"] for row in rows] == pytest.approx(statistics.holm([row["p"] for row in rows]))


def test_all_pairs_are_the_later_against_the_earlier_and_all_against_the_base():
    rows = comparison.compare(study(), "sft", all_pairs=True)["comparisons"]
    assert [(r["variant"], r["base"]) for r in rows if r["task"] == "mean"] == [
        ("base", "sft"),
        ("rag", "sft"),
        ("rag", "base"),
    ]


def test_the_order_of_documents_and_of_runs_does_not_matter():
    shuffled = [replace(r, tasks={task: rows[::-1] for task, rows in r.tasks.items()}) for r in study()]
    compared = comparison.compare(study(), "base")
    assert comparison.compare(shuffled, "base") == compared
    other_order = comparison.compare(shuffled[::-1], "base")
    for row in compared["comparisons"]:
        assert cell(other_order, "comparisons", row["variant"], "base", row["task"]) == row


def test_a_repeated_item_counts_in_the_accuracy_and_once_in_the_test():
    items = [0, 1, 2, 2]
    compared = comparison.compare(
        [run("base", t=answered([0, 0, 1, 1], items)), run("rag", t=answered([1, 0, 0, 0], items))], "base"
    )
    row = cell(compared, "comparisons", "rag", "base", "t")
    assert (row["n"], row["n_distinct"], row["difference"]) == (4, 3, -0.25)
    assert (row["fixed"], row["broken"], row["p"]) == (1, 1, 1)


def versions(correct):
    """Four versions of every item."""
    return [prediction(f"{i // 4}-{i % 4}", c, group=f"item-{i // 4}") for i, c in enumerate(correct)]


def test_versions_of_an_item_are_one_observation():
    base = run("base", robust=versions([0, 0, 0, 0] * 12))
    sft = run("sft", robust=versions([1, 1, 1, 1] * 6 + [0, 0, 0, 0] * 6))
    compared = comparison.compare([base, sft], "base")
    row = cell(compared, "comparisons", "sft", "base", "robust")
    assert (row["n"], row["n_distinct"], row["fixed"], row["broken"]) == (48, 12, 6, 0)
    assert row["p"] == pytest.approx(2 * 0.5**6)
    once = comparison.compare([run("base", t=answered([0] * 12)), run("sft", t=answered([1] * 6 + [0] * 6))], "base")
    alone = cell(once, "comparisons", "sft", "base", "t")
    for name in ("difference", "low", "high", "p", "detectable"):
        assert row[name] == pytest.approx(alone[name])


def test_calibration_is_of_the_runs_and_their_difference():
    compared = comparison.compare(study(), "base")
    row, base, sft = (
        cell(compared, "comparisons", "sft", "base", "medqa"),
        cell(compared, "estimates", "base", "medqa"),
        cell(compared, "estimates", "sft", "medqa"),
    )
    for name in ("ece", "brier"):
        assert row[f"{name}_difference"] == pytest.approx(sft[name] - base[name])
        assert row[f"{name}_low"] < row[f"{name}_difference"] < row[f"{name}_high"]
        mean = cell(compared, "estimates", "sft", "mean")[name]
        assert mean == pytest.approx((sft[name] + cell(compared, "estimates", "sft", "pubmedqa")[name]) / 2)


def test_written_answers_have_agreement_but_no_calibration():
    written = {"loglikelihoods": [], "choice": None, "gold": None}
    compared = comparison.compare(
        [
            run("base", a=answered([1, 0, 1, 0], **written), b=answered(BASE)),
            run("cot", a=answered([1, 1, 1, 0], **written), b=answered(BETTER)),
        ],
        "base",
    )
    row = cell(compared, "comparisons", "cot", "base", "a")
    assert row["agreement"] == 0.75
    for task in ("a", "mean", "pooled"):
        assert cell(compared, "estimates", "cot", task)["ece"] is None
        assert cell(compared, "comparisons", "cot", "base", task)["brier_low"] is None
    assert cell(compared, "estimates", "cot", "b")["ece"] is not None


def test_tasks_that_not_every_run_has_are_left_out():
    compared = comparison.compare([*study(), run("cpt", medqa=answered(BETTER), extra=answered(BASE))], "base")
    assert compared["left_out"] == {"pubmedqa": "not in cpt", "extra": "not in base, sft, rag"}
    assert {row["task"] for row in compared["estimates"]} == {"medqa"}


def test_a_run_without_hashes_is_joined_on_ids():
    older = run("older", medqa=answered(BASE, doc_hash=None, prompt_hash=None), pubmedqa=answered(HALF))
    compared = comparison.compare([older, study()[1]], "older")
    assert cell(compared, "comparisons", "sft", "older", "medqa")["fixed"] == 20


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            [run("sft", medqa=answered(BASE, range(1, 41)))],
            "same items of medqa: 1 of 40 only in sft, 1 of 40 only in b",
        ),
        (
            [run("sft", medqa=answered(BASE[:30]))],
            "same items of medqa: 0 of 30 only in sft, 10 of 40 only in base; eva",
        ),
        ([run("sft", medqa=answered(BASE, prompt_hash="x"))], "asked 40 of 40 items of medqa .* --allow prompts"),
        (
            [run("sft", 2.0, medqa=answered(BASE))],
            "sft answered version 2.0 of medqa, base version 1.0; .*--allow versions",
        ),
        ([run("base", medqa=answered(BASE))], "2 runs are named 'base'; .*--names"),
        ([run("sft", bioasq=answered(BASE))], r"no task in common \(base: medqa; sft: bioasq\)"),
    ],
)
def test_runs_that_were_not_asked_the_same_are_refused(others, message):
    with pytest.raises(InputError, match=message):
        comparison.compare([run("base", medqa=answered(BASE)), *others], "base")


def test_an_unknown_base_and_an_unknown_allowance_are_named():
    with pytest.raises(InputError, match="no run is named 'cpt'; --base takes one of base, sft, rag"):
        comparison.compare(study(), "cpt")
    with pytest.raises(InputError, match="'items' cannot be allowed; --allow takes prompts, versions"):
        comparison.compare(study(), "base", allow=["items"])


def test_other_prompts_and_versions_can_be_allowed():
    base, other = run("base", medqa=answered(BASE)), run("sft", 2.0, medqa=answered(BETTER, prompt_hash="x"))
    compared = comparison.compare([base, other], "base", allow=["prompts", "versions"])
    assert compared["comparisons"][0]["fixed"] == 20


def test_the_published_runs_keep_their_accuracies():
    """Those that lm-eval itself reported."""
    folder = "results/runs/published_subsets_1.5b/runs"
    read = [runs.read(f"{folder}/{name}") for name in ("base", "sft")]
    compared = comparison.compare(read, "base")
    for answers in read:
        for task, reported in answers.results["results"].items():
            assert cell(compared, "estimates", answers.name, task)["accuracy"] == pytest.approx(reported["acc,none"])
    assert cell(compared, "comparisons", "sft", "base", "mmlu_med_sub")["n_distinct"] == 188
