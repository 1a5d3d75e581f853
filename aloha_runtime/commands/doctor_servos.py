"""Servos of an arm: who is there, and a read-back of every register that matters. Reads only; `mend` writes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from aloha_runtime.commands import servo as servo_commands
from aloha_runtime.commands.findings import Finding, Level, fail, ok, warn
from aloha_runtime.config import ArmConfig
from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import (
    FAST_SYNC_READ_FIRMWARE,
    MODEL_BY_NAME,
    MODEL_BY_NUMBER,
    Register,
    describe_hardware_error,
)
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import dynamixel_setup
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.hardware.dynamixel_settings import WHY, Must, checked
from aloha_runtime.hardware.dynamixel_setup import ZERO_LIMIT_TICKS
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.robot import SERVOS, Role, Servo

SUPPLY_V = (11.0, 13.0)
"""The arms' supplies give 12 V; below 11 a servo in motion reports an input voltage error."""
WARM_C = 55
LIMITS = (
    registers.MIN_POSITION_LIMIT,
    registers.MAX_POSITION_LIMIT,
    registers.DRIVE_MODE,
    registers.SECONDARY_ID,
    registers.HOMING_OFFSET,
)
"""What decides where and which way a servo turns: written only when a person says yes."""


def check_arm(name: str, role: Role, config: ArmConfig, path: str) -> Iterator[Finding]:
    """Everything about the servos of one arm on the port at `path`."""
    servos = [replace(servo, model=config.models.get(servo.id, servo.model)) for servo in SERVOS[role]]
    check = f"arms.{name}"
    try:
        port = SerialPort(path, config.baud)
    except HardwareError as error:
        yield fail(f"{check}.port", str(error), "after that, `aloha doctor` again")
        return
    try:
        access = ServoAccess(name, port, {servo.id: servo.joint for servo in servos})
        found = {servo.id: access.ping(servo.id, attempts=2) for servo in servos}
        present = [servo for servo in servos if found[servo.id] is not None]
        if not present:
            port.close()
            yield from _nobody(check, path, config.baud)
            return
        troubles = [finding for servo in servos for finding in _check_servo(access, check, role, config, servo, found)]
        troubles += _check_pairs(access, check, config, present)
        troubles += _check_firmware(access, check, present)
    except HardwareError as error:
        yield fail(f"{check}.bus", str(error), f"check cables and power of {name}")
        return
    finally:
        port.close()
    models = ", ".join(f"{servo.id} {servo.model}" for servo in servos)
    yield from troubles or [ok(check, f"9 servos as they must be at {config.baud} baud ({models})")]


def _nobody(check: str, path: str, baud: int) -> Iterator[Finding]:
    """Silence at the configured rate: perhaps they listen at another."""
    others = servo_commands.find(path)
    if not others:
        yield fail(f"{check}.bus", f"no servo answers on {path}", "switch on the arm's power, check its cable")
        return
    rate = next(iter(others))
    yield fail(
        f"{check}.baud",
        f"servos {', '.join(map(str, others[rate]))} answer at {rate} baud, not at {baud}",
        f"set them with `aloha setup`, or write `baud: {rate}` under {check} in the rig file",
    )


def _check_servo(
    access: ServoAccess, check: str, role: Role, config: ArmConfig, servo: Servo, found: dict[int, int | None]
) -> Iterator[Finding]:
    name, number = f"{check}.servo_{servo.id}", found[servo.id]
    path = access.port.path
    if number is None:
        yield fail(
            name,
            f"{servo.joint} does not answer, others do",
            f"check the cable into servo {servo.id}, and its id with `aloha servo scan {path}`",
        )
        return
    wanted = MODEL_BY_NAME[servo.model]
    if number != wanted.number:
        there = MODEL_BY_NUMBER.get(number)
        remedy = "replace the servo: this runtime does not know that model"
        if there is not None:
            remedy = f"replace it, or, if this arm has one, write `models: {{{servo.id}: {there.name}}}` under {check}"
        named = there.name if there is not None else "unknown"
        yield fail(f"{name}.Model_Number", f"{number} ({named}), must be {wanted.number} ({wanted.name})", remedy)
        return
    table = access.read_eeprom(servo.id)
    held = bool(access.read(servo.id, registers.TORQUE_ENABLE))
    for register, must in checked(role, servo, config.homing_offsets.get(servo.id, 0)).items():
        value = table[register.name]
        if not must.accepts(value):
            yield _register(access, name, servo, register, value, must, held)
        elif register is registers.VELOCITY_LIMIT and value != must.right:
            remedy = f"`aloha servo write {path} {servo.id} {register.name} {must.right}`"
            yield warn(f"{name}.{register.name}", f"{value}, kits have {must.right}", remedy)
    yield from _check_state(access, name, servo)


def _register(
    access: ServoAccess, name: str, servo: Servo, register: Register, found: int, must: Must, held: bool
) -> Finding:
    path, baud = access.port.path, access.port.baud
    finding = fail(
        f"{name}.{register.name}",
        f"{found}, must be {must}: {WHY[register]}",
        dynamixel_setup.remedy(access, servo, register, must),
    )
    if not held:
        finding.mend = partial(servo_commands.write, path, servo.id, register.name, must.right, baud)
        if register in LIMITS:
            finding.risk = f"{register.name} of {access.arm} {servo.joint} decides where and which way it may turn"
    return finding


