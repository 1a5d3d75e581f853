"""Limits are data: right by default, refused when they make no sense, every override honoured."""

import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from envelope import HIGH, JOINTS, LOW
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aloha_runtime.config import DeployConfig, LimitsConfig, TighterLimits
from aloha_runtime.control.limits import OVERRIDES, default_limits, limits_from, rig_limits, tightened
from aloha_runtime.errors import ConfigError
from aloha_runtime.robot import IS_GRIPPER, KITS, NAMES, START_POSE, joint_limits, pose_vector


def test_defaults_are_the_promised_ones():
    limits = default_limits()
    np.testing.assert_allclose(limits.low, LOW)
    np.testing.assert_allclose(limits.high, HIGH)
    for name in ("velocity", "acceleration", "braking", "lead"):
        np.testing.assert_allclose(getattr(limits, name), [getattr(joint, name) for joint in JOINTS])


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_limits_keep_clear_of_the_servos_own(role):
    low, high = joint_limits(role)
    limits = default_limits(role)
    arms = [index for index in range(14) if index % 7 != 6]
    np.testing.assert_allclose(limits.low[arms] - low[arms], 0.02)
    np.testing.assert_allclose(high[arms] - limits.high[arms], 0.02)
    assert (limits.low[[6, 13]] == -0.2).all()
    assert (limits.high[[6, 13]] == 1.2).all()


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize("kit", KITS.values(), ids=lambda kit: kit.name)
def test_published_poses_are_inside(role, kit):
    limits = default_limits(role)
    for pose in (START_POSE, kit.sleep_pose(role)):
        position = pose_vector(pose, 0.5)
        assert ((position >= limits.low) & (position <= limits.high)).all()


@pytest.mark.parametrize(
    ("key", "field", "arm", "gripper"),
    [
        ("velocity_rad_s", "velocity", 1.0, 5.0),
        ("acceleration_rad_s2", "acceleration", 1.0, 100.0),
        ("acceleration_rad_s2", "braking", 10.0, 1000.0),
        ("braking_rad_s2", "braking", 31.0, 1000.0),
        ("lead_rad", "lead", 1.0, 0.5),
        ("gripper_openings_s", "velocity", 2.5, 1.0),
        ("gripper_openings_s2", "acceleration", 30.0, 1.0),
        ("gripper_openings_s2", "braking", 300.0, 10.0),
        ("gripper_lead", "lead", 0.24, 1.0),
    ],
)
def test_overrides_reach_their_joints_only(key, field, arm, gripper):
    value = 31.0 if key == "braking_rad_s2" else 1.0
    limits = getattr(limits_from({key: value}), field)
    np.testing.assert_allclose(limits, ([arm] * 6 + [gripper]) * 2)


def test_margin_can_be_set():
    limits = limits_from({"position_margin_rad": 0.0})
    low, high = joint_limits("follower")
    arms = [index for index in range(14) if index % 7 != 6]
    np.testing.assert_array_equal(limits.low[arms], low[arms])
    np.testing.assert_array_equal(limits.high[arms], high[arms])


def test_every_limit_of_the_rig_configuration_is_known():
    assert set(LimitsConfig.model_fields) - {"hold_after_ms", "joints"} <= set(OVERRIDES)


@pytest.mark.parametrize("margin", [-0.01, math.nan])
def test_margin_that_opens_the_limits_is_refused(margin):
    with pytest.raises(ConfigError, match="position_margin_rad"):
        limits_from({"position_margin_rad": margin})


def test_unknown_key_is_refused():
    with pytest.raises(ConfigError, match=r"unknown key `velocity`; known are position_margin_rad, velocity_rad_s, "):
        limits_from({"velocity": 1.0})


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("field", ["velocity", "acceleration", "braking", "lead"])
def test_rates_that_are_no_rates_are_refused(field, value):
    good = default_limits()
    wrong = getattr(good, field).copy()
    wrong[9] = value
    with pytest.raises(ConfigError, match=f"{field} of right_elbow .* finite and above 0"):
        replace(good, **{field: wrong})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["low", "high"])
def test_bounds_that_are_not_finite_are_refused(field, value):
    good = default_limits()
    wrong = getattr(good, field).copy()
    wrong[0] = value
    with pytest.raises(ConfigError, match=f"{field} of left_waist is .*; it must be finite$"):
        replace(good, **{field: wrong})


