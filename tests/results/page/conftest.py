"""Fixtures of the report's tests."""

from pathlib import Path

import pytest
from made_up import write_study

from results import calibration
from results.page import evidence, render


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Bootstrap samples for speed: these tests look at no interval of a calibration."""
    monkeypatch.setattr(calibration, "DRAWS", calibration.CHUNK)


@pytest.fixture
def study(tmp_path) -> Path:
    """The made-up study's folder, to be changed at will."""
    return write_study(tmp_path / "made_up")


@pytest.fixture(scope="session")
def whole_study(tmp_path_factory) -> Path:
    """The same, only to be read."""
    return write_study(tmp_path_factory.mktemp("whole") / "made_up")


@pytest.fixture(scope="session")
def found(whole_study) -> evidence.Evidence:
    """What a report knows of it."""
    return evidence.gather([whole_study])


@pytest.fixture(scope="session")
def page(found) -> str:
    """Its page."""
    return render.report(found)[0]
