"""Teleoperation: leaders pass through by the kits' rule; coupling and starting are deliberate."""

import math
from types import SimpleNamespace
from typing import Any

import kit_rigs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.control.teleop import (
    CLOSES_WITHIN_NS,
    OPENED,
    SQUEEZED,
    SqueezeDetector,
    action_convention,
    aligned,
    follower_action,
    misaligned,
)
from aloha_runtime.messages import ArmsState
from aloha_runtime.robot import KITS, SIDES, START_POSE, Gripper, Vector, pose_vector, with_range

MS = 1_000_000
HOME = pose_vector(START_POSE, 0.5)
vectors = st.lists(st.floats(-3, 3), min_size=14, max_size=14).map(np.array)


@given(leaders=vectors, held=vectors)
def test_both_sides_pass_through_with_grippers_in_range(leaders, held):
    action = follower_action(leaders, held)
    for index in range(14):
        expected = min(max(leaders[index], -0.2), 1.2) if index in (6, 13) else leaders[index]
        assert action[index] == expected


@given(leaders=vectors, held=vectors)
def test_a_side_that_is_not_led_keeps_its_action(leaders, held):
    held[13] = 0.3
    action = follower_action(leaders, held, ["left"])
    assert (action[7:] == held[7:]).all()
    assert (action[:6] == leaders[:6]).all()


@pytest.mark.parametrize("kit", KITS.values(), ids=lambda kit: kit.name)
@pytest.mark.parametrize("opening", [-0.2, -0.05, 0.0, 0.25, 1.0, 1.2])
def test_follower_gripper_angle_follows_the_published_rule(kit, opening):
    leader, follower = kit.leader_gripper, kit.follower_gripper
    angle = leader.angle_close + opening * (leader.angle_open - leader.angle_close)
    leaders = HOME.copy()
    leaders[6] = leader.action_from_angle(angle)
    target = follower.angle_from_action(follower_action(leaders, HOME)[6])
    assert target == pytest.approx(follower.angle_close + opening * (follower.angle_open - follower.angle_close))


def test_a_state_gives_the_openings_of_the_motors_not_of_the_fingers():
    state = ArmsState(stamp_ns=1, position=HOME.tolist(), velocity=[], effort_ma=[], gripper_openings=[-0.1, 0.9])
    converted = action_convention(state)
    assert converted[[6, 13]].tolist() == [-0.1, 0.9]
    assert (np.delete(converted, [6, 13]) == np.delete(HOME, [6, 13])).all()
    assert state.position == HOME.tolist()


def test_a_state_that_does_not_know_its_grippers_squeezes_nothing():
    unknown = action_convention(ArmsState(stamp_ns=1, position=HOME.tolist(), velocity=[], effort_ma=[]))
    assert np.isnan(unknown[[6, 13]]).all()
    assert not SqueezeDetector().squeezed(unknown)


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


def looked(detector: SqueezeDetector, now_ms: int, left: float, right: float) -> bool:
    leaders = HOME.copy()
    leaders[6], leaders[13] = left, right
    return detector.update(now_ms * MS, leaders)


def test_a_squeeze_needs_both_grippers_below_the_threshold_for_a_while() -> None:
    below, above, opened = SQUEEZED - 0.01, SQUEEZED + 0.01, OPENED + 0.01
    detector = SqueezeDetector()
    looked(detector, -5, opened, opened)
    assert not any(looked(detector, now, below, above) for now in range(0, 1000, 5))
    assert not looked(detector, 1000, below, below)
    assert not looked(detector, 1199, below, below)
    assert looked(detector, 1200, below, below)
    assert looked(detector, 1205, below, below)
    assert not looked(detector, 1210, above, below)
    assert not looked(detector, 1215, below, below)
    assert not looked(detector, 1414, below, below)
    assert looked(detector, 1415, below, below)
    assert not looked(detector, 1420, math.nan, below)


def test_grippers_that_nobody_opened_are_not_squeezed() -> None:
    """Closed from the beginning, opened one at a time, opened half-way as the ramp does it, or long ago."""
    stories = {
        "closed": [(0.0, 0.0)],
        "one opened": [(1.0, 0.0), (0.0, 0.0)],
        "one after the other": [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)],
        "half open": [(0.5, 0.5), (0.0, 0.0)],
        "long ago": [(1.0, 1.0), *[(0.5, 0.5)] * 7, (0.0, 0.0)],
    }
    for name, story in stories.items():
        detector = SqueezeDetector()
        for part, (left, right) in enumerate(story):
            for now in range(0, 500, 5):
                assert not looked(detector, part * 500 + now, left, right), name
    assert 7 * 500 * MS > CLOSES_WITHIN_NS
    forgetful = SqueezeDetector()
    looked(forgetful, 0, 1.0, 1.0)
    forgetful.forget()
    assert not any(looked(forgetful, now, 0.0, 0.0) for now in range(5, 1000, 5))


KIT_GRIPPERS = [kit.leader_gripper for kit in KITS.values()]
shifted = st.tuples(st.sampled_from(KIT_GRIPPERS), st.floats(-0.5, 0.5), st.floats(0.7, 1.3))


def mounted(gripper: Gripper, shift: float, scale: float) -> Gripper:
    """The same gripper on another arm: its horn mounted `shift` rad further, its range `scale` times as wide."""
    middle, half = (gripper.angle_open + gripper.angle_close) / 2, (gripper.angle_open - gripper.angle_close) / 2
    return with_range(gripper, angle_open=middle + shift + scale * half, angle_close=middle + shift - scale * half)


def as_read(grippers: tuple[Gripper, Gripper], openings: tuple[float, float]) -> Vector:
    """Leader angles as the teleop process gets them of hands that open the grippers so far."""
    rig: Any = SimpleNamespace(
        gripper=lambda role, side: grippers[SIDES.index(side)],
        grippers=lambda role: dict(zip(SIDES, grippers, strict=True)),
    )
    angles = HOME.copy()
    angles[[6, 13]] = openings
    return action_convention(kit_rigs.arms_state(rig, "leader", angles))


@given(left=shifted, right=shifted, rest=st.tuples(st.floats(0, 1), st.floats(0, 1)), sinks_s=st.floats(0, 10))
def test_for_every_range_nobody_starts_nothing_and_a_person_starts(left, right, rest, sinks_s) -> None:
    """Nobody: the servos open the grippers by half and let them go; each sinks to wherever it rests."""
    grippers = (mounted(*left), mounted(*right))
    detector = SqueezeDetector()
    for now_ms in range(0, 3000, 50):
        share = 1.0 if sinks_s == 0 else min(1.0, now_ms / 1000 / sinks_s)
        openings = tuple(0.5 + share * (each - 0.5) if each < 0.5 else 0.5 for each in rest)
        assert not detector.update(now_ms * MS, as_read(grippers, openings))
    assert not detector.update(3000 * MS, as_read(grippers, (1.0, 1.0)))
    assert not detector.update(3500 * MS, as_read(grippers, (0.0, 0.0)))
    assert detector.update(3700 * MS, as_read(grippers, (0.0, 0.0)))


def test_one_led_side_starts_alone() -> None:
    detector = SqueezeDetector(sides=["right"])
    assert not looked(detector, 0, 0.5, 1.0)
    assert not looked(detector, 5, 0.5, 0.0)
    assert looked(detector, 205, 0.5, 0.0)


def test_without_a_side_to_lead_nobody_squeezes() -> None:
    detector = SqueezeDetector(())
    for opening in (1.0, 0.0):
        assert not any(looked(detector, now, opening, opening) for now in range(0, 1000, 5))
