"""A model card says what the files of a training and its runs say, calls the rest not known, and loads on the Hub."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard

from medtasks import mcq
from medtasks.errors import InputError
from results.cards import card_results, evidence, training_records
from results.commands.card import card
from results.rounding import percent

STUDY = Path(__file__).parents[2] / "results" / "runs" / "published_subsets_1.5b"
SFT = STUDY / "trainings" / "sft"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The card of the committed SFT training with its study."""
    out = tmp_path_factory.mktemp("card") / "README.md"
    assert card([str(SFT), "--study", str(STUDY), "--out", str(out)]) == 0
    return out


def make(tmp_path, folder, *arguments):
    out = tmp_path / "README.md"
    assert card([str(folder), "--out", str(out), *map(str, arguments)]) == 0
    return out.read_text()


def section(text, title):
    """The lines below a heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def copied(tmp_path, name="sft", **changes):
    """A copy of a committed training with other entries in its record."""
    folder = tmp_path / "trainings" / name
    shutil.copytree(STUDY / "trainings" / name, folder)
    record = json.loads((folder / "training.json").read_text())
    config = record["config"] | changes.pop("config", {})
    (folder / "training.json").write_text(json.dumps(record | changes | {"config": config}))
    return folder


def as_adapter(training, tmp_path):
    """What `trainers` publishes of a training, alone: an adapter's folder without weights."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    record = json.loads((training / "training.json").read_text())
    kept = ("stage", "base", "base_fingerprint", "continues", "data_fingerprint", "config", "versions")
    (folder / "medadapt.json").write_text(json.dumps({key: record[key] for key in kept}))
    shape = {
        "r": 32,
        "lora_alpha": 64,
        "lora_dropout": 0.05,
        "use_rslora": True,
        "target_modules": ["v_proj", "q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(shape))
    return folder


def test_the_metadata_loads_and_holds_the_results(written):
    data = ModelCard.load(written).data
    assert (data.license, data.library_name, data.language) == ("other", "peft", "en")
    assert data.base_model is None  # a local folder of unknown origin
    assert {"sft", "not-for-clinical-use"} <= set(data.tags)
    assert "cais/mmlu" in data.datasets and len(data.datasets) == 4
    results = {result.dataset_name: result for result in data.eval_results}
    assert all(isinstance(result, EvalResult) for result in results.values())
    assert {name: result.metric_value for name, result in results.items()} == {
        "medmcqa_sub": 0.385,
        "medqa_sub": 0.385,
        "mmlu_med_sub": 0.525,
        "pubmedqa_sub": 0.725,
    }  # of the adapter alone: sft+rag is another system
    assert results["medqa_sub"].dataset_type == "GBaker/MedQA-USMLE-4-options"
    assert results["medqa_sub"].dataset_split == "validation"
    assert results["medqa_sub"].dataset_args == {"num_few_shot": 0}
    assert data.model_name == "Qwen2.5-Coder-1.5B-Instruct-sft"


def test_results_are_those_of_the_study(written):
    text = section(written.read_text(), "Results")
    compared = json.loads((STUDY / "table.json").read_text())
    for row in compared["comparisons"]:
        if row["variant"] in ("sft", "sft+rag") and row["task"] != "pooled":
            shown = f"{percent(row['difference'], '+')} [{percent(row['low'], '+')}, {percent(row['high'], '+')}]"
            p = "<0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
            line = next(line for line in text.splitlines() if f"| {row['variant']} | {row['task']} | {shown} |" in line)
            assert f"| {p} | {row['fixed']}, {row['broken']} |" in line
    assert "| msft |" not in text
    assert f"for all {len(compared['comparisons'])} comparisons" in text
    assert "| sft | mmlu_med_sub | 200 (188 distinct) | 52.5 [" in text


def test_what_the_results_show_is_said_in_words(written):
    text = section(written.read_text(), "Results")
    assert "- Better than the base beyond chance (corrected p < 0.05): pubmedqa_sub (+18.0 points)." in text
    assert "nor shown equal: medmcqa_sub (+5.5 points), medqa_sub (-3.5 points), mmlu_med_sub (-4.0 points)." in text
    assert "- The mean over the tasks changes by +4.0 points, not beyond chance" in text
    assert "- Calibration is worse: " in text
    assert "`sft+rag` also read 3 passages of books.jsonl.gz with each question: it is not the adapter alone." in text
    assert "- `medqa_sub`: 200 items chosen from GBaker/MedQA-USMLE-4-options (validation), not the whole" in text
    assert "would earn: medmcqa_sub 32.0%, " in text


def test_training_data_has_counts_and_licences(written):
    text = section(written.read_text(), "Training data")
    assert re.search(r"\| `medmcqa` \| \[openlifescienceai/medmcqa\]\(\S+\), train \| 999 \| Apache-2.0 \|", text)
    assert re.search(r"\| `mmlu_med` \| .*, dev \| 25 \| MIT \|", text)
    assert "Read: 2,529 examples. Used: 2,424. Dropped: 105 that hold a test question of a benchmark." in text
    assert "which one is not recorded" in text


def test_where_rows_came_from_is_told_by_the_training(tmp_path):
    training = tmp_path / "sft"
    shutil.copytree(SFT, training)
    about = json.loads((training / "training.json").read_text())
    for origin, words in (("folder", "came from a local folder of these"), ("hub", None), ("sample", None)):
        about["data"]["from"] = origin
        (training / "training.json").write_text(json.dumps(about))
        text = make(tmp_path, training)
        assert "which one is not recorded" not in text
        assert ("came from a local folder" in text) == bool(words)


def test_training_procedure_has_settings_versions_and_cost(written):
    text = section(written.read_text(), "Training procedure")
    for line in ("| `learning_rate` | 0.0001 |", "| `lora_r` | 32 |", "| `load_in_4bit` | True |"):
        assert line in text
    for key in ("output_dir", "logging_steps", "dataloader_pin_memory", "model_name_or_path"):
        assert f"`{key}`" not in text
    assert "trl 1.16.0" in text and "206 steps, 2 epochs, seed 4242" in text
    assert "accelerate launch -m trainers.sft --config trainers/recipes/subsets_qlora_sft.yaml" in text
    assert "| 1 x NVIDIA H100 80GB HBM3 | 84 s (91 s with loading) | 827,960 | 18.6 GB |" in text
    assert "Energy and emissions were not measured." in text


def test_it_says_plainly_what_it_is_not_for(written):
    text = written.read_text()
    assert text.index("**Not for clinical use.**") < text.index("## Intended use")
    limits = section(text, "Limitations and risks")
    assert "Not measured: hallucination" in limits and "4 bits" in limits
    assert "trained and measured on parts of the same datasets (GBaker/MedQA-USMLE-4-options, cais/mmlu" in limits


def test_no_cell_breaks_its_table(written):
    for table in re.findall(r"(?:^\|.*\|\n)+", written.read_text(), re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_the_committed_example_is_what_is_written(written):
    example = Path(__file__).parents[2] / "results" / "examples" / "card_published_subsets_1.5b_sft.md"
    assert example.read_text() == written.read_text()


def test_the_example_shows_the_prompt_of_training_and_commands_that_parse(written):
    text = section(written.read_text(), "How to use it")
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    compile(code, "card", "exec")
    item = {"question": "Lack of which vitamin causes scurvy?"}
    item["options"] = ["Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin D"]
    assert f'"""{mcq.render(item)}"""' in code
    from lm_eval._cli import HarnessCLI

    commands = [
        line.strip().split() for line in text.splitlines() if line.startswith(("    medadapt run", "    lm_eval"))
    ]
    assert [command[0] for command in commands] == ["medadapt", "lm_eval"]
    for command in commands:
        args = HarnessCLI()._parser.parse_args(command[1:])
        assert args.model_args["peft"] == "adapter"
        assert args.model_args["pretrained"] == ".models/Qwen2.5-Coder-1.5B-Instruct"


def test_an_adapter_alone_says_what_it_does_not_know(tmp_path):
    text = make(tmp_path, as_adapter(SFT, tmp_path))
    assert "| `medqa` | [GBaker/MedQA-USMLE-4-options]" in text and "| not recorded | MIT |" in text
    assert "How many rows were read and dropped is not recorded with the adapter." in text
    assert "Steps and losses are not recorded" in text
    assert "LoRA, r=32, alpha=64, dropout=0.05, rank-stabilized, on q_proj, v_proj" in text
    assert "No runs were given for this card" in section(text, "Results")
    assert ModelCard(text).data.eval_results is None


def test_an_adapter_in_its_training_has_all_of_it(tmp_path):
    training = copied(tmp_path)
    as_adapter(SFT, tmp_path).rename(training / "adapter")
    text = make(tmp_path, training / "adapter")
    assert "# Qwen2.5-Coder-1.5B-Instruct-sft\n" in text
    assert "alpha=64" in text and "Used: 2,424." in text and "827,960" in text


def test_an_adapter_beside_another_trainings_record_is_not_mixed_up(tmp_path):
    training = copied(tmp_path, data_fingerprint="0" * 16)
    as_adapter(SFT, tmp_path).rename(training / "adapter")
    assert "not recorded with the adapter" in make(tmp_path, training / "adapter")


def test_two_stages_are_both_told(tmp_path):
    text = make(tmp_path, STUDY / "trainings" / "msft")
    used = json.loads((STUDY / "trainings" / "msft" / "cpt" / "training.json").read_text())["data"]["counts"]["used"]
    assert f"trained by continued pretraining (CPT) on a part of {used:,} passages, then supervised" in text
    assert "Stage 1, continued pretraining (CPT):" in section(text, "Training data")
    assert f"| `books.jsonl.gz` | a file | {used:,} | not recorded; ask who made the file |" in text
    assert section(text, "Training procedure").count("| `learning_rate` |") == 2
    assert {"cpt", "sft"} <= set(ModelCard(text).data.tags)
    shutil.copytree(STUDY / "trainings" / "msft", tmp_path / "msft", ignore=shutil.ignore_patterns("cpt"))
    assert "learned on from another adapter" in make(tmp_path, tmp_path / "msft")


def test_the_sample_is_not_called_by_the_datasets_names(tmp_path):
    study = tmp_path / "study"
    shutil.copytree(STUDY, study)
    definition = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps(definition | {"source": "sample"}))
    (study / "steps" / "train-sft.json").write_text(json.dumps({"key": "0", "gpu_joules": 36_000}))
    text = make(tmp_path, study / "trainings" / "sft", "--study", study)
    assert "| `medqa` | bundled sample, written for medadapt | 1,000 | MIT |" in text
    assert ModelCard(text).data.datasets is None
    assert "The GPU took 0.01 kWh in this training, measured." in text


def test_other_data_is_named_without_inventing_licences(tmp_path):
    sources = ["medqa:500", "acme/notes", "acme/notes/config:7", "data/mine.jsonl"]
    record = {"data": {"counts": {}, "sources": dict(zip(sources, (500, 3, 7, 9), strict=True))}}
    text = make(tmp_path, copied(tmp_path, config={"sources": sources, "decontaminate": False}, **record))
    table = section(text, "Training data")
    assert "| `medqa:500` | [GBaker/MedQA-USMLE-4-options]" in table
    assert (
        "| `acme/notes/config:7` | [acme/notes](https://huggingface.co/datasets/acme/notes), train | 7 | see the"
        in table
    )
    assert "| `mine.jsonl` | a file | 9 | not recorded; ask who made the file |" in table
    assert ModelCard(text).data.datasets == ["GBaker/MedQA-USMLE-4-options", "acme/notes"]


def test_sources_that_are_mappings_are_named_by_what_they_say(tmp_path):
    sources = [
        json.dumps({"source": "medqa", "split": "validation", "weight": 0.5}),
        json.dumps({"source": "data/mine.jsonl", "take": 9}),
    ]
    record = {"data": {"counts": {}, "sources": dict(zip(sources, (20, 9), strict=True))}}
    table = section(make(tmp_path, copied(tmp_path, config={"sources": sources}, **record)), "Training data")
    assert "| `medqa validation x0.5` | [GBaker/MedQA-USMLE-4-options]" in table and ", validation | 20 |" in table
    assert "| `mine.jsonl:9` | a file | 9 |" in table


def test_unchecked_data_and_chat_are_said(tmp_path):
    text = make(tmp_path, copied(tmp_path, config={"decontaminate": False, "chat": True, "answer_style": "rationale"}))
    assert "**Test questions were not looked for.**" in text
    assert "tokenizer.apply_chat_template(messages" in text and "max_new_tokens=512" in text
    assert text.count("--apply_chat_template") == 2


def test_licence_comes_from_the_bases_readme_or_the_user(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    training = copied(tmp_path, base=str(base))
    text = make(tmp_path, training)
    assert ModelCard(text).data.license == "apache-2.0"
    assert "`apache-2.0`, as its base model's README states" in text
    assert str(tmp_path) not in text  # no path of this machine
    assert ModelCard(make(tmp_path, training, "--license", "mit")).data.license == "mit"


def test_names_on_the_hub(tmp_path):
    base = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
    text = make(tmp_path, SFT, "--model-id", "clinic/doctor-sft", "--base-model", base, "--author", "A. N. Other")
    data = ModelCard(text).data
    assert data.base_model == base
    assert "# doctor-sft\n" in text and "| author | A. N. Other |" in text and "author = {A. N. Other}," in text
    assert "    hf download clinic/doctor-sft --local-dir adapter\n" in text
    assert f"pretrained={base},peft=adapter" in text
    with pytest.raises(InputError, match="doctor: not a Hub id; give ORG/NAME"):
        make(tmp_path, SFT, "--model-id", "doctor")


def test_runs_given_one_by_one(tmp_path):
    text = make(tmp_path, SFT, "--run", STUDY / "runs" / "sft", "--base-run", STUDY / "runs" / "base")
    assert "| sft | pubmedqa_sub | +18.0 [" in text and "for all 6 comparisons" in text
    alone = make(tmp_path, SFT, "--run", STUDY / "runs" / "sft")
    assert "Differences to the base" not in alone and "| sft | mean | 800 (788 distinct) | 50.5 [" in alone
    assert "50.5% [" in alone and "to its base" not in alone
    assert len(ModelCard(alone).data.eval_results) == 4


def test_a_run_of_a_part_of_a_test_set_is_no_result_of_the_benchmark(tmp_path):
    run = tmp_path / "part"
    shutil.copytree(STUDY / "runs" / "sft", run)
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["task"] == "medqa_sub"][:50] + [row | {"task": "vet"} for row in rows[:9]]
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    results = json.loads((run / "results.json").read_text())
    results["n-samples"] = {"medqa_sub": {"original": 200, "effective": 50}}
    (run / "results.json").write_text(json.dumps(results))
    text = make(tmp_path, SFT, "--run", run)
    assert "- `medqa_sub`: 50 items asked; its benchmark (validation, subset) has 200." in text
    assert "- `vet` is no task of medadapt's" in text
    assert ModelCard(text).data.eval_results is None


def difference(task, points, p_holm, **changes):
    row = {"variant": "a", "task": task, "difference": points / 100, "p_holm": p_holm, "detectable": 0.04}
    return row | {"ece_difference": None, "ece_low": None, "ece_high": None} | changes


def test_sentences_follow_the_figures():
    calibrated = {"ece_difference": -0.1, "ece_low": -0.2, "ece_high": -0.01}
    rows = [difference("x", 5, 0.001), difference("y", -6, 0.02), difference("z", 1, 0.9, detectable=None)]
    assert card_results.reading([*rows, difference("mean", 0, 1.0, **calibrated)]) == [
        "Better than the base beyond chance (corrected p < 0.05): x (+5.0 points).",
        "Worse than the base beyond chance (corrected p < 0.05): y (-6.0 points).",
        "Not told apart from the base by these items, nor shown equal: z (+1.0 points).",
        "The mean over the tasks changes by +0.0 points, not beyond chance by the same measure.",
        "Calibration is better: the expected calibration error changes by -0.100 [-0.200, -0.010] (0 is perfect).",
        "Tasks of these sizes show a true difference of 4.0 points in 80% of such samples, before the correction; "
        "a smaller one may well go unseen.",
    ]
    assert len(card_results.reading([difference("x", 5, 0.001, detectable=None)])) == 1


def test_a_study_must_hold_the_training_and_its_runs(tmp_path):
    training = training_records.read(copied(tmp_path, data_fingerprint="0" * 16))
    with pytest.raises(InputError, match=r"none of its trainings \(msft, sft\) is that of "):
        evidence.of_study(STUDY, training)
    with pytest.raises(InputError, match="no study.json"):
        evidence.of_study(tmp_path, training)
    study = tmp_path / "study"
    shutil.copytree(STUDY, study, ignore=shutil.ignore_patterns("base"))
    with pytest.raises(InputError, match="no finished run of the base; run the study again"):
        evidence.of_study(study, training_records.read(SFT))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.json", "{}", "neither a training's output_dir (no training.json) nor an adapter"),
        ("training.json", '{"stage": ', "training.json: damaged or not there"),
        ("training.json", '{"stage": "sft"}', "training.json: no 'base_fingerprint', so not written by these trainers"),
        ("medadapt.json", "{}", "medadapt.json: no 'stage', so not written by these trainers"),
    ],
)
def test_what_is_no_training_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        card([str(tmp_path), "--out", str(tmp_path / "README.md")])
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("arguments", [["--study", "s", "--run", "r"], ["--base-run", "r"]])
def test_arguments_that_do_not_go_together(arguments, capsys):
    with pytest.raises(SystemExit):
        card([str(SFT), *arguments])
    assert "give" in capsys.readouterr().err


def test_yaml_front_matter_is_plain(written):
    front = written.read_text().split("---\n")[1]
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["task"]["type"] == "multiple-choice"
