"""`.writing/`, the folder of a dataset in which its writer prepares files, and the journal that proves what is ours.

Before the first file of an episode takes its place, `journal.json` lists every file by relative path and digest: those
that are about to be published, and those that stay in the folder until it is cleared. After a kill the next writer
takes back and deletes what the journal proves, and nothing else: whatever else lies here goes to `.set-aside/DATE/`.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import msgspec

from aloha_runtime import durable, inside
from aloha_runtime.data.layout import Info
from aloha_runtime.data.open_episode import HEADER, RESERVE, ROWS
from aloha_runtime.errors import DatasetError

ASIDE = ".writing"
JOURNAL = "journal.json"
SET_ASIDE = ".set-aside"
TABLES = ("data.parquet", "tasks.parquet", "report.json", "episode.parquet", "stats.json", "info.json", "rig.json")
ZEROS = bytes(1 << 20)


class Journal(msgspec.Struct):
    """Which episode is being committed or taken out, and the files of that: path below the dataset -> sha256."""

    episode_index: int
    files: dict[str, str]


class Staging:
    """The folder of one dataset, whose lock the caller holds."""

    def __init__(self, root: Path, info: Info) -> None:
        """Make the folder where there is none. DatasetError when something else has its name."""
        self.root, self.folder = root, root / ASIDE
        there = inside.status(root, self.folder)
        if there is None:
            self.folder.mkdir(mode=0o700)
        elif not self.folder.is_dir() or self.folder.is_symlink():
            raise DatasetError(f"{self.folder} is no folder of a writer: move it elsewhere, and do this again.")
        videos = [name for key in info.features for name in (f"{key}.mp4", f"{key}.part.mp4")]
        self._names = {HEADER, ROWS, RESERVE, JOURNAL, f"{JOURNAL}.new", *TABLES, *videos}

    def journal(self) -> Journal | None:
        """What the last writer was about to do; None when it has left no journal."""
        try:
            return msgspec.json.decode(inside.read(self.root, self.folder / JOURNAL), type=Journal)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write_journal(self, episode_index: int, published: Mapping[Path, Path]) -> dict[str, str]:
        """List what is about to be published (where it lies now -> where it goes), and what else lies here; returns
        the digest of each."""
        found = {self._below(final): inside.digest(self.root, aside) for aside, final in published.items()}
        found |= {self._below(aside): found[self._below(final)] for aside, final in published.items()}
        rest = [path for path in sorted(self.folder.iterdir()) if path not in published and path.name in self._names]
        found |= {self._below(path): inside.digest(self.root, path) for path in rest if path.name != RESERVE}
        self.put_journal(Journal(episode_index, found))
        return found

    def put_journal(self, journal: Journal) -> None:
        """From here on the journal survives a kill and a power cut."""
        aside = self.folder / f"{JOURNAL}.new"
        aside.write_bytes(msgspec.json.encode(journal))
        durable.publish(aside, self.folder / JOURNAL)

    def take_back(self, journal: Journal, uncounted: Iterable[Path], places: Mapping[str, Path]) -> bool:
        """Of the files that nobody counts, those that are as the journal says return to this folder: a video under the
        name by which `recover` finds it, the others to be deleted. True when there was one. `places`: where the videos
        of the next episode would go."""
        names = {path: f"{key}.mp4" for key, path in places.items()}
        ours = [path for path in uncounted if self.is_as_written(journal, path)]
        for number, path in enumerate(ours):
            video = self.folder / names.get(path, "")
            if path in names and not video.exists():
                inside.move(self.root, path, video)
                continue
            back = self.folder / f"back-{number}"
            inside.move(self.root, path, back)
            inside.unlink(self.root, back)
        return bool(ours)

    def is_as_written(self, journal: Journal, path: Path) -> bool:
        """Whether a file is the one that the journal lists."""
        digest = journal.files.get(self._below(path), "")
        return bool(digest) and inside.digest(self.root, path) == digest

    def give_up_reserve(self) -> None:
        """Free the room that was kept for saving: a file of zeros, which nobody can miss."""
        path = self.folder / RESERVE
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                is_empty = all(not any(part) for part in iter(lambda: file.read(len(ZEROS)), b""))
            if is_empty:
                inside.unlink(self.root, path)

    def clear_own(self) -> None:
        """Delete what this process has put here: it found the folder empty and holds the lock."""
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if path.name in self._names:
                inside.unlink(self.root, path)

    def clear_listed(self) -> list[Path]:
        """Delete what the journal lists and is as it says, and set aside whatever else is here; returns what was."""
        journal = self.journal() or Journal(0, {})
        moved = []
        for path in sorted(self.folder.iterdir()):
            if path.name in (JOURNAL, f"{JOURNAL}.new"):
                continue
            if self.is_as_written(journal, path):
                inside.unlink(self.root, path)
            else:
                moved.append(set_aside(self.root, path))
        for name in (JOURNAL, f"{JOURNAL}.new"):
            inside.unlink(self.root, self.folder / name)
        return moved

    def close(self) -> None:
        """Take the folder away, unless it holds something."""
        inside.remove_empty(self.root, self.folder)

    def _below(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def clear(tree: Path) -> None:
    """Take `.writing/` out of a tree that this process has built from nothing."""
    for path in sorted((tree / ASIDE).iterdir()):
        inside.unlink(tree, path)
    inside.remove_empty(tree, tree / ASIDE)


def set_aside(root: Path, path: Path) -> Path:
    """Move a file or folder of the dataset at `root` to `.set-aside/DATE/`, under its own path; returns where it is.
    Nothing there is replaced, and this program deletes nothing there."""
    target = set_aside_day(root, str(path.relative_to(root)).removeprefix("."))
    inside.move_to_new(root, path, target)
    inside.sync_folder(root, target)
    return target


def set_aside_day(root: Path, name: str) -> Path:
    """A path that is free in today's folder of what was set aside; its folder is made."""
    day, number = root / SET_ASIDE / date.today().isoformat(), 1
    target = day / name
    while inside.status(root, target) is not None:
        number += 1
        target = day / str(number) / name
    with inside.folder_of(root, target, make=True):
        return target
