"""The answer in words says what the comparison's numbers say."""

from types import SimpleNamespace

import pytest

from results.page import words


def difference(variant, task, value, p, p_holm):
    row = {"variant": variant, "task": task, "base": "base", "difference": value, "p": p, "p_holm": p_holm}
    return row | {"low": value - 0.03, "high": value + 0.03, "detectable": 0.041}


class Found(SimpleNamespace):
    prompts_differ = False

    def estimate(self, variant, task):
        return {"accuracy": 0.465, "n": 1800}

    def difference(self, variant, task):
        return next(row for row in self.rows if (row["variant"], row["task"]) == (variant, task))


def evidence(rows, tasks=("a", "b"), base="base"):
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    return Found(rows=rows, variants=variants, tasks=list(tasks), base=base, overall="mean" if len(tasks) > 1 else "a")


def test_better_worse_and_untold_variants_are_named():
    rows = [
        difference("sft", "mean", 0.04, 0.001, 0.012),
        difference("rag", "mean", -0.05, 0.0001, 0.0004),
        difference("msft", "mean", 0.01, 0.4, 1.0),
    ]
    rows += [difference(v, t, 0.18 if (v, t) == ("sft", "a") else 0.0, 0.5, 0.01 if (v, t) == ("sft", "a") else 1.0)
             for v in ("sft", "rag", "msft") for t in "ab"]  # fmt: skip
    assert words.answer(evidence(rows)) == [
        "The base answers 46.5% of 1,800 questions correctly, on average over 2 tasks.",
        "Of 3 variants, 1 is better than base beyond chance: sft by +4.0 points [+1.0, +7.0] (Holm p = 0.012); 1 is "
        "worse than base beyond chance: rag by −5.0 points [−8.0, −2.0] (Holm p < 0.001).",
        "Not told from chance: msft by +1.0 points [−2.0, +4.0] (Holm p = 1.000).",
        "Of the 6 differences on single tasks, 1 is beyond chance: sft on a (+18.0).",
        "The smallest difference that these questions would show in 4 of 5 studies is 4.1 points.",
    ]


def test_no_difference_is_said_to_be_none():
    said = words.answer(evidence([difference("sft", "a", 0.04, 0.01, 0.06)], tasks=["a"], base="plain"))
    assert said[0] == "The base, plain, answers 46.5% of 1,800 questions correctly, of a."
    assert said[1] == "The only variant is not better or worse than plain beyond chance."
    assert said[2].startswith("Not told from chance: sft")


def test_prompts_that_differ_are_said_to():
    found = evidence([difference("sft", "a", 0.04, 0.01, 0.06)], tasks=["a"])
    found.prompts_differ = True
    assert "The prompts differ between the runs, so differences hold what the prompts do." in words.answer(found)


def test_many_differences_on_tasks_are_cut_to_the_largest():
    tasks = [f"t{i}" for i in range(8)]
    rows = [difference("sft", "mean", 0.04, 0.001, 0.012)]
    rows += [difference("sft", task, i / 100, 0.0, 0.0) for i, task in enumerate(tasks)]
    said = words.answer(evidence(rows, tasks))[2]
    assert said.startswith("Of the 8 differences on single tasks, 8 are beyond chance: sft on t7 (+7.0), sft on t6")
    assert said.endswith("sft on t2 (+2.0) are the 6 largest.")


def test_many_variants_are_cut_to_the_best():
    rows = [difference(f"v{i}", "a", i / 100, 0.5, 1.0) for i in range(8)]
    said = words.answer(evidence(rows, tasks=["a"]))[2]
    assert said.startswith("Not told from chance: v7 by +7.0") and said.endswith("(Holm p = 1.000) and 2 more.")


def test_a_base_alone_is_only_described():
    assert len(words.answer(evidence([]))) == 1


@pytest.mark.parametrize(("value", "text"), [(-0.0004, "0.0"), (0.0, "0.0"), (0.04, "+4.0"), (-0.041, "−4.1")])
def test_points_have_a_true_minus_and_zero_no_sign(value, text):
    assert words.points(value) == text
