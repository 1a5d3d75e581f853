"""Scripted demonstrators: reach, speed, and success through the safety gate."""

import math

import kit_rigs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.control.limits import default_limits
from aloha_runtime.errors import SimulationError
from aloha_runtime.robot import CONTROL_HZ, DOF, GRIPPER_INDEX, IS_GRIPPER, KITS, START_POSE, Side, joint_limits
from aloha_runtime.sim.demonstrator import Demonstrator
from aloha_runtime.sim.episode import Episode, demonstration, run_episode
from aloha_runtime.sim.kinematics import ArmKinematics, ToolPose
from aloha_runtime.sim.model import TASKS, Task
from aloha_runtime.sim.tasks import OBJECTS
from aloha_runtime.sim.world import World

LEADER = KITS["aloha"].leader_gripper
WORLDS: dict[Task, World] = {task: World(task) for task in TASKS}


def leader_actions(task: Task, seed: int, objects: dict[str, np.ndarray]) -> np.ndarray:
    """(T, 14) at 50 Hz, grippers as openings."""
    demonstrator = Demonstrator(task, seed, objects)
    angles = np.array(
        [demonstrator.leader_angles(t / CONTROL_HZ) for t in range(int(demonstrator.duration_s * CONTROL_HZ))]
    )
    for index in GRIPPER_INDEX:
        angles[:, index] = [LEADER.action_from_angle(angle) for angle in angles[:, index]]
    return angles


def corners(task: Task) -> list[dict[str, np.ndarray]]:
    """Objects in the corners of where they may lie."""
    height = {"cube": 0.02, "peg": 0.01, "socket": 0.022}
    return [
        {
            item.name: np.array([item.x_range[i], item.y_range[j], height[item.name], 1.0, 0.0, 0.0, 0.0])
            for item in OBJECTS[task]
        }
        for i in (0, 1)
        for j in (0, 1)
    ]


@pytest.mark.parametrize("task", TASKS)
def test_leaders_start_in_the_start_pose_and_stay_far_within_the_limits(task: Task) -> None:
    limits = default_limits()
    low, high = (np.maximum, np.minimum)
    leader, follower = joint_limits("leader"), joint_limits("follower")
    for seed, objects in enumerate(corners(task)):
        actions = leader_actions(task, seed, objects)
        assert actions[0][~IS_GRIPPER] == pytest.approx([*START_POSE, *START_POSE], abs=1e-3)
        assert actions[0][IS_GRIPPER] == pytest.approx([0, 0], abs=1e-3)
        assert (actions >= low(leader[0], follower[0]) - 1e-9).all()
        assert (actions <= high(leader[1], follower[1]) + 1e-9).all()
        speed = np.diff(actions, axis=0) * CONTROL_HZ
        assert (np.abs(speed).max(axis=0) < np.where(IS_GRIPPER, 1.0, 0.7) * limits.velocity).all()
        acceleration = np.diff(speed, axis=0) * CONTROL_HZ
        assert (np.abs(acceleration).max(axis=0) < 0.7 * limits.acceleration).all()
        assert 4.0 < len(actions) / CONTROL_HZ < 7.0


@pytest.mark.parametrize("name", [name for name in kit_rigs.RIGS if name != "aloha"])
@pytest.mark.parametrize(("task", "seed"), [("transfer_cube", 0), ("insertion", 3)])
def test_demonstrations_solve_the_task_with_every_kit_and_range(task: Task, seed: int, name: str) -> None:
    rig = kit_rigs.rig(name)
    kit = KITS[rig.kit]
    world = World(task, seed, kit, rig.grippers("follower"))
    controller, ticks = demonstration(world, seed, kit)
    assert run_episode(world, seed, controller, ticks).solved_at_end


def run(task: Task, seed: int) -> Episode:
    world = WORLDS[task]
    world.reset(seed)
    controller, ticks = demonstration(world, seed)
    return run_episode(world, seed, controller, ticks)


