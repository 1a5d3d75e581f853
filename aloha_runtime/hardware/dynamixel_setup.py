"""Set-up of one chain through dynamixel_sdk: who is there, what must be right, modes, currents and shadow servos.

What a person set on purpose and what can move an arm the wrong way (ids, directions, limits, delays) is checked and
refused with the command that corrects it; operating modes, the gripper's current limit and the shadows' homing offsets
are written, because the published drivers write them at every start too.
"""

from collections.abc import Sequence
from typing import NamedTuple

from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import MODEL_BY_NAME, MODEL_BY_NUMBER, Register
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.robot import MA_PER_UNIT, Role, Servo

PAIR_EXACT_TICKS = 2
"""A shadow that agrees with its master this well keeps its homing offset, to spare the EEPROM."""
PAIR_LIMIT_TICKS = 16
"""1.4 degrees: a pair that disagrees more after setting up would fight itself and overheat."""
NO_SECONDARY_ID = 255


class Found(NamedTuple):
    """What an arm was found like: lowest firmware version of its servos, and whether any has torque."""

    firmware: int
    holding: bool


def set_up(access: ServoAccess, role: Role, servos: Sequence[Servo], gripper_current_ma: float) -> Found:
    """Check and set up every servo of an arm.

    An arm that holds itself (torque on) is only checked: what would have to be written raises instead. Raises
    HardwareError naming arm, servo, value and remedy.
    """
    _identify(access, servos)
    tables = {servo.id: access.read_eeprom(servo.id) for servo in servos}
    for servo in servos:
        _check(access, servo, tables[servo.id])
    held = [servo.id for servo in servos if access.read(servo.id, registers.TORQUE_ENABLE)]
    for servo_id in held:
        if tables[servo_id][registers.OPERATING_MODE.name] == registers.MODE_CURRENT:  # carried: it does not hold
            access.write(servo_id, registers.TORQUE_ENABLE, 0)
            held = [other for other in held if other != servo_id]
    for servo in servos:
        for register, value in _wanted(access, role, servo, gripper_current_ma).items():
            found = tables[servo.id][register.name]
            if found != value:
                if servo.id in held:
                    raise HardwareError(_held(access, servo, register, found, value))
                access.write(servo.id, register, value)
    masters = {servo.id: servo for servo in servos}
    for servo in servos:
        if servo.shadow_of is not None:
            align(access, masters[servo.shadow_of], servo, held=bool(held))
    return Found(min(table[registers.FIRMWARE_VERSION.name] for table in tables.values()), bool(held))


def refuse_without_current(arm: str, servos: Sequence[Servo], carried: Sequence[int]) -> None:
    """Raises HardwareError when a servo of a carried joint (ids of masters) has no current control."""
    for servo in servos:
        if (servo.shadow_of or servo.id) in carried and not MODEL_BY_NAME[servo.model].has_current:
            raise HardwareError(
                f"{arm}: servo {servo.id} ({servo.joint}) is a {servo.model}, which has no current control; "
                "write `gravity_compensation: 0` under teleop in the rig's configuration"
            )


def _identify(access: ServoAccess, servos: Sequence[Servo]) -> None:
    """Refuse silent servos and models that are not what the rig's configuration says."""
    found = {servo.id: access.ping(servo.id, attempts=1) for servo in servos}
    if any(found.values()):
        found = {servo_id: number or access.ping(servo_id) for servo_id, number in found.items()}
    silent = [servo for servo in servos if found[servo.id] is None]
    scan = f"`aloha servo scan {access.port.path}`"
    if len(silent) == len(servos):
        raise HardwareError(
            f"{access.arm}: no servo answers on {access.port.path} at {access.port.baud} baud; "
            f"switch on the arm's power, and look for servos with {scan}"
        )
    if silent:
        names = ", ".join(f"{servo.id} ({access.label(servo.id)})" for servo in silent)
        raise HardwareError(
            f"{access.arm}: servo {names} does not answer, the others do; "
            f"check the cable into servo {silent[0].id}, and its id with {scan}"
        )
    for servo in servos:
        number = found[servo.id] or 0
        wanted = MODEL_BY_NAME[servo.model]
        if number != wanted.number:
            model = MODEL_BY_NUMBER.get(number)
            remedy = "replace the servo: this runtime does not know that model"
            if model:
                remedy = (
                    f"replace it, or, if this arm really has one, "
                    f"write `models: {{{servo.id}: {model.name}}}` under arms.{access.arm} in the rig's configuration"
                )
            raise HardwareError(
                f"{access.who(servo.id)} has model number {number} ({model.name if model else 'unknown'}), "
                f"expected {wanted.number} ({wanted.name}); {remedy}"
            )


