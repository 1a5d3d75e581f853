"""Files that are whole when they appear: written aside, synced, renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def publish(aside: Path, final: Path) -> None:
    """Move a finished file from aside (same file system) to its place so that a power cut leaves it whole or absent."""
    make_directory(final.parent)
    with aside.open("rb") as file:
        _sync(file.fileno())
    aside.replace(final)
    sync_directory(final.parent)


@contextlib.contextmanager
def all_at_once() -> Iterator[None]:
    """Inside, nothing is synced; everything is at the end. For a tree that nobody looks at before."""
    _later.append(True)
    try:
        yield
    finally:
        _later.pop()
    os.sync()


_later: list[bool] = []


def _sync(descriptor: int) -> None:
    if not _later:
        os.fsync(descriptor)


def make_directory(directory: Path) -> None:
    """Create a directory and its missing parents, each synced into its parent."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def publish_bytes(content: bytes, aside: Path, final: Path) -> None:
    """`publish` for a small file held in memory."""
    aside.write_bytes(content)
    publish(aside, final)


def publish_table(table: pa.Table, aside: Path, final: Path) -> None:
    """`publish` for a table, as one Parquet file."""
    pq.write_table(table, aside)
    publish(aside, final)


def reserve(path: Path, size: int) -> None:
    """Take `size` bytes of the disk for later; nothing where the disk has not so many, or cannot do that."""
    if not size:
        return
    with contextlib.suppress(OSError), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def sync_directory(directory: Path) -> None:
    """Names that were added, changed or removed in a directory survive a power cut from here on."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
