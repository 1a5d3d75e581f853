"""The joint reply to a fast read of the state block, laid out once and filled at every cycle: the chain's hot path."""

import struct
from collections.abc import Sequence

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.sim.firmware import Firmware

_HEAD = packets.HEADER_SIZE + 1
"""Bytes before the first servo's part: header, id, LEN, instruction."""
_STRIDE = reg.STATE_BLOCK[1] + 4
_CRC = struct.Struct("<H")


class FastReply:
    """Reply of some servos of a chain, each with error, id, current, velocity, position and running CRC."""

    def __init__(self, servos: Sequence[Firmware], indices: Sequence[int]) -> None:
        """`indices`: where the states of `servos` stand in the list given to `fill`."""
        self._who = list(zip(servos, indices, strict=True))
        self._parts = struct.Struct("<" + "BBhiixx" * len(servos))
        self._reply = bytearray(
            packets.fast_status_packet([(servo.id, 0, bytes(reg.STATE_BLOCK[1])) for servo in servos])
        )
        # One CRC over each servo's part and, but for the first, the CRC before it: they run on.
        starts = range(_HEAD, len(self._reply), _STRIDE)
        self._spans = [(max(0, start - 2) if start > _HEAD else 0, start + _STRIDE - 2) for start in starts]
        self.delay_ns = servos[0].return_delay_ns

    def fill(self, states: Sequence[tuple[int, int, int]]) -> bytes:
        """The reply for these (current, velocity, position) of all servos of the chain."""
        reply = self._reply
        values: list[int] = []
        for servo, index in self._who:
            values += (servo.alert, servo.id, *states[index])
        self._parts.pack_into(reply, _HEAD, *values)
        crc = 0
        for start, end in self._spans:
            crc = packets.crc(bytes(reply[start:end]), crc)
            _CRC.pack_into(reply, end, crc)
        return bytes(reply)
