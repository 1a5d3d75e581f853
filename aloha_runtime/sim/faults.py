"""Faults of an emulated bus on request: what happens to replies on their way, by probability and seed.

Also what the servos do where neither the manual nor a report of these models says it: both ways can be selected.
"""

import random
from typing import Literal, NamedTuple

import msgspec

from aloha_runtime.dynamixel import packets

BehindMissing = Literal["silent", "wait"]
GoalAtTorque = Literal["keep", "present"]
GoalAtTrip = Literal["present", "keep"]


class Reply(NamedTuple):
    """Bytes that the reader can have from `ready_at_ns` on."""

    ready_at_ns: int
    data: bytes


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """What may happen to each reply; probabilities 0..1, drawn independently. The default is a perfect bus."""

    drop: float = 0.0
    corrupt: float = 0.0
    """One to three bits of the reply are flipped."""
    late: float = 0.0
    late_ns: int = 16_000_000
    """How late a late reply comes; with `late` 1 this is an adapter whose latency timer is 16 ms."""
    duplicate: float = 0.0
    foreign: float = 0.0
    """A status packet of a servo that was not asked comes before the reply."""
    silent: list[int] = msgspec.field(default_factory=list)
    """Ids of servos that neither hear nor answer."""
    seed: int = 0
    behind_missing: BehindMissing = "silent"
    """Servos behind one that does not answer a sync or bulk read: they wait for its reply in vain (dynamixel-sdk issue
    331, of a PRO model), or answer after `missing_wait_ns`. A fast read always ends there."""
    missing_wait_ns: int = 1_000_000
    """How long the next servo waits for a missing one. No source says; twice the longest Return_Delay_Time."""
    goal_at_torque: GoalAtTorque = "keep"
    """Goal_Position when torque goes on: it stays, so that an old goal is a leap (reported of robots with XL330, Reachy
    Mini issue 1136), or becomes the present position (reported of the RX-28, robotis.com 24472)."""
    goal_at_trip: GoalAtTrip = "present"
    """Goal_Position when Bus_Watchdog trips: where the servo stands (dynamixel-sdk issue 584), or the goal it had, to
    which it goes as soon as the watchdog is cleared."""


class Line:
    """The way back from the servos. Counts what it did to replies."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.set(faults or Faults())

    def set(self, faults: Faults) -> None:
        """Take these faults from now on; the random sequence starts over, the counts go to 0."""
        self.faults = faults
        self.counts = dict.fromkeys(("drop", "corrupt", "late", "duplicate", "foreign"), 0)
        self._random = random.Random(faults.seed)  # noqa: S311 — reproducible, not secret
        self._perfect = not any((faults.drop, faults.corrupt, faults.late, faults.duplicate, faults.foreign))

    def carry(self, reply: Reply) -> list[Reply]:
        """What arrives of one reply."""
        if self._perfect:
            return [reply]
        ready_at_ns, data = reply
        if self._happens("drop"):
            return []
        if self._happens("corrupt"):
            data = self._flip(data)
        if self._happens("late"):
            ready_at_ns += self.faults.late_ns
        arriving = [Reply(ready_at_ns, data)]
        if self._happens("foreign"):
            stranger = packets.status_packet(self._random.randint(10, 252), 0, self._random.randbytes(10))
            arriving.insert(0, Reply(ready_at_ns, stranger))
        if self._happens("duplicate"):
            arriving.append(Reply(ready_at_ns, data))
        return arriving

    def _happens(self, kind: str) -> bool:
        if self._random.random() >= getattr(self.faults, kind):
            return False
        self.counts[kind] += 1
        return True

    def _flip(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for place in self._random.sample(range(8 * len(damaged)), self._random.randint(1, 3)):
            damaged[place // 8] ^= 1 << place % 8
        return bytes(damaged)
