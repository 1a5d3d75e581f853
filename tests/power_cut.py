"""What a power cut would leave of a folder: the model of the disk that tests of durability judge by.

POSIX promises of a file what was there at its last `fsync`, and of a directory the names at its own last `fsync`.
Everything since may be gone, so here it is gone. Covers what this process does, in any of its threads.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Tree = dict[str, bytes | str | None]
"""Path below the root -> content, the target of a link (text), None for a directory."""


@dataclass
class PowerCut:
    """Watches every sync. `root`: the folder that is looked at; it and what is above it are there for good."""

    root: Path
    contents: dict[int, bytes] = field(default_factory=dict)
    """By inode: content at the last sync."""
    names: dict[int, dict[str, int | str]] = field(default_factory=dict)
    """By inode of a directory: its names at the last sync, with their inode, or the target of a link."""
    hurried: list[str] = field(default_factory=list)
    """Files that took their place before their content was on the disk."""
    before: dict[str, list[str]] = field(default_factory=dict)
    """Name that a file took -> what a cut would have cost just before."""

    def keep(self, path: Path) -> None:
        """The disk has this file, or this directory's names."""
        status = path.stat()
        if path.is_dir():
            entries = {e.name: os.readlink(e.path) if e.is_symlink() else e.inode() for e in os.scandir(path)}
            self.names[status.st_ino] = entries
        else:
            self.contents[status.st_ino] = path.read_bytes()

    def keep_all(self) -> None:
        for folder, _, files in os.walk(self.root):
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                if not path.is_symlink():
                    self.keep(path)

    def placed(self, source: Path, target: Path) -> None:
        """A file is about to take the place of another."""
        if not source.is_file() or source.is_symlink():
            return
        if self.contents.get(source.stat().st_ino) != source.read_bytes():
            self.hurried.append(target.name)
        self.before[target.name] = [path for path in self.lost() if not path.endswith(source.name)]

    def survivors(self) -> Tree:
        """What would be there after a cut now."""
        found: Tree = {}

        def walk(inode: int, path: str) -> None:
            for name, entry in self.names.get(inode, {}).items():
                below = f"{path}{name}"
                if isinstance(entry, str):
                    found[below] = entry
                elif self._is_directory(below, entry):
                    found[below] = None
                    walk(entry, f"{below}/")
                else:
                    found[below] = self.contents.get(entry, b"")

        walk(self.root.stat().st_ino, "")
        return found

    def _is_directory(self, path: str, inode: int) -> bool:
        there = self.root / path
        return inode in self.names or (there.is_dir() and there.stat().st_ino == inode)

    def lost(self) -> list[str]:
        """Paths that a cut now would take away, or bring back as they were before; hidden files and folders are
        nobody's promise."""
        here: Tree = {}
        for path in self.root.rglob("*"):
            below = str(path.relative_to(self.root))
            here[below] = os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
        after = self.survivors()
        differs = [path for path in here.keys() | after.keys() if here.get(path, "-") != after.get(path, "-")]
        return sorted(path for path in differs if not any(part.startswith(".") for part in path.split("/")))

    def rebuild(self, target: Path) -> Path:
        """The survivors as files, for whoever comes after the cut."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for path, content in sorted(self.survivors().items()):
            if content is None:
                (target / path).mkdir()
            elif isinstance(content, str):
                (target / path).symlink_to(content)
            else:
                (target / path).write_bytes(content)
        return target


def watch(root: Path, monkeypatch: pytest.MonkeyPatch) -> PowerCut:
    """From here on until the end of the test; what is there already is on the disk."""
    cut = PowerCut(root)
    cut.keep_all()
    fsync, fdatasync, sync, replace, rename = os.fsync, os.fdatasync, os.sync, os.replace, os.rename

    def synced(descriptor: int, real=fsync) -> None:  # type: ignore[no-untyped-def]
        real(descriptor)
        cut.keep(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def synced_all() -> None:
        sync()
        cut.keep_all()

    def at(path, folder: int | None) -> Path:  # type: ignore[no-untyped-def]
        return Path(path) if folder is None else Path(os.readlink(f"/proc/self/fd/{folder}"), path)

    def placing(real):  # type: ignore[no-untyped-def]
        def place(source, target, **options) -> None:  # type: ignore[no-untyped-def]
            cut.placed(at(source, options.get("src_dir_fd")), at(target, options.get("dst_dir_fd")))
            real(source, target, **options)

        return place

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced(descriptor, fdatasync))
    monkeypatch.setattr(os, "sync", synced_all)
    monkeypatch.setattr(os, "replace", placing(replace))
    monkeypatch.setattr(os, "rename", placing(rename))
    return cut
