"""Where a policy lies: a directory on this machine, or `user/model` on the Hugging Face hub."""

import re
from pathlib import Path

from aloha_runtime.act.header import CONFIG
from aloha_runtime.errors import CheckpointError

INNER = "pretrained_model"
"""Folder of the policy inside a checkpoint of a training run."""

FILES = ["*.json", "*.safetensors"]
"""All that is ever downloaded: data. Files that could run code (*.bin, *.pt, *.pkl, *.py) stay where they are."""


def find(name: str | Path, revision: str | None = None) -> Path:
    """The policy directory that `name` stands for: itself, the policy inside a checkpoint, or a download.

    A `user/model` that is no path here is looked up on the hub (at `revision`, a branch, tag or commit) and kept in its
    cache, which also serves it without a network. Raises CheckpointError.
    """
    path = Path(name)
    if path.exists() or not _is_hub_name(str(name)):
        inner = path / INNER
        return inner if not (path / CONFIG).exists() and (inner / CONFIG).exists() else path
    return _download(str(name), revision)


def _is_hub_name(name: str) -> bool:
    """`user/model`, unless `user` is a folder here: then a path was meant, and nobody is asked for it."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None and not Path(name).parent.is_dir()


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = snapshot_download(name, revision=revision, allow_patterns=FILES, ignore_patterns=["*/*"])
    except (OSError, ValueError, HfHubHTTPError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise CheckpointError(
            f"policy {name!r}{at}: there is no such directory here, and it cannot be had from the hub "
            f"({_reason(error)}); give the path of a policy directory, or download it once while there is a network"
        ) from error
    return Path(found)


def _reason(error: Exception) -> str:
    """Why the hub's client failed, in a few words."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        return "no network, and not downloaded before"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it has no such model, or only for those who log in"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the model has no such revision"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
