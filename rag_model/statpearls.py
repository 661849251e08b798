"""StatPearls as a corpus: fetched from NCBI Bookshelf's open archive and cut into passages on the user's machine.

Its licence forbids passing on what is made from it, so no passage of it is in this project. Passages are cut as MedRAG
does (Xiong et al. 2024, arXiv:2402.13178): a paragraph or list each, titled ``chapter -- section`` (``-- subtitle``),
short ones joined with the one before.
"""

import gzip
import re
import tarfile
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from medtasks import files
from medtasks.errors import InputError
from rag_model import download

URL = "https://ftp.ncbi.nlm.nih.gov/pub/litarch/3d/12/statpearls_NBK430685.tar.gz"
LICENSE = "CC BY-NC-ND 4.0"
SHORT = 200
"""A paragraph of fewer characters is joined with the passage before it, in the same section."""
FULL = 1_000
"""Unless both together have as many characters as this; a longer list is a passage an entry."""
SUFFIX = ".jsonl.gz"


def write(out: str | Path, archive: str | Path | None = None, url: str = URL, progress: bool = True) -> int:
    """Write the corpus to ``out``, with ``archive`` (by default beside it) downloaded first if it is not there.

    Returns:
        the number of passages: ``id, title, text, source, license``, in the archive's order.

    Raises:
        InputError: ``out`` is no ``.jsonl.gz`` file that can be written, or the archive cannot be downloaded or read.
    """
    out = files.output_file(out)
    if not out.name.endswith(SUFFIX):
        raise InputError(f"{out}: the corpus must end in {SUFFIX}")
    archive = Path(archive).expanduser() if archive else out.parent / url.rpartition("/")[2]
    download.fetch(url, archive, progress)
    count = 0
    with files.atomic_write(out, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as f:
        for passage in passages(archive, progress):
            f.write(files.json_line(passage).encode())
            count += 1
        if not count:
            raise InputError(f"{archive}: no chapter (.nxml) in it; is it StatPearls' archive?")
    return count


def passages(archive: Path, progress: bool = False) -> Iterator[dict]:
    """Yield the passages of all chapters of the archive.

    Raises:
        InputError: it is damaged.
    """
    from tqdm import tqdm

    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in tqdm(members, desc="reading", unit="file", disable=not progress):
                if member.isfile() and member.name.endswith(".nxml"):
                    name = PurePosixPath(member.name).stem
                    for number, (title, text) in enumerate(_chapter(ET.parse(members.extractfile(member)).getroot())):
                        yield {
                            "id": f"{name}_{number}",
                            "title": title,
                            "text": text,
                            "source": "StatPearls",
                            "license": LICENSE,
                        }
    except (tarfile.TarError, EOFError, OSError, zlib.error, ET.ParseError) as error:
        raise InputError(f"{archive}: damaged ({error}); remove it and run the same again") from error


def _chapter(root: ET.Element) -> Iterator[tuple[str, str]]:
    """(title, text) of each passage of a chapter."""
    heading = root.find(".//title")
    chapter = "" if heading is None else _text(heading)
    for section in root.iterfind(".//sec"):
        yield from _section(section, chapter)


def _section(section: ET.Element, chapter: str) -> list[tuple[str, str]]:
    """(title, text) of the paragraphs and lists directly in a section; those in sections inside it are theirs."""
    heading = section.find("title")
    title = " -- ".join(filter(None, (chapter, "" if heading is None else _text(heading))))
    found: list[tuple[str, str]] = []
    named, may_join, subtitle_before = title, False, False
    for element in section:
        is_list, is_subtitle = element.tag == "list", _is_subtitle(element)
        parts = [part for part in map(_text, element if is_list else [element]) if part]
        text = " ".join(parts)
        if is_subtitle:
            named, may_join = f"{title} -- {text}", False
        elif element.tag in ("p", "list") and text:
            if may_join and (is_list or len(text) < SHORT) and len(found[-1][1]) + len(text) < FULL:
                found[-1] = (found[-1][0], f"{found[-1][1]} {text}")
            elif is_list and len(text) >= FULL:
                found += [(named, part) for part in parts]
                may_join = False
            else:
                found.append((named, text))
                may_join = True
            if is_list and subtitle_before:  # it was the list's alone
                named = title
        subtitle_before = is_subtitle
    return found


def _is_subtitle(element: ET.Element) -> bool:
    """Whether a paragraph is bold as a whole."""
    only = list(element)[0] if element.tag == "p" and len(element) == 1 else None
    return only is not None and only.tag == "bold" and not f"{element.text or ''}{only.tail or ''}".strip()


def _text(element: ET.Element) -> str:
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()
