"""The goal monitor's own reading of the wire: packets, and what they write and report. Shares no code with the driver.

Deliberately a second implementation of Protocol 2.0, from the manual: a mistake in `dynamixel.packets` must not hide a
goal from the monitor.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from fastcrc import crc16

_START = b"\xff\xff\xfd\x00"
_STUFFED = b"\xff\xff\xfd\xfd"
_LONGEST = 2048
_BROADCAST = 0xFE
_STATUS = 0x55
_POINTERS = ((168, 224), (578, 634))
_POINTER_COUNT = 28


class Frame(NamedTuple):
    """One packet: address on the bus, instruction, parameters as on the wire but for stuffing."""

    id: int
    code: int
    body: bytes


Write = tuple[int, int, bytes]
"""Bytes that a packet puts into a servo's control table: id, address, data."""


class Tap:
    """Cuts one direction of the wire into packets. `damaged`: bytes that belonged to no valid packet."""

    def __init__(self) -> None:
        self.damaged = 0
        self._rest = b""

    def frames(self, chunk: bytes) -> Iterator[Frame]:
        """Packets that end in this chunk."""
        if self._rest and chunk.startswith(_START):  # a new packet: the one before never ended
            self.damaged += len(self._rest)
            self._rest = b""
        stream, self._rest = self._rest + chunk, b""
        at = 0
        while at < len(stream):
            start = stream.find(_START, at)
            if start < 0:
                self._rest = stream[max(at, len(stream) - 3) :]
                return
            self.damaged += start - at
            length = stream[start + 5] | stream[start + 6] << 8 if len(stream) >= start + 7 else -1
            end = start + 7 + length
            if length < 0 or (3 <= length <= _LONGEST and len(stream) < end):
                self._rest = stream[start:]
                return
            if (
                not 3 <= length <= _LONGEST
                or crc16.umts(stream[start : end - 2]) != stream[end - 2] | stream[end - 1] << 8
            ):
                self.damaged += 1
                at = start + 1
                continue
            at, device, code, body = end, stream[start + 4], stream[start + 7], stream[start + 8 : end - 2]
            if _STUFFED in body and not (device == _BROADCAST and code == _STATUS):  # joint replies are not stuffed
                body = body.replace(_STUFFED, _STUFFED[:-1])
            yield Frame(device, code, body)


class Host:
    """What the host's packets write, and what they have asked for; keeps registered writes and indirect addresses."""

    def __init__(self) -> None:
        self.rebooted: list[int] = []
        """Ids told to reboot or reset since last looked at; `0xFE`: all."""
        self.asked: tuple[int, int] | None = None
        """Address and size of the last read; None when parts of a bulk read differ."""
        self.asked_ids = b""
        """Servos of the last read, in the order in which they answer."""
        self._registered: dict[int, Write] = {}
        self._pointers: dict[tuple[int, int], int] = {}

    def writes(self, frame: Frame) -> list[Write]:
        """Writes that take effect with this packet, indirect ones resolved; id `0xFE` means every servo."""
        servo, code, body = frame
        if code == 0x83:  # sync write
            size = int.from_bytes(body[2:4], "little")
            address = int.from_bytes(body[:2], "little")
            starts = range(4, len(body) - size, size + 1)
            return self._resolved([(body[at], address, body[at + 1 : at + 1 + size]) for at in starts], address + size)
        if code in (0x02, 0x82, 0x8A):
            self.asked = struct.unpack_from("<HH", body) if len(body) >= 4 else None
            self.asked_ids = bytes(body[4:])
        elif code in (0x92, 0x9A):
            blocks = {body[at + 1 : at + 5] for at in range(0, len(body) - 4, 5)}
            self.asked = struct.unpack("<HH", blocks.pop()) if len(blocks) == 1 else None
            self.asked_ids = bytes(body[::5])
        elif code in (0x06, 0x08):
            self.rebooted.append(servo)
        elif code == 0x03:
            return self._resolved([(servo, int.from_bytes(body[:2], "little"), body[2:])])
        elif code == 0x04:
            self._registered[servo] = servo, int.from_bytes(body[:2], "little"), body[2:]
        elif code == 0x05:
            due = [key for key in self._registered if servo in (key, _BROADCAST) or key == _BROADCAST]
            return self._resolved([self._registered.pop(key) for key in due])
        elif code == 0x93:
            return self._resolved(list(_bulk(body)))
        return []

    def _resolved(self, writes: list[Write], end: int = 1 << 16) -> list[Write]:
        """The writes with indirect data where it belongs. `end`: no byte lies there or behind."""
        if end <= _POINTERS[0][0] or all(address + len(data) <= _POINTERS[0][0] for _, address, data in writes):
            return writes
        found = []
        for servo, start, data in writes:
            for offset, byte in enumerate(data):
                address = self._place(servo, start + offset)
                found.append((servo, address, bytes((byte,))))
                self._pointers[servo, address] = byte
        return found

    def _place(self, servo: int, address: int) -> int:
        """Where a byte written to `address` goes: indirect data follows its pointer, as far as that was seen."""
        for pointers, data in _POINTERS:
            if data <= address < data + _POINTER_COUNT:
                pointer = pointers + 2 * (address - data)
                low, high = self._pointers.get((servo, pointer)), self._pointers.get((servo, pointer + 1))
                return address if low is None or high is None else low | high << 8
        return address


def _bulk(body: bytes) -> Iterator[Write]:
    at = 0
    while at + 5 < len(body):
        servo, address, size = struct.unpack_from("<BHH", body, at)
        yield servo, address, body[at + 5 : at + 5 + size]
        at += 5 + size


def reported(frame: Frame, asked: tuple[int, int] | None, ids: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(id, error byte, data) of each servo's part of a reply to a read of `asked` from servos `ids`."""
    if frame.code != _STATUS or not frame.body:
        return
    if frame.id != _BROADCAST:
        yield frame.id, frame.body[0], frame.body[1:]
    elif asked is not None and (len(frame.body) + 2) % (asked[1] + 4) == 0:  # else it answers an earlier question
        size = asked[1]
        parts = range(0, len(frame.body) - size - 1, size + 4)
        if bytes(frame.body[at + 1] for at in parts) != ids[: len(parts)]:
            return  # a late answer to an earlier question whose length happens to divide
        for at in parts:
            yield frame.body[at + 1], frame.body[at], frame.body[at + 2 : at + 2 + size]
