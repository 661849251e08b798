"""What plain lm-eval wrote is read; what is damaged, cut off or of another version gets one clear line."""

import json

import pytest

from medtasks.errors import InputError
from results import harness_output, runs

DATE = "2026-01-01T00-00-00.000001"
DOC = {"question": "?"}


def sample(doc_id, target="1", logs=(-2.0, -1.0), **changes):
    arguments = {
        f"gen_args_{i}": {"arg_0": "Q:", "arg_1": f" {letter}"} for i, letter in enumerate("ABCD"[: len(logs)])
    }
    row = {
        "doc_id": doc_id,
        "doc": DOC,
        "target": target,
        "arguments": arguments,
        "filtered_resps": [[str(value), "False"] for value in logs],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": f"{doc_id:064x}",
        "prompt_hash": "f" * 64,
        "acc": 1.0,
    }
    row |= changes
    return {key: value for key, value in row.items() if value is not None}


def write(folder, samples, results=None, task="exam"):
    folder.mkdir(parents=True, exist_ok=True)
    made = {"results": {}, "configs": {}, "versions": {}, "n-samples": {task: {"effective": len(samples)}}}
    (folder / f"results_{DATE}.json").write_text(json.dumps(made if results is None else results))
    lines = "".join(json.dumps(row) + "\n" for row in samples)
    (folder / f"samples_{task}_{DATE}.jsonl").write_text(lines)
    return folder


def test_a_foreign_run_is_read(tmp_path):
    folder = write(tmp_path / "out" / "org__model", [sample(1), sample(0, target="A", acc=0.0)])
    run = runs.read(tmp_path / "out")
    assert run.name == "out" and run.source == tmp_path / "out"
    assert run.tasks == {
        "exam": [
            {
                "task": "exam",
                "doc_id": doc_id,
                "id": "0" * 16,
                "group": "0" * 16,
                "subject": "",
                "doc_hash": "0" * 16,
                "prompt_hash": "f" * 16,
                "gold": gold,
                "choice": 1,
                "correct": gold,
                "loglikelihoods": [-2.0, -1.0],
            }
            for doc_id, gold in ((0, 0), (1, 1))
        ]
    }
    assert runs.read(folder / f"results_{DATE}.json", name="mine").name == "mine"


def test_the_second_half_of_acc_mutual_info_is_no_option(tmp_path):
    row = sample(0, logs=(-1.0, -2.0, -3.0, -4.0), target=" B")
    for i in (2, 3):
        row["arguments"][f"gen_args_{i}"] = {"arg_0": "", "arg_1": " AB"[i - 1 : i]}
    found = runs.read(write(tmp_path, [row])).tasks["exam"][0]
    assert (found["loglikelihoods"], found["gold"], found["choice"]) == ([-1.0, -2.0], 1, 0)


def test_generated_answers_are_right_by_their_metric(tmp_path):
    generated = {"filtered_resps": ["42"], "target": "42", "acc": None, "metrics": ["exact_match", "f1"]}
    folder = write(tmp_path, [sample(0, exact_match=1.0, f1=0.5, **generated)])
    found = runs.read(folder).tasks["exam"][0]
    assert (found["correct"], found["choice"], found["gold"], found["loglikelihoods"]) == (1, None, None, [])
    with pytest.raises(InputError, match=r"jsonl:1: .*no f1 that is 1 \(right\) or 0 .*exact_match, f1"):
        runs.read(folder, metric="f1")


def test_arguments_may_be_lists_of_lists(tmp_path):
    row = sample(0, arguments=[["Q:", " A"], ["Q:", " B"]], target="B")
    assert runs.read(write(tmp_path, [row])).tasks["exam"][0]["gold"] == 1


def test_a_file_that_is_no_text_is_named(tmp_path):
    folder = write(tmp_path, [sample(0)])
    next(folder.glob("samples*")).write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(InputError, match=r"jsonl:1: damaged or cut off"):
        runs.read(tmp_path)


def test_of_several_filters_one_must_be_chosen(tmp_path):
    both = [sample(0, filter="strict", acc=0.0), sample(0, filter="loose")]
    folder = write(tmp_path, both)
    with pytest.raises(InputError, match="choose one with --filter strict|loose"):
        runs.read(folder)
    with pytest.raises(InputError, match="no samples of filter other"):
        harness_output.predictions("exam", next(folder.glob("samples*")), filter_name="other")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged or cut off"),
        ('{"results": {"exam": ', "damaged or cut off"),
        ("[1, 2]", r"no results of an lm-eval that this can read \(\$: .* is not of type 'object'\)"),
        ('{"results": {}, "versions": {}}', r"no results .*\(\$: 'configs' is a required property\)"),
        ('{"results": {"a": 3}, "versions": {}, "configs": {}}', r"no results .*\(\$\.results\.a: 3 is not of type"),
        ('{"results": {}, "versions": {}, "configs": {}, "n-samples": [1]}', r"no results .*\(\$\['n-samples'\]: "),
        ('{"results": {}, "versions": {}, "configs": {}, "config": "x"}', r"no results .*\(\$\.config: 'x' is not"),
    ],
)
def test_a_bad_results_file_is_named(tmp_path, content, message):
    folder = write(tmp_path, [sample(0)])
    (folder / f"results_{DATE}.json").write_text(content)
    with pytest.raises(InputError, match=rf"results_{DATE}.json: {message}.*evaluate again") as raised:
        runs.read(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([sample(0), "{"], ":2: damaged or cut off"),
        ([sample(0), "3"], ":2: not a sample of lm-eval"),
        ([sample(0, doc_hash=None)], ":1: not a sample that this can read .no 'doc_hash'"),
        ([sample(0, prompt_hash=None)], ":1: not a sample that this can read .no 'prompt_hash'"),
        ([sample(0, arguments=None)], ":1: not a sample that this can read .no 'arguments'"),
        ([sample(0, logs=(-1.0, float("nan")))], ":1: not a sample that this can read .a log-likelihood is NaN"),
        ([sample(0), sample(0)], ": holds items twice"),
        ([sample(0, logs=())], ":1: not a sample that this can read"),
        ([sample(0)], ": 1 of 2 items, so it was cut off"),
        ([], ": no samples"),
    ],
)
def test_bad_samples_are_named(tmp_path, rows, message):
    folder = write(tmp_path, [sample(0), sample(1)])
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / f"samples_exam_{DATE}.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"samples_exam_{DATE}\.jsonl{message}.*evaluate again") as raised:
        runs.read(tmp_path)
    assert "\n" not in str(raised.value)


def test_folders_without_one_evaluation_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        runs.read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a folder that lm_eval"):
        runs.read(tmp_path)
    folder = write(tmp_path, [sample(0)])
    next(folder.glob("samples*")).unlink()
    with pytest.raises(InputError, match=r"no samples_\*_.*--log_samples"):
        runs.read(tmp_path)
    (folder / "results_2026-01-02T00-00-00.json").write_text("{}")
    with pytest.raises(InputError, match="holds 2 evaluations .*give one of these files"):
        runs.read(tmp_path)
