"""What a study's steps are, and that exactly the right ones run again when something changes."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml

from medtasks import catalogue, sources
from medtasks.errors import InputError
from results.studies import dependencies, inputs, recipes, steps
from results.studies.study import Index, Study, Training, Variant
from trainers import recipe

ROOT = Path(__file__).parents[2]
ALL = {"index-i", "train-sft", "train-msft", "eval-base", "eval-rag", "eval-sft", "eval-both"}
EVALUATIONS = {step for step in ALL if step.startswith("eval-")}
TRAINED = {"train-sft", "train-msft", "eval-sft", "eval-both"}
WITH_INDEX = {"index-i", "eval-rag", "eval-both"}

UNCHANGED = {}
STUDY = Study(
    name="s",
    base="model",
    tasks=["medqa", "medmcqa"],
    variants={
        "base": Variant(),
        "rag": Variant(index="i", rag={"k": 5}),
        "sft": Variant("sft"),
        "both": Variant("msft", "i"),
    },
    indexes={"i": Index("corpus.jsonl", "embedder"), "unused": Index("sample", "embedder")},
    trainings={"sft": Training("sft", "sft.yaml", {"max_steps": 3}), "msft": Training("msft", "msft.yaml")},
    source="data",
    run_args={"limit": 2, "apply_chat_template": True, "num_fewshot": None},
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder to work in: models, recipes, data and a copy of our code."""
    folder = tmp_path_factory.mktemp("template")
    for model in ("model", "embedder"):
        (folder / model).mkdir()
        (folder / model / "config.json").write_text("{}")
        (folder / model / "model.safetensors").write_bytes(model.encode())
    (folder / "corpus.jsonl").write_text('{"text": "a passage"}\n')
    (folder / "sft.yaml").write_text("sources: [medqa]\nlearning_rate: 1e-4\noutput_dir: x\n")
    (folder / "cpt.yaml").write_text("corpus: [corpus.jsonl]\ndecontaminate: false\n")
    (folder / "msft.yaml").write_text("cpt: cpt.yaml\nsft: sft.yaml\n")
    shutil.copytree(sources.SAMPLE_DIR, folder / "data")
    for room in dependencies.ROOMS:
        skipped = shutil.ignore_patterns("sample", "__pycache__")
        shutil.copytree(ROOT / room, folder / "code" / room, ignore=skipped)
    return folder


@pytest.fixture
def world(template, monkeypatch):
    """That folder, as new, to change things in."""
    folder = template.with_name("world")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(dependencies, "ROOT", folder / "code")
    monkeypatch.setattr(catalogue, "TASKS_DIR", folder / "code" / "medtasks")
    return folder


@pytest.fixture
def before(world):
    """The steps before anything changes, planned once: every test begins with the same folder."""
    if not UNCHANGED:
        UNCHANGED.update(planned())
    return UNCHANGED


def changed(before, study=STUDY, **keywords):
    """The steps that are no longer what they were."""
    return {name for name, step in planned(study, **keywords).items() if step.key != before[name].key}


def planned(study=STUDY, out="out", only=None):
    return {step.name: step for step in steps.plan(study, Path(out), only)}


def edit(file, old, new):
    path = Path(file)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_plan_orders_the_steps_and_makes_their_commands(world):
    found = planned()
    assert list(found) == ["index-i", "train-sft", "train-msft", "eval-base", "eval-rag", "eval-sft", "eval-both"]
    assert found["eval-both"].needs == ("train-msft", "index-i")
    training = found["train-sft"].command
    assert training[-2:] == ["--max_steps", "3"] and "model" in training
    rag = found["eval-rag"].command
    assert {"k=5", "inner=hf-mcq", "pretrained=model", "--apply_chat_template"} <= set(rag)
    assert "--num_fewshot" not in rag and rag[rag.index("--tasks") + 1] == "medqa,medmcqa"
    assert found["eval-base"].output == Path("out/runs/base/predictions.jsonl")
    assert all(step.problem is None for step in found.values())


