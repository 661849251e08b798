"""Keep on disk what was found and written, so that a search is made once."""

import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from medtasks.errors import InputError

logger = logging.getLogger(__name__)

ENV = "MEDADAPT_CACHE"
NONE = "none"
WAIT = 60
"""Seconds to wait for another process that writes."""
KEYS = 500
"""Keys asked for in one statement; SQLite takes at least 999."""


class Cache:
    """JSON values by key in one SQLite file, which several processes may read and write.

    Args:
        file: of which the folder is made where it is missing; None keeps nothing.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, file: Path | None):
        self.file = file
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"{file.parent}: cannot keep what was found there ({error.strerror}); give another cache=FOLDER, "
                    f"or cache={NONE}"
                ) from error

    def get(self, keys: Iterable[str]) -> dict[str, object]:
        """Key -> value, for the keys that are there. A file that is damaged is thrown away, with a warning."""
        keys = list(dict.fromkeys(keys))
        if self.file is None or not self.file.exists():
            return {}
        found = {}
        try:
            with closing(self._open()) as database:
                for start in range(0, len(keys), KEYS):
                    part = keys[start : start + KEYS]
                    marks = ",".join("?" * len(part))
                    rows = database.execute(f"SELECT key, value FROM kept WHERE key IN ({marks})", part)
                    found.update((key, json.loads(value)) for key, value in rows)
        except (sqlite3.DatabaseError, ValueError) as error:
            self._throw_away(error)
            return {}
        return found

    def put(self, values: Mapping[str, object]) -> None:
        """Keep ``values``, in place of any under the same keys."""
        if self.file is None or not values:
            return
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in values.items()]
        try:
            self._write(rows)
        except sqlite3.DatabaseError as error:
            self._throw_away(error)
            self._write(rows)

    def _write(self, rows: list[tuple[str, str]]) -> None:
        with closing(self._open()) as database, database:
            database.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.file, timeout=WAIT)
        try:
            database.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def _throw_away(self, error: Exception) -> None:
        if isinstance(error, sqlite3.OperationalError):  # locked, or no room: the file itself may be whole
            raise InputError(
                f"{self.file}: cannot be used ({error}); give another cache=FOLDER, or cache={NONE}"
            ) from error
        logger.warning("%s: damaged (%s); thrown away, everything is searched again", self.file, error)
        for file in (self.file, self.file.with_name(self.file.name + "-journal")):
            file.unlink(missing_ok=True)


def file_of(cache: str | Path | None, name: str) -> Path | None:
    """Where the cache ``name`` lies.

    Args:
        cache: a folder; ``none`` for no cache; None for what the variable ``MEDADAPT_CACHE`` says (likewise), or, if it
            is not set, ``medadapt/retrieval`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``).
    """
    if cache is None:
        cache = os.environ.get(ENV)
    if cache == NONE:
        return None
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "medadapt" / "retrieval"
    return Path(cache).expanduser() / f"{name}.sqlite"
