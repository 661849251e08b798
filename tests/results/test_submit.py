"""A run becomes a leaderboard file only if it is the leaderboard's nine tasks as the leaderboard asks them."""

import json
from pathlib import Path

import pytest
from board_files import harness_results, write_results

from medtasks.errors import InputError
from results.boards import leaderboard, submission
from results.commands.submit import submit

NINE = list(leaderboard.TASKS)


def submitted(tmp_path, results, *arguments):
    write_results(tmp_path / "run", results)
    assert submit([str(tmp_path / "run"), "--out", str(tmp_path / "board"), *arguments]) == 0
    return next((tmp_path / "board").rglob("*.json"))


def refused(tmp_path, results, *arguments):
    write_results(tmp_path / "run", results)
    with pytest.raises(InputError) as raised:
        submit([str(tmp_path / "run"), "--out", str(tmp_path / "board"), *arguments])
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "board").exists()
    return str(raised.value)


def change(results, task, **entries):
    """``results`` with other entries of one task: ``shots``, ``asked``, ``metrics``."""
    results = json.loads(json.dumps(results))
    results["n-shot"][task] = entries.get("shots", 0)
    if "asked" in entries:
        results["n-samples"][task]["effective"] = entries["asked"]
    results["results"][task] |= entries.get("metrics", {})
    return results


def without(results, *tasks):
    results = json.loads(json.dumps(results))
    for task in tasks:
        for part in ("results", "configs", "n-shot", "n-samples", "versions"):
            results[part].pop(task)
    return results


def test_the_file_is_that_of_the_leaderboard(tmp_path, capsys):
    file = submitted(tmp_path, harness_results())
    assert file.relative_to(tmp_path / "board").as_posix() == "acme/doctor-1b/results_2024-04-24T23-06-40.250000.json"
    content = json.loads(file.read_text())
    assert content["config"] == {"model_dtype": "bfloat16", "model_name": "acme/doctor-1b", "model_sha": "0123abc"}
    assert list(content["results"]) == NINE
    assert content["results"]["medmcqa"] == {
        "acc,none": 0.3,
        "acc_stderr,none": pytest.approx((0.3 * 0.7 / 4182) ** 0.5),
    }
    assert capsys.readouterr().out == f"{file}: valid\n"


def test_our_suite_and_lm_evals_give_the_same_bytes(tmp_path):
    theirs = submitted(tmp_path / "theirs", harness_results(ours=False))
    ours = submitted(tmp_path / "ours", harness_results(ours=True))
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.name == theirs.name


def test_the_nine_are_those_of_lm_evals_group_and_of_our_suite():
    import lm_eval.tasks
    import yaml

    from medtasks import TASKS_DIR

    group = Path(lm_eval.tasks.__file__).parent / "benchmarks" / "multimedqa" / "multimedqa.yaml"
    members = yaml.safe_load(group.read_text())["task"]
    assert {m if isinstance(m, str) else m["task"] for m in members} == set(NINE)
    suite = yaml.safe_load((TASKS_DIR / "open_medical_llm" / "open_medical_llm.yaml").read_text())
    assert {member["task_alias"]: member["task"] for member in suite["task"]} == leaderboard.TASKS


def test_sizes_are_those_of_the_official_test_sets():
    assert submission.sizes() == {
        "medmcqa": 4183,
        "medqa_4options": 1273,
        "mmlu_anatomy": 135,
        "mmlu_clinical_knowledge": 265,
        "mmlu_college_biology": 144,
        "mmlu_college_medicine": 173,
        "mmlu_medical_genetics": 100,
        "mmlu_professional_medicine": 272,
        "pubmedqa": 500,
    }


