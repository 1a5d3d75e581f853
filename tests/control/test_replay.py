"""Replay: a bounded way to the first action, then what was recorded, when it was recorded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from aloha_runtime.control.replay import APPROACH_SPEED, SETTLE_NS, Phase, Replay
from aloha_runtime.robot import DOF, TICK_NS

START_NS = 7_000 * TICK_NS
joints = st.lists(st.floats(-2.0, 2.0), min_size=DOF, max_size=DOF).map(np.array)


def walk(length: int = 30) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(0, 0.01, (length, DOF)).cumsum(axis=0)


@given(start=joints, first=joints)
def test_the_approach_keeps_its_speed_and_ends_on_the_first_action(
    start: NDArray[np.float64], first: NDArray[np.float64]
) -> None:
    replay = Replay(np.tile(first, (5, 1)), 50)
    replay.begin(START_NS, start)
    ticks = np.arange(START_NS, replay.play_ns + TICK_NS, TICK_NS)
    actions = np.array([replay.action(int(tick)) for tick in ticks])
    np.testing.assert_allclose(actions[0], start, atol=1e-12)
    steps = np.abs(np.diff(actions, axis=0))
    assert (steps <= APPROACH_SPEED * TICK_NS * 1e-9 + 1e-9).all()
    at_rest = ticks >= replay.play_ns - SETTLE_NS
    np.testing.assert_allclose(actions[at_rest], np.tile(first, (at_rest.sum(), 1)), atol=1e-12)


@pytest.mark.parametrize("fps", [50, 25, 30])
def test_recorded_actions_come_at_their_recorded_times(fps: int) -> None:
    recorded = walk()
    replay = Replay(recorded, fps)
    replay.begin(START_NS, np.zeros(DOF))
    for index, action in enumerate(recorded):
        np.testing.assert_allclose(replay.action(replay.play_ns + round(index / fps * 1e9)), action, atol=1e-9)
    assert replay.end_ns == replay.play_ns + round((len(recorded) - 1) / fps * 1e9)


def test_between_two_recorded_actions_it_is_on_the_line_between_them() -> None:
    recorded = walk()
    replay = Replay(recorded, 25)
    replay.begin(START_NS, recorded[0])
    halfway = replay.action(replay.play_ns + TICK_NS)
    np.testing.assert_allclose(halfway, recorded[:2].mean(axis=0), atol=1e-9)


def test_it_ends_on_the_last_action_and_stays() -> None:
    recorded = walk()
    replay = Replay(recorded, 50)
    replay.begin(START_NS, np.zeros(DOF))
    assert replay.phase(START_NS) is Phase.APPROACH
    assert replay.phase(replay.play_ns) is Phase.PLAY
    assert replay.phase(replay.end_ns - 1) is Phase.PLAY
    assert replay.phase(replay.end_ns) is Phase.DONE
    np.testing.assert_array_equal(replay.action(replay.end_ns + 100 * TICK_NS), recorded[-1])


def test_it_begins_again_from_elsewhere() -> None:
    replay = Replay(walk(), 50)
    replay.begin(START_NS, np.zeros(DOF))
    replay.begin(START_NS + 1000 * TICK_NS, np.full(DOF, 0.3))
    np.testing.assert_allclose(replay.action(START_NS + 1000 * TICK_NS), np.full(DOF, 0.3))
    assert replay.phase(START_NS + 1000 * TICK_NS) is Phase.APPROACH
