"""Files that survive a power cut: their content is on the disk before they get their name, and the name is, too."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """What was written to a file, or to a directory (names added, changed, removed), survives a power cut from here on.
    Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(aside: Path, final: Path) -> None:
    """Move a finished file, or a tree whose files are synced, from aside (same file system) to its place, so that a
    power cut leaves the one before or the new one, whole. Raises OSError."""
    sync(aside)
    aside.replace(final)
    sync(final.parent)


def make_directory(directory: Path) -> None:
    """Create a directory and its missing parents, each synced into its parent. Raises OSError."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync(directory.parent)
