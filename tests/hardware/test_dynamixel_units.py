"""Ticks and radians, which goals are servable, and which readings are believed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.hardware.dynamixel_units import NOISE_RAD, SPEED_LIMIT_RAD_S, ArmUnits
from aloha_runtime.robot import RAD_PER_TICK, SERVOS, Role

MASTERS = {role: [servo for servo in SERVOS[role] if servo.shadow_of is None] for role in ("follower", "leader")}
RESTING = np.array([0.0, -0.9, 1.1, 0.0, -0.3, 0.0, 0.0])


def state(ticks: list[int], velocity: int = 0, current: int = 0) -> tuple[int, ...]:
    ids = [servo.id for servo in MASTERS["follower"]]
    return tuple(n for i, tick in zip(ids, ticks, strict=True) for n in (0, i, current, velocity, tick, 0))


@pytest.mark.parametrize("role", ["follower", "leader"])
@given(st.data())
def test_goals_within_the_limits_come_back_within_half_a_tick(role: Role, data: st.DataObject) -> None:
    units = ArmUnits(role, MASTERS[role])
    ticks = [data.draw(st.integers(servo.min_tick, servo.max_tick)) for servo in MASTERS[role]]
    goal = (np.array(ticks) - 2048) * RAD_PER_TICK + data.draw(st.floats(-0.49, 0.49)) * RAD_PER_TICK
    assert units.ticks(goal) == ticks


@given(st.integers(0, 6), st.one_of(st.sampled_from([math.nan, math.inf, -math.inf]), st.floats(3.2, 1e300)))
def test_one_bad_joint_refuses_the_whole_goal(joint: int, bad: float) -> None:
    goal = RESTING.copy()
    goal[joint] = bad
    assert ArmUnits("follower", MASTERS["follower"]).ticks(goal) is None
    assert ArmUnits("follower", MASTERS["follower"]).ticks(RESTING) is not None


def test_a_goal_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        ArmUnits("follower", MASTERS["follower"]).ticks(np.zeros(6))


def test_units_of_velocity_and_current() -> None:
    reading = ArmUnits("follower", MASTERS["follower"]).reading(state([2048 + 1024] * 7, 10, -100), 5, {"elbow": 0x80})
    assert reading is not None
    assert reading.stamp_ns == 5
    assert reading.errors == {"elbow": 0x80}
    assert reading.angles == pytest.approx([math.pi / 2] * 7)
    assert reading.velocities == pytest.approx([10 * 0.229 * 2 * math.pi / 60] * 7)
    assert reading.efforts_ma == pytest.approx([-269.0] * 7)


def test_servos_without_current_sensing_report_load() -> None:
    reading = ArmUnits("leader", MASTERS["leader"]).reading(state([2048] * 7, 0, 100), 5, {})
    assert reading is not None
    assert reading.efforts_ma == pytest.approx([269.0] * 5 + [100.0, 100.0])


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_nothing_is_faster_than_its_servo_or_a_hand(role: Role) -> None:
    step_ns = 5_000_000
    for joint, limit in ((0, SPEED_LIMIT_RAD_S[role][0]), (6, SPEED_LIMIT_RAD_S[role][1])):
        most = int((limit * step_ns / 1e9 + NOISE_RAD) / RAD_PER_TICK)
        for jump, believed in ((most, True), (most + 1, False), (-most, True), (-most - 1, False)):
            units = ArmUnits(role, MASTERS[role])
            assert units.reading(state([2048] * 7), 0, {}) is not None
            ticks = [2048] * 7
            ticks[joint] += jump
            assert (units.reading(state(ticks), step_ns, {}) is not None) is believed


def test_a_servo_that_insists_is_believed_in_the_end() -> None:
    units = ArmUnits("follower", MASTERS["follower"])
    assert units.reading(state([2048] * 7), 0, {}) is not None
    times = [n * 5_000_000 for n in range(1, 200)]
    believed = [time for time in times if units.reading(state([4000] * 7), time, {}) is not None]
    assert 0.3e9 < believed[0] < 0.6e9
    units.forget()
    assert units.reading(state([100] * 7), times[-1], {}) is not None
