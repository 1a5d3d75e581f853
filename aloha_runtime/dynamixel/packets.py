"""Dynamixel Protocol 2.0 framing: CRC, byte stuffing and packet builders; `parser` reads them back. Pure, no I/O.

A packet is `FF FF FD 00 | id | LEN (2) | instruction | parameters | CRC (2)`, little endian. LEN counts what comes
after it, stuffing included; the CRC covers everything before itself. A status packet is instruction 0x55 whose first
parameter is the error byte. Source: https://emanual.robotis.com/docs/en/dxl/protocol2/
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple

from fastcrc import crc16

HEADER = b"\xff\xff\xfd\x00"
BROADCAST_ID = 0xFE
MAX_ID = 252
HEADER_SIZE = 7
"""Header, id and LEN: bytes before the instruction."""
MIN_LEN = 3
"""LEN of a packet without parameters: instruction and CRC."""
MAX_LEN = 2048
"""A LEN above this is taken for line noise. The longest honest packet (a read of a whole 1 KiB table) is shorter."""

ALERT = 0x80
"""Bit of the error byte: Hardware Error Status (address 70) is not zero."""


class Instruction(IntEnum):
    """Instruction codes of Protocol 2.0."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    FACTORY_RESET = 0x06
    REBOOT = 0x08
    CLEAR = 0x10
    STATUS = 0x55
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    FAST_SYNC_READ = 0x8A
    BULK_READ = 0x92
    BULK_WRITE = 0x93
    FAST_BULK_READ = 0x9A


class StatusError(IntEnum):
    """Low seven bits of the error byte of a status packet."""

    NONE = 0
    RESULT_FAIL = 1
    INSTRUCTION = 2
    CRC = 3
    DATA_RANGE = 4
    DATA_LENGTH = 5
    DATA_LIMIT = 6
    ACCESS = 7


class HardwareErrorBit(IntFlag):
    """Bits of Hardware Error Status (address 70)."""

    INPUT_VOLTAGE = 1 << 0
    OVERHEATING = 1 << 2
    ENCODER = 1 << 3
    ELECTRICAL_SHOCK = 1 << 4
    OVERLOAD = 1 << 5


class Packet(NamedTuple):
    """One packet as parsed: `params` without stuffing and CRC. For a status packet `params` is error byte + data.

    A status packet from `BROADCAST_ID` is the joint reply to a fast read; servos do not stuff those, so they are kept
    as they came: see `split_fast`.
    """

    id: int
    instruction: int
    params: bytes

    @property
    def error(self) -> int:
        """Error byte of a status packet (`StatusError` in the low bits, `ALERT` on top)."""
        return self.params[0] if self.params else 0

    @property
    def data(self) -> bytes:
        """Data of a status packet."""
        return self.params[1:]


def stuff(body: bytes) -> bytes:
    """Insert FD after every FF FF FD of instruction + parameters, so that a body never contains a header."""
    return body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")


def unstuff(body: bytes) -> bytes:
    """Undo `stuff`."""
    return body.replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")


def crc(data: bytes, start: int = 0) -> int:
    """CRC-16 of Protocol 2.0 (polynomial 0x8005, not reflected), running on from `start`."""
    return crc16.umts(data, start)


def frame(device_id: int, body: bytes) -> bytes:
    """Complete packet around an unstuffed body (instruction + parameters)."""
    stuffed = stuff(body)
    head = HEADER + bytes((device_id,)) + (len(stuffed) + 2).to_bytes(2, "little") + stuffed
    return head + crc16.umts(head).to_bytes(2, "little")


def instruction_packet(device_id: int, instruction: int, params: bytes = b"") -> bytes:
    """An instruction packet. Raises ValueError for an impossible id and for a packet longer than MAX_LEN."""
    if not (0 <= device_id <= MAX_ID or device_id == BROADCAST_ID):
        raise ValueError(f"servo id {device_id} is not 0..{MAX_ID} or {BROADCAST_ID} (broadcast)")
    packet = frame(device_id, bytes((instruction,)) + params)
    if len(packet) - HEADER_SIZE > MAX_LEN:
        raise ValueError(f"packet of {len(packet)} bytes is longer than {MAX_LEN + HEADER_SIZE}")
    return packet


def status_packet(device_id: int, error: int = 0, data: bytes = b"") -> bytes:
    """A status packet as a servo sends it."""
    return frame(device_id, bytes((Instruction.STATUS, error)) + data)


def _span(address: int, size: int) -> bytes:
    return address.to_bytes(2, "little") + size.to_bytes(2, "little")


def ping(device_id: int = BROADCAST_ID) -> bytes:
    """Ping one servo, or all of them."""
    return instruction_packet(device_id, Instruction.PING)


def read(device_id: int, address: int, size: int) -> bytes:
    """Read `size` bytes from `address`."""
    return instruction_packet(device_id, Instruction.READ, _span(address, size))


