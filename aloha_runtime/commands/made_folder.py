"""Folders of pages that a command rewrites: `.written.json` in them lists every file by path and digest.

A folder in which anything else lies, or a file that somebody changed, is not replaced.
"""

import os
from pathlib import Path

import msgspec

from aloha_runtime import inside

LIST = ".written.json"


def sign(folder: Path) -> None:
    """List what this process has written: every file that is in the folder now."""
    found = {str(path.relative_to(folder)): inside.digest(folder, path) for path in _files(folder)}
    found.pop(LIST, None)
    (folder / LIST).write_bytes(msgspec.json.encode(found))


def foreign(folder: Path) -> Path | None:
    """The first file that an earlier call did not write, or not so; None when the folder is absent, empty or ours."""
    listed = _listed(folder)
    for path in _files(folder):
        name = str(path.relative_to(folder))
        if name != LIST and (not listed.get(name) or inside.digest(folder, path) != listed[name]):
            return path
    return None


def empty(folder: Path) -> None:
    """Delete what the list names and is as it says, and the folders that this leaves empty."""
    for name, digest in _listed(folder).items():
        if digest and inside.digest(folder, Path(name)) == digest:
            inside.unlink(folder, Path(name))
    if foreign(folder) is None:
        inside.unlink(folder, folder / LIST)
    for path, _, _ in os.walk(folder, topdown=False):
        if Path(path) != folder:
            inside.remove_empty(folder, Path(path))


def _files(folder: Path) -> list[Path]:
    return [Path(path, name) for path, _, names in os.walk(folder) for name in sorted(names)]


def _listed(folder: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(inside.read(folder, folder / LIST), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}
