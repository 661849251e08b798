"""Run a study: do each missing step, then print and write its table.

``medadapt study FILE.yaml [--out DIR]`` builds indexes, trains adapters and evaluates every variant, going on where an
earlier run stopped, and ends in ``report.html``, ``table.md``, ``table.json`` and one leaderboard file a variant.
``medadapt study DIR`` goes on with the study of a folder; ``--dry-run`` says what would be done and what it would take.
"""

import argparse
import contextlib
import signal
from pathlib import Path

from medtasks.errors import InputError
from medtasks.files import write_json, write_text
from results import tables
from results.boards import leaderboard
from results.commands import listed
from results.studies import dependencies, inputs, recipes, steps
from results.studies import study as studies
from results.studies.lock import locked
from results.studies.runner import Runner

REPORT = "report.html"


def study(argv: list[str]) -> int:
    """``medadapt study``. Returns 0; 1 if a step failed (the table then holds the variants that are done); 128 and the
    signal's number if it was stopped by one."""
    parser = argparse.ArgumentParser(prog="medadapt study", description=__doc__.split("\n\n")[1])
    parser.add_argument(
        "study", help="a study's YAML file, e.g. studies/demo.yaml, or the folder of a study begun before"
    )
    parser.add_argument("--out", type=Path, help="where everything is written (default: runs/<the study's name>)")
    parser.add_argument("--only", metavar="VARIANT,...", help="run these variants alone, with what they need")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and what it would take")
    args = parser.parse_args(argv)
    if Path(args.study).is_dir():
        definition, out = studies.of_folder(args.study), args.out or Path(args.study)
    else:
        definition = studies.load(args.study)
        out = args.out or Path("runs") / definition.name
    only = listed(args.only) if args.only else None
    if args.dry_run:
        from results.studies import dry_run

        print(dry_run.text(definition, steps.plan(definition, out, only), out))
        return 0
    with locked(out) as lock:
        planned = steps.plan(definition, out, only)
        _say_unknown(planned)
        studies.save(definition, out, _as_run(definition))
        runner = Runner(definition, out, lock)
        runner.run(planned)
        if runner.stopped is not None:
            number, step = runner.stopped
            name, again = signal.Signals(number).name, f"medadapt study {out}"
            again += f" --only {args.only}" if args.only else ""
            print(f"\nstopped by {name} at {step}; what is done stays done. Go on with: {again}")
            return 128 + number
        report(definition, out)
    for name, reason in runner.failures.items():
        log = out / "logs" / f"{name}.log"
        print(f"{name}: {reason}{f' (see {log})' if log.is_file() else ''}")
    return 1 if runner.failures else 0


def _say_unknown(planned: list[steps.Step]) -> None:
    """Name the data whose version cannot be told: a change of it will not be noticed."""
    unknown = {name for step in planned for name, value in step.depends.items() if value == inputs.UNKNOWN}
    for name in sorted(unknown):
        print(f"{name.removeprefix('data.')}: its version cannot be told here; a change of it will not be noticed")


def _as_run(definition: studies.Study) -> dict:
    """What the definition does not say and reports may want: fingerprints, versions, what the recipes hold."""
    libraries = sorted({library for names in steps.LIBRARIES.values() for library in names})
    contents = {}
    for name, training in definition.trainings.items():
        with contextlib.suppress(InputError):  # its step will say so
            contents[name] = recipes.stages(training)
    return {
        "base_fingerprint": inputs.base(definition),
        "versions": dependencies.versions(*libraries),
        "recipes": contents,
    }


def report(definition: studies.Study, out: Path) -> None:
    """Print the study's table and write it, with page and leaderboard files, from the runs that are there."""
    from results.page import evidence, render

    done = studies.runs_of(out)
    if definition.reference not in done:
        print("no table yet: the base has not been evaluated")
        return
    found = evidence.gather([out])
    compared = found.comparison
    write_json(out / "table.json", compared)
    write_text(out / "table.md", tables.markdown(compared))
    write_text(out / REPORT, render.report(found)[0])
    fingerprint = inputs.base(definition)
    for name, run in done.items():
        leaderboard.write(out / "leaderboard", definition.name, name, run, fingerprint)
    print(f"\n{definition.name}: {definition.base}, {len(done)} of {len(definition.variants)} variants\n")
    print(tables.text(compared))
    print("", *tables.methods(compared), sep="\n")
    print(f"\ntable         {out / 'table.md'}, {out / 'table.json'}")
    print(f"report        {out / REPORT}")
    print(f"leaderboard   {out / 'leaderboard'}")
    print(f"runs          {out / 'runs'} (lm-eval's results, per-item samples, passages seen)")
    if definition.trainings:
        print(f"trainings     {out / 'trainings'} (adapters, loss histories and plots)")
