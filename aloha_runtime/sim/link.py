"""Shared memory between the simulated world and the emulated chains: present angles one way, goals the other.

One file in /dev/shm, mapped plainly, by a name that nobody can foresee. It belongs to the process that holds its lock;
when that dies the kernel frees the lock and the run directory's owner removes the file (`run_directory`). Every record
has one writer and begins with a count that is odd while it is being written, so a reader whom the writer has overtaken
notices and reads again.
"""

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from aloha_runtime.errors import TransportError
from aloha_runtime.ring_memory import create_held
from aloha_runtime.robot import JOINTS_PER_ARM, ROLES, SIDES
from aloha_runtime.run_directory import SHARED_MEMORY, Lock, lock_holder, own_files, ring_prefix
from aloha_runtime.sim.servo import Loop, PlantState

ARMS = tuple(f"{role}_{side}" for role in ROLES for side in SIDES)
HEADER_SIZE = 4096
"""The lock writes the owner's pid and command there."""
_SLOT = 256
"""Bytes kept for a record; the longest takes 176."""
_COUNT_SIZE = 8
_CLOCK = struct.Struct("<q")
_PRESENT = struct.Struct(f"<{3 * JOINTS_PER_ARM}d")
_COMMAND = struct.Struct(f"<{2 * JOINTS_PER_ARM}d{JOINTS_PER_ARM}?")
_HAND = struct.Struct(f"<{JOINTS_PER_ARM}d?")
_TURN = struct.Struct("<q")
_RECORDS = ("present", "command", "hand", "turn")
_SIZE = HEADER_SIZE + _SLOT * (1 + len(ARMS) * len(_RECORDS))
_READ_TRIES = 1000
"""A writer fills a record in under a microsecond; a thousand torn reads mean that it died in the middle."""


def link_path(run_dir: Path) -> Path | None:
    """The block of the rig that runs in this directory: the one that its world holds, else the newest; None when there
    is none."""
    there = [(lock_holder(path) is not None, _made_ns(path), path) for path in own_files(_prefix(run_dir))]
    return max(there)[-1] if there else None


def _prefix(run_dir: Path) -> str:
    return f"{ring_prefix(run_dir)}link-"


def _made_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _offset(arm: str, record: str) -> int:
    return HEADER_SIZE + _SLOT * (1 + ARMS.index(arm) * len(_RECORDS) + _RECORDS.index(record))


