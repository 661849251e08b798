"""Fetch a large file by HTTP so that a broken connection or a killed process costs little."""

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from medtasks import files
from medtasks.errors import InputError

ATTEMPTS = 5
TIMEOUT = 60
"""Seconds without a byte after which a connection counts as broken."""
CHUNK = 1 << 20


def fetch(url: str, file: Path, progress: bool = True) -> None:
    """Download ``url`` to ``file``, unless it is there; what arrived before (``.part``) is kept and continued.

    ``file`` appears when it has the size that the server says. If the server's file is another one than that which was
    begun (by its ETag or date), it begins anew.

    Raises:
        InputError: ``file`` cannot be written, or the server does not answer, or breaks off again and again.
    """
    if file.is_file():
        return
    files.output_file(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    part, reason = file.with_name(f"{file.name}.part"), ""
    for _ in range(ATTEMPTS):
        try:
            total = _continue(url, part, progress)
        except urllib.error.HTTPError as error:
            raise InputError(f"{url}: the server refuses ({error.code} {error.reason}); try again later") from error
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
            continue
        if part.stat().st_size == total:
            part.replace(file)
            _note(part).unlink(missing_ok=True)
            return
        reason = f"broke off at {part.stat().st_size:,} of {total:,} bytes"
    raise InputError(f"{url}: cannot be downloaded ({reason}); run the same again to go on where it stopped")


def _continue(url: str, part: Path, progress: bool) -> int:
    """Append to ``part`` what the server sends, until it stops; returns the size of the whole file in bytes."""
    from tqdm import tqdm

    there = part.stat().st_size if part.is_file() and _note(part).is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if there:
        known = json.loads(_note(part).read_text(encoding="utf-8"))
        if there == known["total"]:
            return there
        headers |= {"Range": f"bytes={there}-", "If-Range": known["version"]}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.status != 206:  # the whole file: nothing was there, or it has changed
            there = 0
        if (length := answer.headers.get("Content-Length")) is None:
            raise InputError(f"{url}: the server does not say how large the file is, so it cannot be checked")
        total = there + int(length)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        files.write_json(_note(part), {"total": total, "version": version})
        with (
            part.open("ab" if there else "wb") as f,
            tqdm(total=total, initial=there, desc=part.stem, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            while block := answer.read(CHUNK):
                f.write(block)
                bar.update(len(block))
    return total


def _note(part: Path) -> Path:
    """Where the size and version of the server's file are kept while it is incomplete."""
    return part.with_name(f"{part.name}.json")
