"""What a step costs: time, processor time, memory, energy, tokens; summed over the attempts that it took.

A record of a step holds ``seconds`` (wall), ``cpu_seconds`` (of all its processes), ``peak_rss_bytes`` (of all its
processes together as sampled every :data:`BEAT` seconds, and at least of the largest one), ``peak_gpu_bytes`` (as torch
counts it), ``gpu_joules`` (of all visible GPUs, by NVML's counter), ``tokens`` (an evaluation's prompt tokens, a
training's tokens in all epochs), ``device`` and ``attempts``. What is not known is None. Of an attempt whose runner was
killed, what is known is what was noted last, so up to :data:`BEAT` seconds of it are missing.
"""

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path

from results import runs

BEAT, FIRST_BEAT = 5.0, 0.1
"""Seconds between two samples of a running step, and to the first; in between they double."""
ADDED = ("seconds", "cpu_seconds", "gpu_joules", "attempts")
HIGHEST = ("peak_rss_bytes", "peak_gpu_bytes")


def together(before: dict, now: dict) -> dict:
    """The cost of earlier attempts and of this one: amounts added, peaks compared, the rest this one's."""
    found = {**before, **{name: value for name, value in now.items() if value is not None}}
    for names, join in ((ADDED, sum), (HIGHEST, max)):
        for name in names:
            values = [cost[name] for cost in (before, now) if cost.get(name) is not None]
            if values:
                found[name] = join(values)
    return found


class Meter:
    """Measures one attempt of a step, from when it is made."""

    def __init__(self):
        self.started, self.energy = time.monotonic(), energy()
        self.cpu, self.peak = 0.0, 0

    def sample(self, pid: int) -> dict:
        """The cost so far of process ``pid`` and all below it."""
        import psutil

        cpu, rss = 0.0, 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = each.cpu_times()
                    cpu += times.user + times.system + times.children_user + times.children_system
                    rss += each.memory_info().rss
        self.cpu, self.peak = max(self.cpu, cpu), max(self.peak, rss)
        return self._cost()

    def end(self, usage) -> dict:
        """The cost of the whole attempt; ``usage`` is what the system says of the process and all that it waited for
        (``resource.struct_rusage``)."""
        self.cpu = max(self.cpu, usage.ru_utime + usage.ru_stime)
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if usage.ru_maxrss > largest:  # else it may be our own: a process begins with the peak of the one it is made by
            self.peak = max(self.peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        return self._cost()

    def _cost(self) -> dict:
        now = energy()
        return {
            "seconds": round(time.monotonic() - self.started, 1),
            "cpu_seconds": round(self.cpu, 1),
            "peak_rss_bytes": self.peak,
            "gpu_joules": None if now is None or self.energy is None else round(now - self.energy, 1),
            "attempts": 1,
        }


def told(kind: str, output: Path, report: Path) -> dict:
    """What a step that has ended tells of itself: ``tokens``, ``device``, ``peak_gpu_bytes``, ``peak_rss_bytes``.

    Args:
        output: the file that the step leaves last.
        report: what the process wrote because of :data:`medtasks.cost.ENV`.
    """
    found = _json(report)
    if kind == "training":
        stages = [_json(file) for file in (output.parent / "cost.json", output.parent / "cpt" / "cost.json")]
        stages = [stage for stage in stages if stage]
        device = next((stage["device"] for stage in stages), None)
        memory = max((stage["peak_memory_bytes"] for stage in stages), default=None)
        found["tokens"] = sum(stage["tokens_seen"] for stage in stages) if stages else None
        if device is not None and not device.endswith("cpu"):
            found |= {"device": device, "peak_gpu_bytes": memory}
        elif memory is not None:
            found["peak_rss_bytes"] = memory
    elif kind == "evaluation":
        found["tokens"] = _json(output.parent / runs.RESULTS).get("config", {}).get("prompt_tokens")
    if "device" not in found:
        found |= {"device": f"{cores()} CPU cores", "peak_gpu_bytes": None, "gpu_joules": None}
    return found


def of(attempts: dict, own: dict) -> dict:
    """A step's whole cost: what was measured over its attempts, and what it told of itself (:func:`told`)."""
    return attempts | own | {"peak_rss_bytes": max(attempts["peak_rss_bytes"], own.get("peak_rss_bytes") or 0)}


def _json(file: Path) -> dict:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def here() -> str:
    """What steps run on here: the name of the first visible GPU, or the number of processor cores."""
    for nvml, gpu in gpus():
        name = nvml.nvmlDeviceGetName(gpu)
        return name.decode() if isinstance(name, bytes) else name
    return f"{cores()} CPU cores"


def energy() -> float | None:
    """Joules that the visible GPUs have taken since their driver was loaded; None where no driver counts them."""
    counters = [_joules(nvml, gpu) for nvml, gpu in gpus()]
    return sum(counters) if counters and None not in counters else None


def _joules(nvml, gpu) -> float | None:
    try:
        return nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000
    except nvml.NVMLError:
        return None


def gpus() -> list[tuple]:
    """(NVML, handle) of each GPU that ``CUDA_VISIBLE_DEVICES`` shows, all of them if it is not set."""
    try:
        import pynvml
    except ImportError:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if visible is None else [name.strip() for name in visible.split(",") if name.strip()]
    try:
        pynvml.nvmlInit()
        if names is None:
            names = map(str, range(pynvml.nvmlDeviceGetCount()))
        return [(pynvml, _handle(pynvml, name)) for name in names]
    except pynvml.NVMLError:
        return []


def _handle(nvml, name: str):
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
