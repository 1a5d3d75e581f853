"""Set-up of one chain through dynamixel_sdk: who is there, what must be right, modes, currents and shadow servos.

What a person set on purpose and what can move an arm the wrong way is checked and refused with the command that
corrects it; operating modes, the gripper's current limit, the shadows' homing offsets and what another program may have
left in RAM are written, because the published drivers write such things at every start too. `dynamixel_settings` says
which register is which.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import MODEL_BY_NAME, MODEL_BY_NUMBER, Register
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.hardware.dynamixel_settings import WHY, Must, checked, written, written_in_ram
from aloha_runtime.robot import TICKS_PER_TURN, Role, Servo

PAIR_EXACT_TICKS = 2
"""A shadow that agrees with its master this well keeps its homing offset, to spare the EEPROM."""
PAIR_LIMIT_TICKS = 16
"""1.4 degrees: a pair that disagrees more after setting up would fight itself and overheat."""
ZERO_LIMIT_TICKS = 120
"""10.5 degrees: further from true than hands hold a pose or a workshop mounts a servo. One bolt hole of a horn is 45
degrees (512 ticks)."""


USUAL_BAUD = 1_000_000
"""What `aloha servo` takes without being told."""


class Found(NamedTuple):
    """What an arm was found like: lowest firmware version of its servos, and whether any has torque."""

    firmware: int
    holding: bool


def set_up(
    access: ServoAccess,
    role: Role,
    servos: Sequence[Servo],
    gripper_current_ma: float,
    homing_offsets: Mapping[int, int],
) -> Found:
    """Check and set up every servo of an arm. `homing_offsets`: servo id -> what the rig file records, 0 elsewhere.

    An arm that holds itself (torque on) is only checked: what would have to be written to its EEPROM raises instead.
    Raises HardwareError naming arm, servo, value and remedy.
    """
    _identify(access, servos)
    for servo in servos:
        access.write_unheard(servo.id, registers.STATUS_RETURN_LEVEL, registers.STATUS_RETURN_LEVEL.initial)
    tables = {servo.id: access.read_eeprom(servo.id) for servo in servos}
    for servo in servos:
        _check(access, role, servo, tables[servo.id], homing_offsets.get(servo.id, 0))
    held = [servo.id for servo in servos if access.read(servo.id, registers.TORQUE_ENABLE)]
    for servo_id in held:
        if tables[servo_id][registers.OPERATING_MODE.name] == registers.MODE_CURRENT:  # carried: it does not hold
            access.write(servo_id, registers.TORQUE_ENABLE, 0)
            held = [other for other in held if other != servo_id]
    _write(access, role, servos, gripper_current_ma, tables, held)
    masters = {servo.id: servo for servo in servos}
    for servo in servos:
        if servo.shadow_of is not None:
            recorded = homing_offsets.get(servo.id, 0)
            align(access, masters[servo.shadow_of], servo, held=bool(held), recorded=recorded)
    return Found(min(table[registers.FIRMWARE_VERSION.name] for table in tables.values()), bool(held))


def _write(
    access: ServoAccess,
    role: Role,
    servos: Sequence[Servo],
    gripper_current_ma: float,
    tables: Mapping[int, Mapping[str, int]],
    held: Sequence[int],
) -> None:
    """What is written where it differs: EEPROM of servos without torque (`held` have it), then RAM, since a new mode
    brings gains of its own."""
    for servo in servos:
        if role == "follower" and servo.joint == "gripper" and not MODEL_BY_NAME[servo.model].has_current:
            raise HardwareError(
                f"{access.who(servo.id)} is a {servo.model}, which cannot limit its current; "
                "a follower's gripper needs a servo that can, such as the XM430-W350"
            )
        for register, value in written(role, servo, gripper_current_ma).items():
            found = tables[servo.id][register.name]
            if found != value:
                if servo.id in held:
                    raise HardwareError(_held(access, servo, register, found, value))
                access.write(servo.id, register, value)
    for servo in servos:
        there = access.read_ram(servo.id)
        for register, value in written_in_ram(role, servo).items():
            if there[register.name] != value:
                access.write(servo.id, register, value)


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


def _check(access: ServoAccess, role: Role, servo: Servo, table: Mapping[str, int], homing_offset: int) -> None:
    """Refuse what must have been right before: the command in the message corrects one register."""
    for register, must in checked(role, servo, homing_offset).items():
        found = table[register.name]
        if not must.accepts(found):
            raise HardwareError(
                f"{access.who(servo.id)} has {register.name} {found}, must be {must}: {WHY[register]}; "
                f"{remedy(access, servo, register, must)}"
            )


def command(access: ServoAccess, servo: Servo, register: Register, value: int) -> str:
    """What sets one EEPROM register from a terminal."""
    baud = "" if access.port.baud == USUAL_BAUD else f"--baud {access.port.baud} "
    number = f"-- {value}" if value < 0 else f"{value}"  # else it would be taken for an option
    return f"aloha servo write {baud}{access.port.path} {servo.id} {register.name} {number}"


def remedy(access: ServoAccess, servo: Servo, register: Register, must: Must) -> str:
    """What a person does about a wrong register, with the command."""
    text = f"with the arm lying down and torque off run `{command(access, servo, register, must.right)}`"
    if register is registers.HOMING_OFFSET:
        text += ", or, if somebody set this zero on purpose, measure and record it with `aloha setup --only zero`"
    return text


def align(access: ServoAccess, master: Servo, shadow: Servo, held: bool, recorded: int | None = 0) -> None:
    """Set the shadow's homing offset so that both servos of a joint report the same position.

    The published drivers add the offset for a reversed shadow and subtract it for a normal one; the manual has it added
    in both. Both are tried, since torque is off and reading back decides. An offset further than `ZERO_LIMIT_TICKS`
    from the `recorded` one is not written (None: any is, the pose is known): one of both servos is wrong then.
    """
    gap = apart(access, master, shadow)
    before = access.read(shadow.id, registers.HOMING_OFFSET)
    if abs(gap) <= PAIR_EXACT_TICKS and recorded is not None and abs(before - recorded) > ZERO_LIMIT_TICKS:
        raise HardwareError(f"{access.who(shadow.id)} {one_is_wrong(master, before)}")
    if abs(gap) > PAIR_EXACT_TICKS and not held:
        access.write(shadow.id, registers.HOMING_OFFSET, 0)
        offset = apart(access, master, shadow)
        possible = [o for o in (offset, -offset) if recorded is None or abs(o - recorded) <= ZERO_LIMIT_TICKS]
        for candidate in possible:
            access.write(shadow.id, registers.HOMING_OFFSET, candidate)
            gap = apart(access, master, shadow)
            if abs(gap) <= PAIR_EXACT_TICKS:
                return
        access.write(shadow.id, registers.HOMING_OFFSET, before)
        if not possible:
            raise HardwareError(f"{access.who(shadow.id)} {one_is_wrong(master, offset)}")
    if abs(gap) > PAIR_LIMIT_TICKS:
        remedy = "check that both horns are mounted alike"
        if held:
            remedy = f"support the arm, release it with `aloha servo release {access.port.path}`, then start again"
        raise HardwareError(
            f"{access.who(shadow.id)} is {-gap} ticks from its master {master.id} and would fight it; {remedy}"
        )


def one_is_wrong(master: Servo, offset: int) -> str:
    """What is said of a shadow that would need a far homing offset to agree with its master."""
    degrees = abs(offset) * 360 / TICKS_PER_TURN
    return (
        f"and its master {master.id} ({master.joint}) disagree by {abs(offset)} ticks ({degrees:.0f} degrees), more"
        f" than {ZERO_LIMIT_TICKS}: either the zero of the master is wrong, or the horn of one of both is mounted a"
        " notch off; hold the arm in its zero pose with `aloha setup --only zero`, which tells which of both"
    )


def apart(access: ServoAccess, master: Servo, shadow: Servo) -> int:
    """Master's minus shadow's Present_Position, ticks; whole turns, which torque takes away, do not count."""
    here = access.read(master.id, registers.PRESENT_POSITION)
    gap = here - access.read(shadow.id, registers.PRESENT_POSITION)
    return (gap + TICKS_PER_TURN // 2) % TICKS_PER_TURN - TICKS_PER_TURN // 2


def _held(access: ServoAccess, servo: Servo, register: Register, found: int, value: int) -> str:
    return (
        f"{access.who(servo.id)} has {register.name} {found}, must be {value}, which cannot change while torque is on; "
        f"support the arm, release it with `aloha servo release {access.port.path}`, then start again"
    )
