"""Signs of the leader grippers: quick strokes of both hands at once, which the followers do not make.

A stroke: both grippers change over, an open one to squeezed and back, one that holds something to open and back. Two
mean "done", three "not this one, again". Nobody can tell a stroke from work before it is over. So from its first 0.1
openings on the follower grippers keep what they had (`keep`), until the hands are back or it has lasted too long for a
sign; then it was work, and the followers do it that much later. Only hands at arms that stand still begin a sign: who
reaches for something and grasps it at once is not delayed.
"""

from collections import deque
from collections.abc import Collection, Sequence

import numpy as np

from aloha_runtime.control.teleop import SQUEEZED
from aloha_runtime.messages import MS, ArmsState
from aloha_runtime.robot import GRIPPER_INDEX, IS_GRIPPER, SIDE_SLICE, SIDES, Side, Vector

STROKE = 0.1
"""Openings by which both grippers change when a stroke begins: more than a hand trembles ..."""
TOGETHER_NS = 100 * MS
"""... in this time. Two hands of one person are nearer together."""
CHANGES_OVER_NS = 300 * MS
"""A hand takes this long to close or open a gripper at most; so much before its first stroke a sign begins."""
STROKE_NS = 400 * MS
"""Hands that do not come back in this time work."""
PAUSE_NS = 700 * MS
"""From one stroke to the next one of a sign at most."""
BACK = 0.05
"""Openings: a gripper this near to where it was is back."""
STILL_RAD_S, STILL_NS = 0.3, 300 * MS
"""Arms slower than this stand still: a quick hand shakes the wrist; they must have stood for so long."""


def hand_speed_rad_s(leaders: ArmsState, sides: Collection[Side]) -> float:
    """Of the fastest arm joint of the led leaders."""
    speeds = np.abs(np.where(IS_GRIPPER, 0.0, leaders.velocity))
    return max((float(speeds[SIDE_SLICE[side]].max()) for side in sides), default=0.0)


class SignDetector:
    """`update` with every leader state; it answers when the pause after the last stroke is long enough: (strokes, when
    the hands began)."""

    def __init__(self, sides: Collection[Side] = SIDES) -> None:
        self._indices = [GRIPPER_INDEX[SIDES.index(side)] for side in sides]
        self.reset()

    def reset(self) -> None:
        """Forget: what the hands did before counts no longer."""
        self._recent: deque[tuple[int, list[float], bool]] = deque()
        self._moved_ns = 0
        self._count = self._began_ns = self._stroke_ns = 0
        self._kept: list[float] | None = None
        """Openings before the stroke under way."""
        self._away, self._changed_ns = False, 0

    def keep(self, leaders: Vector) -> Vector:
        """What followers are to take from leader angles (14,): during a stroke grippers as they were before it."""
        kept = leaders.copy()
        if self._kept is not None:
            kept[self._indices] = self._kept
        return kept

    def update(self, now_ns: int, leaders: Vector, speed_rad_s: float = 0.0) -> tuple[int, int] | None:
        """Look at leader angles (14,) in action convention; `speed_rad_s`: of the arms that the hands are at."""
        openings = [float(leaders[index]) for index in self._indices]
        if not openings or not np.isfinite(openings).all():
            return None
        if speed_rad_s > STILL_RAD_S:
            self._moved_ns = now_ns
        if self._kept is None:
            self._look_for_stroke(now_ns, openings)
        if self._kept is not None:
            self._follow_stroke(now_ns, openings, self._kept)
        if self._kept is not None or not self._count or now_ns - self._stroke_ns <= PAUSE_NS:
            return None
        found, self._count = (self._count, self._began_ns), 0
        return found if found[0] > 1 else None

    def _look_for_stroke(self, now_ns: int, openings: list[float]) -> None:
        recent = self._recent
        recent.append((now_ns, openings, now_ns - self._moved_ns > STILL_NS))
        while now_ns - recent[0][0] > TOGETHER_NS:
            recent.popleft()
        _, before, still = recent[0]
        if _all_apart(openings, before, STROKE) and (still or self._count):
            self._kept, self._away, self._changed_ns = before, False, now_ns
            self._began_ns = self._began_ns if self._count else now_ns - CHANGES_OVER_NS

    def _follow_stroke(self, now_ns: int, openings: list[float], kept: list[float]) -> None:
        over = [(now < SQUEEZED) != (then < SQUEEZED) for now, then in zip(openings, kept, strict=True)]
        if all(over) and not self._away:
            self._away, self._changed_ns = True, now_ns
        elif not any(over) and self._away:
            self._away, self._changed_ns, self._stroke_ns = False, now_ns, now_ns
            self._count += 1
        lasted_ns = now_ns - self._changed_ns
        back = self._changed_ns == self._stroke_ns and not _any_apart(openings, kept, BACK)
        if self._away and lasted_ns > STROKE_NS:
            self._count = 0
            self._end_stroke()
        elif not self._away and (back or lasted_ns > CHANGES_OVER_NS):
            self._end_stroke()

    def _end_stroke(self) -> None:
        self._kept = None
        self._recent.clear()


def _all_apart(first: Sequence[float], second: Sequence[float], by: float) -> bool:
    return all(abs(a - b) > by for a, b in zip(first, second, strict=True))


def _any_apart(first: Sequence[float], second: Sequence[float], by: float) -> bool:
    return any(abs(a - b) > by for a, b in zip(first, second, strict=True))
