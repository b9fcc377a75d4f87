"""A data set of the hub by its name: ``hf://datasets/OWNER/NAME[@REVISION][/PATH]``, downloaded once to its cache.

The files go where huggingface_hub keeps them (``HF_HOME``), and are read there: the uri of an item is a path in the
cache, of one revision. ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` have their meaning.
"""

from __future__ import annotations

import re
from pathlib import Path

from embedstore.errors import MissingExtra, SourceError, SourceNotFound

_NAME = re.compile(
    r"hf://datasets/(?P<name>[^/@]+(?:/[^/@]+)?)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+))?", re.IGNORECASE
)
_CODE = ("*.py", "*.ipynb", ".gitattributes")


def download_data_set(url: str) -> str:
    """Return the folder of a data set, or a file or folder in it, on this machine.

    Args:
        url: ``hf://datasets/OWNER/NAME``, with ``@REVISION`` and ``/PATH`` where wanted.

    Raises:
        SourceNotFound: if the url names no data set, or the hub has none of that name, revision or path.
        SourceError: if the hub cannot be reached and the data set is not on this machine.
        MissingExtra: if huggingface_hub is not installed.
    """
    match = _NAME.fullmatch(url.rstrip("/"))
    if match is None:
        raise SourceNotFound(f"{url} names no data set; write hf://datasets/OWNER/NAME")
    name, revision, path = match["name"], match["revision"], match["path"]
    folder = _snapshot(url, name, revision, [path, f"{path}/**"] if path else None)
    found = Path(folder, path) if path else Path(folder)
    if not found.exists():
        raise SourceNotFound(f"{url}: the data set {name} has no {path}")
    return str(found)


def _snapshot(url: str, name: str, revision: str | None, patterns: list[str] | None) -> str:
    """Download what is not on this machine yet, and return the folder of the revision."""
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as e:
        raise MissingExtra("hf:// needs huggingface_hub; run `pip install 'embedstore[hf]'`") from e
    try:
        return str(
            snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=patterns, ignore_patterns=list(_CODE)
            )
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as e:
        kind = "revision" if isinstance(e, errors.RevisionNotFoundError) else "data set"
        raise SourceNotFound(
            f"{url}: the hub shows no such {kind}; check the name, or set HF_TOKEN if it is private or gated"
        ) from e
    except Exception as e:  # errors of the network have many types
        raise SourceError(
            f"{url} is not on this machine and the hub cannot be reached ({type(e).__name__}); where there is a "
            f"network run `hf download {name} --repo-type dataset --local-dir FOLDER`, and embed FOLDER"
        ) from e
