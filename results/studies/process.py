"""Run a step's command: its output live and in a log, what it costs, and a clean stop when the runner is to stop.

The command is the head of a process group of its own and writes into its log by itself; the runner shows what is added
there. So a step outlives a runner that is killed, and a signal to the runner reaches everything that the step started.
"""

import codecs
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from results.studies.cost import BEAT, FIRST_BEAT, Meter

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SOONEST, LATEST = 0.002, 0.1
"""Seconds between two looks at a running command."""
GRACE = 30.0
"""Seconds that a step has to end when it is asked to; then it is killed."""
_ERROR = re.compile(r"(?:[A-Za-z_][\w.]*\.)?(?:[A-Z]\w*(?:Error|Exception|Interrupt|Timeout))(?::|$)")
_LAUNCHERS = ("CalledProcessError", "ChildFailedError")
TAIL = 64 * 1024
"""Bytes at a log's end in which its error is looked for."""


class Stop:
    """While entered, notes the first signal that asks this process to stop, and passes signals on to ``group``.

    A signal that this process ignores (SIGHUP under nohup) stays ignored. A second one kills the group.
    """

    def __init__(self):
        self.signal: int | None = None
        self.group: int | None = None
        self._before: dict = {}

    def __enter__(self) -> "Stop":
        heeded = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        self._before = {each: signal.signal(each, self._note) for each in heeded}
        return self

    def __exit__(self, *_) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, _) -> None:
        again, self.signal = self.signal is not None, self.signal or number
        self.send(signal.SIGKILL if again else number)

    def send(self, number: int) -> None:
        """Send a signal to the process group that is running, if there is one."""
        if self.group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGTERM if number == signal.SIGHUP else number)


class Ended(NamedTuple):
    """How a command ended: its exit code (negative: by that signal), its cost, where its output begins in the log."""

    code: int
    cost: dict
    start: int


def run(
    command: list[str],
    env: dict[str, str],
    log: Path,
    lock: int,
    stop: Stop,
    began: Callable[[int], None],
    beat: Callable[[dict], None],
) -> Ended:
    """Run ``command`` to its end.

    Args:
        log: the file to which its output is added.
        lock: descriptor that is its standard input, so that it and what it starts keep the lock.
        began: called with its process id.
        beat: called with its cost so far, soon and then every :data:`results.studies.cost.BEAT` seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, log.open("rb") as shown:
        start = shown.seek(0, os.SEEK_END)
        meter = Meter()
        process = subprocess.Popen(
            command, env=env, stdin=lock, stdout=output, stderr=subprocess.STDOUT, process_group=0
        )
        stop.group = process.pid
        try:
            if stop.signal is not None:  # it came before there was a group to tell
                stop.send(stop.signal)
            began(process.pid)
            usage = _wait(process, _Echo(shown), stop, lambda: beat(meter.sample(process.pid)))
        except BaseException:
            stop.send(signal.SIGTERM)
            raise
        if process.returncode != 0:
            stop.send(signal.SIGTERM)
            _end_group(process.pid)
        stop.group = None
    return Ended(process.returncode, meter.end(usage), start)


class _Echo:
    """Copies what is added to a log to our own standard output."""

    def __init__(self, log: BinaryIO):
        self.log, self.decoder = log, codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self) -> None:
        while added := self.log.read(TAIL):
            sys.stdout.write(self.decoder.decode(added))
            sys.stdout.flush()


def _wait(process: subprocess.Popen, echo: _Echo, stop: Stop, beat: Callable[[], None]):
    """Wait for the process, echoing what it writes; returns what the system says that it used."""
    pause, rest, deadline = SOONEST, FIRST_BEAT, None
    next_beat = time.monotonic() + rest
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        echo()
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage
        now = time.monotonic()
        if stop.signal is not None:
            deadline = deadline or now + GRACE
            if now > deadline:
                stop.send(signal.SIGKILL)
        if now >= next_beat:
            beat()
            rest = min(2 * rest, BEAT)
            next_beat = now + rest
        time.sleep(pause)
        pause = min(2 * pause, LATEST)


def _end_group(group: int) -> None:
    """End what a command that ended before its time left in its process group."""
    deadline = time.monotonic() + GRACE
    while _members(group) and time.monotonic() < deadline:
        time.sleep(LATEST)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _members(group: int) -> list[int]:
    """The living processes of a group."""
    import psutil

    found = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(OSError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def reason(code: int, log: Path, start: int) -> str:
    """Why a command failed: its exit code, and the error that it wrote to the log from byte ``start`` on.

    The error is our own line if there is one, else the last exception, else the last line.
    """
    how = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        how += " (perhaps out of memory)"
    with log.open("rb") as f:
        f.seek(max(start, f.seek(0, os.SEEK_END) - TAIL))
        text = f.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    ours = [line for line in lines if line.startswith("medadapt: ")]
    raised = [line for line in lines if _ERROR.match(line) and not any(name in line for name in _LAUNCHERS)]
    said = (ours or raised or lines)[-1:]
    return ": ".join([how, *(line.removeprefix("medadapt: ") for line in said)])
