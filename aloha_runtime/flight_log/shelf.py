"""The folder of logs: names, whole files only, and a bound on what they take of the disk."""

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO

from aloha_runtime import durable
from aloha_runtime.flight_log.triggers import KINDS, Event

SUFFIX = ".mcap"
CAUSE_LENGTH = 48
"""Characters of the cause in a file's name."""
_NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_([a-z]+)_[a-z0-9-]*\.mcap")
"""As `name_for` makes them: of other files nothing is deleted."""
_HALF = re.compile(rf"\.{_NAME.pattern}\.(\d+)\.part")


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
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    durable.sync(folder)
    return path


def remove_halves(folder: Path) -> None:
    """Files that writers began who are dead now."""
    for path in folder.glob(f".*{SUFFIX}.*.part"):
        found = _HALF.fullmatch(path.name)
        if found is not None and _is_file(path) and not Path(f"/proc/{found[2]}").exists():
            path.unlink(missing_ok=True)


def _is_file(path: Path) -> bool:
    """A file itself, no link to one."""
    return path.is_file() and not path.is_symlink()


def make_room(folder: Path, most_bytes: int, keep: Path) -> list[str]:
    """Delete logs until the folder is within its bound: kind after kind in the order of `KINDS`, of each the oldest
    first. What somebody else put there is not counted and stays, and so does `keep`. Returns the names of what was
    deleted."""
    known: tuple[str, ...] = KINDS
    sizes = {path: path.stat().st_size for path in logs(folder) if kind_of(path) and _is_file(path)}
    order = sorted(sizes, key=lambda path: (known.index(kind_of(path)), path.name))
    gone, total = [], sum(sizes.values())
    for path in order:
        if total <= most_bytes:
            break
        if path != keep:
            path.unlink(missing_ok=True)
            total -= sizes[path]
            gone.append(path.name)
    return gone