def must_be(servo: Servo) -> dict[Register, int]:
    """EEPROM values without which an arm is refused; only a person writes them."""
    return {
        registers.RETURN_DELAY_TIME: 0,
        registers.DRIVE_MODE: int(servo.reversed),
        registers.SECONDARY_ID: NO_SECONDARY_ID if servo.shadow_of is None else servo.shadow_of,
        registers.MIN_POSITION_LIMIT: servo.min_tick,
        registers.MAX_POSITION_LIMIT: servo.max_tick,
    }


def _check(access: ServoAccess, servo: Servo, table: dict[str, int]) -> None:
    """Refuse what must have been right before: the command in the message corrects one register."""
    for register, value in must_be(servo).items():
        found = table[register.name]
        if found != value:
            command = f"aloha servo write {access.port.path} {servo.id} {register.name} {value}"
            raise HardwareError(
                f"{access.who(servo.id)} has {register.name} {found}, must be {value}; "
                f"with the arm lying down and torque off run `{command}`"
            )


def _wanted(access: ServoAccess, role: Role, servo: Servo, gripper_current_ma: float) -> dict[Register, int]:
    """EEPROM values that are written where they differ."""
    if role == "follower" and servo.joint == "gripper":
        if not MODEL_BY_NAME[servo.model].has_current:
            raise HardwareError(
                f"{access.who(servo.id)} is a {servo.model}, which cannot limit its current; "
                "a follower's gripper needs a servo that can, such as the XM430-W350"
            )
        current = round(gripper_current_ma / MA_PER_UNIT)
        return {registers.OPERATING_MODE: registers.MODE_CURRENT_POSITION, registers.CURRENT_LIMIT: current}
    return {registers.OPERATING_MODE: registers.MODE_POSITION}


def align(access: ServoAccess, master: Servo, shadow: Servo, held: bool) -> None:
    """Set the shadow's homing offset so that both servos of a joint report the same position.

    The published drivers add the offset for a reversed shadow and subtract it for a normal one; the manual has it added
    in both. Both are tried, since torque is off and reading back decides.
    """
    gap = apart(access, master, shadow)
    if abs(gap) > PAIR_EXACT_TICKS and not held:
        access.write(shadow.id, registers.HOMING_OFFSET, 0)
        offset = apart(access, master, shadow)
        for candidate in (offset, -offset):
            access.write(shadow.id, registers.HOMING_OFFSET, candidate)
            gap = apart(access, master, shadow)
            if abs(gap) <= PAIR_EXACT_TICKS:
                return
    if abs(gap) > PAIR_LIMIT_TICKS:
        remedy = "check that both horns are mounted alike"
        if held:
            remedy = f"support the arm, release it with `aloha servo release {access.port.path}`, then start again"
        raise HardwareError(
            f"{access.who(shadow.id)} is {-gap} ticks from its master {master.id} and would fight it; {remedy}"
        )


def apart(access: ServoAccess, master: Servo, shadow: Servo) -> int:
    """Master's minus shadow's Present_Position, ticks."""
    here = access.read(master.id, registers.PRESENT_POSITION)
    return here - access.read(shadow.id, registers.PRESENT_POSITION)


def _held(access: ServoAccess, servo: Servo, register: Register, found: int, value: int) -> str:
    return (
        f"{access.who(servo.id)} has {register.name} {found}, must be {value}, which cannot change while torque is on; "
        f"support the arm, release it with `aloha servo release {access.port.path}`, then start again"
    )
