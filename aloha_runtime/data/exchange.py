"""A new tree takes the place of a dataset in one step, and the one before is kept beside it for `undo`.

FOLDER/cups          the dataset
FOLDER/.cups.undo    as it was before the last edit, sharing every file that did not change
FOLDER/.cups.new     what an edit is building; one that was killed leaves it, the next removes it
FOLDER/.cups.gone    what was kept for `undo` of the edit before, on its way out
FOLDER/.cups.old     the dataset on its way to `.undo`, where a file system needs two renames (`settle`)
"""

import contextlib
import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import av

from aloha_runtime import durable
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
    """What is built inside leaves nothing behind when it fails; a full disk is a DatasetError."""
    for aside in asides:
        shutil.rmtree(aside, ignore_errors=True)
    try:
        yield
    except BaseException as error:
        for aside in asides:
            shutil.rmtree(aside, ignore_errors=True)
        cause = error.__cause__ if isinstance(error, DatasetError) else error  # the encoder speaks to who records
        if isinstance(cause, OSError | av.FFmpegError):
            raise DatasetError(f"{cause}. Nothing was changed; make room or give access, and try again.") from cause
        raise


def replace(path: Path, build: Callable[[Path], None]) -> None:
    """Have `build` write a tree, and put it in the place of the dataset at `path`, which the caller holds locked."""
    path = path.resolve()
    new, before, gone = beside(path, "new"), beside(path, "undo"), beside(path, "gone")
    with or_nothing(new):
        build(new)
        with locked(new):  # whoever opens it in its new place waits until the old tree has found its own
            shutil.rmtree(gone, ignore_errors=True)
            if before.exists():
                before.rename(gone)
            new.rename(before)
            exchange(path, before)
            durable.sync(path.parent)
            shutil.rmtree(gone, ignore_errors=True)


def undo(path: Path) -> None:
    """Exchange the dataset with the one before the last edit; a second time brings the edit back."""
    path = path.resolve()
    settle(path)
    before = beside(path, "undo")
    if not before.is_dir():
        raise DatasetError(f"{path} has no edit to undo")
    with locked(path), locked(before):
        exchange(path, before)
        durable.sync(path.parent)


def forget(path: Path) -> None:
    """Free the disk of what is kept for `undo`, and of what a killed edit left."""
    settle(path)
    for what in ("undo", "new", "gone"):
        shutil.rmtree(beside(path, what), ignore_errors=True)


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
    waiting, before = beside(path, "old"), beside(path, "undo")
    if not waiting.is_dir():
        return False
    waiting.rename(path.resolve() if not path.exists() else before)
    return True
