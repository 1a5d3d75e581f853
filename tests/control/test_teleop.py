"""Teleoperation: leaders pass through by the kits' rule; coupling and starting are deliberate."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.control.teleop import SqueezeDetector, action_convention, aligned, follower_action, misaligned
from aloha_runtime.robot import KITS, START_POSE, pose_vector

MS = 1_000_000
HOME = pose_vector(START_POSE, 0.5)
vectors = st.lists(st.floats(-3, 3), min_size=14, max_size=14).map(np.array)


@given(leaders=vectors, held=vectors)
def test_both_sides_pass_through_with_grippers_in_range(leaders, held):
    action = follower_action(leaders, held)
    for index in range(14):
        expected = min(max(leaders[index], 0.0), 1.0) if index in (6, 13) else leaders[index]
        assert action[index] == expected


@given(leaders=vectors, held=vectors)
def test_a_side_that_is_not_led_keeps_its_action(leaders, held):
    held[13] = 0.3
    action = follower_action(leaders, held, ["left"])
    assert (action[7:] == held[7:]).all()
    assert (action[:6] == leaders[:6]).all()


@pytest.mark.parametrize("kit", KITS.values(), ids=lambda kit: kit.name)
@pytest.mark.parametrize("opening", [0.0, 0.25, 1.0])
def test_follower_gripper_angle_follows_the_published_rule(kit, opening):
    leader, follower = kit.leader_gripper, kit.follower_gripper
    angle = leader.angle_close + opening * (leader.angle_open - leader.angle_close)
    leaders = HOME.copy()
    leaders[6] = leader.action_from_angle(angle)
    target = follower.angle_from_action(follower_action(leaders, HOME)[6])
    assert target == pytest.approx(follower.angle_close + opening * (follower.angle_open - follower.angle_close))


@pytest.mark.parametrize("opening", [0.1, 0.5, 0.9])
def test_states_become_actions(opening):
    gripper = KITS["aloha"].leader_gripper
    angle = gripper.angle_from_action(opening)
    position = HOME.copy()
    position[[6, 13]] = gripper.state_from_angle(angle)
    converted = action_convention(position, gripper)
    assert converted[[6, 13]] == pytest.approx([opening, opening])
    assert (np.delete(converted, [6, 13]) == np.delete(HOME, [6, 13])).all()
    assert position[6] == pytest.approx(gripper.state_from_angle(angle))


def test_alignment_names_the_worst_joint():
    leaders = HOME.copy()
    assert aligned(leaders, HOME)
    leaders[6] = 0.0
    leaders[8] += 0.149
    assert misaligned(leaders, HOME) == ""
    leaders[8] += 0.002
    leaders[4] -= 0.4
    assert "left_wrist_angle: the leader is at -0.70 rad, the follower at -0.30 rad" in misaligned(leaders, HOME)
    assert aligned(leaders, HOME, sides=["right"]) is False
    leaders[8] = HOME[8]
    assert aligned(leaders, HOME, sides=["right"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_joint_without_a_reading_is_not_aligned(value):
    leaders = HOME.copy()
    leaders[3] = value
    assert "left_forearm_roll" in misaligned(leaders, HOME)
    assert not aligned(HOME, leaders)


@pytest.mark.parametrize("kit", KITS.values(), ids=lambda kit: kit.name)
def test_a_squeeze_needs_both_grippers_below_the_threshold_for_a_while(kit):
    gripper = kit.leader_gripper
    below, above = (gripper.action_from_angle(kit.squeeze_angle + step) for step in (-0.01, 0.01))
    detector = SqueezeDetector(gripper, kit.squeeze_angle)

    def look(now_ms, left, right):
        leaders = HOME.copy()
        leaders[6], leaders[13] = left, right
        return detector.update(now_ms * MS, leaders)

    assert not any(look(now, below, above) for now in range(0, 1000, 5))
    assert not look(1000, below, below)
    assert not look(1199, below, below)
    assert look(1200, below, below)
    assert look(1205, below, below)
    assert not look(1210, above, below)
    assert not look(1215, below, below)
    assert not look(1414, below, below)
    assert look(1415, below, below)
    assert not look(1420, math.nan, below)


def test_one_led_side_starts_alone():
    kit = KITS["aloha"]
    detector = SqueezeDetector(kit.leader_gripper, kit.squeeze_angle, sides=["right"])
    leaders = HOME.copy()
    leaders[13] = 0.0
    assert not detector.update(0, leaders)
    assert detector.update(200 * MS, leaders)


def test_without_a_side_to_lead_nobody_squeezes() -> None:
    detector = SqueezeDetector(KITS["aloha"].leader_gripper, KITS["aloha"].squeeze_angle, ())
    assert not any(detector.update(now_ns, np.zeros(14)) for now_ns in range(0, 1000 * MS, 5 * MS))