def test_a_training_gets_every_override_as_the_study_says_it(world):
    """Against a recipe that says the opposite; also what is recorded (``recipes.stages``) is what is trained."""
    from trl import ModelConfig, SFTConfig

    says = {"use_peft": True, "load_in_4bit": True, "bf16": False, "lora_target_modules": "all-linear"}
    Path("sft.yaml").write_text(yaml.safe_dump(says))
    overrides = {"use_peft": False, "load_in_4bit": False, "bf16": True, "learning_rate": 0.5}
    overrides |= {"lora_target_modules": ["q_proj", "k_proj"], "lr_scheduler_kwargs": {"min_lr": 0.1, "wide": False}}
    training = Training("sft", "sft.yaml", overrides)
    command = planned(dataclasses.replace(STUDY, trainings=STUDY.trainings | {"sft": training}))["train-sft"].command
    arguments = command[command.index("trainers.sft") + 1 :]
    read = recipe.settings([SFTConfig, ModelConfig], arguments, "")
    read["lr_scheduler_kwargs"] = json.loads(read["lr_scheduler_kwargs"])  # as SFTConfig does
    assert {name: read[name] for name in overrides} == overrides
    assert {name: recipes.stages(training)["sft"][name] for name in overrides} == overrides


def test_an_index_may_leave_test_items_in(world):
    index = dataclasses.replace(STUDY.indexes["i"], options={"decontaminate": False, "chunk-size": 500})
    step = planned(dataclasses.replace(STUDY, indexes=STUDY.indexes | {"i": index}))["index-i"]
    assert any("mmlu" in name for name in planned()["index-i"].depends)
    assert step.command[-3:] == ["--chunk-size", "500", "--no-decontaminate"]
    assert not any("mmlu" in name for name in step.depends)


def test_some_variants_come_with_what_they_need(world):
    assert list(planned(only=["sft"])) == ["train-sft", "eval-sft"]
    assert list(planned(only=["both", "base"])) == ["index-i", "train-msft", "eval-base", "eval-both"]
    assert planned(only=["sft"])["eval-sft"].key == planned()["eval-sft"].key
    with pytest.raises(InputError, match="no variant 'dpo' in this study; there are base, rag"):
        planned(only=["dpo"])


