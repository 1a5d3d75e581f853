"""Prebuilt packets of the periodic cycle, and how its replies are taken apart. Pure, no I/O.

A cycle is one Sync Write of goals followed at once by one Fast Sync Read of the state block (current, velocity,
position). Everything that does not change is built once; a cycle fills in the goals and one CRC. State travels as one
flat tuple with STRIDE numbers per servo, because objects per servo are what costs CPU in Python.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

from fastcrc import crc16

from aloha_runtime.dynamixel import packets, registers
from aloha_runtime.dynamixel.packets import BROADCAST_ID, HEADER, Instruction, Packet

STRIDE = 6
ERROR, ID, CURRENT, VELOCITY, POSITION = range(5)
"""Places in a servo's part of the flat state: error byte, id, Present_Current, Present_Velocity, Present_Position."""

STATE_ADDRESS, STATE_SIZE = registers.STATE_BLOCK
WIDE_ADDRESS, WIDE_SIZE = registers.PRESENT_PWM.address, STATE_SIZE + 2
"""The state block with two bytes of Present_PWM before it. Sync Reads take turns between the two sizes, so that a late
reply to the last request is told from a reply to this one."""

_STUFFED = b"\xff\xff\xfd"


class GoalWrite:
    """Sync Write of Goal_Position to fixed servos."""

    def __init__(self, ids: Sequence[int]) -> None:
        empty = packets.sync_write(registers.GOAL_POSITION.address, 4, [(servo_id, bytes(4)) for servo_id in ids])
        self._fields = struct.Struct("<" + "Bi" * len(ids))
        self._head = empty[: -2 - self._fields.size]
        self._arguments = [number for servo_id in ids for number in (servo_id, 0)]

    def packet(self, ticks: Sequence[int]) -> bytes:
        """The packet for goals in ticks, in the order of the ids; struct.error beyond 32 bits."""
        self._arguments[1::2] = ticks
        goals = self._fields.pack(*self._arguments)
        if _STUFFED in goals:
            return packets.frame(BROADCAST_ID, self._head[packets.HEADER_SIZE :] + goals)
        packet = self._head + goals
        return packet + crc16.umts(packet).to_bytes(2, "little")


class StateRead:
    """Reads of the state block of fixed servos, and the layout of the replies.

    `fast`: the Fast Sync Read packet; `length`: bytes of its reply when nothing in it is stuffed.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self.fast = packets.sync_read(ids, STATE_ADDRESS, STATE_SIZE, fast=True)
        self._sync = {size: packets.sync_read(ids, address, size) for address, size in _BLOCKS}
        self._single = {(i, size): packets.read(i, address, size) for i in ids for address, size in _BLOCKS}
        self._layout = struct.Struct("<" + "BBhiiH" * len(ids))
        self.length = packets.HEADER_SIZE + 1 + self._layout.size
        length = self.length - packets.HEADER_SIZE
        self._head = HEADER + bytes((BROADCAST_ID,)) + length.to_bytes(2, "little") + bytes((Instruction.STATUS,))

    def sync(self, size: int) -> bytes:
        """The Sync Read packet for a block of STATE_SIZE or WIDE_SIZE."""
        return self._sync[size]

    def single(self, servo_id: int, size: int) -> bytes:
        """The Read packet for one servo of the chain."""
        return self._single[servo_id, size]

    def decode_fast(self, data: bytes) -> tuple[int, ...] | None:
        """Flat state from exactly one unstuffed reply of the expected length; None when `data` is anything else.

        A reply of nominal length is never unstuffed: FF FF FD FD in it can only be data.
        """
        if len(data) != self.length or not data.startswith(self._head):
            return None
        if crc16.umts(data[:-2]) != data[-2] | data[-1] << 8:
            return None
        return self._checked(self._layout.unpack_from(data, packets.HEADER_SIZE + 1))

    def decode_fast_packet(self, packet: Packet) -> tuple[int, ...] | None:
        """Flat state from a reply that went through the parser; None when it is no reply to this request."""
        if packet.id != BROADCAST_ID or packet.instruction != Instruction.STATUS:
            return None
        size = self._layout.size - 2  # the last CRC is the packet's own
        params = packet.params if len(packet.params) == size else packets.unstuff(packet.params)
        return self._checked(self._layout.unpack(params + b"\0\0")) if len(params) == size else None

    def decode_sync(self, answers: Mapping[int, Packet]) -> tuple[int, ...] | None:
        """Flat state from one status packet per servo; None when a servo refused."""
        state: list[int] = []
        for servo_id in self.ids:
            packet = answers[servo_id]
            state += (packet.error, servo_id, *_STATE.unpack(packet.data[-STATE_SIZE:]), 0)
        return self._checked(tuple(state))

    def _checked(self, state: tuple[int, ...]) -> tuple[int, ...] | None:
        """`state` when it holds these servos in this order and none reports an error other than the alert bit."""
        if state[ID::STRIDE] != self.ids or any(error & 0x7F for error in state[ERROR::STRIDE]):
            return None
        return state


_BLOCKS = ((STATE_ADDRESS, STATE_SIZE), (WIDE_ADDRESS, WIDE_SIZE))
_STATE = struct.Struct("<hii")


def write_register(register: registers.Register, values: Mapping[int, int]) -> bytes:
    """Sync Write of one register: servo id -> value."""
    blocks: Iterable[tuple[int, bytes]] = ((i, register.encode(value)) for i, value in values.items())
    return packets.sync_write(register.address, register.size, blocks)
