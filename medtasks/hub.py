"""Files on the Hugging Face Hub, up and down; every failure is one line that names the mend."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from medtasks.errors import InputError

ID = r"[A-Za-z0-9][\w.-]*/[\w.-]+"
"""ORG/NAME."""


def upload(files: Mapping[str, Path | bytes], repo: str, repo_type: str, private: bool = False) -> str:
    """Put files into a repository of the user's, made if it is not there, in one commit; returns the commit's address.

    The token is the one of HF_TOKEN or ``hf auth login``.

    Args:
        files: path in the repository -> a local file, or its content.
        repo_type: ``dataset`` or ``model``.
        private: whether a repository that is made now is seen by its owners alone.

    Raises:
        InputError: ``repo`` is no ORG/NAME, there is no token, the Hub refuses it, or it cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if not re.fullmatch(ID, repo):
        raise InputError(f"{repo}: not a Hub repository; give ORG/NAME")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo}: the Hub takes no such name ({_first_line(error)})") from error
    if not get_token():
        raise InputError(f"{repo}: no token to upload with; run `hf auth login` or set HF_TOKEN")
    api = HfApi()
    with asking(repo, "upload to"):
        api.create_repo(repo, repo_type=repo_type, private=private, exist_ok=True)
        return api.create_commit(
            repo,
            [CommitOperationAdd(path, content) for path, content in files.items()],
            repo_type=repo_type,
            commit_message=f"{next(iter(files)) if len(files) == 1 else f'{len(files)} files'}: written by medadapt",
        ).commit_url


def download(repo: str, pattern: str) -> Path:
    """The local folder with a dataset repository's newest files that match ``pattern``.

    Raises:
        InputError: there is no such repository, the Hub refuses it, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download

    with asking(repo, "read"):
        return Path(snapshot_download(repo, repo_type="dataset", allow_patterns=pattern))


@contextmanager
def asking(what: str, doing: str) -> Iterator[None]:
    """Turn what the Hub's client raises in the block into one line.

    Args:
        what: a repository's or file's name, which begins the line.
        doing: what is tried with it, as in "no permission to read it".
    """
    # HTTPError is that of its HTTP client, which has been httpx and httpx2
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError as error:
        raise InputError(f"{what}: no such repository on the Hub, or no permission to {doing} it") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        reason = "no permission" if status in (401, 403) else f"the Hub refuses it ({_first_line(error)})"
        mend = "check the token's rights and the organisation's name" if status in (401, 403) else "try again later"
        raise InputError(f"{what}: {reason} to {doing} it; {mend}") from error
    except (HTTPError, OSError) as error:
        raise InputError(
            f"{what}: the Hub cannot be reached ({_first_line(error)}); check the network and HF_ENDPOINT"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
