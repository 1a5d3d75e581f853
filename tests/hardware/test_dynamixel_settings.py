"""Every register of a servo is checked, written or harmless; a wrong one is refused, and its command helps."""

import re
import shlex
from collections.abc import Iterator

import pytest
from emulated import Emulated, emulated_chain
from typer.testing import CliRunner

from aloha_runtime.cli import app
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.registers import MODEL_BY_NAME, REGISTERS, Register
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.hardware.dynamixel_settings import (
    ELSEWHERE,
    HARMLESS,
    KIT_VELOCITY_LIMIT,
    WHY,
    checked,
    factory,
    written,
    written_in_ram,
)
from aloha_runtime.robot import ROLES, SERVOS, Role, Servo

EVERY = [(role, servo) for role in ROLES for servo in SERVOS[role]]
IDS = [f"{role}-{servo.id}" for role, servo in EVERY]


@pytest.fixture(scope="module", params=ROLES)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emulated, Role]]:
    with emulated_chain(tmp_path_factory.mktemp("ports") / "ttyDXL_test", request.param) as world:
        yield world, request.param


@pytest.fixture
def world(chain: tuple[Emulated, Role]) -> Emulated:
    chain[0]("reset")
    return chain[0]


def arm_of(world: Emulated, role: Role, **offsets: dict[int, int]) -> DynamixelArm:
    return DynamixelArm(f"{role}_left", role, world.port, **offsets)


def value(world: Emulated, servo_id: int, register: Register) -> int:
    raw = world("get", servo_id, register.address, register.size)
    return register.decode(int(raw).to_bytes(register.size, "little"))


def put(world: Emulated, servo_id: int, register: Register, to: int) -> None:
    world("set", servo_id, register.address, register.size, to)


def refusal(arm: DynamixelArm) -> str:
    """Why the arm does not connect, empty when it does; no servo has torque then."""
    try:
        arm.connect()
    except HardwareError as error:
        return str(error)
    arm.disconnect()
    return ""


def obey(message: str) -> None:
    """Run the command in a message as a person would."""
    command = re.search(r"`aloha (servo write [^`]+)`", message)
    assert command is not None, message
    ran = CliRunner().invoke(app, shlex.split(command[1]))
    assert ran.exit_code == 0, (command[1], ran.output, ran.exception)


@pytest.mark.parametrize(("role", "servo"), EVERY, ids=IDS)
def test_every_register_is_checked_written_or_harmless(role: Role, servo: Servo) -> None:
    model = MODEL_BY_NAME[servo.model]
    hands = (checked(role, servo), written(role, servo, 538), written_in_ram(role, servo), ELSEWHERE, HARMLESS)
    absent = {reg.CURRENT_LIMIT, reg.GOAL_CURRENT} if not model.has_current else set()
    for register in set(REGISTERS) - absent:
        assert any(register in hand for hand in hands), f"{register.name} of {servo.joint} is looked after by nobody"
    assert not (set(HARMLESS) - {reg.CURRENT_LIMIT}) & (set(checked(role, servo)) | set(written_in_ram(role, servo)))
    assert set(checked(role, servo)) <= set(WHY)


@pytest.mark.parametrize(("role", "servo"), EVERY, ids=IDS)
def test_what_kits_and_the_maker_deliver_is_accepted(role: Role, servo: Servo) -> None:
    """Published kits set the velocity limit and what tells the servos apart; everything else is the maker's."""
    for register, must in checked(role, servo).items():
        assert must.accepts(must.right)
        if (
            register not in (reg.RETURN_DELAY_TIME, reg.DRIVE_MODE, reg.SECONDARY_ID)
            and "Position" not in register.name
        ):
            assert must.accepts(factory(MODEL_BY_NAME[servo.model], register)), register.name
    assert checked(role, servo)[reg.VELOCITY_LIMIT].accepts(KIT_VELOCITY_LIMIT)


