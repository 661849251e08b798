"""Run the steps of a study that are not done: each once, however often the runner is killed and started again.

In the study's folder, ``steps/<step>.json`` records a finished step: its key, what it depended on, its cost.
``steps/<step>.attempt.json`` stands there while a step is unfinished, with its key and its cost so far: what a killed
attempt left is continued only under the same key. ``steps/<step>.failed.json`` says why a step failed, until it
succeeds; ``logs/<step>.log`` is all that it wrote. A finished result that is out of date goes to ``replaced/``.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from medtasks import cost as own_cost
from medtasks import sources
from medtasks.errors import InputError
from medtasks.files import write_json
from results import runs
from results.studies import cost, dependencies, process
from results.studies.lock import Lock
from results.studies.steps import Step, evaluated
from results.studies.study import Study

REPLACED = "replaced"
EARLIER = "runs again, since its record is of an earlier version, which does not say what it depended on"


@dataclass(frozen=True)
class Files:
    """A step's own files in the study's folder ``out``."""

    record: Path
    attempt: Path
    failed: Path
    log: Path
    report: Path

    @staticmethod
    def of(step: str, out: Path) -> "Files":
        """Those of the step of this name."""
        steps = out / "steps"
        names = [steps / f"{step}{end}" for end in (".json", ".attempt.json", ".failed.json")]
        return Files(*names, out / "logs" / f"{step}.log", steps / f".{step}.cost.json")


def record(step: str, out: Path) -> dict | None:
    """The record of a finished step, or None; one that is damaged counts as none."""
    return _read(Files.of(step, out).record)


def _read(file: Path) -> dict | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def why(step: Step, out: Path) -> str | None:
    """Why a step must run, in words; None if its result is there and was made from what it depends on now."""
    before, attempt = record(step.name, out), _read(Files.of(step.name, out).attempt)
    if before is None:
        if attempt is None:
            return "runs"
        if attempt.get("key") == step.key:
            return "goes on where it was stopped"
        return f"starts again, since {dependencies.changes(attempt.get('depends') or {}, step.depends)}"
    if before.get("key") != step.key:
        depends = before.get("depends")
        return EARLIER if depends is None else f"runs again, since {dependencies.changes(depends, step.depends)}"
    if not step.output.is_file():
        return f"runs again, since {step.output.relative_to(out)} is gone"
    return None


class Runner:
    """Runs steps in one study's folder.

    Attributes:
        failures: step -> why it failed or was left out, of the steps run so far.
        stopped: the signal that stopped the run and the step that it was at, or None.
    """

    def __init__(self, study: Study, out: Path, lock: Lock):
        self.study, self.out, self.lock = study, out, lock
        self.failures: dict[str, str] = {}
        self.stopped: tuple[int, str] | None = None

    def run(self, steps: list[Step]) -> None:
        """Run what is missing. A step that fails does not stop those that do not need it; a signal stops all."""
        with process.Stop() as stop:
            for number, step in enumerate(steps, 1):
                if stop.signal is None:
                    self._run(step, f"[{number}/{len(steps)}] {step.name}", stop)
                if stop.signal is not None:
                    self.stopped = stop.signal, step.name
                    return

    def _run(self, step: Step, title: str, stop: process.Stop) -> None:
        if blocked := [need for need in step.needs if need in self.failures]:
            self.failures[step.name] = f"needs {blocked[0]}"
            self._clear(step)
            print(f"{title}: skipped, needs {blocked[0]}", flush=True)
        elif step.problem is not None:
            self._fail(step, title, step.problem)
        elif (reason := why(step, self.out)) is None:
            files = Files.of(step.name, self.out)
            for leftover in (files.attempt, files.failed):
                leftover.unlink(missing_ok=True)
            print(f"{title}: done before", flush=True)
        else:
            print(f"{title}: {reason}", flush=True)
            try:
                seconds = self._make(step, stop)
            except Failed as failure:
                if stop.signal is None:
                    self._fail(step, title, str(failure))
            else:
                print(f"{title}: {seconds:.0f} s", flush=True)

    def _fail(self, step: Step, title: str, reason: str) -> None:
        files = Files.of(step.name, self.out)
        self.failures[step.name] = reason
        log = str(files.log.relative_to(self.out)) if files.log.is_file() else None
        write_json(files.failed, {"step": step.name, "reason": reason, "log": log})
        print(f"{title}: failed, {reason}", flush=True)

    def _make(self, step: Step, stop: process.Stop) -> float:
        """Run a step's command and record it; returns the seconds that all its attempts took.

        Raises:
            Failed: the command failed, or left no result.
        """
        files = Files.of(step.name, self.out)
        before = self._begin(step, files)
        base = {"key": step.key, "depends": step.depends}

        def note(now: dict) -> None:
            write_json(files.attempt, base | {"cost": cost.together(before, now)})

        note({"attempts": 1})
        env = environment(self.study) | {own_cost.ENV: str(files.report.absolute())}
        ended = process.run(
            step.command, env, files.log, self.lock.file, stop, lambda pid: self.lock.says(step.name, pid), note
        )
        self.lock.says(None, None)
        note(ended.cost)
        if ended.code != 0:
            raise Failed(process.reason(ended.code, files.log, ended.start))
        self._finish(step)
        total = cost.together(before, ended.cost)
        total = cost.of(total, cost.told(step.kind, step.output, files.report))
        write_json(files.record, base | total)
        for leftover in (files.attempt, files.failed, files.report):
            leftover.unlink(missing_ok=True)
        return total["seconds"]

    def _begin(self, step: Step, files: Files) -> dict:
        """Clear away what cannot be gone on with; returns the cost of the attempts that are gone on with."""
        self._clear(step)
        if step.kind == "evaluation":
            shutil.rmtree(evaluated(step.output.parent), ignore_errors=True)
        files.record.unlink(missing_ok=True)
        files.report.unlink(missing_ok=True)
        attempt = _read(files.attempt) or {}
        return attempt.get("cost", {}) if attempt.get("key") == step.key else {}

    def _clear(self, step: Step) -> None:
        """Put away a result that was made from something else than what the step depends on now, so that no table mixes
        the two: a finished one is moved to ``replaced/<step>-<its key>/``, an unfinished one removed.

        The result goes first and then the record that tells that it is stale, so a kill in between hides nothing.
        """
        files, result = Files.of(step.name, self.out), step.output.parent
        before, attempt = record(step.name, self.out), _read(files.attempt)
        if before is not None and before.get("key") != step.key:
            kept = self.out / REPLACED / f"{step.name}-{str(before.get('key'))[:8]}"
            if result.is_dir():
                shutil.rmtree(kept, ignore_errors=True)
                kept.parent.mkdir(exist_ok=True)
                result.rename(kept)
                print(f"{step.name}: its earlier result is kept in {kept}", flush=True)
            if kept.is_dir():
                files.record.rename(kept / "step.json")
            files.record.unlink(missing_ok=True)
        elif before is None and attempt is not None and attempt.get("key") != step.key:
            shutil.rmtree(result, ignore_errors=True)

    def _finish(self, step: Step) -> None:
        """Turn an evaluation's output into a run folder, and see that the result is there."""
        if step.kind == "evaluation":
            output = evaluated(step.output.parent)
            try:
                runs.collect(output, step.output.parent)
            except InputError as error:
                raise Failed(f"its output cannot be read: {error}") from error
            shutil.rmtree(output)
        if not step.output.is_file():
            raise Failed(f"the command ended well but left no {step.output.relative_to(self.out)}")


class Failed(Exception):
    """A step did not leave what it should; the message says why."""


def environment(study: Study) -> dict[str, str]:
    """The environment of a step: this one's, with the study's source, and lm-eval's chatter kept to warnings."""
    env = {
        "LMEVAL_LOG_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        "ANONYMIZED_TELEMETRY": "False",
        **os.environ,
    }
    if study.source == "hub":
        env.pop(sources.ENV, None)
    elif study.source is not None:
        env[sources.ENV] = study.source
    return env