def test_our_tasks_are_known_by_what_lm_eval_writes_of_them():
    """The configurations of the real tasks: medqa passes as medqa_4options, medmcqa and pubmedqa do not pass."""
    from medtasks import catalogue

    manager = catalogue.our_tasks()
    results = harness_results(ours=True)
    for name in ("medqa", "medmcqa", "pubmedqa", "pubmedqa_lmeval"):
        written = json.dumps(manager.load([name])["tasks"][name].dump_config(), default=str)
        results["configs"][name] = json.loads(written)
        assert leaderboard.is_ours(results, name)
    tasks, _ = submission.select(results, "run")
    assert tasks == {ours: name for name, ours in leaderboard.TASKS.items()}
    for name in ("medmcqa_lmeval", "pubmedqa_lmeval"):
        results["configs"].pop(name)
    with pytest.raises(InputError, match="medmcqa has medadapt's prompt, medmcqa_lmeval the leaderboard's"):
        submission.select(results, "run")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (change(harness_results(), "medmcqa", shots=5), "medmcqa was 5-shot, not 0-shot"),
        (change(harness_results(), "medmcqa", asked=20), "medmcqa was asked 20 of its 4,183 items"),
        (change(harness_results(), "medmcqa", metrics={"acc,none": float("nan")}), "medmcqa has no acc,none"),
        (without(harness_results(), "pubmedqa", "mmlu_anatomy"), "them: no mmlu_anatomy, pubmedqa; evaluate"),
        (
            change(harness_results(ours=True), "mmlu_med_lmeval_anatomy", asked=6),
            "mmlu_med_lmeval_anatomy was asked 6 of its 135 items",
        ),
    ],
)
def test_tasks_that_are_not_the_leaderboards_are_named(tmp_path, results, message):
    line = refused(tmp_path, results)
    assert message in line
    assert "medadapt run --model hf --model_args pretrained=acme/doctor-1b,dtype=bfloat16 --tasks open_medical" in line
    assert line.endswith("or write the others with --partial")


def test_our_prompts_do_not_pass_for_the_leaderboards(tmp_path):
    results = harness_results()
    for task in ("medmcqa", "pubmedqa"):
        results["configs"][task]["dataset_kwargs"] = {"benchmark": task}
    line = refused(tmp_path, results)
    assert "medmcqa has medadapt's prompt, medmcqa_lmeval the leaderboard's; pubmedqa has" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chat_template": "{{ messages }}"}, "a chat template was applied"),
        ({"system_instruction": "You are a doctor."}, "a system instruction was given"),
        ({"config": {"model": "rag", "model_args": "pretrained=a/b,index=x"}}, "passages were added to the prompts"),
    ],
)
def test_prompts_that_the_leaderboard_does_not_use_never_pass(tmp_path, changes, message):
    line = refused(tmp_path, harness_results(**changes), "--partial")
    assert message in line and "open_medical_llm" in line
    assert "index" not in line


def test_partial_writes_what_is_right_and_says_so(tmp_path, capsys):
    results = change(without(harness_results(), "pubmedqa"), "medmcqa", shots=5)
    content = json.loads(submitted(tmp_path, results, "--partial").read_text())
    assert list(content["results"]) == [task for task in NINE if task not in ("medmcqa", "pubmedqa")]
    assert content["config"]["partial"] is True
    assert "partial: 2 of 9 tasks are missing" in capsys.readouterr().out
    whole = json.loads(submitted(tmp_path / "whole", harness_results(), "--partial").read_text())
    assert "partial" not in whole["config"]


def test_nothing_right_is_refused_even_partially(tmp_path):
    line = refused(tmp_path, without(harness_results(), *NINE), "--partial")
    assert line.endswith("--output_path DIR`")


def test_name_and_commit(tmp_path):
    def config(results, *arguments):
        return json.loads(submitted(tmp_path / str(len(list(tmp_path.iterdir()))), results, *arguments).read_text())[
            "config"
        ]

    given = config(harness_results(), "--model-name", "me/mine", "--sha", "fff")
    assert (given["model_name"], given["model_sha"]) == ("me/mine", "fff")
    adapter = harness_results()
    adapter["config"] |= {"model_args": "pretrained=acme/doctor-1b,peft=me/adapter", "peft_sha": "eee"}
    assert (config(adapter)["model_name"], config(adapter)["model_sha"]) == ("me/adapter", "eee")
    local = harness_results()
    local["config"] |= {"model_args": {"pretrained": ".models/doctor"}, "model_sha": "", "model_dtype": None}
    line = refused(tmp_path / "local", local)
    assert line.endswith("the model was .models/doctor, no Hub id; give --model-name ORG/NAME")
    named = config(local, "--model-name", "me/mine")
    assert (named["model_sha"], named["model_dtype"]) == ("", "unknown")
    assert "model_name" in refused(tmp_path / "bad", harness_results(), "--model-name", "no-organisation")


