"""Where rows come from: the Hub (default), folders of the same ids and schema, or the bundled sample.

``MEDTASKS_DATA`` chooses: unset, the Hub; otherwise one or several of these, with commas between, the first that has
the dataset wins: ``sample``, the bundled sample; ``hub``; a folder. A folder holds ``<org>/<name>/`` as the Hub does
(``hf download --repo-type dataset ORG/NAME --local-dir FOLDER/ORG/NAME``), or the files that a dataset is published as.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medtasks import files
from medtasks.errors import InputError

SAMPLE_DIR = Path(__file__).parent / "sample"
ENV = "MEDTASKS_DATA"
HUB = "hub"
REASON = 200
"""Characters of a library's own message that an error line repeats."""


def places() -> list[Path | None]:
    """Folders to look in, in this order; None is the Hub.

    Raises:
        InputError: ``MEDTASKS_DATA`` names no folder.
    """
    found: list[Path | None] = []
    for value in filter(None, (part.strip() for part in os.environ.get(ENV, "").split(","))):
        folder = SAMPLE_DIR if value == "sample" else Path(value).expanduser()
        if value != HUB and not folder.is_dir():
            raise InputError(
                f"{ENV}={value} is not a folder; give a folder of datasets, 'sample' or 'hub' (unset, it is the Hub)"
            )
        found.append(None if value == HUB else folder.resolve())
    return found or [None]


def kinds() -> str:
    """What :func:`places` are, without their paths: ``hub``, ``sample`` or ``folder``, with commas between."""
    return ",".join({None: HUB, SAMPLE_DIR: "sample"}.get(place, "folder") for place in places())


def find_file(names: Sequence[str]) -> Path | None:
    """The first of the files ``names`` in the folders of ``MEDTASKS_DATA`` or the folders in these; None if absent."""
    for place in filter(None, places()):
        for folder in (place, *sorted(child for child in place.iterdir() if child.is_dir())):
            for name in names:
                if (folder / name).is_file():
                    return folder / name
    return None


def where(hub_id: str) -> Path | None:
    """The folder that holds the dataset ``hub_id``; None for the Hub.

    Raises:
        InputError: no folder of ``MEDTASKS_DATA`` holds it, and the Hub is not among them.
    """
    tried = places()
    for folder in tried:
        if folder is None or (folder / hub_id).is_dir():
            return folder
    missing = " or ".join(str(folder / hub_id) for folder in tried if folder is not None)
    raise InputError(f"{ENV}: no folder {missing}; it should hold the dataset {hub_id} (add ',hub' to ask the Hub)")


def load_rows(hub_id: str, config: str | None, split: str):
    """Rows of one split as a ``datasets.Dataset``, with columns ``split`` and ``row`` (position) added.

    Raises:
        InputError: dataset, configuration or split cannot be loaded from the chosen source.
    """
    rows = _loaded(hub_id, config, split)
    return with_places(rows, split)


def stream_rows(hub_id: str, split: str) -> Iterator[dict]:
    """Yield the rows of one split while they arrive, so that a part of a large dataset can be read.

    Raises:
        InputError: as :func:`load_rows`; also later, if they stop arriving.
    """
    read = iter(_loaded(hub_id, None, split, streaming=True))
    while True:
        with _failures(hub_id, None, split):
            row = next(read, None)
        if row is None:
            return
        yield row


def version(hub_id: str) -> str:
    """What changes when a dataset does: a hash of its files where a folder holds it, else the Hub's commit, or
    ``unknown`` if the Hub does not tell.

    Raises:
        InputError: as :func:`where`.
    """
    folder = where(hub_id)
    if folder is not None:
        found = sorted(path for path in (folder / hub_id).rglob("*") if path.is_file() and path.name[0] != ".")
        return files.sha256_json({str(path.relative_to(folder)): files.sha256_file(path) for path in found})
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return HfApi().dataset_info(hub_id).sha
    except (OSError, HfHubHTTPError):
        return "unknown"


def _loaded(hub_id: str, config: str | None, split: str, streaming: bool = False):
    import datasets

    folder = where(hub_id)
    source = hub_id if folder is None else folder / hub_id
    shown = datasets.is_progress_bar_enabled()
    if folder is not None:
        datasets.disable_progress_bars()
    try:
        with _failures(hub_id, config, split):
            return datasets.load_dataset(str(source), config, split=split, streaming=streaming)
    finally:
        if folder is not None and shown:
            datasets.enable_progress_bars()


@contextmanager
def _failures(hub_id: str, config: str | None, split: str) -> Iterator[None]:
    """Any failure to load rows becomes one line that names them and the mend."""
    import datasets
    import httpx

    try:
        yield
    except (OSError, ValueError, datasets.exceptions.DatasetsError, httpx.HTTPError) as error:
        folder = where(hub_id)
        what = f"{hub_id}{f' ({config})' if config else ''}, split {split}"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:REASON]
        mend = (
            f"check the network or HF_ENDPOINT, or set {ENV} to a folder with the dataset (or to 'sample')"
            if folder is None
            else f"check the files in {folder / hub_id}"
        )
        raise InputError(f"cannot load {what}: {reason}; {mend}") from error


def with_places(rows, split: str):
    """``rows`` (a ``datasets.Dataset``) with two more columns: ``split``, and ``row``, the position in it."""
    return rows.add_column("split", [split] * len(rows)).add_column("row", list(range(len(rows))))


@contextmanager
def reading_from(source: str | None) -> Iterator[None]:
    """Read data in the block as with ``MEDTASKS_DATA`` set to ``source``; None leaves it as it is."""
    before = os.environ.get(ENV)
    if source is not None:
        os.environ[ENV] = source
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ENV, None)
        else:
            os.environ[ENV] = before
