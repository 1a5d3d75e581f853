"""Folders that this program makes, fills and may delete again: which one is ours is noted beside it.

FOLDER/.cups.new.ours holds device and inode of FOLDER/.cups.new, written right after that folder was made, which fails
where one of that name is there. Without this note, or with another folder in its place, nothing is deleted.
"""

import shutil
from pathlib import Path

import msgspec

from aloha_runtime import durable, inside
from aloha_runtime.errors import DatasetError


class Note(msgspec.Struct):
    """Which folder it is."""

    device: int
    inode: int


def begin(folder: Path) -> None:
    """Make the folder, in place of one of ours that a killed process left. DatasetError when another is there."""
    remove(folder)
    durable.make_directory(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not inside.remove_empty(folder.parent, folder):
            raise DatasetError(
                f"{folder} is in the way, and nothing says that this program made it: move it elsewhere, and do this"
                " again. Nothing was changed."
            ) from None
        folder.mkdir()
    status = folder.lstat()
    note_of(folder).write_bytes(msgspec.json.encode(Note(status.st_dev, status.st_ino)))


def is_ours(folder: Path) -> bool:
    """Whether the note beside a folder is about this very folder."""
    try:
        note = msgspec.json.decode(note_of(folder).read_bytes(), type=Note)
        status = folder.lstat()
    except (OSError, msgspec.DecodeError):
        return False
    return (note.device, note.inode) == (status.st_dev, status.st_ino)


def remove(folder: Path) -> bool:
    """Delete a folder of ours with everything in it, following no link; False when it is not provably ours."""
    if not is_ours(folder):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    release(folder)
    return True


def remove_inside(folder: Path, name: str) -> None:
    """Delete a folder inside one of ours."""
    if is_ours(folder):
        shutil.rmtree(folder / name, ignore_errors=True)


def rename(folder: Path, target: Path) -> None:
    """A folder of ours gets another name and stays ours. The note comes first: a kill in between leaves a note about
    no folder, which proves nothing."""
    if is_ours(folder):
        note_of(target).write_bytes(note_of(folder).read_bytes())
    durable.publish(folder, target)
    release(folder)


def release(folder: Path) -> None:
    """The folder has its final name, or is gone: it is not ours to delete any more."""
    inside.unlink(folder.parent, note_of(folder))


def note_of(folder: Path) -> Path:
    """The note beside a folder, hidden like the folders that are being built."""
    return folder.with_name(f".{folder.name.removeprefix('.')}.ours")
