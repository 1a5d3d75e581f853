"""The scripted person who corrects a policy, pure: takes over after a while, leads the arms a little, hands back."""

from collections.abc import Mapping

import numpy as np

from aloha_runtime.messages import Mode
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import GRIPPER_INDEX, IS_GRIPPER, SIDES, Gripper, Side, Vector

TAKES_OVER_AFTER_NS = 2 * NS_PER_S
"""Of the policy's motion: the arms are well on their way by then."""
LEADS_NS = 2 * NS_PER_S
LIFT_RAD = 0.04
"""So far every joint is led away, and back again."""
LETS_GO_NS = 500_000_000
"""Before the end the grippers are open again: squeezed when a person hands back, they would take over again."""
ASKS_EVERY_NS = 500_000_000
OPENS_NS, SQUEEZES_NS = 300_000_000, 700_000_000
"""The sign by which a person starts or takes over: grippers opened for so long, then squeezed for so long."""
WATCHES_NS = 4 * NS_PER_S
"""After handing back, unless the task is solved before."""


def sign_of_start(time_ns: int) -> float:
    """Opening of both grippers at this time of the sign, which is made again and again."""
    return 1.0 if time_ns % (OPENS_NS + SQUEEZES_NS) < OPENS_NS else 0.0


def with_grippers(angles: Vector, grippers: Mapping[Side, Gripper], opening: float) -> Vector:
    """Leader angles (14,) with both grippers this far open, as motor angles."""
    held = np.array(angles)
    for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
        held[index] = grippers[side].angle_from_action(opening)
    return held


class Correction:
    """One correction in each stretch of motion that begins in ARMED. `asks`: hand back now."""

    def __init__(self, grippers: Mapping[Side, Gripper]) -> None:
        self._grippers = grippers
        self._reset()

    def _reset(self) -> None:
        self._began_ns = self._led_ns = self._handed_ns = self._asked_ns = 0
        self._base: Vector | None = None
        self.asks = False

    def hands(self, now_ns: int, mode: Mode | None, leaders: Vector) -> Vector | None:
        """Leader angles (14,) that the hands hold the arms at, None while nobody touches them. `leaders`: where the
        arms stand; `mode`: None while it is not known."""
        self.asks = False
        if mode is None:
            return None
        if mode is Mode.POLICY:
            return self._beside_policy(now_ns, leaders)
        if mode is Mode.TELEOP and self._began_ns:
            return self._lead(now_ns, leaders)
        self._reset()
        return None

    def is_over(self, now_ns: int, solved: bool) -> bool:
        """Whether the policy has gone on for long enough since the arms were handed back."""
        return bool(self._handed_ns) and (solved or now_ns - self._handed_ns > WATCHES_NS)

    def _beside_policy(self, now_ns: int, leaders: Vector) -> Vector | None:
        self._began_ns = self._began_ns or now_ns
        if self._base is not None and not self._handed_ns:
            self._handed_ns = now_ns
        if self._handed_ns or now_ns - self._began_ns < TAKES_OVER_AFTER_NS:
            return None
        return with_grippers(leaders, self._grippers, sign_of_start(now_ns - self._began_ns - TAKES_OVER_AFTER_NS))

    def _lead(self, now_ns: int, leaders: Vector) -> Vector:
        if self._base is None:
            self._base, self._led_ns = leaders.copy(), now_ns
        led_ns = now_ns - self._led_ns
        share = min(led_ns / LEADS_NS, 1.0)
        angles = self._base + np.where(IS_GRIPPER, 0.0, LIFT_RAD * (1 - np.cos(2 * np.pi * share)) / 2)
        self.asks = led_ns >= LEADS_NS and now_ns - self._asked_ns >= ASKS_EVERY_NS
        self._asked_ns = now_ns if self.asks else self._asked_ns
        opens = led_ns >= LEADS_NS - LETS_GO_NS
        return with_grippers(angles, self._grippers, 1.0 if opens else 0.0)
