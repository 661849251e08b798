import pytest

from medtasks import files
from medtasks.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    files.write_json(target, {"b": 1, "a": 2})
    before = target.read_bytes()
    with pytest.raises(RuntimeError), files.atomic_write(target) as f:
        f.write("half")
        raise RuntimeError
    assert target.read_bytes() == before == b'{\n  "a": 2,\n  "b": 1\n}\n'
    assert list(tmp_path.iterdir()) == [target]


def test_hashes_do_not_depend_on_key_order(tmp_path):
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "x").startswith("ba7816bf")


def test_where_nothing_can_be_written_is_said_before(tmp_path):
    (tmp_path / "file").write_text("")
    assert files.output_file(tmp_path / "new" / "a.json") == tmp_path / "new" / "a.json"
    assert files.output_file(tmp_path / "file") and files.output_folder(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path in (tmp_path, ""):
        with pytest.raises(InputError, match="is a folder; give a file to write"):
            files.output_file(path)
    for check, path in ((files.output_file, "file/a"), (files.output_folder, "file"), (files.output_folder, "file/a")):
        with pytest.raises(InputError, match="file: is not a folder, so nothing can be written into it"):
            check(tmp_path / path)
