"""When two followers, or one and the table, come too near: what is looked at, and when it means HOLD. Pure.

The guard looks 50 times a second, and from its look until the goals stand still pass at most 50 ms: one of its own
periods, one of the supervisor and two cycles of the arms. So it judges where the goals will be in `AHEAD_NS` at the
speed they have now. What a joint may gain meanwhile, 30 rad/s^2 * (0.05 s)^2 / 2 = 0.04 rad, is 17 mm at the 0.45 m
from a base to where two arms meet: less than the default `minimum_distance_m` of 20 mm. Not covered are several joints
that all gain speed in the same 50 ms; they then meet with the force that the lead allows, and stand. Where an arm
stands beside its goal (it lags, it sags), its present position is judged as well.

Who stands too near already may stand there, and move away: otherwise nobody could ever leave.
"""

import numpy as np

from aloha_runtime.messages import MS
from aloha_runtime.robot import GRIPPER_INDEX, Vector

PERIOD_NS = 20 * MS
AHEAD_NS = 60 * MS
OLDEST_NS = 100 * MS
"""Two goals farther apart in time say nothing of a speed."""


class Foresight:
    """Speed of the goals, from one look to the next."""

    def __init__(self) -> None:
        self._goal: Vector | None = None
        self._stamp_ns = 0

    def way(self, stamp_ns: int, goal: Vector) -> Vector:
        """How far (14,) the goals will go in `AHEAD_NS` at their speed since the last look; grippers stay."""
        way = np.zeros_like(goal)
        between_ns = stamp_ns - self._stamp_ns
        if self._goal is not None and 0 < between_ns <= OLDEST_NS:
            way = (goal - self._goal) * (AHEAD_NS / between_ns)
        way[list(GRIPPER_INDEX)] = 0.0
        self._goal, self._stamp_ns = goal.copy(), stamp_ns
        return way

    def forget(self) -> None:
        """The goals may jump: torque is off."""
        self._goal = None


def too_near(now_m: float, soon_m: float, minimum_m: float) -> bool:
    """True when the arms come nearer and will be nearer than they may. Distances as they are, and as they will be."""
    return soon_m < minimum_m and soon_m < now_m
