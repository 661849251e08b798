"""What a step costs: measured from outside, told by itself, summed over attempts."""

import json
import os
import sys
import types

import pytest

from medtasks import cost as own_cost
from results.studies import cost, process
from results.studies.lock import locked
from results.studies.runner import Runner
from results.studies.steps import Step
from results.studies.study import Study, Variant

STUDY = Study(name="s", base="b", tasks=["t"], variants={"base": Variant()})
BUSY = """
import os, sys
text = bytearray(80_000_000)
while sum(os.times()[:2]) < 0.3:
    pass
os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
sys.exit(1) if len(sys.argv) > 2 else open(sys.argv[1], "w").write("done")
"""


class NVML(types.ModuleType):
    """pynvml with two GPUs; the counter of each grows by 1,500 mJ with every look."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        super().__init__("pynvml")
        self.counters, self.is_there = {"0": 10_000, "1": 20_000}, True

    def nvmlInit(self):  # noqa: N802
        if not self.is_there:
            raise self.NVMLError

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.counters)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return str(index)

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return {"GPU-b": "1"}[uuid]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        self.counters[handle] += 1_500
        return self.counters[handle]


@pytest.fixture
def nvml(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    module = NVML()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


@pytest.mark.parametrize(("visible", "joules"), [(None, 33.0), ("1", 21.5), ("GPU-b", 21.5), ("", None)])
def test_energy_is_that_of_the_visible_gpus(nvml, monkeypatch, visible, joules):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cost.energy() == joules


def test_without_a_driver_energy_is_unknown(nvml):
    nvml.is_there = False
    assert cost.energy() is None


def step(out, *arguments, kind="training"):
    target = out / "trainings" / "a" / "training.json"
    command = [sys.executable, "-S", "-c", BUSY, str(target), *arguments]
    return Step("train-a", kind, command, target, {"of": "a"})


def run(made, out):
    with locked(out) as lock:
        Runner(STUDY, out, lock).run([made])


def test_a_step_records_its_cost(tmp_path, nvml):
    nvml.is_there = False
    run(step(tmp_path), tmp_path)
    record = json.loads((tmp_path / "steps" / "train-a.json").read_text())
    assert record["cpu_seconds"] >= 0.3 and record["seconds"] >= 0.3 and record["attempts"] == 1
    assert 80e6 < record["peak_rss_bytes"] < 1e9
    assert record["device"] == f"{cost.cores()} CPU cores"
    assert record["gpu_joules"] is None and record["peak_gpu_bytes"] is None and record["tokens"] is None


def test_attempts_add_up_and_gpu_figures_come_from_the_training_itself(tmp_path, nvml):
    run(step(tmp_path, "fail"), tmp_path)
    attempt = json.loads((tmp_path / "steps" / "train-a.attempt.json").read_text())["cost"]
    assert attempt["attempts"] == 1 and attempt["gpu_joules"] > 0
    stage = {"device": "1 x NVIDIA H100 80GB HBM3", "peak_memory_bytes": 7, "tokens_seen": 100}
    folder = tmp_path / "trainings" / "a"
    (folder / "cpt").mkdir(parents=True)
    (folder / "cost.json").write_text(json.dumps(stage))
    (folder / "cpt" / "cost.json").write_text(json.dumps(stage | {"peak_memory_bytes": 9, "tokens_seen": 50}))
    run(step(tmp_path), tmp_path)
    record = json.loads((tmp_path / "steps" / "train-a.json").read_text())
    assert record["attempts"] == 2 and record["cpu_seconds"] >= 0.6 > attempt["cpu_seconds"]
    assert record["gpu_joules"] > attempt["gpu_joules"]
    assert (record["tokens"], record["peak_gpu_bytes"]) == (150, 9)
    assert record["device"] == "1 x NVIDIA H100 80GB HBM3"
    assert not (tmp_path / "steps" / "train-a.attempt.json").exists()


def test_costs_join():
    before = {"seconds": 2.0, "cpu_seconds": 1.0, "peak_rss_bytes": 5, "gpu_joules": None, "attempts": 1}
    now = {"seconds": 3.0, "cpu_seconds": 1.5, "peak_rss_bytes": 4, "gpu_joules": 6.0, "attempts": 1}
    joined = {"seconds": 5.0, "cpu_seconds": 2.5, "peak_rss_bytes": 5, "gpu_joules": 6.0, "attempts": 2}
    assert cost.together(before, now) == joined
    assert cost.together({}, now) == now


def test_a_running_step_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "BEAT", 0.0)
    beats = []
    code = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', sys.argv[1], '/dev/null', 'fail'])"
    with process.Stop() as stop, open(os.devnull) as lock:
        ended = process.run(
            [sys.executable, "-S", "-c", code, BUSY], {}, tmp_path / "log", lock.fileno(), stop, print, beats.append
        )
    assert ended.code == 0 and max(beat["peak_rss_bytes"] for beat in beats) > 80e6
    assert beats[-1]["cpu_seconds"] <= ended.cost["cpu_seconds"] and ended.cost["cpu_seconds"] >= 0.3


def test_a_command_tells_its_own_cost(tmp_path, medadapt):
    report = tmp_path / "cost.json"
    assert medadapt("--version", **{own_cost.ENV: str(report)}).returncode == 0
    told = json.loads(report.read_text())
    assert told["peak_rss_bytes"] > 1e6 and "peak_gpu_bytes" not in told
    report.unlink()
    assert medadapt("--version", RANK="1", **{own_cost.ENV: str(report)}).returncode == 0
    assert not report.exists()


def test_gpu_memory_is_what_torch_counted(tmp_path, monkeypatch):
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 3,
        max_memory_allocated=lambda i: (0, 40, 2)[i],
        get_device_name=lambda i: f"GPU {i}",
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setenv(own_cost.ENV, str(tmp_path / "cost.json"))
    own_cost.write_if_asked()
    told = cost.told("index", tmp_path / "index.json", tmp_path / "cost.json")
    assert (told["peak_gpu_bytes"], told["device"]) == (42, "2 x GPU 1")


def test_an_evaluation_s_tokens_are_those_that_it_scored(tmp_path):
    (tmp_path / "results.json").write_text('{"config": {"prompt_tokens": 12}}')
    assert cost.told("evaluation", tmp_path / "predictions.jsonl", tmp_path / "none")["tokens"] == 12


def test_the_scorer_counts_the_tokens_of_its_prompts():
    """The letters of an item count its prompt once, longer options each their own, cut as they are computed."""
    from medtasks.scoring.lm import HFMCQ

    scorer = HFMCQ.__new__(HFMCQ)  # without a model
    scorer._max_length, scorer.prompt_tokens = 6, 0
    first, second = [1, 2, 3], [1, 2, 3, 4, 5, 6, 7]
    scorer._as_requests([(None, first, [8]), (None, first, [9]), (None, first, [8, 9])])
    assert scorer.prompt_tokens == 3 + 4
    scorer._as_requests([(None, second, [8])])
    assert scorer.prompt_tokens == 7 + 6
