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


def name_for(event: Event, when: datetime) -> str:
    """`2026-11-26_21-55-03_fault_follower-left-elbow-overload.mcap`: in order of time, and what it was at a glance."""
    cause = re.sub(r"[^a-z0-9]+", "-", event.cause.lower())[:CAUSE_LENGTH].strip("-")
    return f"{when:%Y-%m-%d_%H-%M-%S}_{event.kind}_{cause}{SUFFIX}"


def date_of(path: Path) -> str:
    """What a log can be called by: `2026-11-26_21-55-03`, or its whole name where it is somebody else's."""
    return "_".join(path.stem.split("_")[:2]) if kind_of(path) else path.name


def kind_of(path: Path) -> str:
    """As the name says; empty for a name of somebody else's."""
    parts = path.stem.split("_")
    return parts[2] if len(parts) > 3 else ""


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
    for path in folder.glob(".*.part"):
        pid = path.name.split(".")[-2]
        if not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)


def make_room(folder: Path, most_bytes: int, keep: Path) -> list[str]:
    """Delete logs until the folder is within its bound: kind after kind in the order of `KINDS`, of each the oldest
    first. What somebody else put there is not counted and stays, and so does `keep`. Returns the names of what was
    deleted."""
    known: tuple[str, ...] = KINDS
    sizes = {path: path.stat().st_size for path in logs(folder) if kind_of(path) in known}
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
