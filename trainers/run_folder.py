"""A run's ``output_dir``: one writer, one configuration, checkpoints to resume from, and a mark when it is finished."""

import json
import shutil
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medtasks import files
from medtasks.errors import InputError
from trainers import guards, trackers

RUN, FINISHED, CHECKPOINTS, LOCK = "run.json", "training.json", "checkpoints", ".lock"
LEARNED = ("adapter", "model", "merged", CHECKPOINTS)
DATA, DROPPED = "data.json", "dropped.jsonl"
SHOWN = ("loss.json", "eval.json", "loss.png", "cost.json", DATA, DROPPED, guards.DIVERGED, trackers.FOLDER)
OURS = (FINISHED, *LEARNED, *SHOWN, RUN)
"""What a run leaves, in the order in which it may be removed."""

INERT = {
    "output_dir",
    "model_name_or_path",  # the base's fingerprint counts
    "adapter",  # its hash counts
    "merge",
    "keep_checkpoints",
    "max_grad_spike",
    "overwrite",
    "save_total_limit",
    "dataset_num_proc",
    "dataloader_num_workers",
    "disable_tqdm",
    "log_level",
    "report_to",
    "run_name",
}
"""Keys that change nothing in what is learned: a run may be continued with other values."""


@dataclass
class RunArguments:
    """What the run starts from and what it leaves."""

    _argument_group_name = "run"

    adapter: str | None = field(
        default=None, metadata={"help": "An adapter folder to train on from, instead of a new adapter."}
    )
    full_finetuning: bool = field(
        default=False,
        metadata={"help": "Train all weights instead of an adapter (with `use_peft: false`); leaves model/."},
    )
    adapter_scale: float = field(
        default=1.0,
        metadata={
            "help": "The part of the training's effect that is kept: below 1 it lies between the base and what was "
            "learned (WiSE-FT)."
        },
    )
    merge: bool = field(default=False, metadata={"help": "Also write base + adapter as a plain model to merged/."})
    max_grad_spike: float = field(
        default=0.0,
        metadata={"help": "Stop where the gradient norm is this many times its running median; 0: no such limit."},
    )
    keep_checkpoints: bool = field(default=False, metadata={"help": "Keep checkpoints/ after the run is finished."})
    overwrite: bool = field(default=False, metadata={"help": "Replace what another configuration left in output_dir."})


def identity(config: dict, **parts) -> dict:
    """What makes two runs the same run: the configuration less :data:`INERT`, and ``parts`` (fingerprints)."""
    return {"config": {key: value for key, value in sorted(config.items()) if key not in INERT}, **parts}


def check_start(out: Path, *starts: str | None) -> None:
    """Refuse a run that begins with what an earlier one left in its own folder, which it would replace.

    Raises:
        InputError: one of ``starts`` (folders, or names of the Hub) lies in what is learned in ``out``.
    """
    for start in filter(None, starts):
        path = Path(start).expanduser().resolve()
        if path.exists() and any(path.is_relative_to((out / name).resolve()) for name in LEARNED):
            raise InputError(f"{start}: lies in this run's own output_dir ({out}); give another output_dir")


@contextmanager
def claim(out: Path, run: dict, overwrite: bool):
    """Hold ``out`` for this process alone; a folder in which nothing was begun is left as it was found.

    Raises:
        InputError: another process holds it, it belongs to another run and ``overwrite`` is false, or it cannot be
            written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"{out}: another process is training into it; wait for it or give another output_dir"
        ) from error
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); give another output_dir") from error
    try:
        _check_owner(out, run, overwrite)
        yield
    finally:
        if not (out / RUN).exists():
            _leave_as_found(out)
        lock.release()


def begin(out: Path, run: dict) -> None:
    """Record whose folder this is."""
    files.write_json(out / RUN, json.loads(json.dumps(run)))


def clear(out: Path) -> None:
    """Remove what a run has left in ``out``."""
    for name in OURS:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def finished(out: Path) -> bool:
    """Whether the run in ``out`` came to its end."""
    return (out / FINISHED).is_file()


def last_checkpoint(out: Path) -> tuple[Path | None, dict]:
    """The newest complete checkpoint and its trainer state; half-written ones are removed. (None, {}) where none is."""
    processes = json.loads((out / RUN).read_text(encoding="utf-8"))["num_processes"] if (out / RUN).is_file() else 1
    found = [folder for folder in (out / CHECKPOINTS).glob("checkpoint-*") if folder.name.rpartition("-")[2].isdigit()]
    for folder in sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]), reverse=True):
        if (state := _complete_state(folder, processes)) is not None:
            return folder, state
        shutil.rmtree(folder)
    return None, {}


def _complete_state(checkpoint: Path, processes: int) -> dict | None:
    """The trainer state of a checkpoint all of whose files are whole, else None.

    The first process writes it last, but waits for no other one's random state.
    """
    from safetensors import SafetensorError, safe_open

    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for file in checkpoint.glob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return None
    torch_files = [file for file in checkpoint.iterdir() if file.suffix in (".pt", ".pth", ".bin")]
    all_there = processes == 1 or len(list(checkpoint.glob("rng_state_*.pth"))) == processes
    return state if all_there and all(zipfile.is_zipfile(file) for file in torch_files) else None


def _check_owner(out: Path, run: dict, overwrite: bool) -> None:
    """Raise, or clear the folder, if it holds another run's files."""
    if not (out / RUN).exists():
        for path in (out / name for name in OURS):
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise InputError(f"{path}: is there, but no {RUN}, so not a run of ours; give another output_dir")
        return
    before = json.loads((out / RUN).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(run))
    if before == now:
        return
    if not overwrite:
        raise InputError(
            f"{out}: belongs to another run ({_difference(before, now)}); give another output_dir, or "
            "'overwrite: true' to replace it"
        )
    clear(out)


def _difference(before: dict, now: dict) -> str:
    """The first thing in which two runs differ, in words."""
    flat = [{**run["config"], **{key: value for key, value in run.items() if key != "config"}} for run in (before, now)]
    key = next(key for key in sorted(flat[0].keys() | flat[1].keys()) if flat[0].get(key) != flat[1].get(key))
    return f"{key} was {flat[0].get(key, 'not set')}, now {flat[1].get(key, 'not set')}"


def _leave_as_found(out: Path) -> None:
    (out / LOCK).unlink(missing_ok=True)
    for folder in (out / CHECKPOINTS, out):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
