"""Leaderboard files of anyone are ranked: shared ranks by overlap, the incomplete apart, the damaged named."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from board_files import nine, write_board_file

from medtasks.errors import InputError
from results.boards import leaderboard, ranking
from results.commands.leaderboard import leaderboard as command

RUNS = Path(__file__).parents[2] / "results" / "runs"


def boards_of(folder):
    return ranking.boards([ranking.read(file) for file in ranking.find(folder)])


def test_mean_and_interval_from_standard_errors(tmp_path):
    write_board_file(tmp_path, "a/one", nine(0.5) | {"pubmedqa": 0.95}, stderrs=0.03)
    [board] = boards_of(tmp_path)
    place = board.ranked[0]
    assert place.mean == pytest.approx(0.55)
    assert place.high - place.mean == pytest.approx(1.959964 * math.sqrt(9 * 0.03**2) / 9, rel=1e-6)
    assert place.mean - place.low == pytest.approx(place.high - place.mean)


def test_without_standard_errors_the_official_sizes_give_the_interval(tmp_path):
    write_board_file(tmp_path, "a/one", nine(0.5))
    place = boards_of(tmp_path)[0].ranked[0]
    sizes = (4183, 1273, 135, 265, 144, 173, 100, 272, 500)
    assert place.high - 0.5 == pytest.approx(1.959964 * math.sqrt(sum(0.25 / n for n in sizes)) / 9, rel=1e-6)


def test_ranks_count_the_models_wholly_above(tmp_path):
    """Half-widths of 0.0196: b overlaps a and c, which do not overlap each other; d lies below all three."""
    for model, accuracy in (("a", 0.60), ("b", 0.57), ("c", 0.54), ("d", 0.40)):
        write_board_file(tmp_path, f"x/{model}", nine(accuracy), stderrs=0.03)
    places = boards_of(tmp_path)[0].ranked
    assert [(place.entry.model, place.rank) for place in places] == [("x/a", 1), ("x/b", 1), ("x/c", 2), ("x/d", 4)]


def test_a_wide_interval_is_not_told_apart_from_the_best(tmp_path):
    write_board_file(tmp_path, "x/best", nine(0.60), stderrs=0.001)
    write_board_file(tmp_path, "x/second", nine(0.58), stderrs=0.001)
    write_board_file(tmp_path, "x/unsure", nine(0.57), stderrs=0.09)
    places = boards_of(tmp_path)[0].ranked
    assert [(place.entry.model, place.rank) for place in places] == [("x/best", 1), ("x/second", 2), ("x/unsure", 1)]
    order = sorted(places, key=lambda place: -place.high)
    assert [place.rank for place in order] == sorted(place.rank for place in places)


def test_the_incomplete_stand_apart_with_what_is_missing(tmp_path):
    write_board_file(tmp_path, "x/whole", nine(0.5))
    some = {task: 0.9 for task in leaderboard.TASKS if task not in ("pubmedqa", "mmlu_anatomy")}
    write_board_file(tmp_path, "x/some", some, partial=True)
    [board] = boards_of(tmp_path)
    assert [place.entry.model for place in board.ranked] == ["x/whole"]
    assert [(entry.model, reason) for entry, reason in board.unranked] == [("x/some", "no mmlu_anatomy, pubmedqa")]


def test_files_of_other_tasks_are_other_boards(tmp_path):
    write_board_file(tmp_path, "x/nine", nine(0.5) | {"multimedqa": 0.5, "winogrande": 0.7})
    write_board_file(tmp_path, "x/ours", {"medmcqa": 0.5, "pubmedqa": 0.6}, prompts="medadapt")
    write_board_file(tmp_path, "x/sub", {"medqa_sub": 0.5, "medmcqa_sub": 0.4})
    boards = boards_of(tmp_path)
    assert {board.tasks: [place.entry.model for place in board.ranked] for board in boards} == {
        tuple(leaderboard.TASKS): ["x/nine"],
        ("medmcqa", "pubmedqa"): ["x/ours"],
        ("medmcqa_sub", "medqa_sub"): ["x/sub"],
    }
    sub = next(board for board in boards if "medqa_sub" in board.tasks).ranked[0]
    assert sub.high - sub.mean == pytest.approx(1.959964 * math.sqrt((0.25 + 0.24) / 200) / 2, rel=1e-6)


def test_unknown_tasks_without_standard_error_have_no_interval(tmp_path):
    write_board_file(tmp_path, "x/one", {"winogrande": 0.5})
    [board] = boards_of(tmp_path)
    assert not board.ranked
    assert board.unranked[0][1] == "no interval: neither acc_stderr nor a known size of winogrande"


def test_the_newest_file_of_a_model_counts(tmp_path):
    write_board_file(tmp_path, "x/one", nine(0.9), date="2024-04-24 21:53:21.500000")
    write_board_file(tmp_path, "x/one", nine(0.5), date="2024-04-24T21-53-21.600000")
    write_board_file(tmp_path, "x/one", nine(0.8), date="2023-12-31T23-59-59.000000")
    write_board_file(tmp_path, "x/one", {"medmcqa": 0.1}, date="2025-01-01T00-00-00", partial=True)
    [board] = boards_of(tmp_path)
    assert [place.mean for place in board.ranked] == [pytest.approx(0.5)]
    assert board.ranked[0].entry.date == "2024-04-24T21:53:21.600000"
    assert not board.unranked


def test_another_dtype_is_another_entry(tmp_path):
    write_board_file(tmp_path, "x/one", nine(0.5))
    write_board_file(tmp_path, "x/one", nine(0.4), date="2025-01-01T00-00-00", model_dtype="bfloat16")
    [board] = boards_of(tmp_path)
    assert [(place.entry.dtype, place.mean) for place in board.ranked] == [
        ("float16", pytest.approx(0.5)),
        ("bfloat16", pytest.approx(0.4)),
    ]


def test_damaged_and_foreign_files_are_named_and_the_others_ranked(tmp_path, capsys):
    good = write_board_file(tmp_path, "x/good", nine(0.5))
    for name, content in {
        "cut": '{"config": {"mod',
        "list": "[1]",
        "lmeval": json.dumps({"results": {}, "configs": {}, "config": {"model": "hf"}}),
        "percent": json.dumps({"config": {"model_name": "x/y"}, "results": {"medqa": {"acc,none": 52.5}}}),
        "nan": '{"config": {"model_name": "x/y"}, "results": {"medqa": {"acc,none": NaN}}}',
        "empty": json.dumps({"config": {"model_name": "x/y"}, "results": {"squad": {"f1,none": 0.5}}}),
    }.items():
        (tmp_path / f"results_{name}.json").write_text(content)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "results_1.json").write_text("{")
    (good.parent / "results_1-checkpoint.json").write_text("{")
    (tmp_path / "table.json").write_text("{")
    assert command([str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "x/good" in shown.out
    problems = dict(
        line.removeprefix(f"medadapt: left out: {tmp_path}/results_").split(".json: ", 1)
        for line in shown.err.splitlines()
    )
    assert set(problems) == {"cut", "list", "lmeval", "percent", "nan", "empty"}
    assert problems["cut"].startswith("damaged or cut off")
    assert "medadapt submit" in problems["lmeval"]
    assert problems["percent"].endswith("medqa: acc,none is 52.5, not a share between 0 and 1")
    assert problems["nan"].endswith("medqa: acc,none is None, not a share between 0 and 1")
    assert problems["empty"].endswith("no task has acc,none")


def test_nothing_to_rank_is_refused(tmp_path):
    with pytest.raises(InputError, match="no <org>/<model>/results_<datetime>.json below it"):
        command([str(tmp_path)])
    (tmp_path / "results_1.json").write_text("{")
    with pytest.raises(InputError, match="none of 1 files is a leaderboard file"):
        command([str(tmp_path)])
    with pytest.raises(InputError, match="no such file or folder, and no ORG/NAME"):
        command([str(tmp_path / "nowhere")])


def test_hand_made_files_with_acc_alone(tmp_path):
    file = tmp_path / "GPT-4" / "results_2024-04-18.json"
    file.parent.mkdir()
    results = {task: {"acc": 0.8} for task in leaderboard.TASKS}
    file.write_text(json.dumps({"config": {"model_name": "GPT-4"}, "results": results}))
    place = boards_of(tmp_path)[0].ranked[0]
    assert (place.entry.model, place.entry.dtype, place.mean) == ("GPT-4", "", pytest.approx(0.8))


@pytest.fixture
def two(tmp_path):
    write_board_file(tmp_path, "x/one", nine(0.50) | {"medmcqa": 0.30})
    write_board_file(tmp_path, "x/two", nine(0.48) | {"medmcqa": 0.40})
    write_board_file(tmp_path, "x/some", {"medmcqa": 0.1})
    return tmp_path


def test_text_and_markdown(two, capsys):
    assert command([str(two)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "model", "dtype", "mean,", "%", "[95%]", *(f"({i})" for i in range(1, 10))]
    assert lines[1].split()[:6] == ["1", "x/one", "float16", "47.8", "[45.6,", "50.0]"]
    assert lines[3].startswith("(1) medmcqa  (2) medqa_4options")
    assert lines[4].startswith("not ranked: x/some (float16): no medqa_4options, mmlu_anatomy")
    assert command([str(two), "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"| rank | model | dtype | mean, % [95%] | {' | '.join(leaderboard.TASKS)} |"
    assert lines[2].startswith("| 1 | x/one | float16 | 47.8 [45.6, 50.0] | 30.0 | 50.0 |")
    assert lines[5].startswith("- not ranked: x/some (float16): no medqa_4options")


def test_csv_and_json_hold_everything(two, capsys):
    command([str(two), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["rank"], row["model"], row["medmcqa"]) for row in rows] == [
        ("1", "x/one", "0.3"),
        ("1", "x/two", "0.4"),
        ("", "x/some", "0.1"),
    ]
    assert float(rows[0]["mean"]) == pytest.approx(4.3 / 9)
    assert rows[2]["mean"] == rows[2]["pubmedqa"] == "" and rows[2]["reason"].startswith("no medqa_4options")
    command([str(two), "--format", "json"])
    [board] = json.loads(capsys.readouterr().out)
    assert board["tasks"] == list(leaderboard.TASKS)
    assert [entry.get("rank") for entry in board["entries"]] == [1, 1, None]
    assert board["entries"][0]["accuracies"]["medmcqa"] == 0.3


def test_sort_orders_by_a_task_and_keeps_the_ranks(two, capsys):
    command([str(two), "--sort", "medmcqa"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["1", "x/two"], ["1", "x/one"]]
    with pytest.raises(InputError, match="--sort medqa: no board has such a task; there are medmcqa, "):
        command([str(two), "--sort", "medqa"])


def test_committed_studies_rank_among_themselves(capsys):
    assert command([str(RUNS / "published_subsets_1.5b"), "--format", "json"]) == 0
    [board] = json.loads(capsys.readouterr().out)
    assert board["tasks"] == ["medmcqa_sub", "medqa_sub", "mmlu_med_sub", "pubmedqa_sub"]
    best = board["entries"][0]
    assert (best["rank"], best["model"], best["mean"]) == (1, "medadapt/published_subsets_1.5b__sft", 0.505)
    assert len(board["entries"]) == 5
