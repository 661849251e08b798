"""Show what a recipe would learn from, without training.

    python -m trainers.data --config trainers/recipes/demo_sft.yaml [--show 3] [--json] [--KEY VALUE ...]

Prints rows by source and reason for dropping, tokens, and a histogram of lengths; for an MSFT recipe, of both stages.
"""

import argparse
import json

from trainers import adapter, cpt, data, msft, recipe, sft
from trainers.data import account
from trainers.stage import Stage


def main(argv: list[str]) -> int:
    """Print the account; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="the recipe: a YAML file, or the name of a shipped one")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N examples of each stage, as learned")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    options, rest = parser.parse_known_args(argv)
    stages = _stages(options.config, rest)
    accounts = {}
    for stage in stages:
        tokenizer = adapter.load_tokenizer(stage.model)
        accounts[stage.name] = data.summary(stage.examples, tokenizer, stage.training.max_length)
    if options.json:
        print(json.dumps(accounts, indent=2, ensure_ascii=False))
    for stage in stages:
        if not options.json:
            print(f"{stage.name}\n{account.table(accounts[stage.name])}\n")
        for row in _spread(stage.examples.rows, options.show):
            print(f"{'-' * 80}\n{_shown(row)}")
    return 0


def _stages(config: str, rest: list[str]) -> tuple[Stage, ...]:
    """The stages of a recipe: those of MSFT if it names two recipes, CPT if it names a corpus, else SFT."""
    argv = ["--config", config, *rest]
    kind = recipe.kind(recipe.read(recipe.find(config)))
    if kind == "msft":
        return msft.prepare(argv)[:2]
    return ((cpt if kind == "cpt" else sft).prepare(argv),)


def _spread(rows: list[dict], n: int) -> list[dict]:
    """``n`` rows, evenly from the whole list."""
    n = min(n, len(rows))
    return [rows[i * len(rows) // n] for i in range(n)]


def _shown(row: dict) -> str:
    """A row as text; the completion begins at the arrow."""
    if "text" in row:
        return row["text"]
    if isinstance(row["prompt"], str):
        return f"{row['prompt']}-->{row['completion']}"
    turns = [f"[{turn['role']}] {turn['content']}" for turn in row["prompt"]]
    return "\n".join([*turns, f"[assistant] -->{row['completion'][0]['content']}"])


if __name__ == "__main__":
    recipe.command(main)
