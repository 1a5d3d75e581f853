"""What is kept of a dataset for `undo`: the trees before the last edits, beside it.

FOLDER/.cups.undo/back-0007          the dataset as it was before an edit; the highest number is undone first
FOLDER/.cups.undo/forward-0001       the dataset as it was before an undo; the highest number is done again first
FOLDER/.cups.undo/back-0007.json     when, what the edit did, and every file of that tree (`Step`)

A tree that has to go loses the files that its list names, as long as they are as they were then; a tree in which
something else lies by then goes to `.set-aside/DATE/` of the dataset instead. Files that other trees share stay there.
"""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from aloha_runtime import durable, inside
from aloha_runtime.data.staging import set_aside_day

BACK, FORWARD = "back", "forward"
MOST = 20
FREE_SHARE = 0.1
"""Of the disk: with less of it free the oldest steps go, but never the last one."""


class Step(msgspec.Struct):
    """What is known of a tree: the edit after which (or the undo before which) it was kept, when, its episodes, and its
    files: relative path -> size (bytes), time of change (ns), inode. Digests would mean reading every video."""

    said: str
    made: str
    episodes: int
    files: dict[str, tuple[int, int, int]]


def home(path: Path) -> Path:
    """The folder of steps of the dataset at `path`; what an older version kept there becomes the first step."""
    path = path.resolve()
    folder = path.with_name(f".{path.name}.undo")
    if (folder / "meta").is_dir() and not folder.is_symlink():
        waiting = path.with_name(f".{path.name}.undo-before")
        folder.rename(waiting)
        folder.mkdir(mode=0o755)
        waiting.rename(folder / f"{BACK}-0001")
    return folder


def kept(path: Path, kind: str = BACK) -> list[Path]:
    """Trees of one kind, the one that is next first."""
    found = [tree for tree in home(path).glob(f"{kind}-[0-9]*") if tree.is_dir() and not tree.is_symlink()]
    return sorted(found, key=lambda tree: int(tree.name.removeprefix(f"{kind}-")), reverse=True)


def free_slot(path: Path, kind: str = BACK) -> Path:
    """Where the next tree of a kind goes; the folder is made."""
    folder = home(path)
    folder.mkdir(mode=0o755, exist_ok=True)
    there = kept(path, kind)
    number = int(there[0].name.removeprefix(f"{kind}-")) + 1 if there else 1
    return folder / f"{kind}-{number:04d}"


def describe(tree: Path, said: str, episodes: int) -> Step:
    """The tree as it is now."""
    return Step(said, datetime.now().astimezone().isoformat(timespec="seconds"), episodes, dict(_files(tree)))


def _files(tree: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        if not path.is_dir() or path.is_symlink():
            yield str(path.relative_to(tree)), (status.st_size, status.st_mtime_ns, status.st_ino)


def write(slot: Path, step: Step) -> None:
    """Say what a tree is that is about to come to `slot`."""
    aside = slot.with_name(f".{slot.name}.json")
    aside.write_bytes(msgspec.json.encode(step))
    durable.publish(aside, _list_of(slot))


def read(slot: Path) -> Step | None:
    """What is known of a tree; None when nothing is."""
    try:
        return msgspec.json.decode(_list_of(slot).read_bytes(), type=Step)
    except (OSError, msgspec.DecodeError):
        return None


def _list_of(slot: Path) -> Path:
    return slot.with_name(f"{slot.name}.json")


def rename(slot: Path, target: Path) -> None:
    """A tree becomes one of another kind or number; its list is rewritten by the caller or goes along."""
    slot.rename(target)
    if _list_of(slot).exists() and not _list_of(target).exists():
        _list_of(slot).rename(_list_of(target))
    else:
        inside.unlink(slot.parent, _list_of(slot))


def reorder(path: Path) -> None:
    """Before a new edit: trees that were undone become steps that come after all others, so that none is lost."""
    for tree in reversed(kept(path, FORWARD)):
        rename(tree, free_slot(path))


def expire(path: Path) -> list[str]:
    """Let go of the oldest steps until there are no more than `MOST` and the disk has room; returns what was said of
    each that went."""
    gone = []
    trees = kept(path)
    while len(trees) > 1 and (len(trees) > MOST or _is_full(path)):
        oldest = trees.pop()
        gone.append(remove(path, oldest))
    return gone


def _is_full(path: Path) -> bool:
    usage = shutil.disk_usage(path.resolve().parent)
    return usage.free < FREE_SHARE * usage.total


def remove(path: Path, tree: Path) -> str:
    """Delete the files of a tree that its list names, and set aside the tree if anything is left in it."""
    step = read(tree)
    listed = step.files if step is not None else {}
    for name, expected in listed.items():
        status = inside.status(tree, tree / name)
        if status is not None and (status.st_size, status.st_mtime_ns, status.st_ino) == tuple(expected):
            inside.unlink(tree, tree / name)
    folders = [found for found in tree.rglob("*") if found.is_dir() and not found.is_symlink()]
    for folder in sorted(folders, key=lambda found: len(found.parts), reverse=True):
        inside.remove_empty(tree, folder)
    if not inside.remove_empty(tree.parent, tree):
        tree.rename(set_aside_day(path.resolve(), tree.name))
    inside.unlink(tree.parent, _list_of(tree))
    return step.said if step is not None else tree.name