def test_negative_and_zero_bounds_are_fine():
    good = default_limits()
    assert replace(good, low=good.low, high=np.maximum(good.high, 0)).low[0] < 0


def test_empty_range_wrong_shape_and_slow_brakes_are_refused():
    good = default_limits()
    upside_down = good.high.copy()
    upside_down[1] = good.low[1]
    with pytest.raises(ConfigError, match=r"left_shoulder may move from .* empty; make `low` smaller than `high`$"):
        replace(good, high=upside_down)
    with pytest.raises(ConfigError, match=r"lead has shape \(7,\); give 14 numbers"):
        replace(good, lead=np.ones(7))
    slow = good.braking.copy()
    slow[0] = good.acceleration[0]  # as slow as allowed: not the one to name
    slow[13] = 99.0
    with pytest.raises(ConfigError, match=r"braking of right_gripper is 99\.0, below its acceleration 100\.0"):
        replace(good, braking=slow)
    assert replace(good, braking=good.acceleration).braking[0] == 30.0


def test_limits_given_as_whole_numbers_are_kept_as_floats():
    limits = replace(default_limits(), velocity=np.full(14, 2))
    assert limits.velocity.dtype == np.float64


@pytest.mark.parametrize("lead", [0.01, 0.4])
def test_an_arm_on_its_stop_may_be_powered_whatever_the_lead(lead):
    limits = replace(default_limits(), low=np.full(14, -1.0), high=np.full(14, 1.0), lead=np.full(14, lead))
    assert limits.outside(np.full(14, 1.0999)) == ""
    assert limits.outside(np.full(14, -1.0999)) == ""
    for far in (1.1001, -1.1001, 1.25):
        assert "left_waist" in limits.outside(np.full(14, far))


