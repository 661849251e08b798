"""Run a study: do each missing step, then print and write its table.

``medadapt study FILE.yaml [--out DIR]`` builds indexes, trains adapters and evaluates every variant, going on where an
earlier run stopped, and ends in ``table.md``, ``table.json`` and one leaderboard file a variant.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from medtasks import models
from medtasks.files import write_json, write_text
from results import comparison, leaderboard, runs, steps, tables
from results import study as studies


def study(argv: list[str]) -> int:
    """``medadapt study``. Returns 0, or 1 if a step failed (the table then holds the variants that are done)."""
    parser = argparse.ArgumentParser(prog="medadapt study", description=__doc__.split("\n\n")[1])
    parser.add_argument("file", help="the study's YAML file, e.g. studies/demo.yaml")
    parser.add_argument("--out", type=Path, help="where everything is written (default: runs/<the study's name>)")
    args = parser.parse_args(argv)
    definition = studies.load(args.file)
    out = args.out or Path("runs") / definition.name
    with steps.locked(out):
        planned = steps.plan(definition, out)
        write_json(out / "study.json", asdict(definition))
        failures = steps.run(planned, definition, out)
        report(definition, out)
    for name, reason in failures.items():
        print(f"{name}: {reason}")
    return 1 if failures else 0


def report(definition: studies.Study, out: Path) -> None:
    """Print the study's table and write it, with the leaderboard files, from the runs that are there."""
    done = {
        name: out / "runs" / name for name in definition.variants if (out / "runs" / name / runs.PREDICTIONS).is_file()
    }
    if definition.reference not in done:
        print("no table yet: the base has not been evaluated")
        return
    compared = comparison.compare([runs.read(run) for run in done.values()], definition.reference)
    write_json(out / "table.json", compared)
    write_text(out / "table.md", tables.markdown(compared))
    fingerprint = models.fingerprint(definition.base)
    for name, run in done.items():
        leaderboard.write(out / "leaderboard", definition.name, name, run, fingerprint)
    print(f"\n{definition.name}: {definition.base}, {len(done)} of {len(definition.variants)} variants\n")
    print(tables.text(compared))
    print("", *tables.methods(compared), sep="\n")
    print(f"\ntable         {out / 'table.md'}, {out / 'table.json'}")
    print(f"leaderboard   {out / 'leaderboard'}")
    print(f"runs          {out / 'runs'} (lm-eval's results, per-item samples, passages seen)")
    if definition.trainings:
        print(f"trainings     {out / 'trainings'} (adapters, loss histories and plots)")
