"""Write a run as a file of the Open Medical-LLM Leaderboard, check it, upload it.

``medadapt submit RUN [--model-name ORG/NAME] [--out DIR] [--push REPO]`` takes what ``lm_eval --output_path`` left of
`multimedqa`, or `medadapt run` of `open_medical_llm`, or a study's run folder, and writes
DIR/<org>/<model>/results_<datetime>.json. ``medadapt submit --check FILE`` checks a file that is there.
"""

import argparse
from pathlib import Path

from medtasks import hub
from results.boards import leaderboard, submission


def submit(argv: list[str]) -> int:
    """``medadapt submit``. Returns 0.

    Raises:
        InputError: the run is not the leaderboard's nine tasks as it asks them, or the Hub does not take the file.
    """
    parser = argparse.ArgumentParser(prog="medadapt submit", description=__doc__.split("\n\n")[1])
    parser.add_argument("run", nargs="?", help="lm-eval's output folder or results file, or a study's run folder")
    parser.add_argument("--model-name", metavar="ORG/NAME", help="the model on the Hub (default: what was evaluated)")
    parser.add_argument("--sha", help="the model's commit (default: the one that lm-eval recorded, or none)")
    parser.add_argument("--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="default: leaderboard")
    parser.add_argument("--partial", action="store_true", help="write what is there of the nine tasks, marked so")
    parser.add_argument("--push", metavar="REPO", help="upload the file to this dataset repository, ORG/NAME")
    parser.add_argument("--check", type=Path, metavar="FILE", help="only check a leaderboard file against the schema")
    args = parser.parse_args(argv)
    if (args.check is None) == (args.run is None):
        parser.error("give a RUN to write, or --check FILE")
    if args.check is not None:
        leaderboard.check(leaderboard.read(args.check), args.check)
        print(f"{args.check}: valid")
        return 0
    results = submission.read(args.run)
    content = submission.content(results, args.run, args.model_name, args.sha, args.partial)
    file = leaderboard.save(args.out, content, leaderboard.evaluation_date(results))
    left_out = len(leaderboard.TASKS) - len(content["results"])
    print(f"{file}: valid{f', partial: {left_out} of {len(leaderboard.TASKS)} tasks are missing' if left_out else ''}")
    if args.push:
        print(hub.upload({file.relative_to(args.out).as_posix(): file}, args.push, "dataset"))
    return 0
