"""`medadapt ls` and `medadapt validate`."""

import pytest

from medtasks import benchmarks, catalogue, cli, sources


@pytest.fixture(scope="module")
def index():
    return catalogue.our_tasks().task_index


def test_every_task_is_listed_with_what_is_known_of_its_benchmark(index, capsys):
    assert cli.main(["ls"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert set(index) <= set(lines)
    assert "1,273" in lines["medqa"] and "MIT" in lines["medqa"] and "in the sample" in lines["medqa"]
    assert "medhallu, medhallu_knowledge, scifact" in lines["medsafe"]
    assert "file to fetch: mirage/benchmark.json" in lines["bioasq"]
    assert "file, there" in lines["scifact"] and "file, there" in lines["medhallu"]
    assert lines["medadapt"].split()[1] == "7,045"


def test_what_is_known_covers_every_benchmark():
    assert set(catalogue.abouts()) == set(benchmarks.ALL)


def test_ls_tells_what_must_be_downloaded(monkeypatch, tmp_path, capsys):
    from huggingface_hub import constants

    monkeypatch.setenv("MEDTASKS_DATA", "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert cli.main(["ls"]) == 0
    assert "GBaker/MedQA-USMLE-4-options, to download" in capsys.readouterr().out
    (tmp_path / "datasets--GBaker--MedQA-USMLE-4-options" / "snapshots" / "f0501ce6").mkdir(parents=True)
    assert cli.main(["ls"]) == 0
    assert "GBaker/MedQA-USMLE-4-options, downloaded" in capsys.readouterr().out


def test_validate_loads_every_task_but_those_without_their_file(index, capsys):
    names = [name for name, entry in index.items() if entry.kind.name != "GROUP"]
    assert catalogue.validate([]) == 1
    out = capsys.readouterr().out
    assert f"{len(names) - 3} tasks loaded, 3 not: bioasq, bioasq_cot, bioasq_text\n" in out
    assert "BioASQ: no file mirage/benchmark.json" in out
    item = benchmarks.load("medqa", "test")[0]
    assert f"== medqa: 35 to answer\nQuestion: {item['question']}\nA. {item['options'][0]}" in out


def test_validate_takes_groups_and_foreign_folders(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(
        f"include: {sources.SAMPLE_DIR.parent}/medqa/medqa.yaml\ntask: mine\ndoc_to_text: 'Q {{{{question}}}}'\n"
    )
    assert cli.main(["validate", "--tasks", "medadapt_sub,mine", "--include_path", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "5 tasks loaded" in out and "== mine: 35 to answer\nQ A 66-year-old man" in out


def test_validate_names_rows_that_do_not_load(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDTASKS_DATA", str(tmp_path))
    assert cli.main(["validate", "--tasks", "medqa"]) == 1
    assert "== medqa: NOT LOADED" in capsys.readouterr().out


def test_every_benchmark_can_be_answered_in_every_style(index):
    """The subjects of MMLU count with the six pooled, the subsets by letter and chain of thought."""
    wholes = {"medqa", "medmcqa", "pubmedqa", "pubmedqa_star", "mmlu_med", *benchmarks.OF_FILES}
    assert {f"{name}_{style}" for name in wholes for style in ("cot", "text")} <= set(index)
    assert {f"{name}_sub_cot" for name in ("medqa", "medmcqa", "pubmedqa", "mmlu_med")} <= set(index)
