"""What README and CONTRIBUTING name exists."""

import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from medtasks import cli
from trainers import recipe

ROOT = Path(__file__).parents[1]
SUITES = [f"medtasks/{suite}/README.md" for suite in ("medadapt", "medsafe", "mirage", "open_medical_llm", "robust")]
EXAMPLES = [f"results/examples/{name}/README.md" for name in ("medadapt_medsafe", "qwen2.5_coder_1.5b")]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "medtasks/README.md",
        "medtasks/scoring/README.md",
        "results/README.md",
        "results/runs/README.md",
        "rag_model/README.md",
        "trainers/README.md",
        *SUITES,
        *EXAMPLES,
    ],
)
def test_named_files_and_commands_exist(page):
    text = (ROOT / page).read_text()
    paths = re.findall(r"(?<![\w/.])((?:studies|trainers|medtasks|tests|constraints|results)/[\w./-]+\.\w+)", text)
    assert not [path for path in paths if not (ROOT / path).exists()]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert not [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    commands = set(cli.HARNESS) | {entry.name for entry in entry_points(group="medadapt.commands")}
    used = set(re.findall(r"(?m)(?:^ +|`)medadapt ([a-z]+)", text))
    assert used <= commands
    modules = set(re.findall(r"-m ((?:trainers|medtasks)\.[a-z_.]*[a-z])", text))
    assert not [module for module in modules if find_spec(module) is None]
    for name in re.findall(r"(?:--config|trainers\.recipe) ([a-z][\w./]*)", text):
        assert recipe.find(name).is_file()


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_make_targets(target):
    assert f"make {target} " in (ROOT / "README.md").read_text()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
