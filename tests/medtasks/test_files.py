import pytest

from medtasks import files


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