def _check_state(access: ServoAccess, name: str, servo: Servo) -> Iterator[Finding]:
    """What a servo reports of itself now."""
    path = access.port.path
    if bits := access.read(servo.id, registers.HARDWARE_ERROR_STATUS):
        remedy = "find the cause (load, heat, supply), then switch the arm's power off and on"
        yield fail(f"{name}.Hardware_Error_Status", describe_hardware_error(bits), remedy)
    level = access.read(servo.id, registers.STATUS_RETURN_LEVEL)
    if level != registers.STATUS_RETURN_LEVEL.initial:
        yield warn(f"{name}.Status_Return_Level", f"{level}, must be 2", "the next start of the arms sets it")
    volts = access.read(servo.id, registers.PRESENT_INPUT_VOLTAGE) / 10
    if not SUPPLY_V[0] <= volts <= SUPPLY_V[1]:
        remedy = "check supply, plug and hub of this arm: 12 V are needed"
        yield warn(f"{name}.Present_Input_Voltage", f"{volts:.1f} V", remedy)
    celsius = access.read(servo.id, registers.PRESENT_TEMPERATURE)
    if celsius > WARM_C:
        yield warn(f"{name}.Present_Temperature", f"{celsius} C", "let it cool down; a pair that fights heats up")
    tick = access.read(servo.id, registers.PRESENT_POSITION)
    if servo.shadow_of is None and not servo.min_tick <= tick <= servo.max_tick:
        yield warn(
            f"{name}.Present_Position",
            f"{tick}, outside {servo.min_tick}..{servo.max_tick}",
            f"move {servo.joint} into its range by hand (torque off: `aloha servo release {path}`); if it is in its"
            " range, its zero is wrong: `aloha setup`",
        )


def _check_pairs(access: ServoAccess, check: str, config: ArmConfig, present: list[Servo]) -> Iterator[Finding]:
    """Homing of shadow servos: master and shadow of a joint must report the same position. Where the master's own zero
    is wrong, only that is found: the shadow is right as it is, or follows."""
    there = {servo.id: servo for servo in present}
    for shadow in present:
        master = there.get(shadow.shadow_of or 0)
        if master is None:
            continue
        if access.read(master.id, registers.HOMING_OFFSET) != config.homing_offsets.get(master.id, 0):
            continue
        gap = dynamixel_setup.apart(access, master, shadow)
        offset = access.read(shadow.id, registers.HOMING_OFFSET)
        recorded, name = config.homing_offsets.get(shadow.id, 0), f"{check}.servo_{shadow.id}.Homing_Offset"
        if abs(gap) <= dynamixel_setup.PAIR_EXACT_TICKS and abs(offset - recorded) <= ZERO_LIMIT_TICKS:
            continue
        needed = min((offset + gap, offset - gap), key=lambda ticks: abs(ticks - recorded))
        if abs(needed - recorded) > ZERO_LIMIT_TICKS:
            what, _, todo = dynamixel_setup.one_is_wrong(master, needed).partition("; ")
            yield fail(name, f"{shadow.joint} {what}", todo)
            continue
        held = bool(access.read(shadow.id, registers.TORQUE_ENABLE) or access.read(master.id, registers.TORQUE_ENABLE))
        serious = abs(gap) > dynamixel_setup.PAIR_LIMIT_TICKS
        finding = Finding(
            name,
            Level.FAIL if serious else Level.WARN,
            f"{shadow.joint}: shadow {-gap} ticks from its master {master.id}"
            + (", they would fight" if serious else "; the next start sets it"),
            f"release the arm if it holds itself (`aloha servo release {access.port.path}`), then `aloha doctor --fix`",
        )
        if not held:
            finding.mend = _align(access, master, shadow, recorded)
        yield finding


def _align(access: ServoAccess, master: Servo, shadow: Servo, recorded: int) -> Callable[[], None]:
    path, baud, arm = access.port.path, access.port.baud, access.arm

    def mend() -> None:
        port = SerialPort(path, baud)
        try:
            again = ServoAccess(arm, port, {servo.id: servo.joint for servo in (master, shadow)})
            dynamixel_setup.align(again, master, shadow, held=False, recorded=recorded)
        finally:
            port.close()

    return mend


def _check_firmware(access: ServoAccess, check: str, present: list[Servo]) -> Iterator[Finding]:
    versions = {servo.id: access.read(servo.id, registers.FIRMWARE_VERSION) for servo in present}
    old = [servo_id for servo_id, version in versions.items() if version < FAST_SYNC_READ_FIRMWARE]
    if old:
        yield warn(
            f"{check}.firmware",
            f"servos {', '.join(map(str, old))} have version {min(versions.values())}, before {FAST_SYNC_READ_FIRMWARE}"
            ": no Fast Sync Read, so a read takes 2.7 ms instead of 2.2",
            "update them with ROBOTIS' Dynamixel Wizard; it works as it is, a little slower",
        )