def write(device_id: int, address: int, data: bytes) -> bytes:
    """Write `data` at `address`."""
    return instruction_packet(device_id, Instruction.WRITE, address.to_bytes(2, "little") + data)


def reg_write(device_id: int, address: int, data: bytes) -> bytes:
    """Register a write that `action` carries out."""
    return instruction_packet(device_id, Instruction.REG_WRITE, address.to_bytes(2, "little") + data)


def action(device_id: int = BROADCAST_ID) -> bytes:
    """Carry out registered writes."""
    return instruction_packet(device_id, Instruction.ACTION)


def reboot(device_id: int) -> bytes:
    """Reboot a servo: torque drops, RAM returns to its initial values, errors are cleared."""
    return instruction_packet(device_id, Instruction.REBOOT)


def factory_reset(device_id: int, scope: int = 0x02) -> bytes:
    """Factory reset. `scope`: 0xFF everything, 0x01 all but the id, 0x02 all but id and baud rate."""
    return instruction_packet(device_id, Instruction.FACTORY_RESET, bytes((scope,)))


def clear_turns(device_id: int) -> bytes:
    """Reset the multi-turn count of Present_Position to the absolute position within one turn."""
    return instruction_packet(device_id, Instruction.CLEAR, b"\x01\x44\x58\x4c\x22")


def sync_read(ids: Sequence[int], address: int, size: int, fast: bool = False) -> bytes:
    """Read one block of every servo in `ids`; `fast` asks for one joint reply (firmware 45 and later)."""
    code = Instruction.FAST_SYNC_READ if fast else Instruction.SYNC_READ
    return instruction_packet(BROADCAST_ID, code, _span(address, size) + bytes(ids))


def sync_write(address: int, size: int, values: Iterable[tuple[int, bytes]]) -> bytes:
    """Write one block of several servos: (id, data) pairs, each of `size` bytes. No servo answers."""
    params = bytearray(_span(address, size))
    for device_id, data in values:
        if len(data) != size:
            raise ValueError(f"servo {device_id}: {len(data)} bytes of data for a block of {size}")
        params.append(device_id)
        params += data
    return instruction_packet(BROADCAST_ID, Instruction.SYNC_WRITE, bytes(params))


def bulk_read(blocks: Iterable[tuple[int, int, int]], fast: bool = False) -> bytes:
    """Read a block of its own from each servo: (id, address, size)."""
    code = Instruction.FAST_BULK_READ if fast else Instruction.BULK_READ
    return instruction_packet(BROADCAST_ID, code, b"".join(bytes((i,)) + _span(a, n) for i, a, n in blocks))


def bulk_write(blocks: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Write a block of its own to each servo: (id, address, data). No servo answers."""
    params = b"".join(bytes((i,)) + _span(address, len(data)) + data for i, address, data in blocks)
    return instruction_packet(BROADCAST_ID, Instruction.BULK_WRITE, params)


class FastBlock(NamedTuple):
    """One servo's part of a fast reply."""

    id: int
    error: int
    data: bytes


def split_fast(params: bytes, sizes: Sequence[int]) -> list[FastBlock]:
    """Parts of the joint reply to a Fast Sync Read or Fast Bulk Read: `error, id, data` per servo, a CRC between them.

    `params`: of the packet with id `BROADCAST_ID`. `sizes`: bytes of data asked from each servo, in order. The manual
    says that these replies carry no byte stuffing; one longer than nominal is unstuffed all the same, should a firmware
    do it. Raises ValueError when the length fits neither reading.
    """
    nominal = sum(sizes) + 4 * len(sizes) - 2  # the last CRC is the packet's own
    body = params if len(params) == nominal else unstuff(params)
    if len(body) != nominal:
        raise ValueError(f"fast reply of {len(params)} bytes where {nominal} were asked")
    blocks, at = [], 0
    for size in sizes:
        blocks.append(FastBlock(body[at + 1], body[at], body[at + 2 : at + 2 + size]))
        at += size + 4
    return blocks


def fast_status_packet(parts: Sequence[tuple[int, int, bytes]], announced: int | None = None) -> bytes:
    """The joint reply as servos build it: (id, error, data) each; CRCs run on from the packet's first byte.

    `announced`: total bytes of params that LEN promises, when later servos stay silent and the reply ends early.
    """
    size = sum(len(data) + 4 for _, _, data in parts) - 2 if announced is None else announced
    reply = bytearray(HEADER + bytes((BROADCAST_ID,)) + (size + 3).to_bytes(2, "little") + bytes((Instruction.STATUS,)))
    for device_id, error, data in parts:
        reply += bytes((error, device_id)) + data
        reply += crc16.umts(bytes(reply)).to_bytes(2, "little")
    return bytes(reply)