def test_a_studys_run_folder_without_samples(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.json").write_text(json.dumps(harness_results()))
    assert submit([str(run), "--out", str(tmp_path / "board")]) == 0
    assert (tmp_path / "board" / "acme" / "doctor-1b").is_dir()


def test_a_run_that_is_not_there_or_not_whole(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        submit([str(tmp_path / "nowhere")])
    results = harness_results()
    results.pop("date")
    assert "no 'date', so not whole" in refused(tmp_path, results)


def test_check_names_the_place_that_is_wrong(tmp_path, capsys):
    file = submitted(tmp_path, harness_results())
    assert submit(["--check", str(file)]) == 0
    good = json.loads(file.read_text())

    def problem(content):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError) as raised:
            submit(["--check", str(file)])
        assert "\n" not in str(raised.value)
        return str(raised.value).removeprefix(f"{file}: ")

    config, results = good["config"], good["results"]
    assert (
        problem("{")
        == "damaged or cut off (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"
    )
    assert "not a leaderboard file" in problem([])
    assert "'results' is a required property" in problem({"config": config})
    assert "'pubmedqa' is a required property" in problem(
        {"config": config, "results": {t: m for t, m in results.items() if t != "pubmedqa"}}
    )
    assert "results.medmcqa" in problem({"config": config, "results": results | {"medmcqa": {"acc,none": 30.0}}})
    assert "results.medmcqa" in problem(
        {"config": config, "results": results | {"medmcqa": {"acc,none": float("nan")}}}
    )
    assert "model_sha" in problem({"config": {"model_name": "a/b", "model_dtype": "x"}, "results": results})
    assert "medadapt's prompts" in problem({"config": config | {"prompts": "medadapt"}, "results": results})
    assert "results" in problem({"config": config | {"partial": True}, "results": {}})


def test_keys_beyond_the_format_are_let_be(tmp_path):
    file = submitted(tmp_path, harness_results())
    content = json.loads(file.read_text())
    content |= {"versions": {"medmcqa": "Yaml"}, "n-shot": {}}
    content["results"]["medmcqa"] |= {"alias": "medmcqa", "acc_norm,none": 0.4}
    file.write_text(json.dumps(content))
    assert submit(["--check", str(file)]) == 0


@pytest.mark.parametrize("arguments", [[], ["run", "--check", "file"]])
def test_a_run_or_a_file_to_check(arguments, capsys):
    with pytest.raises(SystemExit):
        submit(arguments)
    assert "give a RUN to write, or --check FILE" in capsys.readouterr().err


def test_a_studys_file_keeps_our_names_says_so_and_holds_no_group(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.json").write_text(json.dumps(harness_results(ours=True)))
    older = tmp_path / "board" / "medadapt" / "demo__sft-rag" / "results_2020-01-01T00-00-00.json"
    older.parent.mkdir(parents=True)
    older.write_text("{}")
    file = leaderboard.write(tmp_path / "board", "demo", "sft+rag", run, "f" * 16)
    content = json.loads(file.read_text())
    assert content["config"]["prompts"] == "medadapt"
    assert set(content["results"]) == set(leaderboard.TASKS.values())
    assert set(content["results"]["medqa"]) == {"acc,none", "acc_stderr,none"}
    assert list(older.parent.iterdir()) == [file]
    leaderboard.check(content, file, kind="file")
    with pytest.raises(InputError, match="not a leaderboard file"):
        leaderboard.check(content, file)
