"""Heat and current of the servos end a motion before the servos end themselves."""

import numpy as np
import pytest

from aloha_runtime.control.margins import margins_for
from aloha_runtime.messages import MS
from aloha_runtime.robot import SERVOS

FOLLOWERS = {"left": SERVOS["follower"], "right": SERVOS["follower"]}
BOUNDS_MA = ([3520.0] * 5 + [1840.0, 1840.0]) * 2


@pytest.mark.parametrize("index", range(14))
def test_each_joint_has_its_bound_for_a_second(index: int) -> None:
    margins = margins_for("follower", FOLLOWERS)
    effort = np.zeros(14)
    assert margins.current(0, effort) == ""
    effort[index] = BOUNDS_MA[index]
    for now_ms in range(5, 3000, 5):
        assert margins.current(now_ms * MS, effort) == ""
    effort[index] = -BOUNDS_MA[index] - 1
    assert margins.current(4000 * MS - 5 * MS, np.zeros(14)) == ""
    assert margins.current(4000 * MS, effort) == ""
    assert margins.current(4995 * MS, effort) == ""
    assert f"{BOUNDS_MA[index] + 1:.0f} mA" in margins.current(5000 * MS, effort)


def test_a_pause_starts_the_second_again_for_that_joint_only() -> None:
    margins = margins_for("follower", FOLLOWERS)
    effort = np.zeros(14)
    margins.current(0, effort)
    effort[[0, 1]] = 4000.0
    assert margins.current(500 * MS, effort) == ""
    effort[0] = 0.0
    assert margins.current(505 * MS, effort) == ""
    effort[0] = 4000.0
    cause = margins.current(1010 * MS, effort)
    assert cause.startswith("left_shoulder has drawn 4000 mA (at most 3520 mA) for 1010 ms")


def test_leaders_and_absent_sides_have_no_bound_on_currents() -> None:
    for margins in (margins_for("leader", {"left": SERVOS["leader"]}), margins_for("follower", {})):
        margins.current(0, np.zeros(14))
        for now_ms in (1, 2000, 4000):
            assert margins.current(now_ms * MS, np.full(14, 1e5)) == ""


def test_each_servo_is_held_against_its_own_temperature_limit() -> None:
    leaders = margins_for("leader", {"right": SERVOS["leader"]})
    assert leaders.temperature({"right_waist": 75.0, "right_wrist_rotate": 67.0}) == ""
    assert leaders.temperature({"right_waist": 75.1}).startswith("right_waist has 75 degrees C")
    assert "above 72" in leaders.temperature({"right_wrist_rotate": 67.5})
    assert leaders.temperature({"somebody": 200.0}) == ""