WRONG = [
    (1, reg.SHUTDOWN, 0),
    (2, reg.SHUTDOWN, 53),
    (1, reg.PWM_LIMIT, 300),
    (3, reg.PWM_LIMIT, 884),
    (4, reg.STARTUP_CONFIGURATION, 1),
    (5, reg.STARTUP_CONFIGURATION, 2),
    (6, reg.VELOCITY_LIMIT, 20),
    (7, reg.VELOCITY_LIMIT, 1023),
    (8, reg.TEMPERATURE_LIMIT, 100),
    (9, reg.TEMPERATURE_LIMIT, 40),
    (2, reg.MIN_VOLTAGE_LIMIT, 125),
    (3, reg.MAX_VOLTAGE_LIMIT, 110),
    (6, reg.CURRENT_LIMIT, 50),
    (7, reg.DRIVE_MODE, 1 | reg.DRIVE_MODE_TIME_PROFILE),
    (7, reg.DRIVE_MODE, 1 | reg.DRIVE_MODE_TORQUE_BY_GOAL),
    (1, reg.HOMING_OFFSET, 1024),
    (1, reg.HOMING_OFFSET, -7),
    (2, reg.HOMING_OFFSET, 512),
    (4, reg.HOMING_OFFSET, -512),
    (6, reg.HOMING_OFFSET, 300),
    (9, reg.HOMING_OFFSET, 200),
]


@pytest.mark.parametrize(("servo_id", "register", "wrong"), WRONG, ids=[f"{r.name}-{s}-{w}" for s, r, w in WRONG])
def test_a_register_that_changes_what_an_arm_does_is_refused_before_torque_and_its_command_helps(
    chain: tuple[Emulated, Role], world: Emulated, servo_id: int, register: Register, wrong: int
) -> None:
    role = chain[1]
    put(world, servo_id, register, wrong)
    message = refusal(arm_of(world, role))
    assert message.startswith(f"{role}_left: servo {servo_id} ("), message
    assert f"has {register.name} {wrong}, must be " in message
    assert WHY[register] in message
    assert not any(value(world, servo.id, reg.TORQUE_ENABLE) for servo in SERVOS[role])
    obey(message)
    assert refusal(arm_of(world, role)) == ""


RAM = [
    (reg.STATUS_RETURN_LEVEL, 0),
    (reg.STATUS_RETURN_LEVEL, 1),
    (reg.POSITION_D_GAIN, 1234),
    (reg.POSITION_P_GAIN, 100),
    (reg.POSITION_I_GAIN, 50),
    (reg.VELOCITY_P_GAIN, 1),
    (reg.VELOCITY_I_GAIN, 1),
    (reg.FEEDFORWARD_1ST_GAIN, 500),
    (reg.FEEDFORWARD_2ND_GAIN, 500),
    (reg.GOAL_PWM, 100),
    (reg.PROFILE_VELOCITY, 5),
    (reg.PROFILE_ACCELERATION, 5),
]


def test_what_another_program_left_in_ram_is_set_right(chain: tuple[Emulated, Role], world: Emulated) -> None:
    role = chain[1]
    for register, left in RAM:
        put(world, 7, register, left)
        assert refusal(arm_of(world, role)) == "", register.name
        right = factory(MODEL_BY_NAME[SERVOS[role][6].model], register)
        assert value(world, 7, register) == right, register.name


def test_a_zero_that_the_rig_file_records_is_right_and_another_is_not(
    chain: tuple[Emulated, Role], world: Emulated
) -> None:
    role = chain[1]
    for servo_id in (1, 2):
        put(world, servo_id, reg.HOMING_OFFSET, -37)
    assert refusal(arm_of(world, role, homing_offsets={1: -37, 2: -37})) == ""
    message = refusal(arm_of(world, role, homing_offsets={1: -37, 2: -36}))
    assert "servo 2 (shoulder) has Homing_Offset -37, must be -36: it turns the joint's zero" in message
    obey(message)  # a negative value must not be taken for an option
    assert value(world, 2, reg.HOMING_OFFSET) == -36


@pytest.mark.parametrize("paired_before", [False, True])
def test_a_shadow_that_would_need_a_far_offset_tells_of_both_servos(
    chain: tuple[Emulated, Role], world: Emulated, paired_before: bool
) -> None:
    """The master's horn sits a bolt hole (45 degrees) off: the pair reads alike only with a far offset."""
    role = chain[1]
    world("mount", 2, 512)
    if paired_before:  # as another driver has left it
        put(world, 3, reg.HOMING_OFFSET, 518 if role == "leader" else -518)
    before = value(world, 3, reg.HOMING_OFFSET)
    message = refusal(arm_of(world, role))
    assert re.search(r"servo 3 \(shoulder_shadow\) and its master 2 \(shoulder\) disagree by 5\d\d ticks", message)
    assert "either the zero of the master is wrong, or the horn of one of both is mounted a notch off" in message
    assert value(world, 3, reg.HOMING_OFFSET) == before
    if paired_before:
        assert refusal(arm_of(world, role, homing_offsets={3: before})) == ""
