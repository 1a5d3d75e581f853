"""Teleoperation: leader angles to follower actions, when the leaders may take over, and the squeeze that starts it.

Leaders and followers share joint names, signs and zero, so arm joints pass through. Gripper openings pass through too,
in the angle convention: follower angle = close + n (open - close) with the leader's n, as the ALOHA kits do it. A
leader that is squeezed past its closed end closes its follower past contact, by up to `robot.GRIPPER_BEYOND`.
"""

from collections.abc import Collection

import numpy as np

from aloha_runtime.messages import MS, ArmsState
from aloha_runtime.robot import DOF, GRIPPER_BEYOND, GRIPPER_INDEX, IS_GRIPPER, NAMES, SIDE_SLICE, SIDES, Side, Vector

SQUEEZED = 0.3
"""Share of an arm's own measured range below which its gripper is squeezed. The kits' angles are 0.39 and 0.06 of
theirs: a hand that closes gets below either."""
OPENED = 0.7
"""... and above which it is open. A ramp to the start pose opens leader grippers by half; only a hand goes further."""
CLOSES_WITHIN_NS = 3000 * MS
"""A hand that has opened a gripper and means to start squeezes it sooner; one that sinks for longer is nobody's."""
ALIGNED_RAD = 0.15
"""Joints of leader and follower nearer than this may be coupled: the gate closes the gap in about 0.1 s, unnoticed."""
SQUEEZE_HOLD_NS = 200 * MS
"""Both grippers squeezed this long: a person means it."""


def action_convention(state: ArmsState) -> Vector:
    """Position (14,) of a pair of arms, gripper openings by the angle of the motor; NaN where the state has none.

    They are never worked out from the finger position: where horn and rod are equally long, as on the leaders of
    ALOHA 2, two angles give one position, and what lies below 0 rad would be lost.
    """
    converted = np.array(state.position, dtype=np.float64)
    converted[list(GRIPPER_INDEX)] = state.gripper_openings or np.nan
    return converted


def follower_action(leaders: Vector, held: Vector, sides: Collection[Side] = SIDES) -> Vector:
    """Follower action (14,) for leader angles (14,) in action convention; sides that are not led keep `held` (14,)."""
    action = np.array(held, dtype=np.float64)
    for side in sides:
        action[SIDE_SLICE[side]] = leaders[SIDE_SLICE[side]]
    grippers = list(GRIPPER_INDEX)
    action[grippers] = np.minimum(np.maximum(action[grippers], -GRIPPER_BEYOND), 1.0 + GRIPPER_BEYOND)
    return action


def misaligned(
    leaders: Vector, followers: Vector, sides: Collection[Side] = SIDES, tolerance_rad: float = ALIGNED_RAD
) -> str:
    """The arm joint in which leader and follower are furthest apart, with both angles and what to do.

    Empty when all are near enough to be coupled. Grippers are not compared: they follow at once and hold nothing up.
    """
    led = np.zeros(DOF, dtype=bool)
    for side in sides:
        led[SIDE_SLICE[side]] = True
    gap = np.where(led & ~IS_GRIPPER, np.abs(leaders - followers), 0.0)
    # A joint without a finite reading is the worst of all (NaN compares false with everything).
    gap = np.where(np.isfinite(gap), gap, np.inf)
    index = int(np.argmax(gap))
    if gap[index] <= tolerance_rad:
        return ""
    return (
        f"{NAMES[index]}: the leader is at {leaders[index]:.2f} rad, the follower at {followers[index]:.2f} rad; "
        f"bring the leader within {tolerance_rad:.2f} rad"
    )


def aligned(leaders: Vector, followers: Vector, sides: Collection[Side] = SIDES) -> bool:
    """True when every led arm joint is near enough to couple leader and follower."""
    return not misaligned(leaders, followers, sides)


class SqueezeDetector:
    """Whether a person has opened the leader grippers of all led sides and then squeezed them, all together.

    Shares of each arm's own range decide, never an angle: a gripper that reads closed while nobody holds it, because it
    sank, was mounted otherwise or never opened, starts nothing.
    """

    def __init__(self, sides: Collection[Side] = SIDES, hold_ns: int = SQUEEZE_HOLD_NS) -> None:
        self._indices = [GRIPPER_INDEX[SIDES.index(side)] for side in sides]
        self._hold_ns = hold_ns
        self.forget()

    def forget(self) -> None:
        """Whatever the grippers did before counts no longer: they must be opened (again) first."""
        self._opened_ns: int | None = None
        self._since_ns: int | None = None

    def squeezed(self, leaders: Vector) -> bool:
        """Whether the grippers are squeezed now (never without a side); leader angles (14,) in action convention."""
        return bool(self._indices) and all(leaders[index] < SQUEEZED for index in self._indices)

    @property
    def opened(self) -> bool:
        """The grippers were seen open, and have not been squeezed for too long since."""
        return self._opened_ns is not None

    def update(self, now_ns: int, leaders: Vector) -> bool:
        """Look at leader angles (14,) in action convention; True once they have been squeezed for `hold_ns` without a
        break, not long after they were open."""
        if self._indices and all(leaders[index] > OPENED for index in self._indices):
            self._opened_ns = now_ns
        if not self.squeezed(leaders):
            self._since_ns = None
            return False
        if self._since_ns is None:
            late = self._opened_ns is None or now_ns - self._opened_ns > CLOSES_WITHIN_NS
            if late:
                self._opened_ns = None
                return False
            self._since_ns = now_ns
        return now_ns - self._since_ns >= self._hold_ns