class Link:
    """One side of the block. The world writes `present`, chains `command` and `turn`, a demonstrator writes `hand`.

    Vectors are 7 numbers: motor angles in rad, rad/s, mA, in the order of `robot.JOINTS`.
    """

    def __init__(self, path: Path, file: BinaryIO, lock: Lock | None = None) -> None:
        self.path = path
        self._inode = os.fstat(file.fileno()).st_ino
        self._memory = mmap.mmap(file.fileno(), _SIZE)
        self._lock = lock
        self._held = file if lock is not None else None
        # Counts are stored and loaded as whole words; struct.pack_into would clear a record before it fills it.
        self._words = memoryview(self._memory).cast("Q")

    @classmethod
    def create(cls, run_dir: Path) -> "Link":
        """Make the block as its owner. TransportError when another world of this run directory lives."""
        taken = f"a simulated world runs in {run_dir} already: pid {{pid}} ({{command}}); stop it first"
        lock = Lock(run_dir / "link.lock", taken)
        for dead in own_files(_prefix(run_dir)):  # never resize a file that a chain may still have mapped
            dead.unlink(missing_ok=True)
        path, fd = create_held(_prefix(run_dir))
        try:
            os.posix_fallocate(fd, 0, _SIZE)
            return cls(path, os.fdopen(fd, "r+b"), lock)
        except OSError as error:
            path.unlink(missing_ok=True)
            os.close(fd)
            lock.release()
            raise TransportError(
                f"no shared memory for the simulated world ({path}: {error.strerror}): free some in {SHARED_MEMORY}"
            ) from None

    @classmethod
    def attach(cls, run_dir: Path, timeout_s: float = 0.0) -> "Link":
        """Map the block of a running world; TransportError when there is none within `timeout_s`. A block is of use to
        a follower's chain once `has_present` is true."""
        give_up = time.monotonic() + timeout_s
        while True:
            path = link_path(run_dir)
            with contextlib.suppress(FileNotFoundError):
                if path is not None:
                    with path.open("r+b") as file:
                        if os.fstat(file.fileno()).st_size >= _SIZE:
                            return cls(path, file)
            if time.monotonic() >= give_up:
                raise TransportError(
                    f"no simulated world runs in {run_dir} (its block in {SHARED_MEMORY} is missing): "
                    "start it with `aloha up`"
                )
            time.sleep(0.01)

    @property
    def is_current(self) -> bool:
        """False when the world behind this block has been replaced or has removed it: attach again."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Unmap; the owner also removes the file."""
        self._words.release()
        self._memory.close()
        if self._lock is not None and self._held is not None:
            if self.is_current:
                self.path.unlink(missing_ok=True)
            self._held.close()
            self._lock.release()

    def write_clock(self, now_ns: int) -> None:
        """Virtual time of the world; the chains of a rig in lock-step take their time from here."""
        self._write(_CLOCK, HEADER_SIZE, now_ns)

    def read_clock(self) -> int:
        """Virtual time of the world, 0 where the rig runs in wall time."""
        now_ns: int = self._read(_CLOCK, HEADER_SIZE)[0]
        return now_ns

    def write_present(
        self, arm: str, angles: Sequence[float], velocities: Sequence[float], currents_ma: Sequence[float]
    ) -> None:
        """Where the motors of an arm are: (7,) rad, (7,) rad/s, (7,) mA."""
        self._write(_PRESENT, _offset(arm, "present"), *angles, *velocities, *currents_ma)

    def read_present(self, arm: str) -> PlantState:
        """Where the motors of an arm are; zeros until the world has written once."""
        values, n = self._read(_PRESENT, _offset(arm, "present")), JOINTS_PER_ARM
        return PlantState(values[:n], values[n : 2 * n], values[2 * n :])

    def has_present(self, arm: str) -> bool:
        """Whether the world has said where the motors of an arm are."""
        return bool(self._words[_offset(arm, "present") // _COUNT_SIZE] // 2)

    def write_command(
        self, arm: str, goals: Sequence[float], torque: Sequence[bool], limit_ma: Sequence[float]
    ) -> None:
        """What an arm's servos are to do: goals (7,) rad, torque (7,), current limits (7,) mA."""
        self._write(_COMMAND, _offset(arm, "command"), *goals, *limit_ma, *torque)

    def read_command(self, arm: str) -> tuple[Sequence[float], Sequence[bool], Sequence[float]]:
        """Goals, torque and current limits of an arm; no torque until its chain has written once."""
        values, n = self._read(_COMMAND, _offset(arm, "command")), JOINTS_PER_ARM
        return values[:n], values[2 * n :], values[n : 2 * n]

    def write_hand(self, arm: str, angles: Sequence[float] | None) -> None:
        """Where a person holds a leader arm: (7,) rad, None: lets go."""
        self._write(_HAND, _offset(arm, "hand"), *(angles or [0.0] * JOINTS_PER_ARM), angles is not None)

    def read_hand(self, arm: str) -> Sequence[float] | None:
        """Where a person holds a leader arm, or None."""
        *angles, held = self._read(_HAND, _offset(arm, "hand"))
        return angles if held else None

    def write_turn(self, arm: str, now_ns: int) -> None:
        """When the chain of an arm last had a turn of the processor (monotonic)."""
        self._write(_TURN, _offset(arm, "turn"), now_ns)

    def read_turn(self, arm: str) -> int:
        """When the chain of an arm last had a turn; 0 until it has said so."""
        turn_ns: int = self._read(_TURN, _offset(arm, "turn"))[0]
        return turn_ns

    def _write(self, record: struct.Struct, offset: int, *values: float) -> None:
        word, data = offset // _COUNT_SIZE, record.pack(*values)
        count = self._words[word] // 2 * 2  # odd: a writer died in the middle
        self._words[word] = count + 1
        self._memory[offset + _COUNT_SIZE : offset + _COUNT_SIZE + record.size] = data
        self._words[word] = count + 2

    def _read(self, record: struct.Struct, offset: int) -> tuple[Any, ...]:
        word = offset // _COUNT_SIZE
        for _ in range(_READ_TRIES):
            count = self._words[word]
            values = record.unpack_from(self._memory, offset + _COUNT_SIZE)
            if count % 2 == 0 and self._words[word] == count:
                break
        return values


class LinkPlant:
    """A follower arm whose motors live in the simulated world."""

    def __init__(self, link: Link, arm: str) -> None:
        self.link = link
        self._arm = arm

    def read(self, now_ns: int) -> PlantState:
        return self.link.read_present(self._arm)

    def command(
        self,
        now_ns: int,
        goals: Sequence[float],
        torque: Sequence[bool],
        limit_ma: Sequence[float],
        push_ma: Sequence[float],
        loops: Sequence[Loop],
    ) -> None:
        """In current mode a follower's joint counts as free: nothing here puts one into it. The world's servos have the
        standard gains."""
        self.link.write_command(self._arm, goals, torque, limit_ma)
