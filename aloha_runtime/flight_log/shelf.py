"""The folder of logs: names, whole files only, and a bound on what they take of the disk.

`.written.jsonl` in the folder lists what recorders have written there: a log by name and digest, a file that is being
written by name, device and inode. What is not listed, or is another file by now, is counted and deleted by nobody.
"""

import contextlib
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from aloha_runtime import durable, inside
from aloha_runtime.errors import AlohaError
from aloha_runtime.flight_log.triggers import KINDS, Event

SUFFIX = ".mcap"
CAUSE_LENGTH = 48
"""Characters of the cause in a file's name."""
INDEX = ".written.jsonl"
_NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_([a-z]+)_[a-z0-9-]*\.mcap")
"""As `name_for` makes them."""
_HALF = re.compile(rf"\.{_NAME.pattern}\.(\d+)\.part")


class Entry(msgspec.Struct, omit_defaults=True):
    """One line of the index: a whole log by its digest, or a file that is being written by device and inode."""

    name: str
    sha256: str = ""
    device: int = 0
    inode: int = 0


def _list(folder: Path, entry: Entry) -> None:
    """Add a line to the index; it survives a power cut before what it is about gets its name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(folder / INDEX, flags, 0o600), "ab", buffering=0) as file:
        file.write(msgspec.json.encode(entry) + b"\n")
        os.fsync(file.fileno())


def _listed(folder: Path) -> dict[str, list[Entry]]:
    """The index by name. A line that is damaged proves nothing."""
    found: dict[str, list[Entry]] = {}
    try:
        lines = inside.read(folder, folder / INDEX).splitlines()
    except (OSError, AlohaError):
        return found
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            entry = msgspec.json.decode(line, type=Entry)
            found.setdefault(entry.name, []).append(entry)
    return found


def _wrote(folder: Path, path: Path, index: dict[str, list[Entry]]) -> bool:
    """Whether a file is one that the index lists, and still the same."""
    entries = index.get(path.name, [])
    if not entries or not _is_file(path):
        return False
    status = path.lstat()
    if any(entry.inode and (entry.device, entry.inode) == (status.st_dev, status.st_ino) for entry in entries):
        return True
    digests = {entry.sha256 for entry in entries if entry.sha256}
    return bool(digests) and inside.digest(folder, path) in digests


def name_for(event: Event, when: datetime) -> str:
    """`2026-11-26_21-55-03_fault_follower-left-elbow-overload.mcap`: in order of time, and what it was at a glance."""
    cause = re.sub(r"[^a-z0-9]+", "-", event.cause.lower())[:CAUSE_LENGTH].strip("-")
    return f"{when:%Y-%m-%d_%H-%M-%S}_{event.kind}_{cause}{SUFFIX}"


def date_of(path: Path) -> str:
    """What a log can be called by: `2026-11-26_21-55-03`, or its whole name where it is somebody else's."""
    return "_".join(path.stem.split("_")[:2]) if kind_of(path) else path.name


def kind_of(path: Path) -> str:
    """As the name says; empty for a name of somebody else's."""
    found = _NAME.fullmatch(path.name)
    return found[1] if found is not None and found[1] in KINDS else ""


def logs(folder: Path) -> list[Path]:
    """Whole logs, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def publish(folder: Path, name: str, write: Callable[[IO[bytes]], None]) -> Path:
    """Write a file aside, sync it, and give it its name; whatever happens in between, no half file has that name.
    Raises OSError."""
    path = folder / name
    for number in range(2, 100):
        if not path.exists():
            break
        path = folder / f"{Path(name).stem}-{number}{SUFFIX}"
    aside = folder / f".{path.name}.{os.getpid()}.part"
    made = False
    try:
        with aside.open("xb") as file:
            made = True
            status = os.fstat(file.fileno())
            _list(folder, Entry(aside.name, device=status.st_dev, inode=status.st_ino))
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _list(folder, Entry(path.name, sha256=inside.digest(folder, aside)))
        aside.replace(path)
    except BaseException:
        if made:
            aside.unlink(missing_ok=True)
        raise
    durable.sync(folder)
    return path


def remove_halves(folder: Path) -> None:
    """Files that writers began who are dead now."""
    index = _listed(folder)
    for path in folder.glob(f".*{SUFFIX}.*.part"):
        found = _HALF.fullmatch(path.name)
        if found is not None and not Path(f"/proc/{found[2]}").exists() and _wrote(folder, path, index):
            path.unlink(missing_ok=True)


def _is_file(path: Path) -> bool:
    """A file itself, no link to one."""
    return path.is_file() and not path.is_symlink()


def make_room(folder: Path, most_bytes: int, keep: Path) -> list[str]:
    """Delete logs until the folder is within its bound: kind after kind in the order of `KINDS`, of each the oldest
    first. What the index does not list is not counted and stays, and so does `keep`. Returns the names of what was
    deleted."""
    known: tuple[str, ...] = KINDS
    index = _listed(folder)
    ours = [path for path in logs(folder) if kind_of(path) and _is_file(path) and path.name in index]
    sizes = {path: path.stat().st_size for path in ours}
    order = sorted(sizes, key=lambda path: (known.index(kind_of(path)), path.name))
    gone, total = [], sum(sizes.values())
    for path in order:
        if total <= most_bytes:
            break
        if path != keep and _wrote(folder, path, index):
            path.unlink(missing_ok=True)
            total -= sizes[path]
            gone.append(path.name)
    return gone
