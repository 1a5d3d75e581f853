"""What every arm backend must do. A backend is a way to make an arm and to play the world around it (`Emulated`)."""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from emulated import Emulated, emulated_chain, stands

from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import serial_port
from aloha_runtime.hardware.base import Arm, ArmReading, ArmSilentError, ArmVector
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.robot import JOINTS, START_POSE, Role
from aloha_runtime.sim.weight import weight_torques

BACKENDS: dict[str, tuple[Role, int]] = {
    "follower": ("follower", 46),
    "leader": ("leader", 46),
    "old": ("follower", 41),
}
"""Role and firmware of an emulated chain; firmware below 45 has no Fast Sync Read."""
EVERYBODY = (1, 2, 4, 6, 7, 8, 9, 3, 5)
"""Ids in the order of `Arm.joints`."""
MS = 1_000_000
TICK_RAD = 2 * math.pi / 4096
GOAL = np.array([0.2, -0.8, 1.0, 0.1, -0.2, 0.15, 0.4])
CREEP_RAD = 0.01
"""How far a healthy arm may come down when its driver starts again."""
PATIENCE_S = 20.0
"""Nothing here takes a second on a quiet machine; a stuck test fails after this."""


@dataclass
class Rig:
    """One arm and its world."""

    arm: Arm
    world: Emulated

    def cycle(self, goal: ArmVector | None = None) -> ArmReading | None:
        """One cycle that leaves the arm all the time it may need on a busy machine."""
        self.arm.request(goal)
        return self.arm.collect(time.monotonic_ns() + 20_000_000)

    def read(self, goal: ArmVector | None = None) -> ArmReading:
        """Cycle until there is a reading."""
        return self.until(lambda reading: True, goal)

    def until(self, done: Callable[[ArmReading], bool], goal: ArmVector | None = None) -> ArmReading:
        """Cycle until a reading satisfies `done`. When a stall of the machine trips the watchdog, arm again."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            if goal is not None and self.arm.rearm_cause:
                self.arm.torque(True)
            reading = self.cycle(goal)
            if reading is not None and done(reading):
                return reading
        raise AssertionError(f"it never came to that; counts {self.arm.counts}, cause {self.arm.rearm_cause!r}")

    def stands(self, goal: ArmVector) -> ArmVector:
        """Where the arm comes to rest with this goal: its weight keeps it off."""
        return stands(self.arm.role, goal)

    def settle(self, goal: ArmVector) -> ArmReading:
        """Cycle until the arm rests with `goal`, within two ticks."""
        there = self.stands(goal)
        return self.until(lambda reading: np.abs(reading.angles - there).max() <= 2 * TICK_RAD, goal)

    def hold(self) -> ArmVector:
        """Give the arm torque where it is; the goal at which it then rests."""
        goal = self.read().angles
        self.arm.torque(True)
        self.settle(goal)
        return goal


@pytest.fixture(scope="module", params=list(BACKENDS))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emulated, Role]]:
    role, version = BACKENDS[request.param]
    with emulated_chain(tmp_path_factory.mktemp("ports") / "ttyDXL_test", role, version) as chain:
        yield chain, role


@pytest.fixture
def rig(world: tuple[Emulated, Role]) -> Iterator[Rig]:
    chain, role = world
    chain("reset")
    arm = DynamixelArm(f"{role}_left", role, chain.port)
    arm.connect()
    yield Rig(arm, chain)
    arm.disconnect()


def test_reading_after_writing_converges_to_the_goal(rig: Rig) -> None:
    rig.arm.torque(True)
    rig.settle(GOAL)
    other = -GOAL * 0.5 + [0, -0.9, 1.0, 0, 0, 0, 0]
    rig.settle(other)
    assert np.abs(rig.world("angles") - rig.stands(other)).max() <= 2 * TICK_RAD


def test_angles_are_radians_in_the_joint_direction(rig: Rig) -> None:
    for index in range(len(JOINTS)):
        rig.world("place", index, 0.3 + 0.1 * index)
    expected = 0.3 + 0.1 * np.arange(len(JOINTS))
    reading = rig.until(lambda reading: np.abs(reading.angles - expected).max() < 0.1)
    assert np.abs(reading.angles - expected).max() <= TICK_RAD
    assert reading.angles.dtype == np.float64
    assert reading.angles.shape == reading.velocities.shape == reading.efforts_ma.shape == (7,)


def test_the_gripper_is_its_motor_angle(rig: Rig) -> None:
    rig.world("place", 6, 1.2)
    assert rig.until(lambda reading: reading.angles[6] > 1.0).angles[6] == pytest.approx(1.2, abs=TICK_RAD)


@pytest.mark.parametrize("direction", [1, -1])
def test_velocity_and_effort_have_the_sign_of_the_motion(rig: Rig, direction: int) -> None:
    goal = rig.hold() + direction * 0.2
    moving = rig.until(lambda reading: (direction * reading.velocities > 0.3).all(), goal)
    assert (direction * moving.velocities < 6).all()
    unloaded = [JOINTS.index(joint) for joint in ("waist", "wrist_rotate", "gripper")]
    assert (direction * moving.efforts_ma[unloaded] > 0).all()
    assert (np.abs(moving.efforts_ma) < 3000).all()


def test_effort_at_rest_is_against_the_weight(rig: Rig) -> None:
    rig.hold()
    held = rig.read()
    for joint in ("shoulder", "elbow", "wrist_angle"):  # those whose Drive_Mode is reversed
        weight = weight_torques(rig.arm.role, held.angles.tolist())[JOINTS.index(joint)]
        assert abs(weight) < 0.1 or held.efforts_ma[JOINTS.index(joint)] * weight < 0
    assert abs(held.efforts_ma[JOINTS.index("elbow")]) > 300


def test_stamps_are_monotonic_and_recent(rig: Rig) -> None:
    last = time.monotonic_ns()
    for _ in range(20):
        before = time.monotonic_ns()
        reading = rig.cycle()
        if reading is not None:
            assert last < reading.stamp_ns
            assert before <= reading.stamp_ns <= time.monotonic_ns()
            last = reading.stamp_ns


def test_torque_holds_and_torque_off_lets_go(rig: Rig) -> None:
    goal = rig.hold()
    assert rig.arm.holding
    pushed = (goal + 0.3).tolist()
    rig.world("hand", pushed)
    for _ in range(20):
        assert np.abs(rig.read(goal).angles - rig.stands(goal)).max() <= 2 * TICK_RAD
    rig.arm.torque(False)
    assert not rig.arm.holding
    rig.until(lambda reading: np.abs(reading.angles - pushed).max() <= 2 * TICK_RAD)


def test_the_gripper_can_be_free_alone(rig: Rig) -> None:
    held = rig.stands(rig.hold())
    rig.arm.torque(True, gripper=False)
    rig.world("hand", (held + 0.3).tolist())
    reading = rig.until(lambda reading: reading.angles[6] > held[6] + 0.29)
    assert np.abs(reading.angles[:6] - held[:6]).max() <= 2 * TICK_RAD


def test_freeing_the_gripper_leaves_the_goals_of_the_joints(rig: Rig) -> None:
    rig.arm.torque(True)
    rig.settle(GOAL)
    waist = rig.world("get", 1, 116, 4)
    rig.world("place", 0, GOAL[0] + 0.09)  # as if its load had pulled it off its goal
    rig.arm.torque(True, gripper=False)
    assert rig.world("get", 1, 116, 4) == waist


def test_torque_on_moves_the_arm_by_one_sag_at_most(rig: Rig) -> None:
    rig.arm.torque(True)
    rig.settle(GOAL)
    rig.arm.torque(False)
    elsewhere = GOAL + 0.4
    rig.world("hand", elsewhere.tolist())
    rig.until(lambda reading: np.abs(reading.angles - elsewhere).max() <= TICK_RAD)
    rig.world("hand", None)
    rig.arm.torque(True)
    one_sag = np.abs(rig.stands(elsewhere) - elsewhere)
    for _ in range(40):
        assert (np.abs(rig.read().angles - elsewhere) <= one_sag + 2 * TICK_RAD).all()


def test_a_silent_servo_is_named_and_nothing_is_made_up(rig: Rig) -> None:
    rig.read()
    rig.world("faults", silent=[4])
    give_up = time.monotonic() + PATIENCE_S
    while rig.arm.silent(time.monotonic_ns()).keys() != {"elbow"}:
        assert rig.cycle() is None
        assert time.monotonic() < give_up
    assert rig.arm.silent(time.monotonic_ns())["elbow"] > 0.03
    rig.world("faults")
    rig.read()
    assert rig.arm.silent(time.monotonic_ns()) == {}


@pytest.mark.parametrize(("servo_id", "joint"), [(7, "wrist_angle"), (3, "shoulder_shadow")])
def test_an_alert_surfaces_with_its_joint_and_its_bits(rig: Rig, servo_id: int, joint: str) -> None:
    assert rig.read().errors == {}
    rig.world("error", servo_id, 0x20)
    reading = rig.until(lambda reading: reading.errors.get(joint, 0) & 0x20 != 0)
    assert reading.errors == {joint: 0xA0}


def test_disconnecting_leaves_torque_and_coming_back_does_not_move(rig: Rig) -> None:
    rig.arm.torque(True)
    rig.settle(GOAL)
    rig.arm.disconnect()
    rig.arm.disconnect()
    rig.arm.connect()
    assert rig.arm.holding
    assert rig.arm.rearm_cause
    for _ in range(20):  # a goal left over from before must not be taken up, nor a new one without an operator
        assert np.abs(rig.until(lambda reading: True, None).angles - rig.stands(GOAL)).max() < CREEP_RAD
        rig.cycle(GOAL + 0.2)
    assert rig.arm.counts["goal_withheld"] == 20


def test_a_second_controller_is_refused_by_name(rig: Rig) -> None:
    other = DynamixelArm("leader_right", rig.arm.role, rig.world.port)
    with pytest.raises(HardwareError, match=f"leader_right: .*{rig.world.port}.* in use by process {os.getpid()} "):
        other.connect()
    assert rig.read().errors == {}


def test_unplugging_and_coming_back(rig: Rig) -> None:
    rig.arm.torque(True)
    start = rig.settle(GOAL).angles
    one_sag = np.abs(rig.stands(start) - start)  # the watchdog has tripped, and the servos hold where they stood
    rig.world("unplug")
    while rig.arm.connected:
        assert rig.cycle(start) is None
    assert rig.cycle(start) is None
    assert "unplugged" in rig.arm.rearm_cause
    with pytest.raises(HardwareError, match="replug"):
        rig.arm.torque(True)
    rig.world("plug")
    back = rig.until(lambda reading: True)
    assert (np.abs(back.angles - start) <= one_sag + 2 * TICK_RAD).all()
    assert rig.arm.connected
    assert rig.arm.rearm_cause
    assert rig.arm.counts["reopened"] == 1
    rig.arm.torque(True)
    assert rig.arm.rearm_cause == ""
    rig.settle(GOAL + 0.1)


@pytest.mark.parametrize("behind", ["silent", "wait"])
@pytest.mark.parametrize("dead", [(1,), (3,), (2, 8)], ids=str)
def test_the_dead_are_named_and_nobody_else(rig: Rig, dead: tuple[int, ...], behind: str) -> None:
    rig.arm.torque(True)
    rig.read()
    rig.world("faults", silent=list(dead), behind_missing=behind)
    joints = {rig.arm.joints[EVERYBODY.index(servo)] for servo in dead}
    named = []
    give_up = time.monotonic() + PATIENCE_S
    while len(named) < 20:
        assert time.monotonic() < give_up, f"nobody was named; {rig.arm.counts}"
        rig.cycle()
        now_ns = time.monotonic_ns()
        unread = rig.arm.unread(now_ns)
        if unread.certain and unread.ns > 100 * MS:
            named.append(set(rig.arm.silent(now_ns)))
    assert named == [joints] * len(named)
    with pytest.raises(ArmSilentError, match=", ".join(sorted(joints, key=rig.arm.joints.index))):
        rig.arm.torque(True)
    rig.world("faults")
    rig.read()
    assert rig.arm.unread(time.monotonic_ns()).ns == 0


def test_what_a_servo_has_not_said_for_two_seconds_is_not_known(rig: Rig) -> None:
    while rig.arm.unknown():
        rig.read()
    assert set(rig.arm.temperatures()) == set(rig.arm.joints)
    rig.world("faults", no_read=[4])
    while not rig.arm.unknown():
        rig.read()
    assert rig.arm.unknown().keys() == {"elbow"}
    assert 2.0 < rig.arm.unknown()["elbow"] < 3.0
    assert set(rig.arm.temperatures()) == set(rig.arm.joints) - {"elbow"}
    rig.world("faults")
    while rig.arm.unknown():
        rig.read()
    assert "elbow" in rig.arm.temperatures()


def test_after_a_replug_the_latency_timer_is_checked_again(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A udev rule that does not match the new port leaves it at 16 ms: the arm stays in HOLD until that is mended."""
    monkeypatch.setattr(serial_port, "SYS_TTY", tmp_path)
    rig.arm.torque(True)
    rig.world("unplug")
    while rig.arm.connected:
        rig.cycle()
    rig.world("plug")
    setting = tmp_path / Path(os.readlink(rig.world.port)).name / "device" / "latency_timer"
    setting.parent.mkdir(parents=True)
    setting.write_text("16\n")
    while "latency timer" not in rig.arm.rearm_cause:
        assert rig.cycle() is None
    assert (
        f"latency timer is 16 ms, which limits the arm to 62 Hz; run `echo 1 | sudo tee {setting}`"
        in rig.arm.rearm_cause
    )
    assert not rig.arm.connected
    setting.write_text("1\n")
    assert rig.until(lambda reading: True) is not None
    assert rig.arm.rearm_cause.endswith("was unplugged and is back")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 4.0, -4.0])
