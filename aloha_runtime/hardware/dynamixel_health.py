"""The slow round: torque, hardware error, watchdog, voltage and temperature of one servo at a time, ten a second."""

import struct
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from aloha_runtime.dynamixel import packets, registers
from aloha_runtime.dynamixel.packets import Instruction, Packet

PERIOD_NS = 100_000_000
"""Nine servos come round in less than a second."""
HURRY_NS = 10_000_000
"""Pace while a servo raises its alert bit, so that the error has its name within the 40 ms to HOLD."""

_ADDRESS = registers.TORQUE_ENABLE.address
_SIZE = registers.PRESENT_TEMPERATURE.address + 1 - _ADDRESS
REPLY_BYTES = 11 + _SIZE
_FIELDS = struct.Struct("<B5xB27xb45xHB")


class Health(NamedTuple):
    """Registers of one servo, heard at `stamp_ns`: `watchdog` -1 after a trip, `voltage` in 0.1 V, degrees Celsius."""

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
        self._packets = {servo_id: packets.read(servo_id, _ADDRESS, _SIZE) for servo_id in ids}
        self._turns = deque(ids)
        self._hurried: deque[int] = deque()
        self._next_ns = 0

    def hurry(self, servo_id: int) -> None:
        """Ask this servo next."""
        if servo_id not in self._hurried:
            self._hurried.append(servo_id)

    def due(self, now_ns: int) -> bytes | None:
        """The question to ask now, if it is time for one."""
        if now_ns < self._next_ns - (PERIOD_NS - HURRY_NS if self._hurried else 0):
            return None
        self._next_ns = now_ns + PERIOD_NS
        if self._hurried:
            return self._packets[self._hurried.popleft()]
        self._turns.rotate(-1)
        return self._packets[self._turns[-1]]

    def take(self, packet: Packet, now_ns: int) -> bool:
        """True when `packet` is an answer to a question of this round."""
        fits = packet.instruction == Instruction.STATUS and len(packet.params) == _SIZE + 1
        if not fits or packet.id not in self._packets:
            return False
        self.count += 1
        self.heard[packet.id] = Health(now_ns, *_FIELDS.unpack(packet.data))
        return True
