"""What a person shows with their hands: how far each gripper opens and closes, and where the joints' zero is."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean

from aloha_runtime.commands.setup_talk import Person
from aloha_runtime.dynamixel import registers
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import dynamixel_setup
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.hardware.dynamixel_setup import ZERO_LIMIT_TICKS
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.robot import (
    CENTRE_TICK,
    LEAST_GRIPPER_TURN_RAD,
    SERVOS,
    TICKS_PER_TURN,
    Gripper,
    Role,
    Servo,
    ticks_to_rad,
)

READINGS = 10
ZERO_EXACT_TICKS = 4


@contextmanager
def servos_of(name: str, role: Role, path: str, baud: int) -> Iterator[ServoAccess]:
    """The servos of an arm without torque, so that a person can move it. HardwareError when it holds itself."""
    port = SerialPort(path, baud)
    try:
        access = ServoAccess(name, port, {servo.id: servo.joint for servo in SERVOS[role]})
        held = [servo.id for servo in SERVOS[role] if access.read(servo.id, registers.TORQUE_ENABLE)]
        if held:
            raise HardwareError(f"{name} holds itself: support it, and run `aloha servo release {path}` first")
        yield access
    finally:
        port.close()


def measure_gripper(access: ServoAccess, role: Role, person: Person) -> tuple[float, float]:
    """Motor angle (rad) of the open and of the closed gripper of one arm."""
    (gripper,) = (servo for servo in SERVOS[role] if servo.joint == "gripper")

    def angle() -> float:
        ticks = [access.read(gripper.id, registers.PRESENT_POSITION) for _ in range(READINGS)]
        return ticks_to_rad(fmean(ticks))

    person.does(f"open.{access.arm}", f"Open the gripper of {access.arm} fully by hand and hold it")
    opened = angle()
    person.does(f"close.{access.arm}", f"Close the gripper of {access.arm} fully by hand and hold it")
    closed = angle()
    if abs(opened - closed) < LEAST_GRIPPER_TURN_RAD:
        raise HardwareError(
            f"{access.arm}: the gripper moved by {abs(opened - closed):.2f} rad only, from {opened:.2f} to"
            f" {closed:.2f}: open and close it fully, `aloha setup --only grippers`"
        )
    person.say(f"{access.arm}: open {opened:.3f} rad, closed {closed:.3f} rad")
    return opened, closed


def gripper_range(opened: float, closed: float, kit: Gripper) -> dict[str, float]:
    """The range of one arm for the rig file; its finger positions are those of the kit's crank at both ends."""
    values = {
        "angle_open": opened,
        "angle_close": closed,
        "position_open": kit.position_from_angle(kit.angle_open),
        "position_close": kit.position_from_angle(kit.angle_close),
    }
    return {key: round(value, 5) for key, value in values.items()}


def set_zero(access: ServoAccess, role: Role, person: Person) -> dict[int, int]:
    """Homing_Offset of each joint so that the pose in which the arm is held reads zero everywhere. Returns those that
    the rig file has to record, by servo id: of masters what is not 0, of shadows what is far from it."""
    person.does(
        f"zero.{access.arm}",
        f"Hold {access.arm} in its zero pose: upper arm upright, forearm and wrist level and straight ahead",
    )
    servos = {servo.id: servo for servo in SERVOS[role] if servo.joint != "gripper"}
    masters = [servo for servo in servos.values() if servo.shadow_of is None]
    wrong = {servo.id: _from_zero(access, servo) for servo in masters}
    far = [_far(access, servo, wrong[servo.id]) for servo in masters if abs(wrong[servo.id]) > ZERO_LIMIT_TICKS]
    if far:
        raise HardwareError("; ".join(far))
    off = [servo for servo in masters if abs(wrong[servo.id]) > ZERO_EXACT_TICKS]
    for servo in off:
        _shift(access, servo, wrong[servo.id])
        person.say(f"{access.arm}: {servo.joint} moved by {wrong[servo.id]} ticks")
    if not off:
        person.say(f"{access.arm}: reads zero there already")
    for servo in servos.values():
        if servo.shadow_of is not None:
            _align(access, servos[servo.shadow_of], servo, person)
    offsets = {servo.id: access.read(servo.id, registers.HOMING_OFFSET) for servo in servos.values()}
    least = {servo.id: 0 if servo.shadow_of is None else ZERO_LIMIT_TICKS for servo in servos.values()}
    return {servo_id: offset for servo_id, offset in offsets.items() if abs(offset) > least[servo_id]}


def _from_zero(access: ServoAccess, servo: Servo) -> int:
    """Ticks from where a servo reads to its zero; whole turns do not count."""
    gap = CENTRE_TICK - access.read(servo.id, registers.PRESENT_POSITION)
    return (gap + TICKS_PER_TURN // 2) % TICKS_PER_TURN - TICKS_PER_TURN // 2


def _far(access: ServoAccess, servo: Servo, ticks: int) -> str:
    """What is said of a joint that reads far from zero in the zero pose."""
    said = (
        f"{access.who(servo.id)} reads {abs(ticks)} ticks ({abs(ticks) * 360 / TICKS_PER_TURN:.0f} degrees) from zero: "
    )
    offset = access.read(servo.id, registers.HOMING_OFFSET)
    pose = "hold the pose shown in the kit's manual"
    if offset:
        todo = dynamixel_setup.command(access, servo, registers.HOMING_OFFSET, 0)
        return f"{said}{pose}; else its Homing_Offset {offset} is wrong: `{todo}`, then set zero again"
    return f"{said}{pose}, or mount its horn a notch further"


def _align(access: ServoAccess, master: Servo, shadow: Servo, person: Person) -> None:
    """The shadow made to agree with its master, whose zero is right by now; a far offset only when a person says so."""
    dynamixel_setup.align(access, master, shadow, held=False, recorded=None)
    offset = access.read(shadow.id, registers.HOMING_OFFSET)
    if abs(offset) <= ZERO_LIMIT_TICKS:
        return
    question = (
        f"{access.who(shadow.id)} needs a Homing_Offset of {offset} ticks: its horn sits a notch off. Does it turn"
        f" with servo {master.id} without a noise, and shall the rig file record that?"
    )
    if not person.agrees(f"shadow.{access.arm}.{shadow.id}", question, default=False):
        raise HardwareError(
            f"{access.who(shadow.id)}: mount its horn as that of servo {master.id}, then set zero again"
        )


def _shift(access: ServoAccess, servo: Servo, ticks: int) -> None:
    """Add to Homing_Offset, which adds to Present_Position; what it was comes back when that does not help."""
    before = access.read(servo.id, registers.HOMING_OFFSET)
    access.write(servo.id, registers.HOMING_OFFSET, before + ticks)
    left = _from_zero(access, servo)
    if abs(left) > max(ZERO_EXACT_TICKS, abs(ticks) // 4):
        access.write(servo.id, registers.HOMING_OFFSET, before)
        raise HardwareError(f"{access.who(servo.id)} moved while its zero was set ({left} ticks left): hold it still")
