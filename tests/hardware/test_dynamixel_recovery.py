"""What happens behind the driver's back: power cuts, gripper reboots, and programs that die with torque on."""

import re
import time
from collections.abc import Iterator

import numpy as np
import pytest
from emulated import Emulated, emulated_chain, stands

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.base import ArmSilentError
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.hardware.steps import finish
from aloha_runtime.robot import RAD_PER_TICK

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with emulated_chain(tmp_path_factory.mktemp("ports") / "ttyDXL_test", "follower") as world:
        yield world


@pytest.fixture
def world(chain: Emulated) -> Emulated:
    chain("reset")
    return chain


@pytest.fixture
def arm(world: Emulated) -> Iterator[DynamixelArm]:
    arm = DynamixelArm("follower_right", "follower", world.port)
    arm.connect()
    yield arm
    arm.disconnect()


def cycle_until(arm: DynamixelArm, done, goal=None, currents_ma=None):
    """Cycle until a reading satisfies `done(reading)`, which also gets None."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        arm.request(goal, currents_ma)
        reading = arm.collect(time.monotonic_ns() + 20_000_000)
        if done(reading):
            return reading
    raise AssertionError(f"it never came to that: {arm.counts}, {arm.rearm_cause!r}")


def test_an_arm_that_was_carried_when_its_program_died_is_set_up_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In current control nothing is held: torque is taken off, and the servos can hold again."""
    with emulated_chain(tmp_path_factory.mktemp("ports") / "ttyDXL_leader", "leader") as world:
        arm = DynamixelArm("leader_left", "leader", world.port, carried=("shoulder", "wrist_angle"))
        arm.connect()
        currents = np.array([0, -500.0, 9999, 0, 30, 0, 0])
        arm.carry(currents)
        assert arm.rearm_cause == ""
        cycle_until(arm, lambda reading: reading is not None, currents_ma=2 * currents)
        carried = {2: -372, 3: -372, 7: 22}
        for servo, goal in carried.items():
            assert world("get", servo, reg.GOAL_CURRENT.address, 2) == goal % 2**16
            assert world("get", servo, reg.OPERATING_MODE.address, 1) == reg.MODE_CURRENT
        torque = {servo: world("get", servo, reg.TORQUE_ENABLE.address, 1) for servo in range(1, 10)}
        assert torque == {servo: int(servo in carried) for servo in range(1, 10)}
        arm.request(np.zeros(7))  # a position is none of its business now
        assert arm.counts["goal_withheld"] == 1
        arm.disconnect()
        arm = DynamixelArm("leader_left", "leader", world.port)
        arm.connect()
        assert not arm.holding
        assert {world("get", servo, reg.OPERATING_MODE.address, 1) for servo in range(1, 10)} == {reg.MODE_POSITION}
        arm.disconnect()


def test_a_power_cut_is_noticed_and_torque_comes_back_only_by_an_operator(arm: DynamixelArm, world: Emulated) -> None:
    arm.torque(True)
    held = cycle_until(arm, lambda reading: reading is not None).angles
    world("brown_out")
    cycle_until(arm, lambda reading: arm.rearm_cause, held)
    for _ in range(5):
        arm.request(held + 0.2)
        arm.collect(time.monotonic_ns() + 20_000_000)
    assert world("get", 1, reg.TORQUE_ENABLE.address, 1) == 0
    cycle_until(arm, lambda reading: reading is not None)
    arm.torque(True)
    assert arm.rearm_cause == ""
    assert world("get", 9, reg.GOAL_CURRENT.address, 2) == 200
    assert world("get", 1, reg.BUS_WATCHDOG.address, 1) == 5
    after = cycle_until(arm, lambda reading: reading is not None).angles
    assert np.abs(after - held).max() < 0.08, "it sags once under where it got torque"


@pytest.mark.parametrize(
    ("register", "value", "words"),
    [
        (reg.BUS_WATCHDOG, -1, r"servo 4 \(elbow\) has a tripped watchdog \(-1\)"),
        (reg.BUS_WATCHDOG, 0, r"servo 4 \(elbow\) has lost its watchdog \(0\)"),
        (reg.BUS_WATCHDOG, 50, r"servo 4 \(elbow\) has lost its watchdog \(50\)"),
        (reg.TORQUE_ENABLE, 0, r"servo 4 \(elbow\) has lost its torque"),
    ],
)
def test_a_watchdog_that_has_tripped_or_gone_is_noticed(
    arm: DynamixelArm, world: Emulated, register: reg.Register, value: int, words: str
) -> None:
    """One register of one servo alone, behind the driver's back; from then on no goal goes out."""
    arm.torque(True)
    held = cycle_until(arm, lambda reading: reading is not None).angles
    world("set", 4, register.address, register.size, value)
    cycle_until(arm, lambda reading: arm.rearm_cause, held)
    assert re.search(words, arm.rearm_cause)
    withheld = arm.counts.get("goal_withheld", 0)
    arm.request(held + 0.2)
    assert arm.counts["goal_withheld"] == withheld + 1


