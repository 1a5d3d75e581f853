"""The 14-vector, limits, poses and grippers against the published figures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime import robot

KIT_ROLES = [(kit, role) for kit in robot.KITS.values() for role in robot.ROLES]


def test_names_are_left_then_right() -> None:
    assert len(robot.NAMES) == robot.DOF == 14
    assert robot.NAMES[6] == "left_gripper"
    assert robot.NAMES[7] == "right_waist"
    assert list(np.flatnonzero(robot.IS_GRIPPER)) == list(robot.GRIPPER_INDEX) == [6, 13]


@given(st.integers(0, 4095))
def test_ticks_and_radians_are_inverse(tick: int) -> None:
    assert robot.rad_to_ticks(robot.ticks_to_rad(tick)) == tick


def test_follower_limits_are_the_registers() -> None:
    low, high = robot.joint_limits("follower")
    assert low[1] == pytest.approx(-1.8515, abs=1e-4)
    assert high[2] == pytest.approx(1.6045, abs=1e-4)
    assert (low[6], high[6], low[13], high[13]) == (0, 1, 0, 1)


@pytest.mark.parametrize("role", robot.ROLES)
def test_shadows_mirror_their_master(role: robot.Role) -> None:
    servos = {servo.id: servo for servo in robot.SERVOS[role]}
    assert sorted(servos) == list(range(1, 10))
    for shadow in (servos[3], servos[5]):
        assert shadow.shadow_of is not None
        assert shadow.reversed != servos[shadow.shadow_of].reversed


def test_published_finger_positions_follow_from_the_geometry() -> None:
    """hardware figures: the original kit's motor angles give exactly its published finger positions."""
    gripper = robot.KITS["aloha"].follower_gripper
    assert gripper.position_from_angle(gripper.angle_open) == pytest.approx(0.05800, abs=2e-4)
    assert gripper.position_from_angle(gripper.angle_close) == pytest.approx(0.01844, abs=1e-4)


def test_aloha2_published_positions_do_not_fit_its_geometry() -> None:
    gripper = robot.KITS["aloha2"].follower_gripper
    assert gripper.state_from_angle(gripper.angle_close) == pytest.approx(-0.08, abs=0.01)
    assert gripper.state_from_angle(gripper.angle_open) == pytest.approx(1.33, abs=0.01)


@pytest.mark.parametrize(("kit", "role"), KIT_ROLES, ids=lambda value: getattr(value, "name", value))
@given(opening=st.floats(0, 1))
def test_gripper_conventions_are_invertible(kit: robot.Kit, role: robot.Role, opening: float) -> None:
    gripper = kit.gripper(role)
    angle = gripper.angle_from_action(opening)
    assert gripper.action_from_angle(angle) == pytest.approx(opening, abs=1e-9)
    # At 90 degrees the crank is straight, and a closed crank of equal lengths stands at position 0: no inverse there.
    if abs(angle) < math.pi / 2 - 0.05 and gripper.position_from_angle(angle) > 1e-4:
        assert gripper.angle_from_position(gripper.position_from_angle(angle)) == pytest.approx(angle, abs=1e-6)


def test_a_measured_range_replaces_the_published_one() -> None:
    gripper = robot.with_range(robot.KITS["aloha"].follower_gripper, position_open=0.06)
    assert gripper.position_open == 0.06
    assert gripper.angle_open == robot.KITS["aloha"].follower_gripper.angle_open


@pytest.mark.parametrize("kit", robot.KITS.values(), ids=lambda kit: kit.name)
@pytest.mark.parametrize("role", robot.ROLES)
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (-0.5, 0.7), (0.5, 1.3), (0.39, 1.0), (-0.25, 1.0)])
def test_a_horn_mounted_elsewhere_changes_nothing_but_the_motors_angles(
    kit: robot.Kit, role: robot.Role, shift: float, scale: float
) -> None:
    """The crank stands where it did at every share of the range: state, action and speed are those of the kit."""
    published = kit.gripper(role)
    middle = (published.angle_open + published.angle_close) / 2 + shift
    half = scale * (published.angle_open - published.angle_close) / 2
    mounted = robot.with_range(published, angle_open=middle + half, angle_close=middle - half)
    for opening in np.linspace(0, 1, 11):
        angle, usual = mounted.angle_from_action(opening), published.angle_from_action(opening)
        assert mounted.state_from_angle(angle) == pytest.approx(published.state_from_angle(usual))
        assert mounted.slope(angle) * scale == pytest.approx(published.slope(usual))
        back = published.angle_from_position(published.position_from_angle(usual))
        again = mounted.angle_from_position(mounted.position_from_angle(angle))
        assert mounted.action_from_angle(again) == pytest.approx(published.action_from_angle(back), abs=1e-6)
