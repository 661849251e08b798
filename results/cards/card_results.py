"""What a model card says of results: how they were measured, tables, what they show and what they do not."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medtasks import benchmarks, catalogue
from results import harness_output
from results.boards import leaderboard
from results.cards.evidence import Evidence
from results.comparison import MEAN, SIGNIFICANT, is_significant
from results.rounding import percent
from results.runs import Run

SUBSET = ", subset"
"""Ends the catalogue's description of a split of which only a part is asked."""


def section(evidence: Evidence) -> dict:
    """What the template shows: ``setting, estimates, differences, tests, readings, notes``."""
    compared = [(run, evidence.differences(run)) for run in evidence.adapter]
    return {
        "setting": _setting(evidence.adapter[0]),
        "estimates": evidence.estimates(),
        "differences": [row for _, rows in compared for row in rows],
        "tests": (
            "Intervals: Wilson's for accuracies, paired bootstrap over items for differences. p: McNemar's exact test "
            "on the same items, sign flips for the mean; corrected by Holm's method for all "
            f"{len(evidence.comparison['comparisons'])} comparisons that were made with these runs."
        ),
        "readings": [(run.name, reading(rows)) for run, rows in compared if rows],
        "notes": _notes(evidence),
    }


def headline(evidence: Evidence) -> str:
    """The mean (or the one task) of a run of the adapter, alone if there is one, and its difference to the base."""
    run = next((run for run in evidence.adapter if not uses_passages(run)), evidence.adapter[0])
    share = [row for row in evidence.estimates() if row["variant"] == run.name][-1]
    what = f"the mean of {len(evidence.tasks)} tasks" if share["task"] == MEAN else f"`{share['task']}`"
    text = f"Accuracy, {what}, {share['n']:,} items: {_accuracy(share)}"
    if not (rows := evidence.differences(run)):
        return f"{text}."
    row = rows[-1]
    verdict = f"{'' if is_significant(row) else 'not '}beyond chance once corrected for the number of tests"
    return f"{text}; {percent(row['difference'], '+')} points [{_points(row)}] to its base, {verdict}."


def _accuracy(row: dict) -> str:
    return f"{percent(row['accuracy'])}% [{percent(row['low'])}, {percent(row['high'])}]"


def _points(row: dict) -> str:
    return f"{percent(row['low'], '+')}, {percent(row['high'], '+')}"


def _setting(run: Run) -> str:
    """How the adapter's runs were asked."""
    results = run.results
    shots = sorted({str(results.get("n-shot", {}).get(task, "an unknown number of ")) for task in run.tasks})
    template = "in the model's chat template" if results.get("chat_template") else "without a chat template"
    scored = all(row["loglikelihoods"] for rows in run.tasks.values() for row in rows)
    answer = "the option of the highest log-likelihood counts as the answer" if scored else "the answer is generated"
    dtype = str(results["config"].get("model_dtype") or "an unknown precision").removeprefix("torch.")
    version = results.get("lm_eval_version", "of an unknown version")
    return f"lm-evaluation-harness {version}, {' and '.join(shots)}-shot, {template}, base in {dtype}; {answer}."


def _notes(evidence: Evidence) -> list[str]:
    """What must be known to read the tables."""
    notes = [_of_passages(run) for run in evidence.adapter if uses_passages(run)]
    tasks = evidence.adapter[0].tasks
    constant = {task: share for task in evidence.tasks if (share := _constant(tasks[task])) is not None}
    if constant:
        earned = ", ".join(f"{task} {percent(share)}%" for task, share in constant.items())
        notes.append(f"Always giving the commonest right answer would earn: {earned}.")
    notes += [note for task in evidence.tasks for note in _of_task(task, len(tasks[task]))]
    return notes + [f"`{task}` is left out: {reason}." for task, reason in evidence.comparison["left_out"].items()]


def _of_passages(run: Run) -> str:
    config = run.results["config"]
    corpus = config.get("rag_corpus", {}).get("name", "a corpus that is not recorded")
    k = config.get("rag_k", "some")
    return (
        f"`{run.name}` also read {k} passages of {Path(corpus).name} with each question: it is not the adapter alone."
    )


def _constant(rows: Sequence[dict]) -> float | None:
    """Accuracy of giving the answer that is right most often in these items; None where no options are recorded."""
    golds = Counter(row["gold"] for row in rows)
    return None if None in golds else max(golds.values()) / len(rows)


