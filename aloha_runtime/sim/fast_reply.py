"""The joint reply to a fast read of the state block, laid out once and filled at every cycle: the chain's hot path."""

import struct
from collections.abc import Sequence

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.sim.firmware import Firmware

_HEAD = packets.HEADER_SIZE + 1
"""Bytes before the first servo's part: header, id, LEN, instruction."""


class FastReply:
    """Reply of some servos of a chain, each with error, id, current, velocity, position and running CRC."""

    def __init__(self, servos: Sequence[Firmware], indices: Sequence[int]) -> None:
        """`indices`: where the states of `servos` stand in the list given to `fill`."""
        self._who = list(zip(servos, indices, strict=True))
        self._part = struct.Struct("<BBhii")
        self._template = packets.fast_status_packet([(servo.id, 0, bytes(reg.STATE_BLOCK[1])) for servo in servos])
        self._crc = packets.crc(self._template[:_HEAD])
        self.delay_ns = servos[0].return_delay_ns

    def fill(self, states: Sequence[tuple[int, int, int]]) -> bytes:
        """The reply for these (current, velocity, position) of all servos of the chain."""
        pieces, crc, pack = [self._template[:_HEAD]], self._crc, self._part.pack
        for servo, index in self._who:
            part = pack(servo.alert, servo.id, *states[index])
            crc = packets.crc(part, crc)
            tail = crc.to_bytes(2, "little")
            crc = packets.crc(tail, crc)
            pieces += (part, tail)
        return b"".join(pieces)
