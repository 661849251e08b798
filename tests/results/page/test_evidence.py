"""What a report reads: study folders and runs of any lm-eval."""

import json
import shutil

import pytest
from made_up import write_lm_eval_output, write_run

from medtasks.errors import InputError
from results.page import costs, evidence, ranking, render, retrieval, subjects


def test_a_study_is_read_with_its_base_first(whole_study):
    found = evidence.gather([whole_study])
    assert list(found.runs) == ["base", "rag", "sft"] and found.variants == ["rag", "sft"]
    assert found.name == "made_up" and found.base == "base" and found.overall == "mean"
    assert found.tasks == ["exam", "trial"]
    assert found.estimate("base", "exam")["accuracy"] == 0.5
    assert found.difference("sft", "trial")["difference"] == pytest.approx(10 / 12 - 6 / 12)
    assert [evidence.adds(run, found.runs["base"]) for run in found.runs.values()] == [
        "the model alone",
        "2 passages of books",
        "adapter sft",
    ]


def test_variants_that_are_not_evaluated_are_named(study):
    shutil.rmtree(study / "runs" / "sft")
    assert evidence.gather([study]).unfinished == ["sft"]
    shutil.rmtree(study / "runs" / "base")
    with pytest.raises(InputError, match="the base 'base' has not been evaluated"):
        evidence.gather([study])
    assert list(evidence.gather([study], base="rag").runs) == ["rag"]


def test_runs_of_any_lm_eval_are_compared_with_the_first(tmp_path):
    folders = [tmp_path / name for name in ("plain", "tuned")]
    for folder, variant in zip(folders, ("base", "sft"), strict=True):
        write_lm_eval_output(folder, variant)
    found = evidence.gather(folders)
    assert (found.base, found.variants, found.folder) == ("plain", ["tuned"], None)
    assert evidence.gather(folders, base="tuned").variants == ["plain"]
    assert list(evidence.gather(folders, names=["a", "b"]).runs) == ["a", "b"]
    assert costs.of(found) == {} and costs.losses(found) == {}
    with pytest.raises(InputError, match="--names holds 1 names, but there are 2 runs"):
        evidence.gather(folders, names=["a"])


def test_one_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no study\.json"):
        evidence.gather([tmp_path])
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        evidence.gather([tmp_path])


def test_costs_are_those_of_a_variants_own_steps(whole_study):
    found = costs.of(evidence.gather([whole_study]))
    assert found["base"].hours == {"evaluation": 0.1}
    assert found["rag"].hours == {"index": 0.1, "evaluation": 0.1} and found["rag"].joules == 6000
    assert found["sft"].hours == {"training": 0.2, "evaluation": 0.1}, "two GPUs for a tenth of an hour"
    assert found["sft"].joules is None, "the training recorded none"
    assert found["sft"].peak_bytes == 2e9 and found["sft"].devices == ["2 x NVIDIA X", "1 x NVIDIA X"]
    assert (found["sft"].training_tokens_per_second, found["sft"].evaluation_tokens_per_second) == (100, 200)
    assert costs.unit(found) == costs.Unit("GPU minutes", 60)


def test_costs_of_earlier_records_take_what_the_training_knows(study):
    for file in (study / "steps").glob("*.json"):
        file.write_text(json.dumps({"key": "k", "seconds": 7200}))
    found = costs.of(evidence.gather([study]))
    assert found["base"].devices == [] and found["base"].peak_bytes is None
    assert found["sft"].hours == {"training": 4.0, "evaluation": 2.0} and found["sft"].peak_bytes == 7e9
    assert costs.unit(found).name == "hours", "on what most steps ran is not recorded"
    (study / "trainings" / "sft" / "cost.json").write_text('{"device": "1 x cpu", "peak_memory_bytes": 5e9}')
    slow = costs.of(evidence.gather([study]))["sft"]
    assert (slow.devices, slow.peak_bytes, slow.hours["training"]) == (["1 x cpu"], 5e9, 2.0)


@pytest.mark.parametrize(("device", "n"), [("4 x NVIDIA H100", 4), ("1 x cpu", 1), ("2 CPU cores", 1), (None, 1)])
def test_devices_are_counted(device, n):
    assert costs.count(device) == n


