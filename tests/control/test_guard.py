"""What the guard foresees, and when it means HOLD."""

import numpy as np
import pytest

from aloha_runtime.control.guard import AHEAD_NS, OLDEST_NS, Foresight, too_near
from aloha_runtime.messages import MS

HOME = np.linspace(-0.6, 0.7, 14)


def test_goals_go_on_at_their_speed_and_grippers_stay() -> None:
    foresight = Foresight()
    assert not foresight.way(0, HOME).any()
    step = np.full(14, 0.02)  # 1 rad/s
    way = foresight.way(20 * MS, HOME + step)
    expected = np.where(np.arange(14) % 7 == 6, 0.0, AHEAD_NS * 1e-9)
    np.testing.assert_allclose(way, expected)


@pytest.mark.parametrize("between_ns", [0, -20 * MS, OLDEST_NS + 1])
def test_goals_without_a_common_time_have_no_speed(between_ns: int) -> None:
    foresight = Foresight()
    foresight.way(1000 * MS, HOME)
    assert not foresight.way(1000 * MS + between_ns, HOME + 0.1).any()


def test_goals_of_before_torque_went_off_are_forgotten() -> None:
    foresight = Foresight()
    foresight.way(0, HOME)
    foresight.forget()
    assert not foresight.way(20 * MS, HOME + 0.1).any()


@pytest.mark.parametrize(
    ("now_m", "soon_m", "held"),
    [
        (0.10, 0.019, True),
        (0.10, 0.021, False),
        (0.015, 0.014, True),  # too near already, and nearer
        (0.015, 0.015, False),  # stands
        (0.015, 0.016, False),  # leaves
        (-0.01, -0.02, True),
    ],
)
def test_only_who_comes_nearer_is_held(now_m: float, soon_m: float, held: bool) -> None:
    assert too_near(now_m, soon_m, 0.02) is held
