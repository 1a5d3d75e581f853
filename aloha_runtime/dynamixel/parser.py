"""Reading Protocol 2.0 packets out of a byte stream that may be cut anywhere, damaged or full of noise. Pure."""

from fastcrc import crc16

from aloha_runtime.dynamixel.packets import (
    BROADCAST_ID,
    HEADER,
    HEADER_SIZE,
    MAX_LEN,
    MIN_LEN,
    Instruction,
    Packet,
    unstuff,
)


class Parser:
    """Incremental parser of a byte stream: trusts LEN, resynchronises on garbage, drops and counts bad CRC.

    `crc_errors`: frames dropped for their CRC. `garbage_bytes`: bytes that belonged to no good packet.
    """

    def __init__(self) -> None:
        self.crc_errors = 0
        self.garbage_bytes = 0
        self._buffer = b""

    @property
    def pending(self) -> int:
        """Bytes held back for a packet that is not complete yet."""
        return len(self._buffer)

    def reset(self) -> None:
        """Forget an incomplete packet (after a timeout)."""
        self.garbage_bytes += len(self._buffer)
        self._buffer = b""

    def feed(self, data: bytes) -> list[Packet]:
        """Packets completed by `data`, in order of arrival."""
        buffer = self._buffer + data if self._buffer else data
        packets: list[Packet] = []
        at = 0  # everything before this is consumed
        while True:
            start = buffer.find(HEADER, at)
            if start < 0:
                keep = _header_prefix(buffer, at)
                self.garbage_bytes += keep - at
                self._buffer = buffer[keep:]
                return packets
            self.garbage_bytes += start - at
            at = start
            end = _packet_end(buffer, start)
            if end < 0:  # impossible LEN: not a packet
                self.garbage_bytes += 1
                at += 1
            elif end == 0 or end > len(buffer):
                inner = _inner_packet(buffer, start + 1)
                if inner < 0:
                    self._buffer = buffer[start:]
                    return packets
                self.garbage_bytes += inner - start
                at = inner
            elif _crc_ok(buffer, start, end):
                packets.append(_decode(buffer, start, end))
                at = end
            else:
                self.crc_errors += 1
                self.garbage_bytes += 1
                at += 1


def _packet_end(buffer: bytes, start: int) -> int:
    """Index after the packet at `start`; 0 when LEN has not arrived; -1 when LEN is impossible."""
    if len(buffer) < start + HEADER_SIZE:
        return 0
    length = buffer[start + 5] | buffer[start + 6] << 8
    return start + HEADER_SIZE + length if MIN_LEN <= length <= MAX_LEN else -1


def _crc_ok(buffer: bytes, start: int, end: int) -> bool:
    return crc16.umts(buffer[start : end - 2]) == buffer[end - 2] | buffer[end - 1] << 8


def _decode(buffer: bytes, start: int, end: int) -> Packet:
    device_id, body = buffer[start + 4], buffer[start + HEADER_SIZE : end - 2]
    fast_reply = device_id == BROADCAST_ID and body[0] == Instruction.STATUS
    if b"\xff\xff\xfd\xfd" in body and not fast_reply:
        body = unstuff(body)
    return Packet(device_id, body[0], body[1:])


def _inner_packet(buffer: bytes, at: int) -> int:
    """Start of a complete, valid packet behind an incomplete one, or -1.

    Noise that looks like a header with a large LEN would otherwise swallow the packets behind it.
    """
    start = buffer.find(HEADER, at)
    while start >= 0:
        end = _packet_end(buffer, start)
        if 0 < end <= len(buffer) and _crc_ok(buffer, start, end):
            return start
        start = buffer.find(HEADER, start + 1)
    return -1


def _header_prefix(buffer: bytes, at: int) -> int:
    """Index of the longest tail of `buffer` that could still become a header."""
    for size in (3, 2, 1):
        if len(buffer) - at >= size and buffer.endswith(HEADER[:size]):
            return len(buffer) - size
    return len(buffer)
