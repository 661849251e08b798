"""Text, Markdown and PDF files as rows of a corpus, read by LlamaIndex's readers.

A text file is one row, a Markdown file one row a section (titled with the headings above it), a PDF one row a page.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medtasks.errors import InputError

SUFFIXES = (".txt", ".md", ".pdf")


def rows(file: Path, name: str) -> Iterator[tuple[str, dict]]:
    """Yield (a name for the row in messages, ``id, title, text``) of a file; empty sections and pages are left out.

    Args:
        name: what ids and titles begin with: the file's name, in a folder its relative path.

    Raises:
        InputError: it cannot be read, or holds no text; for a PDF, its reader is not installed.
    """
    suffix = file.suffix.lower()
    found = list({".txt": _text, ".md": _sections, ".pdf": _pages}[suffix](file, name))
    with_text = [row for row in found if row["text"].strip()]
    if not with_text:
        mend = "; a scanned one needs its text recognized first" if suffix == ".pdf" else ""
        raise InputError(f"{file}: no text in it{mend}")
    for row in with_text:
        yield f"{file} {row['id']}", row


def _text(file: Path, name: str) -> Iterator[dict]:
    for document in _load(file):
        yield {"id": name, "title": Path(name).stem, "text": document.text}


def _sections(file: Path, name: str) -> Iterator[dict]:
    from llama_index.core.node_parser import MarkdownNodeParser

    sections = MarkdownNodeParser(header_path_separator=" > ").get_nodes_from_documents(_load(file))
    for number, section in enumerate(sections):
        heading, _, body = section.text.partition("\n")
        above = section.metadata["header_path"].strip(" >")
        if not heading.startswith("#"):
            heading, body = "", section.text
        titles = [title for title in (above, heading.lstrip("#").strip()) if title]
        yield {"id": f"{name}:{number}", "title": " > ".join(titles) or Path(name).stem, "text": body.strip()}


def _pages(file: Path, name: str) -> Iterator[dict]:
    for number, page in enumerate(_load(file), 1):
        yield {"id": f"{name}:{number}", "title": f"{Path(name).stem}, page {number}", "text": page.text}


def _load(file: Path) -> list:
    """The file as LlamaIndex's documents."""
    from llama_index.core import SimpleDirectoryReader

    readers = {".pdf": _pdf_reader(file)} if file.suffix.lower() == ".pdf" else {}
    try:
        with _quiet("llama_index.core.readers.file.base", "pypdf"):
            return SimpleDirectoryReader.load_file(
                file,
                lambda path: {},
                readers,
                encoding="utf-8-sig",
                errors="strict",
                raise_on_error=True,
            )
    except Exception as error:  # a reader raises what its format's library does
        reason = str(error.__cause__ or error).strip() or type(error).__name__
        raise InputError(f"{file}: cannot be read ({reason.splitlines()[0]}); repair or leave out this file") from error


def _pdf_reader(file: Path):
    try:
        import pypdf  # noqa: F401 (what the reader reads with)
        from llama_index.readers.file import PDFReader
    except ImportError as error:
        raise InputError(f'{file}: reading a PDF needs one more package; pip install "medadapt[pdf]"') from error
    return PDFReader()


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Without the notes on readers of other formats that are not installed, or on slips in a PDF that were mended."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
