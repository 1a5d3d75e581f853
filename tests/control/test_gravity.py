"""Weight of a leader arm against MuJoCo's dynamics of the same masses, and the currents that carry it."""

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.control import gravity
from aloha_runtime.robot import ARM_JOINTS, JOINTS, START_POSE, joint_limits, pose_vector

LOW, HIGH = (limits[:6] for limits in joint_limits("leader"))
angles = st.tuples(*(st.floats(low, high) for low, high in zip(LOW, HIGH, strict=True))).map(np.array)
OUTSTRETCHED = np.array([0.0, np.pi / 2, -np.pi / 2, 0.0, 0.0, 0.0])
FORWARD = np.array([0.0, 0.6, 0.3, 0.2, 0.4, 0.0])


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    """The links as a chain of bodies."""
    opened = closed = ""
    for link in gravity.WIDOWX_250:
        axis = " ".join("1" if index == link.axis else "0" for index in range(3))
        numbers = [" ".join(map(str, vector)) for vector in (link.origin, link.com)]
        opened += (
            f'<body pos="{numbers[0]}"><joint axis="{axis}"/>'
            f'<inertial pos="{numbers[1]}" mass="{link.mass}" diaginertia="1e-3 1e-3 1e-3"/>'
        )
        closed += "</body>"
    return mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{opened}{closed}</worldbody></mujoco>")


@given(pose=angles)
def test_weight_is_that_of_the_rigid_bodies(model: mujoco.MjModel, pose: np.ndarray) -> None:
    data = mujoco.MjData(model)
    data.qpos = pose
    mujoco.mj_forward(model, data)
    assert gravity.weight_torques(pose) == pytest.approx(-data.qfrc_bias, abs=1e-9)


def test_an_outstretched_arm_falls_forward() -> None:
    weight = dict(zip(ARM_JOINTS, gravity.weight_torques(OUTSTRETCHED), strict=True))
    assert weight["shoulder"] > weight["elbow"] > weight["wrist_angle"] > 0.3


def test_currents_carry_the_share_that_is_asked_for() -> None:
    position = np.tile([*FORWARD, 0.5], 2)
    whole = gravity.carrying_currents_ma(position, 1.0)
    assert gravity.carrying_currents_ma(position, 0.5) == pytest.approx(whole / 2)
    servos = np.array([gravity.SERVOS_OF_JOINT.get(joint, 1) for joint in ARM_JOINTS])
    torques = whole[:6] * 1e-3 * gravity.NM_PER_A * servos
    carried = np.array([joint in gravity.CARRIED_JOINTS for joint in ARM_JOINTS])
    assert torques == pytest.approx(np.where(carried, -gravity.weight_torques(FORWARD), 0.0))
    assert whole[7:] == pytest.approx(whole[:7])
    assert len(whole) == 2 * len(JOINTS)


@given(pose=angles, share=st.floats(0, 1.2))
def test_no_current_is_more_than_a_servo_takes(pose: np.ndarray, share: float) -> None:
    currents = gravity.carrying_currents_ma(np.tile([*pose, 0.0], 2), share)
    assert (np.abs(currents) <= gravity.MOST_MA).all()


def test_the_start_pose_is_carried_with_current_to_spare() -> None:
    assert np.abs(gravity.carrying_currents_ma(pose_vector(START_POSE, 0.0), 1.0)).max() < 0.7 * gravity.MOST_MA
