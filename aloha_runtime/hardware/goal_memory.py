"""The goals that the servos of an arm were told last, where a program that starts again finds them.

A servo whose watchdog trips may make the place where it stands its goal: one sag below the goal of before, at every
restart. Nobody but the program of before knows that goal. What is read here is believed only where the servo's own load
explains it (`dynamixel_stance`), so an old file moves nothing.
"""

import contextlib
import os
import stat
import struct
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

UNKNOWN = -(1 << 31)


class GoalMemory:
    """Ticks by id. With a `path` they are in a file that outlives this process; without one, or where it cannot be
    used, in this process alone."""

    def __init__(self, ids: Sequence[int], path: Path | None = None) -> None:
        self._ids = tuple(ids)
        self._layout = struct.Struct(f"<{len(self._ids)}i")
        self._block = self._layout.pack(*[UNKNOWN] * len(self._ids))
        self._file = None if path is None else _own_file(path)
        if self._file is not None:
            found = os.pread(self._file, self._layout.size + 1, 0)
            if len(found) == self._layout.size:
                self._block = found
            else:
                os.ftruncate(self._file, 0)
            weakref.finalize(self, os.close, self._file)

    def get(self, servo_id: int) -> int | None:
        """The goal that a servo was told last, when it is known."""
        tick: int = self._layout.unpack(self._block)[self._ids.index(servo_id)]
        return None if tick == UNKNOWN else tick

    def note(self, ticks: Sequence[int]) -> None:
        """Goals of all servos, in the order of the ids."""
        block = self._layout.pack(*ticks)
        if block == self._block:
            return
        self._block = block
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk: this process still knows them
                os.pwrite(self._file, block, 0)

    def keep(self, goals: Mapping[int, int]) -> None:
        """These goals, and no others."""
        self.note([goals.get(servo_id, UNKNOWN) for servo_id in self._ids])


def _own_file(path: Path) -> int | None:
    """A descriptor of a regular file of this user's; None where there can be none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError:
        return None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
        return fd
    os.close(fd)
    return None
