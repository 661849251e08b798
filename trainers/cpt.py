"""Continued pretraining: read a corpus, packed into full sequences that lose no text.

    accelerate launch -m trainers.cpt --config trainers/recipes/demo_cpt.yaml [--KEY VALUE ...]

Writes adapter/, loss.json, loss.png, cost.json and training.json into output_dir. The same command resumes a killed
run. On a machine without GPU: `accelerate launch --cpu`, or plain `python -m trainers.cpt`.
"""

from medtasks.errors import InputError
from trainers import data, recipe, stage
from trainers.acceleration import AccelerationArguments
from trainers.run_folder import RunArguments


def main(argv: list[str]) -> int:
    """Run the stage that the arguments describe; returns the exit code."""
    stage.train(prepare(argv))
    return 0


def prepare(argv: list[str], overrides: dict | None = None) -> stage.Stage:
    """The stage of a recipe and the command line (``overrides`` stand between them).

    Raises:
        InputError: something in them is wrong.
    """
    from trl import ModelConfig, SFTConfig

    kinds = (ModelConfig, SFTConfig, RunArguments, AccelerationArguments, data.CPTDataArguments)
    (model, training, run, fast, corpora), config = recipe.parse(kinds, argv, __doc__, overrides)
    out = stage.settle(training, model, run)
    if not training.packing or training.packing_strategy != "bfd_split":
        raise InputError("long passages would be cut off; say 'packing: true' and 'packing_strategy: bfd_split'")
    examples = data.cpt_examples(corpora, training.seed)
    return stage.Stage("cpt", out, examples, run, training, model, fast, config, examples.dev)


if __name__ == "__main__":
    recipe.command(main)
