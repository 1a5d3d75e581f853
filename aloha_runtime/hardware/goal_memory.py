"""The goals that the servos of an arm were told last, where a program that starts again finds them.

A servo whose watchdog trips may make the place where it stands its goal: one sag below the goal of before, at every
restart. Nobody but the program of before knows that goal. What is read here is believed only where the servo's own load
explains it (`dynamixel_stance`), so an old file moves nothing.
"""

import mmap
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

UNKNOWN = -(1 << 31)


class GoalMemory:
    """Ticks by id. With a `path` they are in a file that outlives this process; without one, or where it cannot be
    used, in this process alone."""

    def __init__(self, ids: Sequence[int], path: Path | None = None) -> None:
        self._ids = tuple(ids)
        self._layout = struct.Struct(f"<{len(self._ids)}i")
        self._block: mmap.mmap | bytearray = bytearray(self._layout.size)
        self.keep({})
        if path is not None:
            self._block = _mapped(path, self._layout.pack(*[UNKNOWN] * len(self._ids))) or self._block

    def get(self, servo_id: int) -> int | None:
        """The goal that a servo was told last, when it is known."""
        tick: int = self._layout.unpack_from(self._block)[self._ids.index(servo_id)]
        return None if tick == UNKNOWN else tick

    def note(self, ticks: Sequence[int]) -> None:
        """Goals of all servos, in the order of the ids."""
        self._layout.pack_into(self._block, 0, *ticks)

    def keep(self, goals: Mapping[int, int]) -> None:
        """These goals, and no others."""
        self.note([goals.get(servo_id, UNKNOWN) for servo_id in self._ids])


def _mapped(path: Path, empty: bytes) -> mmap.mmap | None:
    """A file of this user's, made `empty` where it is new or of another size; None where there can be none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            return None
        if status.st_size != len(empty):
            os.ftruncate(fd, 0)
            os.write(fd, empty)
        return mmap.mmap(fd, len(empty))
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