def test_an_impossible_goal_is_not_sent_at_all(rig: Rig, bad: float) -> None:
    held = rig.hold()
    goal = held + 0.2
    goal[3] = bad
    for _ in range(10):
        assert np.abs(rig.read(goal).angles - rig.stands(held)).max() <= 2 * TICK_RAD
    assert rig.arm.counts["goal_refused"] >= 10


def test_after_a_stall_goals_wait_for_the_operator(rig: Rig) -> None:
    rig.arm.torque(True)
    held = rig.settle(GOAL).angles
    one_sag = np.abs(rig.stands(held) - held)  # a servo that trips holds where it stood
    time.sleep(0.25)
    assert rig.world("get", 1, 98, 1) == 255  # the servo's own watchdog has stopped it
    withheld = rig.arm.counts.get("goal_withheld", 0)
    rig.cycle(held + 0.3)
    assert "nothing was sent" in rig.arm.rearm_cause, "known at once, before a servo has been asked"
    for _ in range(9):
        rig.cycle(held + 0.3)
    assert rig.arm.counts["goal_withheld"] == withheld + 10, "not one goal for servos of which some may obey"
    assert "watchdog" in rig.arm.rearm_cause
    assert (np.abs(rig.read().angles - held) <= one_sag + 2 * TICK_RAD).all()
    rig.arm.torque(True)
    assert rig.world("get", 1, 98, 1) == 5
    rig.settle(held + 0.3)