def test_losses_of_both_stages_are_found(study):
    (study / "trainings" / "msft" / "cpt").mkdir(parents=True)
    for folder in ("msft", "msft/cpt"):
        (study / "trainings" / folder / "loss.json").write_text('[{"step": 1, "loss": 2.0}]')
    assert list(costs.losses(evidence.gather([study]))) == ["msft/cpt", "msft", "sft"]
    (study / "trainings" / "sft" / "loss.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"sft/loss\.json: not a loss history"):
        costs.losses(evidence.gather([study]))


def test_small_subjects_are_left_out(whole_study):
    found, too_small = subjects.of(evidence.gather([whole_study]))
    assert [(s.task, s.name, s.n) for s in found] == [("exam", "Anatomy", 12), ("exam", "Surgery", 10)]
    assert too_small == 1, "Dental has two questions"
    assert found[0].accuracy == {"base": 0.5, "rag": pytest.approx(5 / 12), "sft": pytest.approx(10 / 12)}


def test_ranks_are_shared_where_intervals_overlap(whole_study):
    places = ranking.ranking(evidence.gather([whole_study]))
    assert [(place.name, place.rank) for place in places] == [("sft", 1), ("base", 2), ("rag", 2)]
    assert (places[0].right, places[-1].left) == (1, 0)
    assert all(place.left < place.middle < place.right for place in places)


def test_passages_are_judged_against_the_same_model_without_them(study):
    (only,) = retrieval.of(evidence.gather([study]))
    assert (only.variant, only.partner, only.same_model) == ("rag", "base", True)
    exam = only.rows[0]
    assert (exam["fixed"], exam["broken"]) == (3, 6)
    write_run(study / "runs" / "sft+rag", "sft+rag")
    described = json.loads((study / "study.json").read_text())
    described["variants"]["sft+rag"] = {"training": "sft", "index": "books", "rag": {"k": 2}}
    (study / "study.json").write_text(json.dumps(described))
    tuned = retrieval.of(evidence.gather([study]))[1]
    assert (tuned.variant, tuned.partner) == ("sft+rag", "sft")
    assert all(row["fixed"] == row["broken"] == 0 and row["agreement"] == 1 for row in tuned.rows)
    shutil.rmtree(study / "runs" / "sft")
    alone = retrieval.of(evidence.gather([study]))[1]
    assert (alone.partner, alone.same_model) == ("base", False)


def test_model_arguments_of_earlier_versions_are_text(whole_study):
    found = evidence.gather([whole_study])
    run = found.runs["sft"]
    run.results["config"]["model_args"] = "pretrained=m,peft=trainings/x/adapter,dtype=bfloat16"
    assert evidence.adds(run, found.runs["base"]) == "adapter x"


def test_an_adapter_that_gives_a_run_its_name_makes_no_other_model(whole_study):
    """lm-eval writes the adapter's folder as the model's name."""
    found = evidence.gather([whole_study])
    base, run = found.runs["base"], found.runs["sft"]
    run.results["model_name"] = "runs/x/trainings/sft/adapter"
    run.results["config"]["model_args"] = {"pretrained": evidence.model(base), "peft": "runs/x/trainings/sft/adapter"}
    assert evidence.model(run) == evidence.model(base) and evidence.adds(run, base) == "adapter sft"


def test_another_model_is_named(whole_study):
    found = evidence.gather([whole_study])
    found.runs["rag"].results["model_name"] = "org/Other-2B"
    assert evidence.adds(found.runs["rag"], found.runs["base"]) == "org/Other-2B + 2 passages of books"
    named = {"runs/x/trainings/full/model": "model full", "/a/cpt/merged": "merged cpt", "../models/Tiny": "Tiny"}
    for folder, name in named.items():
        found.runs["rag"].results["model_name"] = folder
        assert evidence.adds(found.runs["rag"], found.runs["base"]) == f"{name} + 2 passages of books"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"rag_context": "retrieved", "rag_mode": "always"}, "2 passages of books"),
        ({"rag_context": "random"}, "2 random passages of books"),
        ({"rag_context": "shuffled", "rag_mode": "gate+mix"}, "2 shuffled passages of books (gate+mix)"),
        ({"rag_context": "oracle", "rag_k": 1}, "the item's own context"),
        (
            {"rag_context": "oracle", "rag_k": 1, "rag_examples": {"shots": 4}},
            "the item's own context after 4 solved questions",
        ),
        (
            {"rag_context": "random", "rag_examples": {"shots": 4}},
            "2 random passages of books after 4 random solved questions",
        ),
        ({"rag_corpus": {"name": "items:medqa", "solved": True}}, "2 solved questions of items:medqa"),
        ({"rag_corpus": {"name": "a, b, c"}}, "2 passages of a, b, c"),
        ({"rag_corpus": {"name": "a, b, c, d"}}, "2 passages of a and 3 others"),
        ({"rag_context": "none", "rag_k": 0, "rag_examples": {"shots": 4}}, "the model alone"),
        ({"rag_context": "none", "rag_k": 0}, "the model alone"),
        ({"rag_context": "none", "rag_k": 0, "rag_mode": "calibrate"}, "no passages (calibrate)"),
    ],
)
def test_control_arms_and_modes_are_named(whole_study, config, said):
    found = evidence.gather([whole_study])
    found.runs["rag"].results["config"] |= config
    assert evidence.adds(found.runs["rag"], found.runs["base"]) == said


def test_runs_with_other_prompts_are_told(tmp_path):
    folders = [tmp_path / name for name in ("plain", "tuned")]
    for folder, variant in zip(folders, ("base", "sft"), strict=True):
        write_lm_eval_output(folder, variant)
    assert not evidence.gather(folders).prompts_differ
    for file in folders[1].rglob("*.json*"):
        text = file.read_text().replace('"prompt_hash": "', '"prompt_hash": "f')
        file.write_text(text.replace('"n-shot": {"exam": 0, "trial": 0}', '"n-shot": {"exam": 2, "trial": 2}'))
    found = evidence.gather(folders, allow=["prompts"])
    assert found.prompts_differ
    text = render.report(found)[0]
    assert "plain: no examples, no chat template; tuned: 2 examples, no chat template" in text
    assert (
        "but not with the same prompts, which was allowed" in text and "a comparison of others is refused" not in text
    )
