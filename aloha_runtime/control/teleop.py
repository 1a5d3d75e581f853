"""Teleoperation: leader angles to follower actions, when the leaders may take over, and the squeeze that starts it.

Leaders and followers share joint names, signs and zero, so arm joints pass through. Gripper openings pass through too,
in the angle convention: follower angle = close + n (open - close) with the leader's n, as the ALOHA kits do it.
"""

from collections.abc import Collection

import numpy as np

from aloha_runtime.messages import MS
from aloha_runtime.robot import DOF, GRIPPER_INDEX, IS_GRIPPER, NAMES, SIDE_SLICE, SIDES, Gripper, Side, Vector

ALIGNED_RAD = 0.15
"""Joints of leader and follower nearer than this may be coupled: the gate closes the gap in about 0.1 s, unnoticed."""
SQUEEZE_HOLD_NS = 200 * MS
"""Both grippers squeezed this long: a person means it."""


def action_convention(position: Vector, gripper: Gripper) -> Vector:
    """A (14,) state, whose gripper openings are of the finger position, with openings of the motor angle instead."""
    converted = np.array(position, dtype=np.float64)
    for index in GRIPPER_INDEX:
        converted[index] = gripper.action_from_angle(gripper.angle_from_state(float(converted[index])))
    return converted


def follower_action(leaders: Vector, held: Vector, sides: Collection[Side] = SIDES) -> Vector:
    """Follower action (14,) for leader angles (14,) in action convention; sides that are not led keep `held` (14,)."""
    action = np.array(held, dtype=np.float64)
    for side in sides:
        action[SIDE_SLICE[side]] = leaders[SIDE_SLICE[side]]
    grippers = list(GRIPPER_INDEX)
    action[grippers] = np.minimum(np.maximum(action[grippers], 0.0), 1.0)
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
    """True once the leader grippers of all led sides have been squeezed for `hold_ns` without a break."""

    def __init__(
        self,
        gripper: Gripper,
        squeeze_angle_rad: float,
        sides: Collection[Side] = SIDES,
        hold_ns: int = SQUEEZE_HOLD_NS,
    ) -> None:
        """`gripper`, `squeeze_angle_rad`: the kit's leader gripper, and the motor angle below which it is squeezed."""
        self._threshold = gripper.action_from_angle(squeeze_angle_rad)
        self._indices = [GRIPPER_INDEX[SIDES.index(side)] for side in sides]
        self._hold_ns = hold_ns
        self._since_ns: int | None = None

    def squeezed(self, leaders: Vector) -> bool:
        """Whether the grippers are squeezed now (never without a side); leader angles (14,) in action convention."""
        return bool(self._indices) and all(leaders[index] < self._threshold for index in self._indices)

    def update(self, now_ns: int, leaders: Vector) -> bool:
        """Look at leader angles (14,) in action convention."""
        if not self.squeezed(leaders):
            self._since_ns = None
            return False
        if self._since_ns is None:
            self._since_ns = now_ns
        return now_ns - self._since_ns >= self._hold_ns
