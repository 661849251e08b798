"""What a command took, told by itself to whoever started it: ``MEDADAPT_COST`` names the file to write at its end."""

import os
import resource
import sys
from pathlib import Path

ENV = "MEDADAPT_COST"


def write_if_asked() -> None:
    """Write ``peak_rss_bytes`` and, if a GPU was used, ``peak_gpu_bytes`` (over all GPUs) and ``device``.

    Of several processes of one command, the first speaks for itself.
    """
    path = os.environ.get(ENV)
    if not path or int(os.environ.get("RANK", 0)) != 0:
        return
    from medtasks.files import write_json

    cost: dict = {"peak_rss_bytes": peak_rss()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        peaks = {i: torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())}
        used = [i for i, peak in peaks.items() if peak]
        if used:
            cost["peak_gpu_bytes"] = sum(peaks.values())
            cost["device"] = f"{len(used)} x {torch.cuda.get_device_name(used[0])}"
    write_json(path, cost)


def peak_rss() -> int:
    """Most memory that this process held, in bytes.

    Linux tells it for the program alone; ``getrusage`` also counts what made the process, before it became this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        peaks = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0].split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
