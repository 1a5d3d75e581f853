"""Our motion beside the original's loop on the same simulated servos: a small part of `aloha bench faithful`."""

from dataclasses import replace

import numpy as np
import pytest

from aloha_runtime.commands.bench_faithful import ARMS_TRAVEL_RAD, BEYOND_RAD, BRAKING_S, FROZEN_MS, TRAVEL_RAD, WITHIN
from aloha_runtime.control.limits import default_limits
from aloha_runtime.robot import IS_GRIPPER
from aloha_runtime.sim import faithful
from aloha_runtime.sim.faithful import ORIGINAL, OURS, STRETCHED, Arm

WEAK = replace(default_limits(), lead=np.where(IS_GRIPPER, 0.5, 0.10))
"""Less than the servos can use."""


@pytest.fixture(scope="module")
def loaded() -> Arm:
    return Arm(0.75)


@pytest.fixture(scope="module")
def empty() -> Arm:
    return Arm()


def likeness(arm: Arm, pose: str, joint: str, frequency: float, limits=None) -> faithful.Likeness:
    swing = faithful.swing_of(frequency, 2.5)
    return faithful.compare(*faithful.swings(arm, pose, joint, swing, limits), swing)


@pytest.mark.parametrize(
    ("pose", "joint", "frequency"),
    [("folded", "elbow", 1.5), ("stretched", "waist", 1.5), ("stretched", "shoulder", 1.0)],
)
def test_a_loaded_arm_swings_as_under_the_originals_loop(loaded: Arm, pose: str, joint: str, frequency: float) -> None:
    found = likeness(loaded, pose, joint, frequency)
    assert found.amplitude == pytest.approx(1.0, abs=WITHIN)
    assert found.error <= WITHIN


def test_an_empty_arm_swings_as_under_the_originals_loop_and_with_a_short_lead_it_does_not(empty: Arm) -> None:
    found = likeness(empty, "folded", "wrist_rotate", 1.5)
    assert (found.amplitude, found.error) == (pytest.approx(1.0, abs=WITHIN), pytest.approx(0.0, abs=WITHIN))
    assert likeness(empty, "folded", "waist", 1.0, WEAK).amplitude < 0.8


def test_a_load_is_held_as_the_original_holds_it_and_a_short_lead_lets_it_sink(loaded: Arm) -> None:
    theirs, ours = (faithful.holds(loaded, loop, 8.0) for loop in (ORIGINAL, OURS))
    assert ours.sag <= theirs.sag + 1e-3
    assert abs(ours.creep) <= 1e-3
    sunk = loaded.run(OURS, STRETCHED, "shoulder", lambda _: 0.0, 8.0, limits=WEAK)
    assert sunk.position[-1] - STRETCHED[1] > 3 * theirs.sag


def test_a_stop_does_not_let_a_load_down_that_swings_beyond_it(loaded: Arm) -> None:
    """The shoulder of a stretched arm goes down at full speed: it swings past the lead, and comes back."""
    last_s = 0.255
    trace = loaded.run(OURS, STRETCHED, "shoulder", lambda time_s: 2.5 * (time_s - last_s), 2.0, last_s)
    swung = trace.position - trace.goal
    assert swung.max() > 0.24
    assert trace.frozen_ns <= (last_s + 0.07) * 1e9
    assert swung[-1] == pytest.approx(faithful.holds(loaded, ORIGINAL, 6.0).sag, abs=0.03)


def test_it_presses_no_harder_than_the_original() -> None:
    arm = Arm(contact=True)
    theirs = faithful.presses(arm, ORIGINAL)
    assert theirs > 20.0, "the table is in the way"
    assert faithful.presses(arm, OURS) <= theirs + 1e-6


@pytest.mark.parametrize("joint", ["waist", "wrist_rotate"])
def test_at_full_speed_a_joint_stops_within_its_travel(empty: Arm, joint: str) -> None:
    found = faithful.stops(empty, "folded", joint, 2.5)
    assert found.speed > 2.4
    assert found.frozen_ms <= FROZEN_MS
    assert found.travel <= TRAVEL_RAD
    assert found.frozen_travel <= BRAKING_S * found.frozen_speed + BEYOND_RAD
    assert faithful.stops(empty, "folded", joint, 2.5, arms_die=True).travel <= ARMS_TRAVEL_RAD
