"""Medical benchmark tasks for lm-evaluation-harness, and the `medadapt` command."""

from pathlib import Path

__version__ = "0.1.0"

TASKS_DIR = Path(__file__).parent
"""The folder to give to ``lm_eval --include_path``."""