CHANGES = {
    "base": (lambda: Path("model/model.safetensors").write_bytes(b"other"), ALL - {"index-i"}),
    "embedder": (lambda: Path("embedder/model.safetensors").write_bytes(b"other!"), WITH_INDEX),
    "corpus": (
        lambda: Path("corpus.jsonl").write_text('{"text": "another"}\n'),
        WITH_INDEX | {"train-msft"},
    ),
    "recipe": (lambda: edit("sft.yaml", "1e-4", "2e-4"), TRAINED),
    "recipe of a stage": (lambda: edit("cpt.yaml", "corpus:", "max_steps: 2\ncorpus:"), {"train-msft", "eval-both"}),
    "recipe, nothing learned": (lambda: edit("sft.yaml", "output_dir: x", "# a note\noutput_dir: y"), set()),
    "data of a task": (lambda: edit("data/openlifescienceai/medmcqa/validation.jsonl", "a", "b"), ALL),
    "data to keep out": (lambda: edit("data/cais/mmlu/anatomy/test.jsonl", "a", "b"), TRAINED | WITH_INDEX),
    "trainers": (
        lambda: edit("code/trainers/data/schemas.py", "OPEN_QUESTIONS = (", "OPEN_QUESTIONS = (((), ()),"),
        TRAINED,
    ),
    "one trainer": (lambda: edit("code/trainers/cpt.py", "return 0", "return 1"), {"train-msft", "eval-both"}),
    "passages": (lambda: edit("code/rag_model/prompts.py", "def fit(", "def fitted("), {"eval-rag", "eval-both"}),
    "prompt": (lambda: edit("code/medtasks/mcq.py", '"Answer:"', '"An answer:"'), ALL),
    "scoring": (lambda: edit("code/medtasks/scoring/tree.py", "0.15", "0.2"), EVALUATIONS),
    "task file": (
        lambda: edit("code/medtasks/medqa/medqa.yaml", "task: medqa", "task: medqa\nx: 2"),
        EVALUATIONS,
    ),
    "another task": (lambda: edit("code/medtasks/medsafe/scifact.yaml", "task: scifact", "task: scifact\nx: 2"), set()),
    "comment": (lambda: edit("code/medtasks/mcq.py", '"""The letter of', '# why\n    """That letter of'), set()),
    "what arranges": (lambda: edit("code/medtasks/cli.py", "return 2", "return 3"), set()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_reaches_the_steps_that_depend_on_it_and_no_others(before, what):
    change, reached = CHANGES[what]
    change()
    assert changed(before) == reached


@pytest.mark.parametrize(
    ("library", "reached"),
    [
        ("torch", ALL),
        ("lm_eval", EVALUATIONS),
        ("trl", TRAINED),
        ("peft", TRAINED),
        ("sentence-transformers", WITH_INDEX),
        ("matplotlib", set()),
    ],
)
def test_a_library_reaches_what_it_does(before, monkeypatch, library, reached):
    version = dependencies.version
    monkeypatch.setattr(dependencies, "version", lambda name: "99" if name == library else version(name))
    assert changed(before) == reached
    for step in (step for step in planned().values() if f"versions.{library}" in step.depends):
        said = dependencies.changes(before[step.name].depends, step.depends)
        assert f"versions.{library} changed ({version(library)} -> 99)" in said


@pytest.mark.parametrize(
    ("search", "libraries"),
    [("exact", set()), ("chroma", {"chromadb"}), ("bm25", {"bm25s", "PyStemmer"}), ("rrf", {"bm25s", "PyStemmer"})],
)
def test_a_search_depends_on_what_searches(world, search, libraries):
    study = dataclasses.replace(STUDY, variants={"rag": Variant(index="i", rag={"search": search})})
    depends = planned(study)["eval-rag"].depends
    assert {library for library in ("chromadb", "bm25s", "PyStemmer") if f"versions.{library}" in depends} == libraries


@pytest.mark.parametrize(
    ("change", "reached"),
    [
        ({"run_args": {"limit": 3}}, EVALUATIONS),
        ({"variants": STUDY.variants | {"rag": Variant(index="i", rag={"k": 1})}}, {"eval-rag"}),
        ({"indexes": {"i": Index("corpus.jsonl", "embedder", {"chunk-size": 9})}}, WITH_INDEX),
        ({"trainings": STUDY.trainings | {"sft": Training("sft", "sft.yaml")}}, {"train-sft", "eval-sft"}),
        ({"name": "another"}, set()),
    ],
)
def test_a_change_of_the_study_reaches_what_it_concerns(before, change, reached):
    assert changed(before, dataclasses.replace(STUDY, **change)) == reached


@pytest.mark.parametrize("file", ["mine.jsonl", "dev.jsonl", "passages.jsonl", "index/snippets.jsonl"])
def test_every_file_that_a_recipe_names_is_read(world, file):
    Path("index").mkdir()
    for name in ("mine.jsonl", "dev.jsonl", "passages.jsonl", "index/snippets.jsonl"):
        Path(name).write_text("{}\n")
    Path("sft.yaml").write_text(
        "sources: [{source: mine.jsonl, weight: 2}, medqa]\ndev_sources: [{source: dev.jsonl}]\n"
        "raft: {passages: passages.jsonl, snippets: index}\n"
    )
    first = planned()
    Path(file).write_text("{}\n{}\n")
    assert changed(first) == TRAINED


TUNED = {"chosen": {"settings": {"k": 2, "search": "rrf"}}, "data": {}, "index": "i", "model": {}}


def test_tuned_settings_are_read_and_so_is_what_they_name(world):
    study = dataclasses.replace(STUDY, variants=STUDY.variants | {"rag": Variant("sft", "i", {"tuned": "tuned.json"})})
    missing = planned(study)["eval-rag"]
    assert missing.problem == "tuned=tuned.json: no such file; medadapt rag tune --out tuned.json writes it"
    Path("tuned.json").write_text(json.dumps(TUNED))
    first = planned(study)
    assert first["eval-rag"].problem is None and "versions.bm25s" in first["eval-rag"].depends
    assert "versions.bm25s" not in first["eval-both"].depends
    edit("tuned.json", '"k": 2', '"k": 4')
    assert changed(first, study) == {"eval-rag"}


def test_a_cross_encoder_is_read(world):
    shutil.copytree("embedder", "reranker")
    rag = {"k": 5, "rerank": "reranker"}
    study = dataclasses.replace(STUDY, variants=STUDY.variants | {"rag": Variant(index="i", rag=rag)})
    first = planned(study)
    Path("reranker/model.safetensors").write_bytes(b"other")
    assert changed(first, study) == {"eval-rag"}


def test_a_moved_folder_stays_done_and_so_does_moved_data(before):
    assert changed(before, out="/elsewhere/renamed") == set()
    Path("data").rename("moved")
    assert changed(before, dataclasses.replace(STUDY, source="moved")) == set()


def test_changes_are_said_in_words():
    before = {"command": "python run --limit 2 --tasks medqa", "data.x": "a" * 16, "versions.torch": "2.11.0"}
    now = {"command": "python run --limit 3 --tasks medqa", "data.x": "b" * 16, "versions.torch": "2.11.0"}
    assert dependencies.changes(before, now) == "command changed (--limit 2 -> --limit 3), data.x changed"
    many = {f"code.{i}": "c" * 16 for i in range(5)}
    assert dependencies.changes({}, many) == "code.0 is new, code.1 is new, code.2 is new and 2 more"


def test_what_is_not_there_is_the_problem_of_the_steps_that_need_it(world):
    Path("corpus.jsonl").unlink()
    Path("sft.yaml").unlink()
    problems = {name: step.problem for name, step in planned().items() if step.problem}
    assert set(problems) == {"index-i", "train-sft", "train-msft"}
    assert "no such file" in problems["index-i"] and "no such recipe" in problems["train-sft"]
    shutil.rmtree("data/openlifescienceai")
    assert "it should hold the dataset openlifescienceai/medmcqa" in planned()["eval-base"].problem
    shutil.rmtree("model")
    with pytest.raises(InputError, match="model"):
        planned()


def test_a_recipe_may_choose_its_own_source(world):
    edit("sft.yaml", "sources:", "env: {MEDTASKS_DATA: sample}\nsources:")
    before = planned()
    edit("data/GBaker/MedQA-USMLE-4-options/train.jsonl", "a", "b")
    # The training reads the sample; few-shot examples, and what the index keeps out, come from there.
    assert changed(before) == EVALUATIONS | {"index-i"}


def test_the_hub_s_commit_is_the_cached_one_while_offline(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert inputs.commit("cais/mmlu") == inputs.UNKNOWN
    (tmp_path / "datasets--cais--mmlu" / "refs").mkdir(parents=True)
    (tmp_path / "datasets--cais--mmlu" / "refs" / "main").write_text("c30699e8356da336a370243923dbaf21066bb9fe\n")
    assert inputs.commit("cais/mmlu") == "c30699e8356da336a370243923dbaf21066bb9fe"


def test_the_hub_is_asked_for_its_commit(on_hub):
    script = "from results.studies import inputs; print(inputs.commit('cais/mmlu'), inputs.commit('no/such'))"
    found, missing = on_hub(script).split()
    assert len(found) == 40 and missing == inputs.UNKNOWN


def test_files_that_a_benchmark_comes_from_count(world):
    study = dataclasses.replace(STUDY, tasks=["scifact"], variants={"base": Variant()})
    keys = planned(study)["eval-base"].key
    edit("data/scifact_claims_dev.jsonl", "a", "b")
    assert planned(study)["eval-base"].key != keys


def test_what_a_step_depends_on_can_be_written_down(before):
    for step in before.values():
        assert json.loads(json.dumps(step.depends)) == step.depends
        assert all(isinstance(value, str) for value in step.depends.values())


@pytest.mark.parametrize(
    ("training", "changes", "loaded"),
    [
        ("sft", {}, "pretrained=model peft=STUDY/trainings/v/adapter"),
        ("sft", {"full_finetuning": True}, "pretrained=STUDY/trainings/v/model"),
        ("msft", {}, "pretrained=model peft=STUDY/trainings/v/adapter"),
        ("msft", {"join": "merge"}, "pretrained=STUDY/trainings/v/cpt/merged peft=STUDY/trainings/v/adapter"),
        ("msft", {"full_finetuning": True}, "pretrained=STUDY/trainings/v/model"),
    ],
)
def test_a_variant_answers_with_what_its_training_leaves(world, training, changes, loaded):
    trainings = {"v": Training(training, f"{training}.yaml", changes)}
    study = dataclasses.replace(STUDY, trainings=trainings, variants={"base": Variant(), "v": Variant("v")})
    command = planned(study)["eval-v"].depends["command"]
    assert f"--model_args {loaded} --tasks" in command
    assert planned(study)["train-v"].problem is None


def test_another_join_is_another_training(world, before):
    (world / "msft.yaml").write_text("cpt: cpt.yaml\nsft: sft.yaml\njoin: merge\n")
    assert changed(before) == {"train-msft", "eval-both"}


def test_an_adapter_on_a_model_that_cpt_made(world):
    (world / "cpt.yaml").write_text("corpus: [corpus.jsonl]\ndecontaminate: false\nfull_finetuning: true\n")
    command = planned()["eval-both"].depends["command"]
    assert "pretrained=STUDY/trainings/msft/cpt/model peft=STUDY/trainings/msft/adapter" in command
