import subprocess
import sys
from pathlib import Path

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


def test_a_disk_that_is_full_when_the_file_is_closed_is_what_is_told(tmp_path, monkeypatch):
    import tempfile

    def make(*arguments, **keywords):
        handle = named(*arguments, **keywords)
        close = handle.close
        monkeypatch.setattr(handle, "flush", lambda: _raise(OSError(28, "No space left on device")))
        monkeypatch.setattr(handle, "close", lambda: (close(), _raise(OSError(28, "again"))))
        return handle

    named = tempfile.NamedTemporaryFile
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", make)
    with (
        pytest.raises(InputError, match="here: the disk is full; free some"),
        files.telling_of_a_full_disk("here", "free some"),
    ):
        files.write_text(tmp_path / "file", "text")
    assert not list(tmp_path.iterdir())


def _raise(error):
    raise error


def test_what_a_killed_process_left_of_a_folder_is_removed(tmp_path):
    script = "from medtasks import files; import sys, time\n"
    script += "with files.new_folder(sys.argv[1]) as f: (f / 'part').touch(); print(f, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, str(tmp_path / "made")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        left = Path(process.stdout.readline().strip())
        with files.new_folder(tmp_path / "made"):
            assert (left / "part").exists()  # still written
        process.kill()
    (tmp_path / "made" / "old").touch()
    (tmp_path / ".made.1234.tmp.lock").touch()  # of one killed before it made its folder
    assert left.is_dir()
    with files.new_folder(tmp_path / "made") as folder:
        (folder / "new").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["made", "new"]


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
