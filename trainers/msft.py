"""Multi-stage fine-tuning: continued pretraining, then supervised fine-tuning of what it made.

    accelerate launch -m trainers.msft --config trainers/recipes/demo_msft.yaml [--KEY VALUE ...]

The recipe names the recipes of both stages (`cpt:` and `sft:`, relative to it) and an `output_dir`: CPT goes into
output_dir/cpt, SFT into output_dir itself. Every other key, in the recipe or on the command line, overrides that key in
both stages. `join` says how SFT goes on:

- `continue` (default): with CPT's adapter, on the same base.
- `merge`: CPT's adapter is merged into output_dir/cpt/merged, and SFT trains a new adapter, of any shape, on that
  model; evaluation then takes it as the base (`pretrained=output_dir/cpt/merged,peft=output_dir/adapter`). What merging
  cost stands in output_dir/cpt/merged/merge.json; in 4 bits, SFT then quantizes the merged weights anew, which costs
  far more, where `continue` costs nothing.

After a CPT with `full_finetuning`, SFT goes on with output_dir/cpt/model. The same command resumes a killed run; a
finished CPT stage is not repeated. On a machine without GPU: `accelerate launch --cpu`, or plain
`python -m trainers.msft`.
"""

import dataclasses
from pathlib import Path

from medtasks.errors import InputError
from trainers import adapter, cpt, data, recipe, sft, stage

HELP = ("-h", "--help")
JOINS = ("continue", "merge")


def main(argv: list[str]) -> int:
    """Run both stages; returns the exit code."""
    if not argv or set(HELP) & set(argv):
        print(__doc__, "The keys are those of `python -m trainers.cpt --help` and `python -m trainers.sft --help`.")
        return 0
    first, second, join = prepare(argv)
    second = go_on(first, second, join)
    with stage.reserved(second):
        stage.train(first)
        stage.train(second, is_reserved=True)
    return 0


def go_on(first: stage.Stage, second: stage.Stage, join: str) -> stage.Stage:
    """``second`` as it goes on from what ``first`` makes."""
    if not first.run.full_finetuning and join == "continue":
        return dataclasses.replace(second, run=dataclasses.replace(second.run, adapter=str(first.learned)))
    base = str(first.learned if first.run.full_finetuning else first.out / "merged")
    model = dataclasses.replace(second.model, model_name_or_path=base, model_revision="main")
    config = {key: value for key, value in second.config.items() if key != "model_revision"}
    return dataclasses.replace(second, model=model, config=config | {"model_name_or_path": base})


def prepare(argv: list[str]) -> tuple[stage.Stage, stage.Stage, str]:
    """Both stages, checked before the first begins, and how they are joined: one of :data:`JOINS`.

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
    for key in ("output_dir", "join"):
        value, rest = recipe.take(key, rest)
        shared |= {key: value} if value else {}
    if missing := [key for key in ("cpt", "sft", "output_dir") if not isinstance(shared.get(key), str)]:
        raise InputError(f"{path}: has no {missing[0]}; it needs cpt and sft (recipes) and an output_dir")
    if (join := shared.pop("join", JOINS[0])) not in JOINS:
        raise InputError(f"{path}: join: '{join}' is none of {', '.join(JOINS)}")
    stages, out = {}, Path(shared.pop("output_dir"))
    recipes = {name: str(recipe.find(str(path.parent / shared.pop(name)))) for name in ("cpt", "sft")}
    for name, prepare_stage, folder in (("cpt", cpt.prepare, out / "cpt"), ("sft", sft.prepare, out)):
        stages[name] = prepare_stage(["--config", recipes[name], *rest], shared | {"output_dir": str(folder)})
    _check(path, join, **stages)
    _keep_out(stages["cpt"], stages["sft"].dev)
    if join == "merge" and not stages["cpt"].run.full_finetuning:
        stages["cpt"].run = dataclasses.replace(stages["cpt"].run, merge=True)
    return stages["cpt"], stages["sft"], join


def _keep_out(cpt: stage.Stage, held_out: data.Examples | None) -> None:
    """Leave out of the first stage's texts what holds what the second one holds out, to be measured on.

    Raises:
        InputError: no text is left.
    """
    if held_out is None:
        return
    asked = data.overlap([draft.row for draft in held_out.drafts])
    positions = [number for number, row in enumerate(cpt.examples.rows) if asked.is_contaminated(row)]
    if len(positions) == len(cpt.examples.rows):
        raise InputError("dev_sources: every text of cpt holds a held-out question; hold out others")
    cpt.examples = cpt.examples.without(positions, "held_out")


def _check(path: Path, join: str, cpt: stage.Stage, sft: stage.Stage) -> None:
    """Raise InputError unless the second stage can go on from the first."""
    one_adapter = join == "continue" and not cpt.run.full_finetuning
    shape = (*adapter.SHAPE, "lora_target_modules", "lora_modules_to_save") if one_adapter else ()
    for key in ("model_name_or_path", "model_revision", *shape):
        values = [getattr(each.model, key) for each in (cpt, sft)]
        if values[0] != values[1]:
            what = "both train one adapter" if one_adapter else "both start from one base"
            raise InputError(f"{path}: {key} is {values[0]} in cpt and {values[1]} in sft; {what}")
    if one_adapter and sft.run.full_finetuning:
        raise InputError(f"{path}: sft trains all weights and cpt an adapter; say 'join: merge'")
    if cpt.run.adapter_scale != 1:
        raise InputError(f"{path}: adapter_scale {cpt.run.adapter_scale} in cpt; say it in the recipe of sft alone")
    if sft.run.adapter:
        raise InputError(f"{path}: adapter: SFT goes on from what CPT made; take the key out")


if __name__ == "__main__":
    recipe.command(main)
