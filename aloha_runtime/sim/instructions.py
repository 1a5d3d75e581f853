"""What each instruction of Protocol 2.0 does to an emulated servo, and how group instructions divide among servos."""

import struct
from collections.abc import Callable

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import Instruction, StatusError
from aloha_runtime.sim.firmware import RAM_START, Firmware

Outcome = tuple[int, bytes]
"""Error number and data of the status packet."""

_CLEAR_KEY = b"\x01\x44\x58\x4c\x22"
"""Parameters without which a Clear is not carried out (e-manual)."""


def _ping(servo: Firmware, _params: bytes, _now_ns: int) -> Outcome:
    return StatusError.NONE, servo.get(reg.MODEL_NUMBER).to_bytes(2, "little") + bytes((servo.version,))


def _read(servo: Firmware, params: bytes, _now_ns: int) -> Outcome:
    if len(params) != 4:
        return StatusError.DATA_LENGTH, b""
    address, size = struct.unpack("<HH", params)
    return servo.read(address, size)


def write(servo: Firmware, params: bytes, _now_ns: int = 0) -> Outcome:
    """Write, `params` being address and data."""
    if len(params) < 3:
        return StatusError.DATA_LENGTH, b""
    return servo.write(int.from_bytes(params[:2], "little"), params[2:]), b""


def _reg_write(servo: Firmware, params: bytes, _now_ns: int) -> Outcome:
    if len(params) < 3:
        return StatusError.DATA_LENGTH, b""
    servo.registered = params
    servo.set(reg.REGISTERED_INSTRUCTION, 1)
    return StatusError.NONE, b""


def _action(servo: Firmware, _params: bytes, _now_ns: int) -> Outcome:
    params, servo.registered = servo.registered, b""
    servo.set(reg.REGISTERED_INSTRUCTION, 0)
    return write(servo, params) if params else (StatusError.INSTRUCTION, b"")


def _reboot(servo: Firmware, _params: bytes, now_ns: int) -> Outcome:
    servo.reboot(now_ns)
    return StatusError.NONE, b""


def _factory_reset(servo: Firmware, params: bytes, now_ns: int) -> Outcome:
    if params[:1] not in (b"\x01", b"\x02", b"\xff"):
        return StatusError.DATA_RANGE, b""
    servo.factory_reset(params[0], now_ns)
    return StatusError.NONE, b""


def _clear(servo: Firmware, params: bytes, _now_ns: int) -> Outcome:
    possible = params == _CLEAR_KEY and not servo.moving
    if possible:
        servo.fold()
    return StatusError.NONE if possible else StatusError.RESULT_FAIL, b""


SINGLE: dict[int, Callable[[Firmware, bytes, int], Outcome]] = {
    Instruction.PING: _ping,
    Instruction.READ: _read,
    Instruction.WRITE: write,
    Instruction.REG_WRITE: _reg_write,
    Instruction.ACTION: _action,
    Instruction.REBOOT: _reboot,
    Instruction.FACTORY_RESET: _factory_reset,
    Instruction.CLEAR: _clear,
}
"""Instructions that one servo carries out."""

OBEYED_BY_SHADOWS = (Instruction.WRITE, Instruction.REG_WRITE, Instruction.ACTION)
"""Instructions that a servo also takes when they are sent to its secondary id."""


def reaches_eeprom(params: bytes) -> bool:
    """Whether a write begins in the EEPROM, which no packet to a secondary id can change (e-manual, item 12)."""
    return int.from_bytes(params[:2], "little") < RAM_START


IGNORED_ON_BROADCAST = (Instruction.READ, Instruction.CLEAR)


def group_reads(code: int, params: bytes) -> list[tuple[int, int, int]]:
    """(id, address, size) that a group read asks for."""
    if code in (Instruction.BULK_READ, Instruction.FAST_BULK_READ):
        return list(struct.iter_unpack("<BHH", params[: len(params) // 5 * 5]))
    if len(params) < 5:
        return []
    address, size = struct.unpack_from("<HH", params)
    return [(servo_id, address, size) for servo_id in params[4:]]


def group_writes(code: int, params: bytes) -> list[tuple[int, bytes]]:
    """(id, address and data) that a group write carries; a part cut short is left out."""
    parts, at = [], 0
    if code == Instruction.SYNC_WRITE:
        size = int.from_bytes(params[2:4], "little")
        starts = range(4, len(params) - size, size + 1)
        return [(params[start], params[:2] + params[start + 1 : start + 1 + size]) for start in starts]
    while at + 5 < len(params):
        servo_id, size = params[at], int.from_bytes(params[at + 3 : at + 5], "little")
        data = params[at + 5 : at + 5 + size]
        if len(data) == size:
            parts.append((servo_id, params[at + 1 : at + 3] + data))
        at += 5 + size
    return parts
