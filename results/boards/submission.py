"""What of a run may stand on the Open Medical-LLM Leaderboard: its nine tasks, whole, 0-shot, in its own prompts.

lm-eval's tasks of the group `multimedqa` are the leaderboard's; those of `open_medical_llm` equal them item for item.
Our `medmcqa` and `pubmedqa` bear their names but ask in other words, so they do not pass.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from medtasks import catalogue
from medtasks.errors import InputError
from results import harness_output, runs
from results.boards import leaderboard

COMMAND = "medadapt run --model {model} --model_args {arguments} --tasks open_medical_llm --output_path DIR"
MODEL_KEYS = ("pretrained", "peft", "revision", "dtype")
"""Model arguments that say which model it is."""


def read(path: str | Path) -> dict:
    """lm-eval's results of a run: a study's run folder, or what ``lm_eval --output_path`` left, without samples too.

    Raises:
        InputError: nothing is there, several evaluations are, or the file is damaged.
    """
    path = Path(path).expanduser()
    is_study_run = (path / runs.RESULTS).is_file()
    file = path / runs.RESULTS if is_study_run else harness_output.find(path)
    found = harness_output.results(file)
    if missing := [key for key in ("config", "date") if not found.get(key)]:
        raise InputError(f"{file}: no '{missing[0]}', so not whole; {harness_output.AGAIN}")
    return found


def select(results: dict, where: str | Path, is_partial: bool = False) -> tuple[dict[str, str], list[str]]:
    """The run's tasks that are the leaderboard's -> their names there, and what is wrong with the others of the nine.

    Args:
        where: what to call the run in a message.
        is_partial: whether some of the nine may be missing.

    Raises:
        InputError: the prompts were not the leaderboard's, or some of the nine are wrong (without ``is_partial``), or
            all are. The message holds the command that asks them as it should be.
    """
    again = f"evaluate with `{_command(results)}`"
    if reason := _other_prompts(results):
        raise InputError(f"{where}: {reason}, which the leaderboard does not do; {again}")
    tasks, wrong, missing = {}, [], []
    for name, ours in leaderboard.TASKS.items():
        asked = [t for t in (name, ours) if t in results["configs"] and leaderboard.is_ours(results, t) == (t == ours)]
        if not asked:
            is_other = name in results["configs"]
            wrong += [f"{name} has medadapt's prompt, {ours} the leaderboard's"] if is_other else []
            missing += [] if is_other else [name]
        elif fault := _fault(results, asked[0], name):
            wrong.append(f"{asked[0]} {fault}")
        else:
            tasks[asked[0]] = name
    wrong += [f"no {', '.join(missing)}"] if missing else []
    if wrong and (not tasks or not is_partial):
        mend = f"{again}, or write the others with --partial" if tasks else again
        raise InputError(f"{where}: not the leaderboard's nine tasks as it asks them: {'; '.join(wrong)}; {mend}")
    return tasks, wrong


def content(results: dict, where: str | Path, name: str | None, sha: str | None, is_partial: bool = False) -> dict:
    """The checked leaderboard file of a run.

    Args:
        where: what to call the run in a message.
        name: the model's, ORG/NAME; the Hub id that was evaluated if None.
        sha: its commit; what lm-eval recorded if None, empty if it recorded none.
        is_partial: whether some of the nine tasks may be missing; ``config.partial`` is then true if they are.

    Raises:
        InputError: as :func:`select`, or the model has no name that the Hub knows.
    """
    tasks, wrong = select(results, where, is_partial)
    arguments = harness_output.model_args(results)
    recorded = results["config"].get("peft_sha" if arguments.get("peft") else "model_sha")
    made = leaderboard.build(results, name or _hub_id(arguments, where), sha or recorded or "", tasks)
    if wrong:
        made["config"]["partial"] = True
    leaderboard.check(made, where)
    return made


def sizes(names: Iterable[str] = leaderboard.TASKS) -> dict[str, int]:
    """The leaderboard's tasks -> items of their official test sets."""
    known = catalogue.abouts()
    return {name: known[_benchmark(name)].items for name in names}


def _benchmark(name: str) -> str:
    """Benchmark of a task of the leaderboard, under its name in the catalogue."""
    return leaderboard.TASKS[name].replace("_lmeval", "")


def _other_prompts(results: dict) -> str | None:
    """In what the prompts of the whole run differ from the leaderboard's, if they do."""
    if harness_output.has_passages(results):
        return "passages were added to the prompts"
    if results.get("chat_template"):
        return "a chat template was applied"
    if results.get("system_instruction"):
        return "a system instruction was given"
    return None


def _fault(results: dict, task: str, name: str) -> str | None:
    """What is wrong with a task's evaluation, if anything is."""
    shots = results.get("n-shot", {}).get(task)
    asked = results.get("n-samples", {}).get(task, {}).get("effective")
    size = sizes([name])[name]
    if shots != 0:
        return "does not say that it was 0-shot" if shots is None else f"was {shots}-shot, not 0-shot"
    if asked != size:
        return f"was asked {'an unknown number' if asked is None else f'{asked:,}'} of its {size:,} items"
    if "acc,none" not in leaderboard.accuracies(results["results"].get(task, {})):
        return "has no acc,none"
    return None


def _hub_id(arguments: dict, where: str | Path) -> str:
    name = str(arguments.get("peft") or arguments.get("pretrained") or "")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) or Path(name).exists():
        raise InputError(f"{where}: the model was {name or 'given no name'}, no Hub id; give --model-name ORG/NAME")
    return name


def _command(results: dict) -> str:
    """What asks the same model the leaderboard's nine tasks."""
    given, model = harness_output.model_args(results), results["config"].get("model", "hf")
    kept = [f"{key}={given[key]}" for key in MODEL_KEYS if given.get(key)]
    return COMMAND.format(model="hf-mcq" if model == "rag" else model, arguments=",".join(kept) or "pretrained=MODEL")
