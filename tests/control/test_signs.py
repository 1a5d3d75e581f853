"""Signs of the leader grippers: which strokes of the hands count, and what followers do meanwhile."""

from collections.abc import Sequence

import kit_rigs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.config import RigConfig
from aloha_runtime.control.signs import CHANGES_OVER_NS, STROKE, STROKE_NS, SignDetector
from aloha_runtime.control.teleop import action_convention
from aloha_runtime.messages import MS
from aloha_runtime.robot import DOF, Vector

STEP_NS = 5 * MS


def leaders(left: bool, right: bool) -> np.ndarray:
    angles = np.full(DOF, 0.8)
    angles[6], angles[13] = (0.0 if left else 0.8), (0.0 if right else 0.8)
    return angles


def signs(*parts: tuple[int, bool, bool]) -> list[tuple[int, int]]:
    """What a detector says of parts (duration in ms, left squeezed, right squeezed): (squeezes, began ms)."""
    detector = SignDetector()
    found, now_ns = [], 10_000 * MS
    start_ns = now_ns
    for duration_ms, left, right in parts:
        for _ in range(duration_ms * MS // STEP_NS):
            said = detector.update(now_ns, leaders(left, right))
            now_ns += STEP_NS
            if said:
                found.append((said[0], (said[1] - start_ns) // MS))
    return found


OPEN, BOTH, LEFT = (False, False), (True, True), (True, False)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_quick_squeezes_of_both_grippers_are_a_sign(count):
    squeezes = [(200, *BOTH), (300, *OPEN)] * count
    assert signs((1000, *OPEN), *squeezes, (1000, *OPEN)) == [(count, 700)]


@pytest.mark.parametrize(
    "parts",
    [
        [(200, *BOTH), (2000, *OPEN)],  # one squeeze
        [(1500, *BOTH), (300, *OPEN), (200, *BOTH), (1000, *OPEN)],  # an object was held, then one squeeze
        [(200, *LEFT), (300, *OPEN), (200, *LEFT), (1000, *OPEN)],  # one gripper alone
        [(200, *BOTH), (1000, *OPEN), (200, *BOTH), (1000, *OPEN)],  # too slow
    ],
)
def test_work_is_no_sign(parts):
    assert signs((1000, *OPEN), *parts) == []


def test_the_squeeze_that_started_the_arms_does_not_count():
    assert signs((100, *BOTH), (200, *OPEN), (200, *BOTH), (300, *OPEN), (1000, *OPEN)) == []


def test_a_sign_after_holding_something_counts_from_its_own_beginning():
    assert signs((3000, *BOTH), (900, *OPEN), *[(200, *BOTH), (300, *OPEN)] * 2, (800, *OPEN)) == [(2, 3600)]


def test_a_squeeze_longer_than_a_sign_allows_is_work():
    held = STROKE_NS // MS + 10
    assert signs((1000, *OPEN), (held, *BOTH), (100, *OPEN), (held, *BOTH), (1000, *OPEN)) == []


def moved(openings: Sequence[float]) -> Vector:
    angles = np.full(DOF, 0.8)
    angles[[6, 13]] = openings
    return angles


class Hands:
    """Both hands at the leader grippers, 200 looks a second; every change takes them `closes_ms`."""

    def __init__(self, openings: tuple[float, float], closes_ms: int = 100, rig: RigConfig | None = None) -> None:
        """`rig`: the openings are read from the motors of its leaders."""
        self.rig = rig
        self.detector, self.now_ns = SignDetector(), 10_000 * MS
        self.openings, self.closes_ms = np.array(openings), closes_ms
        self.passed: list[Vector] = []
        """What the followers were told."""
        self.asked: list[Vector] = []
        self.found: list[tuple[int, int]] = []

    def go(self, to: Sequence[float], for_ms: int, speed_rad_s: float = 0.0) -> None:
        start = self.openings.copy()
        for ms in range(5, for_ms + 1, 5):
            self.now_ns += 5 * MS
            self.openings = start + min(1.0, ms / self.closes_ms) * (np.array(to) - start)
            leaders = moved(self.openings)
            if self.rig is not None:
                leaders = action_convention(kit_rigs.arms_state(self.rig, "leader", leaders))
            found = self.detector.update(self.now_ns, leaders, speed_rad_s)
            self.found += [found] if found else []
            self.passed.append(self.detector.keep(leaders)[[6, 13]])
            self.asked.append(self.openings.copy())

    def stroke(self, rest: tuple[float, float], lasts_ms: int, pause_ms: int) -> None:
        self.go([1.0 if opening < 0.3 else -0.1 for opening in rest], lasts_ms)
        self.go(rest, pause_ms)


levels = st.sampled_from([0.0, 0.1, 0.6, 0.9, 1.0])


@given(
    rest=st.tuples(levels, levels),
    count=st.sampled_from([2, 3]),
    lasts_ms=st.integers(30, 60).map(lambda five: 5 * five),
    pause_ms=st.integers(30, 120).map(lambda five: 5 * five),
    closes_ms=st.integers(10, 30).map(lambda five: 5 * five),
)
def test_a_sign_moves_no_follower_gripper(rest, count, lasts_ms, pause_ms, closes_ms):
    """From open hands, from hands that hold something, from one of each."""
    hands = Hands(rest, closes_ms)
    hands.go(rest, 500)
    for _ in range(count):
        hands.stroke(rest, lasts_ms, pause_ms)
    hands.go(rest, 800)
    assert [found[0] for found in hands.found] == [count]
    assert np.abs(np.array(hands.passed) - rest).max() <= 2 * STROKE


@pytest.mark.parametrize("name", kit_rigs.RIGS)
@pytest.mark.parametrize("rest", [(1.0, 1.0), (0.0, 0.0), (0.0, 1.0)])
def test_every_kit_and_range_gives_the_same_sign(name, rest):
    hands = Hands(rest, rig=kit_rigs.rig(name))
    hands.go(rest, 500)
    for _ in range(2):
        hands.stroke(rest, 250, 300)
    hands.go(rest, 800)
    assert [found[0] for found in hands.found] == [2]
    assert np.abs(np.array(hands.passed) - rest).max() <= 2 * STROKE


@pytest.mark.parametrize("closes_ms", [20, 100, 250])
def test_work_of_both_hands_is_done_a_little_later(closes_ms):
    hands = Hands((1.0, 1.0), closes_ms)
    hands.go((1.0, 1.0), 500)
    begun = len(hands.passed)
    hands.go((0.0, 0.0), 2000)
    late = next(at for at in range(begun, len(hands.passed)) if (hands.passed[at] == 0.0).all()) - begun
    assert late * 5 * MS <= CHANGES_OVER_NS + STROKE_NS
    assert hands.found == []


def test_hands_at_moving_arms_and_one_hand_alone_are_never_delayed():
    for to, speed_rad_s in (((0.0, 0.0), 1.0), ((0.0, 1.0), 0.0), ((1.0, -0.2), 0.0)):
        hands = Hands((1.0, 1.0))
        hands.go((1.0, 1.0), 500, speed_rad_s)
        for _ in range(3):
            hands.go(to, 150, speed_rad_s)
            hands.go((1.0, 1.0), 150, speed_rad_s)
        hands.go((1.0, 1.0), 1000)
        np.testing.assert_array_equal(hands.passed, hands.asked)
        assert hands.found == []


def test_a_slow_change_of_both_hands_is_followed():
    hands = Hands((1.0, 1.0), closes_ms=2000)
    hands.go((1.0, 1.0), 500)
    hands.go((0.0, 0.0), 2500)
    np.testing.assert_array_equal(hands.passed, hands.asked)
