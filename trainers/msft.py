"""Multi-stage fine-tuning: continued pretraining, then supervised fine-tuning of the same adapter.

    accelerate launch -m trainers.msft --config trainers/recipes/demo_msft.yaml [--KEY VALUE ...]

The recipe names the recipes of both stages (`cpt:` and `sft:`, relative to it) and an `output_dir`: CPT goes into
output_dir/cpt, SFT into output_dir itself. Every other key, in the recipe or on the command line, overrides that key in
both stages. The same command resumes a killed run; a finished CPT stage is not repeated.
On a machine without GPU: `accelerate launch --cpu`, or plain `python -m trainers.msft`.
"""

import dataclasses
from pathlib import Path

from medtasks.errors import InputError
from trainers import adapter, cpt, recipe, sft, stage

HELP = ("-h", "--help")


def main(argv: list[str]) -> int:
    """Run both stages; returns the exit code."""
    if not argv or set(HELP) & set(argv):
        print(__doc__, "The keys are those of `python -m trainers.cpt --help` and `python -m trainers.sft --help`.")
        return 0
    first, second = prepare(argv)
    stage.train(first)
    second.run = dataclasses.replace(second.run, adapter=str(first.out / "adapter"))
    stage.train(second)
    return 0


def prepare(argv: list[str]) -> tuple[stage.Stage, stage.Stage]:
    """Both stages, checked before the first begins.

    Raises:
        InputError: something in the recipes or arguments is wrong.
    """
    config, rest = recipe.take("config", argv)
    if config is None:
        raise InputError(
            "no --config; give a recipe that names the recipes of both stages (cpt, sft) and an output_dir"
        )
    path = recipe.find(config)
    shared = recipe.read(path)
    output_dir, rest = recipe.take("output_dir", rest)
    shared |= {"output_dir": output_dir} if output_dir else {}
    if missing := [key for key in ("cpt", "sft", "output_dir") if not isinstance(shared.get(key), str)]:
        raise InputError(f"{path}: has no {missing[0]}; it needs cpt and sft (recipes) and an output_dir")
    stages, out = {}, Path(shared.pop("output_dir"))
    recipes = {name: str(recipe.find(str(path.parent / shared.pop(name)))) for name in ("cpt", "sft")}
    for name, prepare_stage, folder in (("cpt", cpt.prepare, out / "cpt"), ("sft", sft.prepare, out)):
        stages[name] = prepare_stage(["--config", recipes[name], *rest], shared | {"output_dir": str(folder)})
    for key in ("model_name_or_path", "model_revision", *adapter.SHAPE):
        values = [getattr(each.model, key) for each in stages.values()]
        if values[0] != values[1]:
            raise InputError(f"{path}: {key} is {values[0]} in cpt and {values[1]} in sft; both train one adapter")
    if stages["sft"].run.adapter:
        raise InputError(f"{path}: adapter: SFT learns on from CPT's adapter; take the key out")
    return stages["cpt"], stages["sft"]


if __name__ == "__main__":
    recipe.command(main)
