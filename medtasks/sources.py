"""Where rows come from: the Hub (default), a folder of the same ids and schema, or the bundled sample.

``MEDTASKS_DATA`` chooses: unset, the Hub; ``sample``, the bundled sample; anything else, a folder that holds
``<org>/<name>/`` as the Hub does (``hf download --repo-type dataset ORG/NAME --local-dir FOLDER/ORG/NAME``).
"""

import os
from pathlib import Path

from medtasks.errors import InputError

SAMPLE_DIR = Path(__file__).parent / "sample"
ENV = "MEDTASKS_DATA"
REASON = 200
"""Characters of a library's own message that an error line repeats."""


def data_dir() -> Path | None:
    """The folder that replaces the Hub, or None for the Hub itself.

    Raises:
        InputError: ``MEDTASKS_DATA`` names no folder.
    """
    value = os.environ.get(ENV, "")
    if not value:
        return None
    if value == "sample":
        return SAMPLE_DIR
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f"{ENV}={value} is not a folder; give a folder of datasets, 'sample', or unset it for the Hub")
    return folder.resolve()


def load_rows(hub_id: str, config: str | None, split: str):
    """Rows of one split as a ``datasets.Dataset``, with columns ``split`` and ``row`` (position) added.

    Raises:
        InputError: dataset, configuration or split cannot be loaded from the chosen source.
    """
    import datasets

    folder = data_dir()
    where = hub_id
    if folder is not None:
        where = folder / hub_id
        if not where.is_dir():
            raise InputError(f"{ENV}: no folder {where}; it should hold the dataset {hub_id}")
    shown = datasets.is_progress_bar_enabled()
    if folder is not None:
        datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(str(where), config, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        what = f"{hub_id}{f' ({config})' if config else ''}, split {split}"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:REASON]
        mend = (
            f"check the network or HF_ENDPOINT, or set {ENV} to a folder with the dataset (or to 'sample')"
            if folder is None
            else f"check the files in {where}"
        )
        raise InputError(f"cannot load {what}: {reason}; {mend}") from error
    finally:
        if folder is not None and shown:
            datasets.enable_progress_bars()
    return rows.add_column("split", [split] * len(rows)).add_column("row", list(range(len(rows))))
