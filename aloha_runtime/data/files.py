"""Files that are whole when they appear: written aside, synced, renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from aloha_runtime import durable, inside


def publish(aside: Path, final: Path) -> None:
    """Move a finished file from `aside`, in a folder of the dataset's own, to its place in the same dataset, so that a
    power cut leaves it whole or absent. No link on the way is followed."""
    root = aside.parents[1]
    make_directory(final.parent)
    _sync(aside)
    inside.move(root, aside, final)
    _sync(final.parent)


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


def is_later() -> bool:
    """Inside `all_at_once`."""
    return bool(_later)


def _sync(path: Path) -> None:
    if not _later:
        durable.sync(path)


def make_directory(directory: Path) -> None:
    """Create a directory and its missing parents, each synced into its parent."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync(directory.parent)


def publish_bytes(content: bytes, aside: Path, final: Path) -> None:
    """`publish` for a small file held in memory."""
    aside.write_bytes(content)
    publish(aside, final)


def publish_table(table: pa.Table, aside: Path, final: Path) -> None:
    """`publish` for a table, as one Parquet file."""
    write_table(table, aside)
    publish(aside, final)


def write_table(table: pa.Table, aside: Path) -> Path:
    """A table as one Parquet file."""
    pq.write_table(table, aside)
    return aside


def reserve(path: Path, size: int) -> None:
    """Take `size` bytes of the disk for later; nothing where the disk has not so many, or cannot do that."""
    if not size:
        return
    with contextlib.suppress(OSError), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
