"""A new tree takes the place of a dataset in one step, and the one before is kept beside it for `undo`.

FOLDER/cups          the dataset
FOLDER/.cups.undo/   as it was before the last edits (`steps.py`), sharing every file that did not change
FOLDER/.cups.new     what an edit is building; one that was killed leaves it, the next removes it
FOLDER/.cups.new.ours   which folder `.cups.new` is, by device and inode: no other of that name is removed
FOLDER/.cups.old     the dataset on its way to `.undo`, where a file system needs two renames (`settle`)
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import av

from aloha_runtime import durable, inside
from aloha_runtime.data import owned, steps
from aloha_runtime.data.layout import read_info
from aloha_runtime.data.writer import lock_dataset
from aloha_runtime.errors import DatasetError

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""linux/fcntl.h, linux/fs.h; renameat2(2)."""
CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""What renameat2 says on NFS, exFAT and others that rename but do not exchange."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def beside(path: Path, what: str) -> Path:
    """Where something that belongs to `path` lies, on the same file system."""
    path = path.resolve()
    return path.with_name(f".{path.name}.{what}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the dataset against writers and other edits."""
    lock = lock_dataset(path)
    try:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def or_nothing(*asides: Path) -> Iterator[None]:
    """Make these folders. What is built in them inside leaves nothing behind when it fails; a full disk is a
    DatasetError. DatasetError as well when a folder of that name is there that no edit of ours has made."""
    for aside in asides:
        owned.begin(aside)
    try:
        yield
    except BaseException as error:
        for aside in asides:
            owned.remove(aside)
        cause = error.__cause__ if isinstance(error, DatasetError) else error  # the encoder speaks to who records
        if isinstance(cause, OSError | av.FFmpegError):
            raise DatasetError(f"{cause}. Nothing was changed; make room or give access, and try again.") from cause
        raise
    for aside in asides:
        owned.release(aside)


def replace(path: Path, build: Callable[[Path], None], said: Callable[[], str]) -> list[str]:
    """Have `build` write a tree, and put it in the place of the dataset at `path`, which the caller holds locked.
    `said`: what the edit did, for the list of steps. Returns what was said of the steps that had to go for it."""
    path = path.resolve()
    new = beside(path, "new")
    with or_nothing(new):
        build(new)
        with locked(new):  # a program that opens it in its new place waits until the old tree has found its own
            steps.reorder(path)
            slot = steps.free_slot(path)
            steps.write(slot, steps.describe(path, said(), read_info(path).total_episodes))
            new.rename(slot)
            exchange(path, slot)
            durable.sync(path.parent)
    return steps.expire(path)


def undo(path: Path, again: bool = False) -> None:
    """Exchange the dataset with the one before the last edit; `again`: with the one before the last undo."""
    path = path.resolve()
    settle(path)
    taken, given = (steps.FORWARD, steps.BACK) if again else (steps.BACK, steps.FORWARD)
    there = steps.kept(path, taken)
    if not there:
        raise DatasetError(f"{path} has no {'undo to take back' if again else 'edit to undo'}")
    before = there[0]
    with locked(path), locked(before):
        known = steps.read(before)
        target = steps.free_slot(path, given)
        steps.write(target, steps.describe(path, known.said if known else "", read_info(path).total_episodes))
        exchange(path, before)
        steps.rename(before, target)
        durable.sync(path.parent)
        durable.sync(target.parent)


def forget(path: Path) -> None:
    """Free the disk of what is kept for `undo`, and of what a killed edit left."""
    settle(path)
    for kind in (steps.BACK, steps.FORWARD):
        for tree in reversed(steps.kept(path, kind)):
            steps.remove(path, tree)
    inside.remove_empty(path.resolve().parent, steps.home(path))
    owned.remove(beside(path, "new"))


def exchange(path: Path, before: Path) -> None:
    """The dataset and the tree in `.undo` change places: in one step where the file system can, else in three that
    `settle` finishes."""
    if _LIBC.renameat2(AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(before), RENAME_EXCHANGE) == 0:
        return
    if (code := ctypes.get_errno()) not in CANNOT_EXCHANGE:
        raise OSError(code, os.strerror(code), str(path))
    waiting = beside(path, "old")
    path.rename(waiting)
    before.rename(path)
    waiting.rename(before)


def settle(path: Path) -> bool:
    """Finish an exchange that was killed between its renames; True when there was one."""
    waiting = beside(path, "old")
    if not waiting.is_dir():
        return False
    waiting.rename(path.resolve() if not path.exists() else steps.free_slot(path))
    return True
