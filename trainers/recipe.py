"""Read a recipe: YAML first, the command line over it, every key known; bad input is one line and exit code 2.

``python -m trainers.recipe NAME`` prints where a shipped recipe or accelerate configuration lies:

    accelerate launch --config_file $(python -m trainers.recipe accelerate/ddp) -m trainers.sft --config demo_sft
"""

import argparse
import difflib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medtasks.errors import InputError

RECIPES = Path(__file__).parent / "recipes"
"""The shipped recipes; ``--config NAME`` finds them from any folder."""

PATIENCE = 5
"""Seconds that a process other than the first waits before it says what is wrong."""


def command(main: Callable[[list[str]], int]) -> None:
    """Run a script's ``main`` on the command line and exit: 2 and one line for bad input, 130 for Ctrl-C.

    Under ``accelerate launch`` with several processes the first one speaks; what fails in another process alone, that
    one says, once the first has had the time to say it (the launcher ends all processes after the first that fails).
    Deprecations inside the libraries are nothing that a user could mend, and not shown, and neither is that
    bitsandbytes finds no kernels for products on CPUs, which training does not use.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|trl")
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        code, message = 2, str(error)
    except KeyboardInterrupt:
        code, message = 130, "interrupted; the same command resumes from the last checkpoint"
    if rank := int(os.environ.get("RANK", 0)):
        time.sleep(PATIENCE)
        message = f"process {rank}: {message}"
    print(f"medadapt: {message}", file=sys.stderr)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # what the launcher ends its own report with
        Path(report).write_text(json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8")
    sys.exit(code)


def take(key: str, argv: list[str]) -> tuple[str | None, list[str]]:
    """(the value of ``--key`` or None, the other arguments)."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = _raise
    parser.add_argument(f"--{key}")
    known, rest = parser.parse_known_args(argv)
    return vars(known)[key], rest


def find(recipe: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one (``demo_sft``, ``demo_sft.yaml``, ``accelerate/ddp``).

    Raises:
        InputError: there is no such file.
    """
    for path in (Path(recipe).expanduser(), RECIPES / recipe, RECIPES / f"{recipe}.yaml"):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise InputError(f"{recipe}: no such recipe; give a YAML file, or one of {shipped}")


def read(path: Path) -> dict:
    """The mapping in a recipe file.

    Raises:
        InputError: not YAML, or not a mapping.
    """
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(recipe, dict):
        raise InputError(f"{path}: a recipe is a mapping, one 'key: value' a line")
    return recipe


def parse(dataclass_types, argv: list[str], doc: str, overrides: dict | None = None) -> tuple[tuple, dict]:
    """Dataclass instances from a recipe and the command line, which wins; ``overrides`` stand between the two.

    As TRL's ``TrlParser``, including ``env:`` (environment variables to set), with three things more: a value has its
    key's type, errors are :class:`InputError`, and ``use_cpu`` is true by default where there is no accelerator.

    Returns:
        The instances in the order of ``dataclass_types``, and the configuration: every key that recipe, overrides or
        command line set to something else than its default.

    Raises:
        InputError: an unknown key, a value of the wrong type, or a combination that a dataclass refuses.
    """
    import torch

    given = _Given.read(dataclass_types, argv, doc, overrides, use_cpu=not torch.accelerator.is_available())
    with _saying_where(given.place):
        instances = given.parser.parse_args_into_dataclasses(given.rest, look_for_args_file=False)
    return instances, {key: value for key, value in given.settings.items() if value != given.defaults[key]}


def settings(dataclass_types, argv: list[str], doc: str, overrides: dict | None = None) -> dict:
    """As :func:`parse`, but every key's value, defaults included, for whatever machine: no instances are made, which
    would refuse what this one cannot do.

    Raises:
        InputError: an unknown key, or a value of the wrong type.
    """
    return _Given.read(dataclass_types, argv, doc, overrides, use_cpu=False).settings


@dataclass
class _Given:
    """A recipe and a command line, read with the parser of some dataclasses."""

    parser: argparse.ArgumentParser
    defaults: dict
    settings: dict
    rest: list[str]
    place: str

    @staticmethod
    def read(dataclass_types, argv: list[str], doc: str, overrides: dict | None, use_cpu: bool) -> "_Given":
        from trl import TrlParser

        class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
            pass

        config, rest = take("config", argv)
        parser = TrlParser(
            dataclass_types,
            usage=argparse.SUPPRESS,
            description=doc,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
            epilog="Every option is a recipe key too. Those under 'options' are TRL's SFTConfig and ModelConfig.",
        )
        parser.error = _raise
        parser.set_defaults(use_cpu=use_cpu)
        defaults = vars(parser.parse_args([]))
        place = "the command line"
        recipe = {}
        if config is not None:
            place = str(find(config))
            recipe = read(Path(place))
        overrides = overrides or {}
        if foreign := [key for key in overrides if key not in defaults and key != "env"]:
            raise InputError(f"'{foreign[0]}' is no key of {place}{did_you_mean(foreign[0], defaults)}")
        recipe |= overrides
        environment = recipe.pop("env", None) or {}
        if not isinstance(environment, dict):
            raise InputError(f"{place}: 'env' must be a mapping of environment variables")
        os.environ.update({name: str(value) for name, value in environment.items()})
        for key in recipe:
            if key not in defaults:
                raise InputError(f"{place}: unknown key '{key}'{did_you_mean(key, defaults)}; --help lists all keys")
        with _saying_where(place):
            typed = {a.dest: _typed(a, recipe[a.dest]) for a in parser._actions if a.dest in recipe}
            parser.set_defaults_with_config(**typed)
            namespace, unknown = parser.parse_known_args(rest)
            if unknown:
                raise InputError(f"unknown argument '{unknown[0]}'{did_you_mean(unknown[0].lstrip('-'), defaults)}")
        return _Given(parser, defaults, vars(namespace), rest, place)


@contextmanager
def _saying_where(place: str):
    """Make of what the parser raises one line that names the recipe."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"{place}: {' '.join(str(error).split())}") from error


def _typed(action: argparse.Action, value):
    """A YAML value as the parser would read it from the command line, so that its type is checked there; a mapping in a
    list as JSON."""
    if value is None or (isinstance(value, dict) and action.nargs != "+"):
        return value
    if action.nargs == "+":
        values = value if isinstance(value, list) else [value]
        return [json.dumps(item, sort_keys=True) if isinstance(item, dict) else action.type(item) for item in values]
    if isinstance(value, list):
        if action.type in (int, float) or isinstance(action.default, bool):
            raise InputError(f"argument --{action.dest}: one value expected, not a list")
        return value
    if action.choices and value not in action.choices:
        raise InputError(f"argument --{action.dest}: '{value}' is none of {', '.join(map(str, action.choices))}")
    return value if action.type is str else str(value)


def kind(content: dict) -> str:
    """What a recipe with these keys is of: ``msft`` (it names two recipes), ``cpt`` (it names a corpus) or ``sft``."""
    if {"cpt", "sft"} <= content.keys():
        return "msft"
    return "cpt" if "corpus" in content else "sft"


def did_you_mean(word: str, known) -> str:
    """' (did you mean ...?)' for a word that is close to a known one, else nothing."""
    close = difflib.get_close_matches(word, known, 1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _raise(message: str):
    raise InputError(message)


def main(argv: list[str]) -> int:
    """Print the file of the recipe that is named; returns the exit code."""
    if len(argv) != 1:
        raise InputError("give the name of one recipe, as in 'python -m trainers.recipe accelerate/ddp'")
    print(find(argv[0]))
    return 0


if __name__ == "__main__":
    command(main)
