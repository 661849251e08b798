"""The `medadapt` command: lm-eval's own `run`, `ls` and `validate` with our tasks and models, and each room's commands.

Other rooms register theirs as entry points of the group ``medadapt.commands``: a function that takes the arguments
after its name and returns an exit code. Bad input (:class:`InputError`) ends in one line and exit code 2.
"""

import argparse
import ast
import difflib
import importlib.util
import logging
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from medtasks import TASKS_DIR, __version__, catalogue, cost
from medtasks.errors import InputError

HARNESS = {
    "run": "evaluate a model on tasks (lm-eval's own command, with our tasks and models)",
    "ls": "list our suites and tasks, sizes, licences, data; `ls tasks|groups|subtasks|tags` lists lm-eval's too",
    "validate": "load tasks for real and show one rendered item of each",
}
HF_MODELS = ("hf", "hf-auto", "huggingface", "hf-mcq")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    commands = {entry.name: entry for entry in entry_points(group="medadapt.commands")}
    if not argv or argv[0] in ("-h", "--help"):
        print(_help(commands))
        return 0
    if argv[0] == "--version":
        print(f"medadapt {__version__}")
        return 0
    name, rest = ("run", argv) if argv[0].startswith("-") else (argv[0], argv[1:])
    try:
        if name in HARNESS:
            return harness(name, rest)
        if name in commands:
            return commands[name].load()(rest) or 0
        raise InputError(f"unknown command '{name}'{_did_you_mean(name, [*HARNESS, *commands])}; see medadapt --help")
    except InputError as error:
        print(f"medadapt: {error}", file=sys.stderr)
        return 2


def _help(commands: dict[str, EntryPoint]) -> str:
    lines = {**HARNESS, **{name: _summary(entry) for name, entry in sorted(commands.items())}}
    width = max(map(len, lines))
    return "\n".join(
        [
            "usage: medadapt COMMAND ...",
            "",
            "Which adaptation makes a small language model better at medicine, and how sure are we?",
            "",
            *(f"  {name:<{width}}  {text}" for name, text in lines.items()),
            "",
            "`medadapt COMMAND --help` says more. MEDTASKS_DATA=<folder> or =sample replaces the Hub as the source.",
        ]
    )


def _summary(entry: EntryPoint) -> str:
    """First line of the docstring of a command's module, read without importing it."""
    spec = importlib.util.find_spec(entry.module)
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return docstring.splitlines()[0].rstrip(".")


def harness(name: str, argv: list[str]) -> int:
    """lm-eval's command ``name``, with our tasks found and the installed ``lm_eval.models`` entry points registered.

    lm-eval 0.4.13 reads no entry points yet; once it does, registering a name again is skipped.

    Raises:
        InputError: unknown task or model, a base or adapter that is not there or not a pair, unusable arguments.
    """
    if name == "ls" and not [arg for arg in argv if not arg.startswith("-")] and not {"-h", "--help"} & set(argv):
        print(catalogue.table())
        return 0
    if name == "validate":
        return _validate(argv)
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    register_models()
    sys.argv = ["medadapt", name, *argv]
    cli = HarnessCLI()
    args = cli.parse_args()
    if name == "run":
        _prepare_run(args)
    else:
        args.include_path = _include_path(args)
    cli.execute(args)
    return 0


def _validate(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="medadapt validate", description=HARNESS["validate"])
    parser.add_argument("--tasks", default="", metavar="TASK1,TASK2", help="tasks and groups; all of ours if left out")
    parser.add_argument("--include_path", metavar="DIR", help="a folder with more tasks")
    args = parser.parse_args(argv)
    names = [name for name in args.tasks.split(",") if name]
    require_tasks(names, args.include_path)
    return catalogue.validate(names, args.include_path)


def register_models() -> None:
    """Register the models that installed packages offer as ``lm_eval.models`` entry points (`hf-mcq`, `rag`)."""
    import lm_eval.models  # noqa: F401  the built-in models first, or they disappear
    from lm_eval.api.registry import model_registry

    for entry in entry_points(group="lm_eval.models"):
        if entry.name not in model_registry:
            model_registry.register(entry.name, target=entry)


