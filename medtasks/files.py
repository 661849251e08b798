"""Atomic writes and content hashes: a killed process leaves nothing that looks finished."""

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from medtasks.errors import InputError

CHUNK = 1 << 20


@contextmanager
def atomic_write(path: str | Path, mode: str = "w"):
    """Open a temporary file beside ``path``; rename it onto ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed below, before the rename)
        mode, dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False, encoding=encoding
    )
    try:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())
        handle.close()
        os.chmod(handle.name, 0o644)
        os.replace(handle.name, path)
    except BaseException:
        with suppress(OSError):  # of what a full disk did not take
            handle.close()
        Path(handle.name).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: str | Path):
    """Give a temporary folder beside ``path``; it becomes ``path`` only if the block succeeds.

    It is locked meanwhile; what killed processes have left of such folders, locked by nobody, is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pattern = f".{glob.escape(path.name)}.*.tmp"
    locks = (lock.with_suffix("") for lock in path.parent.glob(f"{pattern}.lock"))
    for left in {*filter(Path.is_dir, path.parent.glob(pattern)), *locks}:
        _remove_abandoned(left)
    folder = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    with _locked(folder):
        try:
            folder.mkdir()
            yield folder
            shutil.rmtree(path, ignore_errors=True)
            folder.rename(path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def _locked(folder: Path):
    """Hold a lock beside ``folder``; raises filelock's Timeout where another process does."""
    from filelock import FileLock

    lock = FileLock(f"{folder}.lock")
    with lock.acquire(timeout=0):
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove a folder unless somebody writes it."""
    from filelock import Timeout

    with suppress(Timeout), _locked(folder):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def telling_of_a_full_disk(where: str | Path, mend: str):
    """Make one line of what libraries raise in the block where they cannot write.

    Raises:
        InputError: the disk is full at ``where``.
    """
    try:
        yield
    except Exception as error:
        if not _is_of_a_full_disk(error):
            raise
        raise InputError(f"{where}: the disk is full; {mend}") from error


def _is_of_a_full_disk(error: Exception) -> bool:
    """Some libraries say so by an error of their own, torch by where its writer stood."""
    texts = (f"os error {errno.ENOSPC}", "] . unexpected pos ", "PytorchStreamWriter failed")
    return getattr(error, "errno", None) == errno.ENOSPC or any(text in str(error) for text in texts)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_write(path) as f:
        f.write(text)


def write_json(path: str | Path, value) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically: same value, same bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, atomically."""
    with atomic_write(path) as f:
        for row in rows:
            f.write(json_line(row))


def json_line(row: dict) -> str:
    """A row of a ``.jsonl`` file, its line end included."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8."""
    return lone_surrogate(text) is None


def lone_surrogate(text: str) -> str | None:
    """What keeps ``text`` from being written as UTF-8: the first half of a surrogate pair without its other half, or
    None. JSON's ``\\ud800`` gives one, texts of PDFs do, and so does a file name or argument that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return text[error.start]
    return None


def user_path(text: str) -> Path:
    """A path that a user gave, its ``~`` expanded."""
    return Path(text).expanduser()


def output_file(path: str | Path) -> Path:
    """``path``, its ``~`` expanded: where a command is to write a file. Asked before the work that it is to hold.

    Raises:
        InputError: it is a folder, or cannot be made.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file to write")
    output_folder(path.parent)
    return path


def output_folder(path: str | Path) -> Path:
    """As :func:`output_file`, for a folder that files are to be written into.

    Raises:
        InputError: it is a file, or cannot be made.
    """
    path = Path(path).expanduser()
    there = next(part for part in (path, *path.parents) if part.exists())
    if not there.is_dir():
        raise InputError(f"{there}: is not a folder, so nothing can be written into it; give another place")
    if not os.access(there, os.W_OK):
        raise InputError(f"{there}: may not be written into; give another place")
    return path


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value) -> str:
    """Hex SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