def _of_task(task: str, items: int) -> list[str]:
    known, notes = benchmark_of(task), []
    if known is None:
        notes.append(f"`{task}` is no task of medadapt's; whether {items:,} items are the whole of it was not checked.")
    elif items != known.about.items:
        notes.append(f"`{task}`: {items:,} items asked; its benchmark ({known.about.split}) has {known.about.items:,}.")
    elif SUBSET in known.about.split:
        whole = known.about.split.removesuffix(SUBSET)
        notes.append(f"`{task}`: {items:,} items chosen from {known.dataset} ({whole}), not the whole benchmark.")
    if known and known.dataset == benchmarks.PUBMEDQA and "star" not in task:
        notes.append(f"`{task}` shows the abstract that holds the answer: it asks for reading more than for knowledge.")
    return notes


def uses_passages(run: Run) -> bool:
    """Whether passages were added to the prompts, so that the run says something of more than the adapter."""
    return harness_output.has_passages(run.results)


def benchmark_of(task: str) -> catalogue.Task | None:
    """What is known of a task's data: ours, or the leaderboard's as lm-eval names them."""
    known = catalogue.tasks()
    return known.get(task) or known.get(leaderboard.TASKS.get(task, ""))


def is_official(run: Run, task: str) -> bool:
    """Whether the run asked as many items of a task as its official test set has."""
    known = benchmark_of(task)
    return known is not None and len(run.tasks[task]) == known.about.items


def eval_results(evidence: Evidence) -> list:
    """The card's ``model-index``: accuracy of the adapter alone on each official test set (shares, 4 decimals).

    Returns:
        ``huggingface_hub.EvalResult`` objects.
    """
    from huggingface_hub import EvalResult

    found = []
    for run in evidence.adapter:
        for task, rows in run.tasks.items():
            if uses_passages(run) or not is_official(run, task):
                continue
            known = benchmark_of(task)
            found.append(
                EvalResult(
                    task_type="multiple-choice",
                    task_name="Multiple choice",
                    dataset_type=known.dataset,
                    dataset_name=task,
                    dataset_split=known.about.split.removesuffix(SUBSET),
                    dataset_args={"num_few_shot": run.results.get("n-shot", {}).get(task)},
                    metric_type="accuracy",
                    metric_name=f"accuracy on {task}",
                    metric_value=round(sum(row["correct"] for row in rows) / len(rows), 4),
                )
            )
    return found


def reading(rows: Sequence[dict]) -> list[str]:
    """What the differences of one run to its base show and do not show, a sentence each; rows end with the mean's."""
    tasks = [row for row in rows if row["task"] != MEAN]
    clear = [row for row in tasks if is_significant(row)]
    sentences = [
        f"{word} than the base beyond chance (corrected p < {SIGNIFICANT}): {_named(found)}."
        for word, sign in (("Better", 1), ("Worse", -1))
        if (found := [row for row in clear if row["difference"] * sign > 0])
    ]
    if unclear := [row for row in tasks if not is_significant(row)]:
        sentences.append(f"Not told apart from the base by these items, nor shown equal: {_named(unclear)}.")
    sentences += [_of_mean(row) for row in rows if row["task"] == MEAN]
    return sentences + _of_calibration(rows[-1]) + _of_power(tasks)


def _named(rows: Sequence[dict]) -> str:
    return ", ".join(f"{row['task']} ({percent(row['difference'], '+')} points)" for row in rows)


def _of_mean(row: dict) -> str:
    verdict = "beyond chance" if is_significant(row) else "not beyond chance"
    return (
        f"The mean over the tasks changes by {percent(row['difference'], '+')} points, {verdict} by the same measure."
    )


def _of_calibration(row: dict) -> list[str]:
    if row["ece_difference"] is None:
        return []
    change, low, high = row["ece_difference"], row["ece_low"], row["ece_high"]
    word = "worse" if low > 0 else "better" if high < 0 else "not told apart from the base's"
    span = f"{change:+.3f} [{low:+.3f}, {high:+.3f}]"
    return [f"Calibration is {word}: the expected calibration error changes by {span} (0 is perfect)."]


def _of_power(tasks: Sequence[dict]) -> list[str]:
    seen = [row["detectable"] for row in tasks if row["detectable"] is not None]
    if not seen:
        return []
    low, high = percent(min(seen)), percent(max(seen))
    span = low if low == high else f"{low} to {high}"
    return [
        f"Tasks of these sizes show a true difference of {span} points in 80% of such samples, before the correction; "
        "a smaller one may well go unseen."
    ]
