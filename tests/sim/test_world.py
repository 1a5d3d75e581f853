"""The simulated world: servo-like followers, grippers, determinism, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.errors import SimulationError
from aloha_runtime.robot import (
    DOF,
    GRIPPER_INDEX,
    IS_GRIPPER,
    KITS,
    NAMES,
    SIDES,
    START_POSE,
    Gripper,
    Kit,
    Side,
    joint_limits,
    pose_vector,
    with_range,
)
from aloha_runtime.sim import model, motors
from aloha_runtime.sim.response import step_response
from aloha_runtime.sim.world import World

GRIPPER = KITS["aloha"].follower_gripper
ON = np.ones(DOF, dtype=bool)
MS = 1_000_000
SAG_RAD = 0.04
"""More than any joint sags in START_POSE: 3 N m at the elbow over 98 N m/rad."""


@pytest.fixture(scope="module")
def world() -> World:
    return World("transfer_cube")


def test_reset_puts_the_arms_at_rest_in_the_start_pose_with_closed_grippers(world: World) -> None:
    world.reset(1)
    assert np.abs(world.angles() - pose_vector(START_POSE, 0.0))[~IS_GRIPPER].max() < SAG_RAD
    assert np.abs(world.velocities()).max() < 0.01
    for index in GRIPPER_INDEX:
        assert 0.0 <= GRIPPER.state_from_angle(float(world.angles()[index])) < 0.15


def test_reset_can_start_elsewhere(world: World) -> None:
    start = pose_vector(KITS["aloha"].follower_sleep, GRIPPER.angle_from_action(0.5))
    world.reset(1, start)
    assert np.abs(world.angles() - start)[~IS_GRIPPER].max() < SAG_RAD
    assert world.angles()[6] == pytest.approx(start[6], abs=0.02)


def test_objects_lie_still_on_the_table_after_a_reset(world: World) -> None:
    world.reset(5)
    cube = world.object_poses()["cube"]
    assert cube[2] == pytest.approx(0.02, abs=1e-3)
    assert 0.0 <= cube[0] <= 0.2
    assert 0.4 <= cube[1] <= 0.6
    np.testing.assert_array_equal(world.environment_state(), cube)
    assert World("insertion", 5).environment_state().shape == (14,)


def test_objects_are_placed_without_touching_the_arms(world: World) -> None:
    world.reset(5)
    goal = world.closed_start()
    goal[0] += 0.4
    world.command(goal, ON)
    world.step(1000 * MS)
    angles = world.angles()
    world.place_objects(6)
    np.testing.assert_array_equal(world.angles(), angles)
    world.step(500 * MS)
    expected = World("transfer_cube", 6).object_poses()["cube"]
    assert world.object_poses()["cube"] == pytest.approx(expected, abs=1e-3)
    assert world.angles() == pytest.approx(angles, abs=0.01)


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
def test_grippers_of_every_kit_open_and_close(kit: Kit) -> None:
    one = World("transfer_cube", 0, kit)
    goal = one.closed_start()
    goal[list(GRIPPER_INDEX)] = kit.follower_gripper.angle_open
    one.command(goal, ON)
    one.step(1000 * MS)
    opened = one.angles()[list(GRIPPER_INDEX)]
    assert opened == pytest.approx(kit.follower_gripper.angle_open, abs=0.03)
    assert np.isfinite(one.velocities()).all()
    one.command(one.closed_start(), ON)
    one.step(1000 * MS)
    for angle in one.angles()[list(GRIPPER_INDEX)]:  # the meshes of the fingers meet a little before
        assert -0.01 < kit.follower_gripper.action_from_angle(float(angle)) < 0.2


def test_same_seed_and_commands_give_the_same_numbers(world: World) -> None:
    def run(one: World) -> bytes:
        one.reset(9)
        for cycle in range(20):
            one.command(one.closed_start() + 0.01 * cycle, ON)
            one.step(5 * MS)
        return one.snapshot().qpos.tobytes() + one.efforts_ma().tobytes()

    assert run(world) == run(world) == run(World("transfer_cube", 3))


def test_time_that_fills_no_physics_step_is_carried(world: World) -> None:
    world.reset(0)
    times = []
    for _ in range(4):
        world.step(5 * MS)
        times.append(round(world.data.time * 1000))
    assert times == [4, 10, 14, 20]
    assert world.snapshot().time_ns == 20 * MS


def test_a_snapshot_restores_in_another_world(world: World) -> None:
    world.reset(2)
    world.command(world.closed_start() + 0.3, ON)
    world.step(200 * MS)
    snapshot = world.snapshot()
    other = World("transfer_cube", 8)
    other.restore(snapshot)
    np.testing.assert_array_equal(other.angles(), world.angles())
    np.testing.assert_array_equal(other.velocities(), world.velocities())
    np.testing.assert_array_equal(other.environment_state(), world.environment_state())
    assert other.snapshot().time_ns == 200 * MS


@pytest.mark.parametrize(
    ("joint", "size_rad", "fastest_rad_s"),
    [
        ("left_waist", 0.1, 3.14),
        ("left_waist", 1.5, 3.14),
        ("left_shoulder", 0.5, 3.14),
        ("left_elbow", -0.5, 3.14),
        ("right_forearm_roll", 1.0, 3.14),
        ("right_wrist_angle", 0.5, 3.14),
        ("right_wrist_rotate", 1.0, 4.82),
    ],
)
def test_joints_answer_a_step_as_a_servo_does(world: World, joint: str, size_rad: float, fastest_rad_s: float) -> None:
    response = step_response(world, joint, size_rad)
    # The lag of P gain 800 is 0.217 rad / no-load speed; a first-order lag rises in 2.2 times that.
    lag = motors.FULL_VOLTAGE_ERROR_RAD / fastest_rad_s
    assert 0.8 * 2.2 * lag < response.rise_s + 0.02
    assert response.rise_s < 2.2 * lag + abs(size_rad) / fastest_rad_s
    assert response.overshoot < 0.02
    assert np.abs(response.velocity).max() < 1.05 * fastest_rad_s
    assert abs(response.steady_error) < 0.06


def test_goals_out_of_reach_saturate_at_the_stall_current(world: World) -> None:
    response = step_response(world, "left_waist", 2.0, duration_s=0.3)
    assert np.abs(response.effort_ma).max() <= 1000 * motors.XM540_W270.stall_current + 1
    assert np.abs(response.effort_ma).max() > 900 * motors.XM540_W270.stall_current


def test_followers_lag_behind_a_moving_goal(world: World) -> None:
    world.reset(0)
    goal = world.closed_start()
    for _ in range(100):
        goal[0] += 0.8 * 0.005
        world.command(goal, ON)
        world.step(5 * MS)
    lag_s = (goal[0] - world.angles()[0]) / 0.8
    assert lag_s == pytest.approx(motors.FULL_VOLTAGE_ERROR_RAD / 3.14, abs=0.01)


def test_currents_carry_the_weight_of_the_arm(world: World) -> None:
    world.reset(0)
    dof = world.model.joint("vx300s_left/elbow").dofadr[0]
    weight_ma = world.data.qfrc_bias[dof] / (2 * motors.XM540_W270.torque_per_ma)
    friction_ma = motors.XM540_W270.friction / motors.XM540_W270.torque_per_ma
    assert world.efforts_ma()[2] == pytest.approx(weight_ma, abs=friction_ma + 5)


def test_without_torque_an_arm_sinks_but_does_not_fall(world: World) -> None:
    world.reset(0)
    held = world.angles()
    free = np.ones(DOF, dtype=bool)
    free[:7] = False
    world.command(world.closed_start(), free)
    for _ in range(50):
        world.step(20 * MS)
        assert np.abs(world.velocities()[:6]).max() < 1.0
    assert world.angles()[2] - held[2] > 0.1
    assert np.abs(world.angles() - held)[7:].max() < 0.01
    assert world.efforts_ma()[:6] == pytest.approx(0.0, abs=1e-9)


def test_torque_comes_back_where_the_joint_stands(world: World) -> None:
    world.reset(0)
    world.command(world.closed_start(), ~ON)
    world.step(500 * MS)
    stands = world.angles()
    world.command(stands, ON)
    world.step(500 * MS)
    assert np.abs(world.angles() - stands)[~IS_GRIPPER].max() < 0.06


@pytest.mark.parametrize("opening", [0.2, 0.5, 0.9])
def test_grippers_go_where_their_motor_is_told(world: World, opening: float) -> None:
    goal = world.closed_start()
    goal[list(GRIPPER_INDEX)] = GRIPPER.angle_from_action(opening)
    world.reset(0)
    world.command(goal, ON)
    world.step(1000 * MS)
    for index in GRIPPER_INDEX:
        assert GRIPPER.action_from_angle(float(world.angles()[index])) == pytest.approx(opening, abs=0.03)
        fingers = [world.data.qpos[world.model.joint(f"vx300s_left/{f}_finger").qposadr[0]] for f in ("left", "right")]
        assert fingers[0] == pytest.approx(-fingers[1], abs=2e-4)


def test_a_closed_gripper_presses_with_no_more_than_its_current_limit(world: World) -> None:
    world.reset(0)
    squeeze = world.efforts_ma()[list(GRIPPER_INDEX)]
    assert (squeeze < -100).all()
    assert (np.abs(squeeze) <= KITS["aloha"].gripper_current_ma + 1).all()


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
def test_a_gripper_that_is_told_to_close_past_contact_presses_with_the_current_limit(kit: Kit) -> None:
    """On nothing at all, each arm with a range of its own: at the closed end it presses with what the kit allows."""
    follower = kit.follower_gripper
    grippers: dict[Side, Gripper] = {
        "left": with_range(follower, angle_open=follower.angle_open - 0.25, angle_close=follower.angle_close - 0.25),
        "right": with_range(follower, angle_open=follower.angle_open + 0.39, angle_close=follower.angle_close + 0.39),
    }
    one = World("transfer_cube", 0, kit, grippers)
    goal = one.closed_start()
    for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
        goal[index] = grippers[side].angle_from_action(-0.2)
    one.command(goal, ON)
    one.step(1000 * MS)
    assert one.efforts_ma()[list(GRIPPER_INDEX)] == pytest.approx(-kit.gripper_current_ma, rel=0.01)
    for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
        assert -0.01 < grippers[side].action_from_angle(float(one.angles()[index])) < 0.2


LOW, HIGH = joint_limits("follower")


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=DOF, max_size=DOF))
def test_any_goal_within_the_limits_keeps_the_world_sane(fractions: list[float]) -> None:
    goal = LOW + np.array(fractions) * (HIGH - LOW)
    for index in GRIPPER_INDEX:
        goal[index] = GRIPPER.angle_from_action(float(goal[index]))
    one = SHARED
    one.reset(0)
    one.command(goal, ON)
    one.step(400 * MS)
    for vector in (one.angles(), one.velocities(), one.efforts_ma(), one.environment_state()):
        assert np.isfinite(vector).all()
    assert np.abs(one.velocities()[~IS_GRIPPER]).max() < 8.0, NAMES


SHARED = World("transfer_cube")


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(SimulationError, match=r"unknown task 'juggling'.*transfer_cube, insertion"):
        World("juggling")  # type: ignore[arg-type]


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    with pytest.raises(SimulationError, match=r"gym-aloha.*pip install 'aloha-runtime\[sim\]'"):
        model.model_file("transfer_cube")
