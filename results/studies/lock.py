"""One process at a time works in a study's folder, and so does what it leaves running.

The lock is an flock on ``.lock``, whose open file every step's command gets as its standard input. The system gives the
lock back when the last process that holds the file has ended: a runner that is killed while its step goes on keeps the
folder locked until that step has ended too.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from medtasks.errors import InputError
from medtasks.files import write_json

LOCK, HOLDER = ".lock", ".running.json"


class Lock:
    """A held lock.

    Attributes:
        file: descriptor of the locked file, open and empty; the standard input of every process that is to hold it too.
    """

    def __init__(self, folder: Path, file: int):
        self.folder, self.file = folder, file
        self.says(None, None)

    def says(self, step: str | None, pid: int | None) -> None:
        """Note for others which step is running, as which process."""
        write_json(self.folder / HOLDER, {"runner": os.getpid(), "step": step, "pid": pid})


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Hold a study's folder against any other process.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --out") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(_refusal(folder)) from None
        try:
            yield Lock(folder, file)
        finally:
            (folder / HOLDER).unlink(missing_ok=True)
    finally:
        os.close(file)


def _refusal(folder: Path) -> str:
    """One line that says who holds the folder, and what to do."""
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        runner, step, pid = holder["runner"], holder["step"], holder["pid"]
    except (OSError, ValueError, KeyError):
        return f"{folder}: another process is running this study; wait for it, or give another --out"
    if not _lives(runner):
        if step is None:
            return f"{folder}: a step of this study still runs, although its runner was killed; wait until it has ended"
        return (
            f"{folder}: the process that ran this study was killed, but its step {step} still runs (process {pid}); "
            f"wait until that has ended, or end it (kill {pid}), then start again"
        )
    doing = f", now at {step} (process {pid})" if step is not None else ""
    return f"{folder}: process {runner} is running this study{doing}; wait for it, or give another --out"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
