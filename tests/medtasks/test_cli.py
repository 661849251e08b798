"""The `medadapt` command as a user meets it."""

import json
import subprocess
import sys

import pytest

from medtasks import TASKS_DIR

DUMMY = ("--model", "dummy")  # lm-eval's own model double: random scores, no weights


def test_help_names_every_command(medadapt):
    done = medadapt("--help")
    assert done.returncode == 0
    for command in ("run", "ls", "validate", "contamination", "index", "study"):
        assert f"\n  {command} " in done.stdout


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from medtasks import cli; cli.main(['--help']); "
        "heavy = ('torch', 'transformers', 'chromadb', 'llama_index', 'trl', 'datasets'); "
        "print([module for module in heavy if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_stops_early_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "medtasks.cli", "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_run_writes_lm_evals_own_result_files(medadapt, tmp_path):
    done = medadapt("run", *DUMMY, "--tasks", "medadapt", "--limit", "3", "--output_path", tmp_path, "--log_samples")
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(next(tmp_path.glob("**/results_*.json")).read_text())
    assert set(results["group_subtasks"]["medadapt"]) == {"medqa", "medmcqa", "pubmedqa", "mmlu_med_pooled"}
    leaves = [results["results"][task]["acc,none"] for task in results["group_subtasks"]["medadapt"]]
    assert results["results"]["medadapt"]["acc,none"] == pytest.approx(sum(leaves) / 4)


def test_group_of_subjects_is_weighted_by_size(medadapt, tmp_path):
    done = medadapt("run", *DUMMY, "--tasks", "mmlu_med", "--output_path", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(next(tmp_path.glob("**/results_*.json")).read_text())
    leaves = results["group_subtasks"]["mmlu_med"]
    assert len(leaves) == 6
    sizes = [results["n-samples"][task]["original"] for task in leaves]
    weighted = sum(n * results["results"][t]["acc,none"] for n, t in zip(sizes, leaves, strict=True)) / sum(sizes)
    assert results["results"]["mmlu_med"]["acc,none"] == pytest.approx(weighted)


def test_few_shot_examples_are_the_first_of_the_training_split(medadapt, tmp_path):
    arguments = ("--tasks", "medqa,pubmedqa,mmlu_med_anatomy", "--num_fewshot", "2", "--limit", "2", "--log_samples")
    done = medadapt("run", *DUMMY, *arguments, "--output_path", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    from medtasks import benchmarks, mcq

    for task in ("medqa", "pubmedqa", "mmlu_med_anatomy"):
        sample = json.loads(next(tmp_path.glob(f"**/samples_{task}_*.jsonl")).read_text().splitlines()[0])
        shots = benchmarks.load(task, "train")[:2]
        expected = "\n\n".join(f"{mcq.render(shot)} {mcq.target(shot)}" for shot in shots)
        assert sample["arguments"]["gen_args_0"]["arg_0"] == f"{expected}\n\n{mcq.render(sample['doc'])}"


def test_plain_lm_eval_finds_our_tasks():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lm_eval",
            "validate",
            "--tasks",
            "medqa_sub,medadapt",
            "--include_path",
            str(TASKS_DIR),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "All tasks found and valid" in done.stdout


def test_same_results_as_plain_lm_eval(medadapt, language_model, tmp_path):
    arguments = ["run", "--model", "hf", "--model_args", f"pretrained={language_model}", "--tasks", "medqa_sub"]
    arguments += ["--limit", "4", "--log_samples", "--output_path"]
    assert medadapt(*arguments, tmp_path / "ours").returncode == 0
    plain = [sys.executable, "-m", "lm_eval", *arguments, str(tmp_path / "plain"), "--include_path", "medtasks"]
    done = subprocess.run(plain, capture_output=True, text=True, cwd=TASKS_DIR.parent)
    assert done.returncode == 0, done.stderr[-2000:]

    def read(folder):
        results = json.loads(next(folder.glob("**/results_*.json")).read_text())
        return results["results"], next(folder.glob("**/samples_*.jsonl")).read_text()

    assert read(tmp_path / "ours") == read(tmp_path / "plain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["studdy"], "unknown command 'studdy' (did you mean study?)"),
        (["run", *DUMMY, "--tasks", "medqb"], "unknown task 'medqb'"),
        (["run", "--model", "ragg", "--tasks", "medqa"], "unknown model 'ragg' (did you mean rag"),
        (["run", "--tasks", "medqa"], "--model hf needs --model_args pretrained="),
        (["run", "--tasks", "medqa", "--model_args", "pretrained=./nowhere"], "./nowhere: no such model folder"),
        (
            ["run", "--tasks", "medqa", "--model_args", "pretrained=no/model"],
            "neither a folder here nor a model the Hub",
        ),
        (["run", *DUMMY, "--tasks", "medqa", "--log_samples"], "Specify --output_path"),
        (["run", *DUMMY], "run: no task; give --tasks"),
        (["validate", "--tasks", "medqa,nonsense"], "unknown task 'nonsense'"),
        (["study", "nowhere.yaml"], "nowhere.yaml: no such study file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(refused, arguments, message):
    assert message in refused(*arguments)


def test_missing_source_is_one_line(refused, tmp_path):
    line = refused("run", *DUMMY, "--tasks", "medqa", MEDTASKS_DATA=str(tmp_path))
    assert "should hold the dataset GBaker/MedQA-USMLE-4-options" in line


def test_no_network_is_one_line(refused, tmp_path):
    closed = {"MEDTASKS_DATA": "", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    line = refused("run", *DUMMY, "--tasks", "medqa", **closed)
    assert "cannot load GBaker/MedQA-USMLE-4-options" in line
    assert "check the network or HF_ENDPOINT" in line


def test_an_adapter_of_another_base_is_refused(refused, language_model, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "other/base"}))
    card = {"base": "other/base", "base_fingerprint": "0" * 16}
    (tmp_path / "medadapt.json").write_text(json.dumps(card))
    line = refused("run", "--tasks", "medqa", "--model_args", f"pretrained={language_model},peft={tmp_path}")
    assert "was trained on other/base (0000000000000000), not on" in line