def test_a_noisy_line_makes_no_bad_sample(rig: Rig) -> None:
    rig.arm.torque(True)
    rig.settle(GOAL)
    rig.world("faults", drop=0.1, corrupt=0.1, duplicate=0.1, foreign=0.1, late=0.05, late_ns=3_000_000, seed=1)
    readings = 0
    for _ in range(150):
        reading = rig.cycle()
        if reading is not None:
            readings += 1
            assert np.abs(reading.angles - rig.stands(GOAL)).max() <= 2 * TICK_RAD
            assert reading.errors == {}
    assert readings > 50
    counts = rig.arm.counts
    assert counts["foreign"] > 0
    assert counts["corrupt"] > 0, "the line damaged nothing, so nothing was tried"
    if rig.arm._fast:  # a Sync Read asks for what is missing within the same cycle
        assert counts["incomplete"] > 0


def test_temperatures_come_by_themselves(rig: Rig) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while len(rig.arm.temperatures()) < 9:
        rig.cycle()
        assert time.monotonic() < give_up
    assert set(rig.arm.temperatures()) == {*JOINTS, "shoulder_shadow", "elbow_shadow"}
    assert all(20 < celsius < 80 for celsius in rig.arm.temperatures().values())


def test_it_starts_at_the_world_as_it_is(rig: Rig) -> None:
    assert np.abs(rig.read().angles[:6] - START_POSE).max() <= TICK_RAD
