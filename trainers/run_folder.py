"""A run's ``output_dir``: one writer, one configuration, checkpoints to resume from, and a mark when it is finished.

A run that replaces another (``overwrite: true``) sets it aside in ``.earlier/`` until it has a checkpoint of its own:
if it never begins, the earlier one comes back.
"""

import json
import shutil
import zipfile
from collections.abc import Collection
from contextlib import contextmanager, nullcontext
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
"""What a run leaves, in the order in which it may be removed, or moved."""
EARLIER, FORGOTTEN = ".earlier", ".forgotten"
"""Where the run that is replaced waits, and where it goes when it is removed."""

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
def claim(out: Path, run: dict, overwrite: bool, reserved: bool = False):
    """Hold ``out`` for this process alone and for ``run``; a folder in which nothing was begun is left as it was found.

    Args:
        reserved: whether this process holds it already (:func:`reserve`).

    Raises:
        InputError: another process holds it, it belongs to another run and ``overwrite`` is false, or it cannot be
            written.
    """
    with nullcontext() if reserved else _locked(out):
        if _is_of_another(out, run) and not overwrite:
            raise _belongs_to_another(out, run)
        if _is_of_another(out, run) and (out / EARLIER / RUN).exists():
            clear(out)  # it replaced the earlier one, and never had a checkpoint
            _bring_back(out)
        if _is_of_another(out, run):
            (out / EARLIER).mkdir(exist_ok=True)
            _move(out, out / EARLIER)
        try:
            yield
        finally:
            _bring_back(out)


@contextmanager
def reserve(out: Path, run: dict, overwrite: bool):
    """Hold ``out`` for a run that begins later, of whose :func:`identity` only ``run`` is known yet.

    Raises:
        InputError: as :func:`claim`, by what is known.
    """
    with _locked(out):
        if not overwrite and _is_of_another(out, run, known=run.keys()):
            raise _belongs_to_another(out, run, known=run.keys())
        yield


@contextmanager
def _locked(out: Path):
    """Hold ``out`` for this process alone, and leave it as it was found where no run has begun in it."""
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
        _remove(out / FORGOTTEN)
        _bring_back(out)
        _demand_ours(out)
        yield
    finally:
        if not (out / RUN).exists():
            _leave_as_found(out)
        lock.release()


def begin(out: Path, run: dict) -> None:
    """Record whose folder this is."""
    files.write_json(out / RUN, _plain(run))


def keep(out: Path, run: dict) -> None:
    """Record it again where the folder was removed while the run went on.

    Raises:
        InputError: it is another run's by now.
    """
    if not (out / RUN).is_file():
        print(f"{out}: was removed while training; it is made again", flush=True)
        begin(out, run)
    elif _is_of_another(out, run):
        raise _belongs_to_another(out, run)


def forget_earlier(out: Path) -> None:
    """Remove the run that this one replaces: it has a checkpoint of its own."""
    _remove(out / FORGOTTEN)
    if (out / EARLIER).is_dir():
        (out / EARLIER).rename(out / FORGOTTEN)  # at one stroke: half of it must not come back
        _remove(out / FORGOTTEN)


def clear(out: Path) -> None:
    """Remove what a run has left in ``out``."""
    for name in OURS:
        _remove(out / name)


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


def _demand_ours(out: Path) -> None:
    """Raise InputError where files like a run's lie in ``out``, and no run left them."""
    if (out / RUN).exists():
        return
    for path in (out / name for name in OURS):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise InputError(f"{path}: is there, but no {RUN}, so not a run of ours; give another output_dir")


def _is_of_another(out: Path, run: dict, known: Collection[str] | None = None) -> bool:
    """Whether a run that is not ``run`` was begun in ``out``; of both, only the parts ``known`` count."""
    before, now = _two(out, run, known)
    return before is not None and before != now


def _belongs_to_another(out: Path, run: dict, known: Collection[str] | None = None) -> InputError:
    """The error that names the first thing in which the run in ``out`` and ``run`` differ."""
    flat = [
        {**each["config"], **{key: value for key, value in each.items() if key != "config"}}
        for each in _two(out, run, known)
    ]
    key = next(key for key in sorted(flat[0].keys() | flat[1].keys()) if flat[0].get(key) != flat[1].get(key))
    return InputError(
        f"{out}: belongs to another run ({key} was {flat[0].get(key, 'not set')}, now {flat[1].get(key, 'not set')}); "
        "give another output_dir, or 'overwrite: true' to replace it"
    )


def _two(out: Path, run: dict, known: Collection[str] | None) -> tuple[dict | None, dict]:
    """The run in ``out``, if one is, and ``run``, as JSON keeps them; of both what is ``known``, or all."""
    if not (out / RUN).is_file():
        return None, run
    before = json.loads((out / RUN).read_text(encoding="utf-8"))
    return tuple({key: each[key] for key in each if known is None or key in known} for each in (before, _plain(run)))


def _plain(run: dict) -> dict:
    """``run`` as it comes back from JSON."""
    return json.loads(json.dumps(run))


def _bring_back(out: Path) -> None:
    """Move back the run that was set aside, unless the one that replaces it has begun.

    ``run.json`` is what is moved last: where it is not in :data:`EARLIER`, moving was cut short, one way or the other.
    """
    earlier = out / EARLIER
    if earlier.is_dir() and not ((out / RUN).exists() and (earlier / RUN).exists()):
        _move(earlier, out)
        _remove_empty(earlier)


def _move(source: Path, target: Path) -> None:
    """Move what a run has left from one folder to another, ``run.json`` last."""
    for name in OURS:
        if (source / name).exists():
            _remove(target / name)
            (source / name).rename(target / name)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _leave_as_found(out: Path) -> None:
    (out / LOCK).unlink(missing_ok=True)
    for folder in (out / CHECKPOINTS, out):
        _remove_empty(folder)
