"""The slow round: torque, hardware error, watchdog, voltage and temperature of one servo at a time, ten a second."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from aloha_runtime.dynamixel import packets, registers
from aloha_runtime.dynamixel.packets import Instruction, Packet

PERIOD_NS = 100_000_000
"""Nine servos come round in less than a second."""
HURRY_NS = 10_000_000
"""Pace while a servo raises its alert bit, so that the error has its name within the 40 ms to HOLD, and while a servo
has missed its turn."""
MISSED_NS = 1_000_000_000
"""A servo that was heard longer ago has missed its turn: an answer was lost."""
KNOWN_NS = 2_000_000_000
"""What a servo said longer ago is not known any more (promise: such arms are not armed)."""
RETRY_NS = 50_000_000
"""Pause before a servo that does not answer is asked again: an answer comes at most 40 ms late, and the others have
their turn meanwhile."""

_ADDRESS = registers.TORQUE_ENABLE.address
SIZE = registers.PRESENT_TEMPERATURE.address + 1 - _ADDRESS
REPLY_BYTES = 11 + SIZE
_FIELDS = struct.Struct("<B5xB27xb45xHB")


class Health(NamedTuple):
    """Registers of one servo, asked for at `stamp_ns`: `watchdog` -1 after a trip, `voltage` in 0.1 V, degrees
    Celsius."""

    stamp_ns: int
    torque: int
    hardware_error: int
    watchdog: int
    voltage: int
    temperature: int


class HealthRound:
    """Whose turn it is, and what each servo last said: `heard`, by servo id. `count`: answers taken so far."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.heard: dict[int, Health] = {}
        self.count = 0
        self._packets = {servo_id: packets.read(servo_id, _ADDRESS, SIZE) for servo_id in ids}
        self._hurried: list[int] = []
        self._asked_ns = dict.fromkeys(ids, -RETRY_NS)
        self._open_ns: dict[int, int] = {}
        """When the oldest question was asked that a servo may still answer."""
        self.begin(0)

    def begin(self, now_ns: int) -> None:
        """Ask everybody at once, one a cycle. What was heard before keeps its stamp."""
        self._fresh = set(self._packets)
        self._begun_ns = now_ns
        self._next_ns = 0
        self._look_ns = 0
        """Nobody has missed a turn before this."""

    def hurry(self, servo_id: int) -> None:
        """Ask this servo next."""
        if servo_id not in self._hurried:
            self._hurried.append(servo_id)

    def due(self, now_ns: int) -> bytes | None:
        """The question to ask now, if it is time for one."""
        if now_ns < self._look_ns and not self._hurried and not self._fresh:
            return None
        if now_ns < self._next_ns - (PERIOD_NS - HURRY_NS) and not self._fresh:
            return None
        servo_id = self._hurried.pop(0) if self._hurried else self._oldest(now_ns)
        if servo_id is None:
            self._look_ns = min(self._next_ns, now_ns + RETRY_NS)
            return None
        self._fresh.discard(servo_id)
        self._next_ns = now_ns + PERIOD_NS
        if now_ns - self._asked_ns[servo_id] >= RETRY_NS:
            self._open_ns.pop(servo_id, None)
        self._open_ns.setdefault(servo_id, now_ns)
        self._asked_ns[servo_id] = now_ns
        return self._packets[servo_id]

    def _oldest(self, now_ns: int) -> int | None:
        """Who has said nothing for longest and was not asked just now; None while that can wait."""
        if self._fresh:
            return min(self._fresh)
        waiting = [servo_id for servo_id, asked_ns in self._asked_ns.items() if now_ns - asked_ns >= RETRY_NS]
        servo_id = min(waiting, key=lambda i: (self._said_ns(i), self._asked_ns[i]), default=None)
        if servo_id is None or (now_ns < self._next_ns and now_ns - self._said_ns(servo_id) <= MISSED_NS):
            return None
        return servo_id

    def _said_ns(self, servo_id: int) -> int:
        """When a servo was asked for what it said last; where it never said anything, when that began."""
        heard = self.heard.get(servo_id)
        return heard.stamp_ns if heard else self._begun_ns

    def unknown(self, now_ns: int) -> dict[int, int]:
        """Servo id -> age in ns of what it said last, for those of which nothing is known now."""
        ages = {servo_id: now_ns - self._said_ns(servo_id) for servo_id in self._packets}
        return {i: age for i, age in ages.items() if age > KNOWN_NS or i not in self.heard}

    def take(self, packet: Packet) -> bool:
        """True when `packet` is an answer to a question of this round."""
        fits = packet.instruction == Instruction.STATUS and len(packet.params) == SIZE + 1
        if not fits or packet.id not in self._packets:
            return False
        asked_ns = self._open_ns.pop(packet.id, None)
        if asked_ns is not None:  # else it came twice
            self.count += 1
            self.heard[packet.id] = Health(asked_ns, *_FIELDS.unpack(packet.data))
        return True