def test_limits_cannot_be_changed_afterwards():
    velocity = np.full(14, 1.0)
    limits = replace(default_limits(), velocity=velocity)
    velocity[:] = 9.0
    assert limits.velocity[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        limits.velocity[0] = 9.0
    with pytest.raises(FrozenInstanceError):
        limits.velocity = velocity


def test_tighter_limits_are_within_and_wider_are_not():
    rig = default_limits()
    assert rig.within(rig)
    assert rig.within(limits_from({"velocity_rad_s": 1.0, "lead_rad": 0.05, "position_margin_rad": 0.1}))
    for wider in ({"velocity_rad_s": 2.6}, {"acceleration_rad_s2": 31.0}, {"lead_rad": 0.25}, {"gripper_lead": 0.6}):
        assert not rig.within(limits_from(wider))
    for name, change in (("low", -0.001), ("high", 0.001)):
        bound = getattr(rig, name).copy()
        bound[4] += change
        assert not rig.within(replace(rig, **{name: bound}))


def test_arms_that_stand_outside_their_range_are_named():
    limits = default_limits()
    home = pose_vector(START_POSE, 0.5)
    assert limits.outside(home) == ""
    hanging = home.copy()
    hanging[8] = LOW[8] - 0.0199
    assert limits.outside(hanging) == ""
    hanging[8] = -2.05
    assert "right_shoulder stands at -2.050 rad, outside its range -1.832..1.236 rad" in limits.outside(hanging)
    hanging[2] = HIGH[2] + 0.5
    assert "left_elbow" in limits.outside(hanging)
    squeezed = home.copy()
    squeezed[6], squeezed[13] = -0.7, 1.9
    assert limits.outside(squeezed) == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_arms_without_a_position_are_named(value):
    position = pose_vector(START_POSE, 0.5)
    position[5] = value
    assert "left_wrist_rotate" in default_limits().outside(position)


DEFAULTS = {"acceleration_rad_s2": 30.0, "lead_rad": 0.24, "gripper_openings_s": 5.0}
ASKED = st.fixed_dictionaries(
    {},
    optional={
        "velocity_rad_s": st.floats(0.01, 4),
        "acceleration_rad_s2": st.floats(0.1, 60),
        "lead_rad": st.floats(0.001, 0.3),
        "gripper_openings_s": st.floats(0.1, 10),
    },
)


@given(asked=ASKED, speed=st.floats(0.01, 1), velocity=st.floats(0.5, 3))
def test_whatever_is_asked_for_limits_are_only_tightened(asked: dict, speed: float, velocity: float) -> None:
    rig = limits_from({"velocity_rad_s": velocity})
    if asked.get("velocity_rad_s", 0) > velocity or any(asked.get(key, 0) > most for key, most in DEFAULTS.items()):
        with pytest.raises(ConfigError, match="looser than the rig's"):
            tightened(rig, asked, speed)
        asked = {}
    tight = tightened(rig, asked, speed)
    assert rig.within(tight)
    assert (tight.velocity <= rig.velocity * speed).all()
    arms = ~IS_GRIPPER
    assert tight.velocity[arms] == pytest.approx(min(asked.get("velocity_rad_s", 9), velocity * speed))
    assert tight.lead[arms] == pytest.approx(asked.get("lead_rad", 0.24))
    assert tight.velocity[IS_GRIPPER] == pytest.approx(min(asked.get("gripper_openings_s", 9), 5 * speed))


def test_nothing_asked_changes_nothing_of_a_rig_that_is_looser_than_the_default() -> None:
    rig = limits_from({"velocity_rad_s": 3.0, "lead_rad": 0.2})
    tight = tightened(rig, {})
    assert (tight.velocity == rig.velocity).all()
    assert (tight.lead == rig.lead).all()


@pytest.mark.parametrize(
    ("asked", "speed", "said"),
    [
        ({"velocity_rad_s": 2.6}, 1.0, "velocity_rad_s 2.6 is looser than the rig's 2.5"),
        ({"lead_rad": float("nan")}, 1.0, "lead_rad nan is looser"),
        ({"hold_after_ms": 20}, 1.0, "hold_after_ms"),
        ({}, 0.0, "speed is 0.0"),
        ({}, 1.5, "speed is 1.5"),
        ({}, float("nan"), "speed is nan"),
    ],
)
def test_looser_unknown_and_impossible_wishes_are_refused(asked: dict, speed: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tightened(default_limits(), asked, speed)


def test_a_position_of_another_shape_is_refused_and_not_judged():
    outside = default_limits().outside(np.zeros(7))
    assert outside == "the arms' position has shape (7,) instead of (14,); check their servos"


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_the_limits_of_a_rig_are_its_own_tightened_by_its_care(role) -> None:
    own = LimitsConfig(velocity_rad_s=2.0, lead_rad=0.22)
    care = DeployConfig(speed=0.5, limits=TighterLimits(lead_rad=0.2))
    expected = tightened(limits_from({"velocity_rad_s": 2.0, "lead_rad": 0.22}, role), {"lead_rad": 0.2}, 0.5)
    found = rig_limits(own, care, role)
    for field in fields(found):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))
    assert found.velocity.max() < default_limits(role).velocity.max()


def test_a_policy_is_given_no_lead_under_which_arms_sink() -> None:
    assert TighterLimits(lead_rad=0.15).lead_rad == 0.15
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.15"):
        TighterLimits(lead_rad=0.14)


def test_single_joints_of_the_followers_are_tighter_and_never_wider() -> None:
    stated = LimitsConfig.model_validate(
        {"joints": {"left_elbow": {"low": -1.0, "high": 1.5, "velocity_rad_s": 0.5}, "right_waist": {"high": 3.1415}}}
    )
    rig, usual = rig_limits(stated, DeployConfig(), "follower"), default_limits()
    elbow, waist = NAMES.index("left_elbow"), NAMES.index("right_waist")
    assert (rig.low[elbow], rig.high[elbow], rig.velocity[elbow]) == (-1.0, 1.5, 0.5)
    assert rig.high[waist] == usual.high[waist], "the margin to the servo's own limit stays"
    others = [index for index in range(14) if index != elbow]
    for name in ("low", "high", "velocity", "acceleration"):
        assert np.array_equal(getattr(rig, name)[others], getattr(usual, name)[others])
    assert usual.within(rig)
    leader = rig_limits(stated, DeployConfig(), "leader")
    assert np.array_equal(leader.low, default_limits("leader").low)
    slow = rig_limits(stated, DeployConfig(speed=0.5), "follower")
    assert slow.velocity[elbow] == 0.25
    fast = rig_limits(stated, DeployConfig(limits=TighterLimits(velocity_rad_s=1.0)), "follower")
    assert (fast.velocity[elbow], fast.velocity[waist]) == (0.5, 1.0), "the tighter of both, joint by joint"
