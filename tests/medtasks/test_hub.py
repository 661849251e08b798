"""The real datasets through a loopback Hub: official splits, published subsets, parity with lm-eval's own tasks."""

import json

from medtasks import TASKS_DIR

SIZES = """
import json
from medtasks import benchmarks
print(json.dumps({name: len(benchmarks.load(name, "test")) for name in benchmarks.BENCHMARKS}))
"""

FIRST_ROWS = """
import json
from medtasks import benchmarks as b, sources
rows = {}
validation = sources.load_rows(b.MEDMCQA, None, "validation")["id"]
labelled = sources.load_rows(b.PUBMEDQA, "pqa_labeled", "train")["pubid"]
families = ("medqa", "medmcqa", "pubmedqa", "mmlu_med")
first = {name: [item["id"] for item in b.load(f"{name}_sub", "test")] for name in families}
first["medmcqa"] = [validation.index(i.removeprefix("medmcqa-")) for i in first["medmcqa"]]
first["pubmedqa"] = [labelled.index(int(i.removeprefix("pubmedqa-"))) for i in first["pubmedqa"]]
print(json.dumps(first))
"""

REQUESTS = """
import json, sys
from lm_eval.tasks import TaskManager
from medtasks import TASKS_DIR, benchmarks

def requests(manager, name):
    task = manager.load(name)["tasks"][name]
    task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(1234)
    task.build_all_requests()
    return [i.args for i in task.instances], [str(task.doc_to_target(d)) for d in task.test_docs()]

ours, theirs = TaskManager(include_path=str(TASKS_DIR), include_defaults=False), TaskManager()
pairs = {"medqa": "medqa_4options", "medmcqa_lmeval": "medmcqa", "pubmedqa_lmeval": "pubmedqa"}
pairs |= {f"mmlu_med_lmeval_{s}": f"mmlu_{s}" for s in benchmarks.MMLU_SUBJECTS}
report = {}
for our, their in pairs.items():
    a, b = requests(ours, our), requests(theirs, their)
    report[our] = [len(a[0]), a == b, sorted(a[0]) == sorted(b[0])]
print(json.dumps(report))
"""

SCORES = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
from medtasks import TASKS_DIR

def scores(manager, tasks):
    result = lm_eval.simple_evaluate(
        "hf", {"pretrained": sys.argv[1], "dtype": "float32"}, tasks, limit=8, task_manager=manager, batch_size=4,
        device="cpu", bootstrap_iters=0,
    )
    return {t: [(s["filtered_resps"], s["acc"]) for s in result["samples"][t]] for t in tasks}

manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False)
ours = scores(manager, ["medqa", "medmcqa_lmeval", "mmlu_med_lmeval_anatomy"])
theirs = scores(TaskManager(), ["medqa_4options", "medmcqa", "mmlu_anatomy"])
print(json.dumps([list(ours.values()) == list(theirs.values()), sum(map(len, ours.values()))]))
"""


FLAWS = """
import json
from pathlib import Path
from medtasks import benchmarks, catalogue, flaws
known = (*benchmarks.BENCHMARKS, *benchmarks.VIEWS, "medhallu", "scifact")
sizes = {name: catalogue.abouts()[name].items for name in known}
found = {name: len(benchmarks.load(name, "test")) for name in sizes}
names = [n for n in found if not n.endswith("_lmeval")] + ["medhallu_knowledge"]
print(json.dumps([sizes == found, flaws.table(names)]))
"""

LEADERBOARD = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
from medtasks import TASKS_DIR, cli

cli.register_models()

def scores(manager, name):
    result = lm_eval.simple_evaluate(
        "hf-mcq", {"pretrained": sys.argv[1], "dtype": "float32"}, [name], limit=3, task_manager=manager,
        device="cpu", bootstrap_iters=0,
    )
    items = result["samples"].values()
    return sorted([[*(round(r[0], 3) for r in s["filtered_resps"]), s["acc"]] for s in samples] for samples in items)

ours = scores(TaskManager(include_path=str(TASKS_DIR), include_defaults=False), "open_medical_llm")
theirs = scores(TaskManager(), "multimedqa")
print(json.dumps([ours == theirs, len(ours), sum(map(len, ours))]))
"""


def last_line(text):
    return json.loads(text.strip().splitlines()[-1])


def test_official_sizes(on_hub):
    sizes = last_line(on_hub(SIZES))
    assert (sizes["medqa"], sizes["medmcqa"], sizes["pubmedqa"], sizes["mmlu_med"]) == (1273, 4183, 500, 1089)
    assert {sizes[name] for name in sizes if name.endswith("_sub")} == {200}


def test_published_subsets_begin_with_the_published_indices(on_hub):
    first = last_line(on_hub(FIRST_ROWS))
    assert first["medqa"][:3] == [f"medqa-validation-{i:05d}" for i in (373, 646, 616)]
    assert first["medmcqa"][:2] == [3410, 3788]
    assert first["pubmedqa"][:2] == [662, 169]
    assert first["mmlu_med"][:3] == [
        "mmlu-college_biology-test-00122",
        "mmlu-college_biology-test-00074",
        "mmlu-anatomy-test-00076",
    ]
    assert len(first["mmlu_med"]) - len(set(first["mmlu_med"])) == 12
    assert all(len(first[name]) == len(set(first[name])) for name in ("medqa", "medmcqa", "pubmedqa"))


def test_requests_equal_lm_evals_own_on_every_item(on_hub):
    report = last_line(on_hub(REQUESTS))
    pubmedqa = report.pop("pubmedqa_lmeval")
    assert pubmedqa[0] == 1500 and pubmedqa[2]  # same requests, in another order
    assert {name: equal for name, (_, equal, _) in report.items()} == dict.fromkeys(report, True)
    assert sum(n for n, _, _ in report.values()) == 4 * (1273 + 4183 + 1089)


def test_scores_equal_lm_evals_own_item_for_item(on_hub, language_model):
    equal, n = last_line(on_hub(SCORES, str(language_model)))
    assert equal and n == 24


def test_the_leaderboards_nine_tasks_score_as_lm_evals_own(on_hub, language_model):
    """Also with --limit: the items stand in lm-eval's order."""
    assert last_line(on_hub(LEADERBOARD, str(language_model))) == [True, 9, 27]


def test_sizes_and_tables_of_flaws_are_those_of_the_data(on_hub, shared_data):
    """Every line of a README's table is one that the code prints over the official test sets."""
    equal, table = last_line(on_hub(FLAWS, MEDTASKS_DATA=f"{shared_data / 'eval'},{shared_data / 'corpus'},hub"))
    assert equal
    printed = set(table.splitlines())
    for suite in ("medadapt", "open_medical_llm", "mirage", "medsafe", "robust"):
        text = (TASKS_DIR / suite / "README.md").read_text()
        lines = [line for line in text.partition("## Known flaws")[2].splitlines() if line.startswith("| ")]
        assert len(lines) > 4 and set(lines) <= printed, set(lines) - printed
