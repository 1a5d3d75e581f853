"""Connecting: what is checked, what is written, and what each refusal says. Emulated chains, one fault at a time."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated import Emulated, emulated_chain

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import serial_port
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.robot import SERVOS, Role


@pytest.fixture(scope="module", params=["follower", "leader"])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emulated, Role]]:
    with emulated_chain(tmp_path_factory.mktemp("ports") / "ttyDXL_test", request.param) as world:
        yield world, request.param


@pytest.fixture
def world(chain: tuple[Emulated, Role]) -> Emulated:
    chain[0]("reset")
    return chain[0]


@pytest.fixture
def arm(chain: tuple[Emulated, Role], world: Emulated) -> Iterator[DynamixelArm]:
    arm = DynamixelArm(f"{chain[1]}_left", chain[1], world.port)
    yield arm
    arm.disconnect()


def value(world: Emulated, servo_id: int, register: reg.Register) -> int:
    raw = world("get", servo_id, register.address, register.size)
    return register.decode(int(raw).to_bytes(register.size, "little"))


def put(world: Emulated, servo_id: int, register: reg.Register, to: int) -> None:
    world("set", servo_id, register.address, register.size, to)


def refusal(arm: DynamixelArm) -> str:
    """The message with which the arm refuses to connect; the port must be free again."""
    with pytest.raises(HardwareError) as caught:
        arm.connect()
    assert not arm.connected
    with pytest.raises(HardwareError) as again:  # and not "in use"
        arm.connect()
    assert str(again.value) == str(caught.value)
    return str(caught.value)


def test_modes_currents_gains_and_watchdog_are_set(arm: DynamixelArm, world: Emulated) -> None:
    for servo in SERVOS[arm.role]:
        put(world, servo.id, reg.OPERATING_MODE, reg.MODE_EXTENDED_POSITION)
        put(world, servo.id, reg.PROFILE_VELOCITY, 50)
        put(world, servo.id, reg.PROFILE_ACCELERATION, 5)
    put(world, 1, reg.POSITION_P_GAIN, 100)
    arm.connect()
    follower = arm.role == "follower"
    for servo in SERVOS[arm.role]:
        gripper = follower and servo.joint == "gripper"
        assert value(world, servo.id, reg.OPERATING_MODE) == (5 if gripper else 3)
        assert value(world, servo.id, reg.PROFILE_VELOCITY) == 0
        assert value(world, servo.id, reg.PROFILE_ACCELERATION) == 0
        assert value(world, servo.id, reg.BUS_WATCHDOG) == 5
        assert value(world, servo.id, reg.TORQUE_ENABLE) == 0
    if follower:
        assert value(world, 1, reg.POSITION_P_GAIN) == 800
        assert value(world, 9, reg.GOAL_CURRENT) == value(world, 9, reg.CURRENT_LIMIT) == 200


def test_shadows_agree_with_their_masters_afterwards(arm: DynamixelArm, world: Emulated) -> None:
    put(world, 3, reg.HOMING_OFFSET, 700)
    arm.connect()
    for master, shadow in ((2, 3), (4, 5)):
        assert abs(value(world, master, reg.PRESENT_POSITION) - value(world, shadow, reg.PRESENT_POSITION)) <= 2
        assert value(world, master, reg.HOMING_OFFSET) == 0
    before = value(world, 5, reg.HOMING_OFFSET)
    assert before != 0  # the emulated shadows are mounted a little off
    arm.disconnect()
    arm.connect()
    assert value(world, 5, reg.HOMING_OFFSET) == before


@pytest.mark.parametrize(
    ("register", "wrong", "right"),
    [
        (reg.RETURN_DELAY_TIME, 250, {"follower": 0, "leader": 0}),
        (reg.DRIVE_MODE, 0, {"follower": 1, "leader": 1}),
        (reg.SECONDARY_ID, 4, {"follower": 255, "leader": 255}),
        (reg.MIN_POSITION_LIMIT, 0, {"follower": 830, "leader": 910}),
        (reg.MAX_POSITION_LIMIT, 4095, {"follower": 3504, "leader": 3447}),
    ],
)
def test_a_wrong_setting_is_refused_with_the_command_that_corrects_it(
    arm: DynamixelArm, world: Emulated, register: reg.Register, wrong: int, right: dict[str, int]
) -> None:
    put(world, 7, register, wrong)
    message = refusal(arm)
    assert message.startswith(f"{arm.name}: servo 7 (wrist_angle) has {register.name} {wrong}, must be ")
    assert f"`aloha servo write {world.port} 7 {register.name} {right[arm.role]}`" in message


def test_a_shadow_that_listens_to_nobody_is_refused(arm: DynamixelArm, world: Emulated) -> None:
    put(world, 3, reg.SECONDARY_ID, 255)
    assert "servo 3 (shoulder_shadow) has Secondary_ID 255, must be 2" in refusal(arm)


def test_another_model_is_refused_with_both_ways_out(arm: DynamixelArm, world: Emulated) -> None:
    world("model", 8, 1070)
    message = refusal(arm)
    assert "servo 8 (wrist_rotate) has model number 1070 (XC430-W150), expected " in message
    assert f"`models: {{8: XC430-W150}}` under arms.{arm.name}" in message


def test_a_330_servo_is_no_servo_for_an_arm(arm: DynamixelArm, world: Emulated) -> None:
    world("model", 9, 1200)
    assert re.search(r"servo 9 \(gripper\) has model number 1200 \(unknown\).*replace the servo", refusal(arm))


def test_a_silent_servo_is_named(arm: DynamixelArm, world: Emulated) -> None:
    world("faults", silent=[6])
    assert "servo 6 (forearm_roll) does not answer, the others do" in refusal(arm)


def test_an_arm_without_power_is_told_from_a_missing_servo(arm: DynamixelArm, world: Emulated) -> None:
    world("faults", silent=list(range(1, 10)))
    message = refusal(arm)
    assert "no servo answers" in message
    assert "switch on the arm's power" in message


def test_a_kit_without_current_control_cannot_carry_its_weight(world: Emulated) -> None:
    arm = DynamixelArm("leader_left", "leader", world.port, carried=("shoulder", "wrist_rotate"))
    assert "servo 8 (wrist_rotate) is a XL430-W250" in refusal(arm)
    assert "gravity_compensation: 0" in refusal(arm)


def test_a_held_arm_is_not_reconfigured(arm: DynamixelArm, world: Emulated) -> None:
    arm.connect()
    arm.torque(True)
    arm.disconnect()
    put(world, 6, reg.OPERATING_MODE, reg.MODE_EXTENDED_POSITION)
    message = refusal(arm)
    assert "servo 6 (forearm_roll) has Operating_Mode 4, must be 3, which cannot change while torque is on" in message
    assert f"`aloha servo release {world.port}`" in message
    assert value(world, 6, reg.TORQUE_ENABLE) == 1


def test_torque_is_refused_by_a_servo_in_overload(arm: DynamixelArm, world: Emulated) -> None:
    arm.connect()
    world("error", 4, 0x20)
    with pytest.raises(HardwareError, match=r"servo 4 \(elbow\) does not take Torque_Enable 1: .*reports overload"):
        arm.torque(True)
    assert arm.rearm_cause


def test_a_joint_far_outside_its_limits_gets_no_torque(arm: DynamixelArm, world: Emulated) -> None:
    world("place", 1, -2.4)
    arm.connect()
    with pytest.raises(HardwareError, match=r"servo 2 \(shoulder\) is at tick 4\d\d, outside its limits"):
        arm.torque(True)
    torque = [value(world, servo.id, reg.TORQUE_ENABLE) for servo in SERVOS[arm.role]]
    assert torque == [1, 0, 0, 1, 1, 1, 1, 1, 1]
    assert arm.rearm_cause


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=r"leader_right: .*ttyDXL_gone does not exist; plug in the adapter"):
        DynamixelArm("leader_right", "leader", str(tmp_path / "ttyDXL_gone")).connect()


def test_a_slow_latency_timer_is_refused_with_its_command(
    arm: DynamixelArm, world: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / Path(world.port).resolve().name / "device" / "latency_timer"
    setting.parent.mkdir(parents=True)
    setting.write_text("16\n")
    monkeypatch.setattr(serial_port, "SYS_TTY", tmp_path)
    message = refusal(arm)
    assert "latency timer is 16 ms" in message
    assert f"`echo 1 | sudo tee {setting}`" in message
    setting.write_text("1\n")
    arm.connect()


def test_a_lossy_line_does_not_spoil_the_set_up(arm: DynamixelArm, world: Emulated) -> None:
    world("faults", drop=0.03, corrupt=0.03, duplicate=0.03, foreign=0.03, seed=7)
    arm.connect()
    world("faults")
    for servo in SERVOS[arm.role]:
        assert value(world, servo.id, reg.BUS_WATCHDOG) == 5
