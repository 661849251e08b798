"""Text, Markdown and PDF files become rows with titles; what cannot be read is named."""

import sys

import pytest

from medtasks import corpora
from medtasks.errors import InputError

MARKDOWN = """Before any heading.

# Asthma

## Treatment
Inhaled steroids first.

## Empty

# Gout
Treat early.
"""
PDF_PAGES = ("Uric acid crystals.", "", "Colchicine helps.")


def test_a_byte_order_mark_is_no_text_and_names_may_be_upper_case(tmp_path):
    (tmp_path / "a.md").write_text("# Gout\nTreat early.", encoding="utf-8-sig")
    (tmp_path / "b.JSONL").write_text('{"id": "b1", "text": "A row."}\n', encoding="utf-8-sig")
    rows = [(row["title"], row["text"]) for row in corpora.read(str(tmp_path))]
    assert rows == [("Gout", "Treat early."), ("", "A row.")]
    assert [row["text"] for row in corpora.read(str(tmp_path / "b.JSONL"))] == ["A row."]


def test_a_folder_is_read_in_order_with_what_lies_below(tmp_path):
    (tmp_path / "b.txt").write_text("Plain text.")
    (tmp_path / "a.md").write_text(MARKDOWN)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.jsonl").write_text('{"id": "c1", "text": "A row.", "license": "MIT"}\n')
    (tmp_path / ".hidden.txt").write_text("not read")
    (tmp_path / "picture.png").write_text("not read")
    rows = list(corpora.read(str(tmp_path), license="CC0"))
    assert [(row["id"], row["title"], row["text"]) for row in rows] == [
        ("a.md:0", "a", "Before any heading."),
        ("a.md:2", "Asthma > Treatment", "Inhaled steroids first."),
        ("a.md:4", "Gout", "Treat early."),
        ("b.txt", "b", "Plain text."),
        ("c1", "", "A row."),
    ]
    assert {row["source"] for row in rows} == {tmp_path.name}
    assert [row["license"] for row in rows] == ["CC0"] * 4 + ["MIT"]
    assert next(iter(corpora.read(str(tmp_path / "b.txt"))))["source"] == "b.txt"


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("Sj\xf6gren".encode("latin-1"))
    with pytest.raises(InputError, match="latin.txt: cannot be read .*decode"):
        list(corpora.read(str(tmp_path / "latin.txt")))
    (tmp_path / "empty.md").write_text("\n\n")
    with pytest.raises(InputError, match="empty.md: no text in it"):
        list(corpora.read(str(tmp_path / "empty.md")))


def test_a_pdf_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    (tmp_path / "a.pdf").write_bytes(pdf(PDF_PAGES))
    with pytest.raises(InputError, match=r"a.pdf: .*pip install \"medadapt\[pdf\]\""):
        list(corpora.read(str(tmp_path / "a.pdf")))


def test_a_pdf_is_a_row_a_page(tmp_path):
    pytest.importorskip("llama_index.readers.file", reason="the extra `pdf` is not installed")
    (tmp_path / "gout.pdf").write_bytes(pdf(PDF_PAGES))
    rows = list(corpora.read(str(tmp_path / "gout.pdf")))
    assert [(row["id"], row["title"], row["text"].strip()) for row in rows] == [
        ("gout.pdf:1", "gout, page 1", "Uric acid crystals."),
        ("gout.pdf:3", "gout, page 3", "Colchicine helps."),
    ]
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    with pytest.raises(InputError, match="broken.pdf: cannot be read"):
        list(corpora.read(str(tmp_path / "broken.pdf")))
    (tmp_path / "scan.pdf").write_bytes(pdf(["", ""]))
    with pytest.raises(InputError, match="scan.pdf: no text in it; a scanned one"):
        list(corpora.read(str(tmp_path / "scan.pdf")))


def pdf(pages) -> bytes:
    """A PDF with a line of text on each page."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {5 + 2 * n} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    data, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF"
    return f"{data}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode()
