"""StatPearls: a made-up archive of the same layout, downloaded from this machine, becomes passages."""

import gzip
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from medtasks import corpora
from medtasks.errors import InputError
from rag_model import commands, download, statpearls

LONG = "This paragraph says at length that rest comes first. " * 5
CHAPTER = f"""<?xml version="1.0"?>
<!DOCTYPE book-part-wrapper PUBLIC "-//NLM//DTD BITS Book Interchange DTD v2.0 20151225//EN" "BITS-book2.dtd">
<book-part-wrapper><book-part>
 <book-part-meta><title-group><title>Sprained <italic>Ankle</italic></title></title-group></book-part-meta>
 <body>
  <sec><title>Introduction</title>
   <p>{LONG}</p>
   <p>Short: CO<sub>2</sub> is no cause <xref>[1]</xref>.</p>
   <p>{LONG}</p>
  </sec>
  <sec><title>Treatment</title>
   <p><bold>First aid</bold></p>
   <list><list-item><p>Rest.</p></list-item><list-item><p>Ice.</p></list-item></list>
   <p>Later, exercise.</p>
   <p><bold>Surgery</bold></p>
   <p>Rarely <bold>needed</bold>.</p>
   <list><list-item><p>{LONG * 2}</p></list-item><list-item><p>{LONG * 2}</p></list-item></list>
   <sec><title>Inner</title><p>A section inside.</p></sec>
   <p> </p>
  </sec>
  <sec><p>No heading.</p></sec>
 </body>
</book-part></book-part-wrapper>"""


def archive(chapters=(("article-1", CHAPTER),)) -> bytes:
    """A tar.gz as NCBI Bookshelf packs a book: chapters and pictures in one folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as members:
        for name, content in (*((f"{name}.nxml", text.encode()) for name, text in chapters), ("a.jpg", b"\xff")):
            member = tarfile.TarInfo(f"statpearls_NBK430685/{name}")
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
    return packed.getvalue()


class Bookshelf:
    """A server of one file on this machine, which may break off, and notes what was asked of it."""

    def __init__(self, content: bytes):
        self.content, self.version, self.breaks, self.asked = content, '"1"', [], []
        bookshelf = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked, content = self.headers.get("Range"), bookshelf.content
                bookshelf.asked.append(asked)
                fits = asked and self.headers.get("If-Range") == bookshelf.version
                start = int(asked.removeprefix("bytes=").rstrip("-")) if fits else 0
                self.send_response(206 if fits else 200)
                self.send_header("ETag", bookshelf.version)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                until = bookshelf.breaks.pop(0) if bookshelf.breaks else len(content)
                self.wfile.write(content[start:until])

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/statpearls.tar.gz"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def bookshelf():
    server = Bookshelf(archive())
    yield server
    server.close()


def test_chapters_become_titled_passages(bookshelf, tmp_path):
    out = tmp_path / "statpearls.jsonl.gz"
    assert statpearls.write(out, url=bookshelf.url, progress=False) == 8
    rows = list(corpora.read(str(out)))
    assert [(row["title"], row["text"]) for row in rows] == [
        ("Sprained Ankle -- Introduction", f"{LONG.strip()} Short: CO2 is no cause [1]."),
        ("Sprained Ankle -- Introduction", LONG.strip()),
        ("Sprained Ankle -- Treatment -- First aid", "Rest. Ice. Later, exercise."),
        ("Sprained Ankle -- Treatment -- Surgery", "Rarely needed."),
        ("Sprained Ankle -- Treatment -- Surgery", (LONG * 2).strip()),
        ("Sprained Ankle -- Treatment -- Surgery", (LONG * 2).strip()),
        ("Sprained Ankle -- Inner", "A section inside."),
        ("Sprained Ankle", "No heading."),
    ]
    assert rows[0]["id"] == "article-1_0" and {row["source"] for row in rows} == {"StatPearls"}
    assert {row["license"] for row in rows} == {"CC BY-NC-ND 4.0"}
    first = out.read_bytes()
    statpearls.write(out, url=bookshelf.url, progress=False)
    assert out.read_bytes() == first and len(bookshelf.asked) == 1  # the archive is kept


def test_a_download_goes_on_where_it_broke_off(bookshelf, tmp_path):
    size = len(bookshelf.content)
    bookshelf.breaks = [100, 250]
    download.fetch(bookshelf.url, tmp_path / "file", progress=False)
    assert (tmp_path / "file").read_bytes() == bookshelf.content
    assert bookshelf.asked == [None, "bytes=100-", "bytes=250-"] and size > 250
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_download_that_breaks_off_again_and_again_is_kept_for_another_run(bookshelf, tmp_path):
    bookshelf.breaks = [50] * download.ATTEMPTS
    with pytest.raises(InputError, match=r"broke off at 50 of .* bytes\); run the same again to go on"):
        download.fetch(bookshelf.url, tmp_path / "file", progress=False)
    assert not (tmp_path / "file").exists()
    download.fetch(bookshelf.url, tmp_path / "file", progress=False)
    assert bookshelf.asked[-1] == "bytes=50-" and (tmp_path / "file").read_bytes() == bookshelf.content


def test_a_file_that_changed_on_the_server_is_begun_anew(bookshelf, tmp_path):
    bookshelf.breaks = [50] * download.ATTEMPTS
    with pytest.raises(InputError):
        download.fetch(bookshelf.url, tmp_path / "file", progress=False)
    bookshelf.version, bookshelf.content = '"2"', archive([("article-2", CHAPTER)])
    download.fetch(bookshelf.url, tmp_path / "file", progress=False)
    assert (tmp_path / "file").read_bytes() == bookshelf.content


def test_what_goes_wrong_is_named(tmp_path, free_port):
    with pytest.raises(InputError, match="cannot be downloaded .*efused"):
        statpearls.write(tmp_path / "out.jsonl.gz", url=f"http://127.0.0.1:{free_port}/x.tar.gz", progress=False)
    with pytest.raises(InputError, match="must end in .jsonl.gz"):
        statpearls.write(tmp_path / "out.json")
    with pytest.raises(InputError, match="test_statpearls.py: is not a folder"):
        statpearls.write(f"{__file__}/out.jsonl.gz")
    with pytest.raises(InputError, match="is a folder; give a file"):
        statpearls.write(tmp_path / "out.jsonl.gz", archive=tmp_path)
    whole = archive()
    for name, content, message in (
        ("cut.tar.gz", whole[: len(whole) // 2], "damaged"),
        ("bad.tar.gz", archive([("article-1", "<no xml")]), "damaged"),
        ("other.tar.gz", archive([]), "no chapter"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: {message}"):
            statpearls.write(tmp_path / "out.jsonl.gz", tmp_path / name, progress=False)
        assert not (tmp_path / "out.jsonl.gz").exists()


def test_the_command(tmp_path, capsys):
    (tmp_path / "book.tar.gz").write_bytes(archive())
    out = tmp_path / "statpearls.jsonl.gz"
    assert commands.index(["statpearls", "--out", str(out), "--archive", str(tmp_path / "book.tar.gz")]) == 0
    said = capsys.readouterr().out
    assert "8 passages (CC BY-NC-ND 4.0; not to be passed on)" in said
    with gzip.open(out) as f:
        assert json.loads(f.readline())["id"] == "article-1_0"
