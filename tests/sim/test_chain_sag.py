"""A position loop without I gain carries a load by its error: how far each emulated joint stands off its goal."""

import mujoco
import numpy as np
import pytest
from chain_tools import Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.control import gravity
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.robot import ARM_JOINTS, KITS, RAD_PER_TICK, SERVOS, START_POSE, Role
from aloha_runtime.sim.model import build_model, joint_names
from aloha_runtime.sim.weight import Stiffness, weight_torques

ARM_IDS = (1, 2, 4, 6, 7, 8)
ROLES: tuple[Role, ...] = ("leader", "follower")
JOINT = st.floats(-1.5, 1.5)


def standing(role: Role) -> Bench:
    """An arm in the start pose that got torque with its goals where it stood, settled."""
    bench = Bench(role)
    ids = [servo.id for servo in SERVOS[role]]
    bench.torque(*ids)
    bench.pass_ms(2000)
    return bench


def sag(bench: Bench) -> np.ndarray:
    """How far the joints have moved from the start pose, rad (6,)."""
    return np.array([bench.angle(joint) for joint in range(6)]) - START_POSE


@pytest.mark.parametrize("role", ROLES)
def test_each_joint_stands_its_weight_over_its_stiffness_beside_its_goal(role: Role) -> None:
    bench, stiffness = standing(role), Stiffness(role).nm_per_rad[:6]
    where = [bench.angle(joint) for joint in range(6)]
    assert sag(bench) == pytest.approx(np.array(weight_torques(role, where)) / stiffness, abs=RAD_PER_TICK)
    shoulder, elbow, wrist = np.degrees(sag(bench))[[1, 2, 4]]
    assert abs(shoulder) < 1.0  # the start pose balances it
    assert (3.0 < elbow < 4.0) if role == "leader" else (1.5 < elbow < 2.0)
    assert 0.3 < wrist < 1.5


@pytest.mark.parametrize("role", ROLES)
def test_less_gain_sags_more_and_an_integral_takes_it_away(role: Role) -> None:
    bench = standing(role)
    once = sag(bench)[2]
    for servo in (4, 5):
        assert bench.write(servo, reg.POSITION_P_GAIN, 400) == 0
    bench.pass_ms(2000)
    assert sag(bench)[2] == pytest.approx(2 * once, rel=0.08)
    for servo in (4, 5):
        bench.write(servo, reg.POSITION_P_GAIN, 800)
        bench.write(servo, reg.POSITION_I_GAIN, 500)
    bench.pass_ms(8000)
    assert abs(sag(bench)[2]) < 0.002


def test_one_motor_of_a_pair_sags_twice_as_far() -> None:
    bench = standing("follower")
    once = sag(bench)[2]
    bench.write(5, reg.TORQUE_ENABLE, 0)  # the shadow of the elbow
    bench.pass_ms(2000)
    assert sag(bench)[2] == pytest.approx(2 * once, rel=0.08)


@pytest.mark.parametrize("role", ROLES)
def test_making_the_present_position_the_goal_again_and_again_walks_the_arm_down(role: Role) -> None:
    bench = standing(role)
    once = sag(bench)[2]
    for _ in range(5):
        bench.write(4, reg.GOAL_POSITION, bench.read(4, reg.PRESENT_POSITION))
        bench.pass_ms(1000)
    assert sag(bench)[2] > 5 * once


@pytest.mark.parametrize("role", ROLES)
def test_the_current_carries_the_weight(role: Role) -> None:
    bench = standing(role)
    weights = weight_torques(role, [bench.angle(joint) for joint in range(6)])
    for joint, servo in enumerate(ARM_IDS):
        firmware, per_ma = bench.chain.servo(servo), Stiffness(role).nm_per_ma[joint]
        if firmware.model.has_current:
            current_ma = bench.read(servo, reg.PRESENT_CURRENT) / firmware.scale[3]
            assert current_ma * per_ma == pytest.approx(-weights[joint], abs=0.02)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(pose=st.tuples(*[JOINT] * 6))
def test_a_leader_weighs_what_its_compensation_carries(pose: tuple[float, ...]) -> None:
    assert weight_torques("leader", pose) == pytest.approx(gravity.weight_torques(np.array(pose)), abs=1e-9)


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return build_model("transfer_cube", KITS["aloha"].follower_gripper, 200.0)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(pose=st.tuples(*[JOINT] * 6))
def test_a_follower_weighs_what_it_does_in_the_simulated_world(model: mujoco.MjModel, pose: tuple[float, ...]) -> None:
    data = mujoco.MjData(model)
    names = joint_names("left")[: len(ARM_JOINTS)]
    for name, angle in zip(names, pose, strict=True):
        data.joint(name).qpos = angle
    mujoco.mj_forward(model, data)
    bias = [-data.joint(name).qfrc_bias[0] for name in names]
    assert weight_torques("follower", pose) == pytest.approx(bias, abs=0.01)
