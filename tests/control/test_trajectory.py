"""The tracker's own word on what held a joint back, and how a goal comes to its lead."""

import numpy as np
import pytest

from aloha_runtime.control.limits import default_limits
from aloha_runtime.control.trajectory import Tracker
from aloha_runtime.messages import MS
from aloha_runtime.robot import DOF, START_POSE, pose_vector

CYCLE_NS = 5 * MS
CYCLE_S = CYCLE_NS * 1e-9
LIMITS = default_limits()
POSE = pose_vector(START_POSE, 0.5)
WAIST, ELBOW = 0, 2


def run(change: dict[int, float], duration_ns: int, cycles: int) -> tuple[Tracker, list[np.ndarray]]:
    """A tracker at rest aims at its pose with some joints changed, while the arm itself stands still."""
    tracker, goals = Tracker(LIMITS, POSE), []
    target = POSE.copy()
    for joint, angle in change.items():
        target[joint] += angle
    tracker.aim(0, duration_ns, target)
    for cycle in range(1, cycles + 1):
        tracker.advance(cycle * CYCLE_NS, CYCLE_S, CYCLE_S, POSE)
        goals.append(tracker.goal.copy())
    return tracker, goals


def test_what_nothing_holds_back_is_not_marked() -> None:
    tracker, goals = run({ELBOW: 0.02}, 400 * MS, 200)
    assert not (tracker.held_off | tracker.shaped).any()
    assert goals[-1][ELBOW] == pytest.approx(POSE[ELBOW] + 0.02)


def test_a_joint_that_gains_speed_as_fast_as_it_may_is_marked_and_no_other() -> None:
    tracker, _ = run({WAIST: 0.05}, 1, 1)
    assert list(np.flatnonzero(tracker.shaped)) == [WAIST]
    assert not tracker.held_off.any()
    assert tracker.velocity[WAIST] == pytest.approx(LIMITS.acceleration[WAIST] * CYCLE_S)
    assert (np.delete(tracker.velocity, WAIST) == np.zeros(DOF - 1)).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_goal_comes_to_rest_at_its_lead_and_stays_marked(sign: int) -> None:
    """It brakes for the lead as for a target: it does not run into it at full speed."""
    tracker, goals = run({WAIST: sign * 0.5}, 1, 200)
    way = sign * (np.array(goals)[:, WAIST] - POSE[WAIST])
    assert way[-1] == pytest.approx(LIMITS.lead[WAIST])
    assert (way <= LIMITS.lead[WAIST] + 1e-12).all()
    speed = np.diff(way, prepend=0.0) / CYCLE_S
    assert -np.diff(speed).min() <= LIMITS.braking[WAIST] * CYCLE_S + 1e-9
    assert list(np.flatnonzero(tracker.held_off)) == [WAIST]
    assert not tracker.shaped.any()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_far_goal_gains_speed_and_runs_as_fast_as_its_limits_and_no_faster(sign: int) -> None:
    tracker = Tracker(LIMITS, POSE)
    target = POSE.copy()
    target[WAIST] += sign * 1.2
    tracker.aim(0, 1, target)
    speeds = []
    for cycle in range(1, 101):
        tracker.advance(cycle * CYCLE_NS, CYCLE_S, CYCLE_S, tracker.goal.copy())  # an arm that keeps up
        speeds.append(sign * tracker.velocity[WAIST])
    assert max(speeds) == pytest.approx(LIMITS.velocity[WAIST])
    assert np.diff(speeds, prepend=0.0).max() == pytest.approx(LIMITS.acceleration[WAIST] * CYCLE_S)