def _prepare_run(args: argparse.Namespace) -> None:
    """Check a run's arguments before anything heavy, and complete them."""
    from lm_eval.api.registry import model_registry
    from lm_eval.config.evaluate_config import EvaluatorConfig

    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)  # lm-eval parses the same arguments again and gives its warnings then
    try:
        config = EvaluatorConfig.from_cli(args)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise InputError(f"run: {' '.join(str(error).split())}") from error
    finally:
        log.setLevel(level)
    if config.model not in model_registry:
        raise InputError(
            f"unknown model '{config.model}'{_did_you_mean(config.model, list(model_registry))}; "
            f"there are {', '.join(sorted(model_registry))}"
        )
    tasks = config.tasks if isinstance(config.tasks, list) else [config.tasks]
    names = [name for task in tasks for name in str(task).split(",") if name]
    if not names:
        raise InputError("run: no task; give --tasks with names that `medadapt ls` lists")
    _find_tasks(args, names)
    _check_model(config.model, config.model_args)
    if config.model == "rag" and config.output_path and "sidecar" not in config.model_args:
        output = Path(config.output_path)
        folder = output.parent if output.suffix == ".json" else output  # as lm-eval reads it
        args.model_args = {**config.model_args, "sidecar": str(folder / "retrieval")}


def _check_model(model: str, model_args: dict) -> None:
    """The base must be there, and an adapter must belong to it: said now in one line, not later in a traceback."""
    inner = str(model_args.get("inner", "hf-mcq")) if model == "rag" else model
    base = model_args.get("pretrained")
    if inner not in HF_MODELS or "gguf_file" in model_args:
        return
    if not base:
        raise InputError(f"--model {model} needs --model_args pretrained=<folder or Hub id>")
    from medtasks import models

    models.folder(str(base), model_args.get("revision"))
    if model_args.get("peft"):
        models.check_adapter(str(model_args["peft"]), str(base), model_args.get("revision"))


def _find_tasks(args: argparse.Namespace, names: list[str]) -> None:
    """Set ``args.include_path`` so that lm-eval finds ``names``, loading its 14,000 own tasks only where asked for.

    Some of our names (medmcqa, pubmedqa) are also lm-eval's. Ours win where a task of ours is asked for, which is said
    aloud; a run of lm-eval's tasks alone (``multimedqa``, say) sees lm-eval's own and nothing of ours.

    Raises:
        InputError: a name that neither we nor lm-eval nor ``--include_path`` know.
    """
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    foreign = require_tasks(names, args.include_path)
    if len(foreign) == len(names):
        return
    args.include_path = _include_path(args)
    if foreign:
        shared = sorted(set(catalogue.our_tasks().all_tasks) & set(TaskManager().all_tasks))
        logging.getLogger("lm_eval").warning(
            "%s are ours in this run, inside lm-eval's groups too; run its groups alone to have its own",
            ", ".join(shared),
        )
    elif len(args.include_path) == 1:

        class OurTaskManager(TaskManager):
            """lm-eval's manager without its own tasks: 3 ms instead of seconds."""

            def __init__(self, *arguments, include_defaults: bool = False, **keywords):
                super().__init__(*arguments, include_defaults=include_defaults, **keywords)

        lm_eval.tasks.TaskManager = OurTaskManager


def require_tasks(names: list[str], include_path: str | None = None) -> list[str]:
    """Those of ``names`` (patterns, YAML files and folders included) that are not ours; all must exist.

    Raises:
        InputError: a name that neither we nor lm-eval nor the folder ``include_path`` know.
    """
    ours = catalogue.our_tasks()
    foreign = [name for name in names if not ours.match_tasks([name])]
    if not foreign:
        return []
    from lm_eval.tasks import TaskManager

    theirs = TaskManager(include_path=include_path)
    for name in foreign:
        if not theirs.match_tasks([name]) and not Path(name).exists():
            known = [*ours.all_tasks, *theirs.all_tasks]
            raise InputError(
                f"unknown task '{name}'{_did_you_mean(name, known)}; `medadapt ls` lists ours, `medadapt ls tasks` all"
            )
    return foreign


def _include_path(args: argparse.Namespace) -> list[str]:
    """Our task folder, then the user's own ``--include_path`` (which wins over ours)."""
    return [str(TASKS_DIR), *([args.include_path] if args.include_path else [])]


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def run() -> None:
    """Console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # `medadapt ls | head`: who reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    finally:
        cost.write_if_asked()
    sys.exit(code)


if __name__ == "__main__":
    run()
