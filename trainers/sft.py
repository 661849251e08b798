"""Supervised fine-tuning: learn to answer exam questions the way they are asked in evaluation.

    accelerate launch -m trainers.sft --config trainers/recipes/demo_sft.yaml [--KEY VALUE ...]

Writes adapter/, loss.json, loss.png, cost.json and training.json into output_dir. The same command resumes a killed
run. On a machine without GPU: `accelerate launch --cpu`, or plain `python -m trainers.sft`.
"""

import math

from medtasks.errors import InputError
from trainers import adapter, data, recipe, stage
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

    kinds = (ModelConfig, SFTConfig, RunArguments, AccelerationArguments, data.SFTDataArguments)
    (model, training, run, fast, sources), config = recipe.parse(kinds, argv, __doc__, overrides)
    out = stage.settle(training, model, run)
    tokenizer = adapter.load_tokenizer(model)
    if sources.chat and tokenizer.chat_template is None:
        raise InputError(f"{model.model_name_or_path} has no chat template; set 'chat: false'")
    if training.packing and training.packing_strategy == "wrapped":
        raise InputError("packing_strategy: wrapped would part answers from their questions; say 'bfd'")
    examples = data.sft_examples(sources, training.seed)
    epochs = math.ceil(training.num_train_epochs) if training.max_steps <= 0 else 1
    examples = data.drop_too_long(examples, tokenizer, training.max_length, epochs)
    return stage.Stage("sft", out, examples, run, training, model, fast, config, examples.dev)


if __name__ == "__main__":
    recipe.command(main)