@pytest.mark.parametrize(("task", "seed"), [("transfer_cube", 0), ("transfer_cube", 77), ("insertion", 3)])
def test_demonstrations_solve_the_task_through_the_gate(task: Task, seed: int) -> None:
    episode = run(task, seed)
    assert episode.solved_at_end
    ticks = len(episode.action)
    for name in ("state", "velocity", "effort", "action"):
        assert getattr(episode, name).shape == (ticks, DOF)
        assert np.isfinite(getattr(episode, name)).all()
    assert episode.environment_state.shape == (ticks, 7 * len(OBJECTS[task]))
    arms = ~IS_GRIPPER
    assert np.abs(episode.action - episode.state)[:, arms].max() < 0.25
    assert (episode.state[:, IS_GRIPPER] > -0.05).all()
    assert (episode.state[:, IS_GRIPPER] < 1.05).all()


def test_an_episode_repeats_bit_by_bit() -> None:
    first, again = run("transfer_cube", 5), run("transfer_cube", 5)
    assert first.state.tobytes() == again.state.tobytes()
    assert first.effort.tobytes() == again.effort.tobytes()


def test_arms_that_are_told_to_stay_do_not_solve_anything() -> None:
    world = WORLDS["transfer_cube"]
    world.reset(0)
    episode = run_episode(world, 0, lambda observation: np.array([*START_POSE, 0.0] * 2), ticks=30)
    assert not episode.success
    assert np.abs(episode.state[-1] - episode.state[0]).max() < 0.01


def test_a_late_action_moves_the_arms_later() -> None:
    world = WORLDS["transfer_cube"]
    angles = []
    for delay in (0, 3):
        world.reset(0)
        goal = np.array([*START_POSE, 0.0] * 2)
        goal[0] += 0.05
        angles.append(run_episode(world, 0, lambda observation, goal=goal: goal, 3, delay_cycles=delay).state[1, 0])
    assert angles[0] > 2 * angles[1] >= 0.0


def test_pushes_are_felt_but_not_recorded() -> None:
    world = WORLDS["transfer_cube"]
    world.reset(0)
    hold = np.array([*START_POSE, 0.0] * 2)
    push = np.where(IS_GRIPPER, 0.0, 0.03) * np.ones((20, DOF))
    episode = run_episode(world, 0, lambda observation: hold, 20, disturbance=push)
    np.testing.assert_array_equal(episode.action, np.tile(hold, (20, 1)))
    moved = episode.state[-1] - episode.state[0]
    assert (moved[~IS_GRIPPER] > 0.015).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from(("left", "right")),
    st.floats(0.32, 0.45),
    st.floats(-0.1, 0.1),
    st.floats(0.02, 0.2),
    st.floats(0.7, 1.1),
    st.floats(-1.5, 1.5),
)
def test_inverse_kinematics_meets_the_pose(
    side: Side, ahead: float, aside: float, height: float, pitch: float, roll: float
) -> None:
    arm = KINEMATICS[side]
    sign = 1.0 if side == "left" else -1.0
    position = np.array([sign * (-0.469 + ahead), 0.5 + aside, height])
    pose = ToolPose(position, pitch, roll)
    found = arm.pose(arm.solve(pose, np.array(START_POSE)))
    assert np.linalg.norm(found.position - position) < 0.003
    assert found.pitch == pytest.approx(pitch, abs=0.01)
    assert math.remainder(found.roll - roll, 2 * math.pi) == pytest.approx(0.0, abs=0.01)


KINEMATICS: dict[Side, ArmKinematics] = {
    "left": ArmKinematics(WORLDS["transfer_cube"].model, "left"),
    "right": ArmKinematics(WORLDS["transfer_cube"].model, "right"),
}


def test_a_pose_out_of_reach_is_named() -> None:
    with pytest.raises(SimulationError, match=r"the left follower cannot reach \[0.9, 0.5, 0.2\]"):
        KINEMATICS["left"].solve(ToolPose(np.array([0.9, 0.5, 0.2]), 0.0), np.array(START_POSE))


def test_sag_is_what_a_held_arm_shows() -> None:
    world = WORLDS["transfer_cube"]
    world.reset(0)
    angles = world.angles()
    goals = angles[:6] + KINEMATICS["left"].sag(angles[:6])
    assert goals == pytest.approx(world.closed_start()[:6], abs=0.006)
