"""What the benches of faults read off the wire."""

import pytest

from aloha_runtime.commands.faults.wire import changes, travel
from aloha_runtime.messages import MS
from aloha_runtime.robot import RAD_PER_TICK
from aloha_runtime.sim.monitor import Wire

GOALS = [(cycle * 5 * MS, 1, 2000 + 10 * cycle) for cycle in range(6)]
"""The last one at 25 ms."""


def sightings(*found: tuple[float, int]) -> list[tuple[int, int, int]]:
    return [(round(ms * MS), 1, tick) for ms, tick in found]


def test_a_joint_is_where_it_was_when_it_was_asked() -> None:
    wire = Wire(GOALS, sightings((1, 1990), (6, 2000), (11, 2010), (16, 2020), (21, 2030), (26, 2040)))
    assert travel(wire, {1: 2060}, 25 * MS) == pytest.approx(20 * RAD_PER_TICK)
    assert travel(wire, {1: 2060}, round(22.5 * MS)) == pytest.approx(25 * RAD_PER_TICK)


def test_what_is_seen_long_after_the_last_goal_was_not_there_at_that_goal() -> None:
    """Arms whose watchdog has tripped are read, and get no goals."""
    wire = Wire(GOALS, sightings((21, 2030), (26, 2040), (330, 2075), (335, 2075)))
    assert travel(wire, {1: 2075}, 25 * MS) == pytest.approx(35 * RAD_PER_TICK)


def test_goals_that_stay_are_no_changes() -> None:
    stay = [(30 * MS, 1, 2050), (35 * MS, 1, 2050)]
    assert changes(Wire(GOALS + stay, [])) == [stamp for stamp, _, _ in GOALS[1:]]
