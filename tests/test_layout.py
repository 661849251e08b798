"""Who may import whom: results -> trainers, rag_model -> medtasks; never back up, and those two never each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "medtasks": set(),
    "rag_model": {"medtasks"},
    "trainers": {"medtasks"},
    "results": {"medtasks", "rag_model", "trainers"},
}


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_follow_the_rule(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.split(".")[0]
                assert top not in ALLOWED or top == room or top in ALLOWED[room], f"{file}: imports {name}"
