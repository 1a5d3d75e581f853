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
STATUS_SIZE = 11
"""Bytes of a status packet around its data."""


def _blocks(count: int) -> tuple[tuple[int, int], ...]:
    """The shortest blocks of whole registers around the state, each of another size: (address, size)."""
    starts = (registers.REALTIME_TICK, registers.MOVING, registers.MOVING_STATUS, registers.PRESENT_PWM)
    ends = (registers.VELOCITY_TRAJECTORY, registers.POSITION_TRAJECTORY, registers.PRESENT_INPUT_VOLTAGE)
    firsts = (registers.PROFILE_VELOCITY.address, registers.GOAL_POSITION.address, *(r.address for r in starts))
    lasts = (*(r.address + r.size for r in ends), registers.PRESENT_TEMPERATURE.address + 1)
    found = {
        last - first: (first, last - first)
        for first in (*firsts, STATE_ADDRESS)
        for last in (*lasts, STATE_ADDRESS + STATE_SIZE)
        if (last - first + 4) % 9  # else a joint reply of seven servos may be as long as one of nine
    }
    return tuple(found[size] for size in sorted(found))[:count]


BLOCKS = _blocks(16)
"""What a state read may ask for, the state alone first. After a question that failed another size is asked for, so that
a late answer is told from the answer to the new question; sixteen, because one may fail every 5 ms (`late_answers`)."""
WIDE_ADDRESS, WIDE_SIZE = BLOCKS[1]

_STUFFED = b"\xff\xff\xfd"


class GoalWrite:
    """Sync Write of one signed goal register (Goal_Position, Goal_Current) to fixed servos."""

    def __init__(self, ids: Sequence[int], register: registers.Register = registers.GOAL_POSITION) -> None:
        size = register.size
        empty = packets.sync_write(register.address, size, [(servo_id, bytes(size)) for servo_id in ids])
        self._fields = struct.Struct("<" + ("Bi" if size == 4 else "Bh") * len(ids))
        self._head = empty[: -2 - self._fields.size]
        self._arguments = [number for servo_id in ids for number in (servo_id, 0)]

    def packet(self, goals: Sequence[int]) -> bytes:
        """The packet for goals in the register's unit, in the order of the ids; struct.error beyond its width."""
        self._arguments[1::2] = goals
        fields = self._fields.pack(*self._arguments)
        if _STUFFED in fields:
            return packets.frame(BROADCAST_ID, self._head[packets.HEADER_SIZE :] + fields)
        packet = self._head + fields
        return packet + crc16.umts(packet).to_bytes(2, "little")


class StateRead:
    """Reads of the state of fixed servos as any of `BLOCKS` (by its index), and the layout of the replies."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self._questions = {
            (sync, block): packets.sync_read(ids, address, size, fast=not sync)
            for sync in (False, True)
            for block, (address, size) in enumerate(BLOCKS)
        }
        self._single = {(i, n): packets.read(i, address, size) for i in ids for n, (address, size) in enumerate(BLOCKS)}
        self._layouts = [self._layout(address, size) for address, size in BLOCKS]
        length = 1 + self._layouts[0].size
        self._length = packets.HEADER_SIZE + length
        self._head = HEADER + bytes((BROADCAST_ID,)) + length.to_bytes(2, "little") + bytes((Instruction.STATUS,))

    def _layout(self, address: int, size: int) -> struct.Struct:
        """Error, id, state and CRC of each servo in a joint reply."""
        before = STATE_ADDRESS - address
        return struct.Struct("<" + f"BB{before}xhii{size - before - STATE_SIZE}xH" * len(self.ids))

    def question(self, sync: bool, block: int) -> bytes:
        """The Sync Read or Fast Sync Read packet."""
        return self._questions[sync, block]

    def reply_size(self, sync: bool, block: int) -> int:
        """Bytes of the answer when nothing in it is stuffed."""
        size = BLOCKS[block][1]
        return len(self.ids) * (STATUS_SIZE + size) if sync else len(self.ids) * (4 + size) + packets.HEADER_SIZE + 1

    def single(self, servo_id: int, block: int) -> bytes:
        """The Read packet for one servo of the chain."""
        return self._single[servo_id, block]

    def decode_fast(self, data: bytes) -> tuple[int, ...] | None:
        """Flat state from exactly one reply to the question for the state alone; None when `data` is anything else or
        damaged.

        A reply of nominal length is never unstuffed: FF FF FD FD in it can only be data.
        """
        if len(data) != self._length or not data.startswith(self._head):
            return None
        if crc16.umts(data[:-2]) != data[-2] | data[-1] << 8:
            return None
        return self._checked(self._layouts[0].unpack_from(data, packets.HEADER_SIZE + 1))

    def decode_fast_packet(self, packet: Packet, block: int) -> tuple[int, ...] | None:
        """Flat state from a reply that went through the parser; None when it is no answer to this question."""
        if packet.id != BROADCAST_ID or packet.instruction != Instruction.STATUS:
            return None
        layout = self._layouts[block]
        size = layout.size - 2  # the last CRC is the packet's own
        params = packet.params if len(packet.params) == size else packets.unstuff(packet.params)
        return self._checked(layout.unpack(params + b"\0\0")) if len(params) == size else None

    def decode_sync(self, answers: Mapping[int, Packet], block: int) -> tuple[int, ...] | None:
        """Flat state from one status packet per servo; None when a servo refused."""
        state: list[int] = []
        for servo_id in self.ids:
            packet = answers[servo_id]
            state += (packet.error, servo_id, *_STATE.unpack_from(packet.data, STATE_ADDRESS - BLOCKS[block][0]), 0)
        return self._checked(tuple(state))

    def _checked(self, state: tuple[int, ...]) -> tuple[int, ...] | None:
        """`state` when it holds these servos in this order and none reports an error other than the alert bit."""
        if state[ID::STRIDE] != self.ids or any(error & 0x7F for error in state[ERROR::STRIDE]):
            return None
        return state


_STATE = struct.Struct("<hii")


def write_register(register: registers.Register, values: Mapping[int, int]) -> bytes:
    """Sync Write of one register: servo id -> value."""
    blocks: Iterable[tuple[int, bytes]] = ((i, register.encode(value)) for i, value in values.items())
    return packets.sync_write(register.address, register.size, blocks)