@pytest.mark.parametrize("switch", ["torque on", "torque off", "carry"])
def test_torque_of_a_silent_arm_is_refused_without_waiting_for_it(
    arm: DynamixelArm, world: Emulated, switch: str
) -> None:
    """The other arm of the pair would wait with it, past its watchdog."""
    arm.torque(True)
    held = cycle_until(arm, lambda reading: reading is not None).angles
    world("cut_power")
    cycle_until(arm, lambda reading: len(arm.silent(time.monotonic_ns())) == 9, held)
    asked = world("packets")
    with pytest.raises(HardwareError, match=r"no servo answers, so torque cannot be switched; .*then `aloha arm`"):
        arm.carry(np.zeros(7)) if switch == "carry" else arm.torque(switch == "torque on")
    assert world("packets") == asked
    assert arm.holding


def test_after_a_power_cut_an_arm_is_read_before_it_gets_torque(arm: DynamixelArm, world: Emulated) -> None:
    """It has fallen meanwhile, and whoever gives it torque and goals knows only where it was."""
    arm.torque(True)
    held = cycle_until(arm, lambda reading: reading is not None).angles
    world("cut_power")
    cycle_until(arm, lambda reading: arm.silent(time.monotonic_ns()), held)
    world("place", 0, 0.5)
    world("return_power")
    give_up = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < give_up
        try:
            arm.torque(True)
            break
        except HardwareError:
            arm.request(None)
            arm.collect(time.monotonic_ns() + 20_000_000)
    reading = cycle_until(arm, lambda reading: reading is not None)
    assert reading.angles[0] == pytest.approx(0.5, abs=0.01)
    assert {world("get", servo, reg.BUS_WATCHDOG.address, 1) for servo in range(1, 10)} == {5}


def test_one_silent_servo_is_named_and_the_others_get_torque(
    arm: DynamixelArm, world: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arm._cycle, "silent", lambda now_ns: {6: 50_000_000})
    with pytest.raises(ArmSilentError, match="silent: forearm_roll, so torque cannot be switched"):
        arm.torque(True)
    torque = [world("get", servo, reg.TORQUE_ENABLE.address, 1) for servo in range(1, 10)]
    assert torque == [1, 1, 1, 1, 1, 0, 1, 1, 1]
    assert arm.rearm_cause


def test_rebooting_the_gripper_clears_its_error_and_spares_the_joints(arm: DynamixelArm, world: Emulated) -> None:
    arm.torque(True)
    world("error", 9, 0x20)
    reading = cycle_until(arm, lambda reading: reading is not None and reading.errors.get("gripper", 0) & 0x20)
    assert reading.errors == {"gripper": 0xA0}
    assert finish(arm.reset_gripper_steps()).failure is None
    assert not arm.rearm_cause
    cycle_until(arm, lambda reading: reading is not None and not reading.errors)
    assert world("get", 1, reg.TORQUE_ENABLE.address, 1) == 1
    assert world("get", 9, reg.TORQUE_ENABLE.address, 1) == 1
    assert world("get", 9, reg.GOAL_CURRENT.address, 2) == 200


def test_a_gripper_without_an_error_is_not_restarted(arm: DynamixelArm, world: Emulated) -> None:
    arm.torque(True)
    switched = finish(arm.reset_gripper_steps())
    assert "the gripper reports no error, so it is not restarted" in str(switched.failure)
    assert world("get", 9, reg.TORQUE_ENABLE.address, 1) == 1


@pytest.mark.parametrize("goal_after_a_trip", ["the present", "as it was"])
def test_a_restarted_program_takes_the_present_for_its_goal(
    arm: DynamixelArm, world: Emulated, goal_after_a_trip: str
) -> None:
    """The goal of a dead program is far away; the watchdog froze it. Clearing the watchdog must not set it free.

    An emulated servo that trips takes the present for its goal, as some firmware does; one that keeps the goal of the
    dead program runs to it as soon as its watchdog is cleared.
    """
    arm.torque(True)
    start = cycle_until(arm, lambda reading: reading is not None).angles
    goal = start.copy()
    goal[0] += 2.0
    arm.request(goal)  # the last words of a program
    arm.disconnect()
    time.sleep(0.25)
    assert world("get", 1, reg.BUS_WATCHDOG.address, 1) == 255
    here = np.array(world("angles"))
    assert 0.1 < here[0] - start[0] < 1.9  # stopped on its way
    if goal_after_a_trip == "as it was":
        ticks = world("get", 1, reg.GOAL_POSITION.address, 4) + round((goal[0] - here[0]) / RAD_PER_TICK)
        world("set", 1, reg.GOAL_POSITION.address, 4, ticks)
    arm.connect()
    assert arm.holding

    slack = 0.01 + np.abs(stands("follower", here) - here)  # it sags from where it is held
    slack[0] = 0.01

    def is_here(reading) -> bool:
        return reading is not None and (np.abs(reading.angles - here) < slack).all()

    cycle_until(arm, is_here)  # it may have begun to move in the moment between two writes
    for _ in range(20):
        assert is_here(cycle_until(arm, lambda reading: reading is not None))


def test_an_implausible_jump_is_not_believed_at_once(arm: DynamixelArm, world: Emulated) -> None:
    cycle_until(arm, lambda reading: reading is not None)
    world("place", 0, 2.5)
    reading = cycle_until(arm, lambda reading: reading is not None)
    assert arm.counts["implausible"] > 0
    assert reading.angles[0] == pytest.approx(2.5, abs=0.01)  # the servo insists, and half a second would have sufficed
