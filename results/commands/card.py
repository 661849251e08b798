"""Write a model card for an adapter: how it was made, results with intervals, licences, limits.

``medadapt card FOLDER [--study STUDY | --run RUN --base-run RUN] [--out README.md] [--push ORG/NAME]`` takes the output
folder of a training, or its adapter. Results come from a study that holds the training, or from runs given one by one.
"""

import argparse
from pathlib import Path

from medtasks import hub
from medtasks.errors import InputError
from medtasks.files import write_text
from results.cards import card as cards
from results.cards import evidence, training_records


def card(argv: list[str]) -> int:
    """``medadapt card``. Returns 0.

    Raises:
        InputError: no training of these trainers, runs that cannot be read or compared, or the Hub does not take it.
    """
    parser = argparse.ArgumentParser(prog="medadapt card", description=__doc__.split("\n\n")[1])
    parser.add_argument("folder", type=Path, help="a training's output folder, or an adapter's folder")
    parser.add_argument("--study", type=Path, metavar="FOLDER", help="a study that holds the training and its runs")
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="runs of the adapter (lm-eval's or a study's)")
    parser.add_argument("--base-run", type=Path, metavar="RUN", help="a run of the base on the same tasks")
    parser.add_argument("--model-id", metavar="ORG/NAME", help="where it will stand on the Hub (default: --push)")
    parser.add_argument("--base-model", metavar="ORG/NAME", help="the Hub id of a base given as a folder")
    parser.add_argument("--license", metavar="ID", help="the Hub's name of a licence (default: what the base states)")
    parser.add_argument("--author", metavar="TEXT", help="who answers for it, and how to reach them")
    parser.add_argument("--out", type=Path, default=Path("README.md"), metavar="FILE", help="default: README.md")
    parser.add_argument("--push", metavar="ORG/NAME", help="upload it as README.md of this model repository")
    args = parser.parse_args(argv)
    if args.study and (args.run or args.base_run):
        parser.error("--study brings its own runs; give it or --run and --base-run")
    if args.base_run and not args.run:
        parser.error("--base-run is compared with --run; give both")
    training = training_records.read(args.folder)
    found = None
    if args.study:
        found = evidence.of_study(args.study, training)
    elif args.run:
        found = evidence.of_runs(args.run, args.base_run)
    subject = cards.Subject(training, found, args.model_id or args.push, args.base_model, args.license, args.author)
    write_text(args.out, cards.write(subject))
    print(args.out)
    if args.push:
        _validate(args.out)
        print(hub.upload({"README.md": args.out}, args.push, "model"))
    return 0


def _validate(file: Path) -> None:
    """Ask the Hub whether it takes the card's metadata, as its client does before an upload."""
    from huggingface_hub import ModelCard

    with hub.asking(str(file), "check"):
        try:
            ModelCard.load(file).validate()
        except ValueError as error:
            raise InputError(f"{file}: the Hub refuses its metadata ({' '.join(str(error).split())})") from error
