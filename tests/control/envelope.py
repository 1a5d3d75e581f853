"""An independent judge of goals, and joints to drive: shares no code and no number with `aloha_runtime.control`.

Plain floats, one joint at a time, written from the safety promises: position limits are the servo table's ticks less
0.02 rad, then 2.5 rad/s, 30 rad/s^2 (braking ten times that), lead 0.24 rad; grippers -0.2..1.2, 5 and 100 per second,
lead 0.5. An arm joint whose goal was 0.217 rad away (full voltage) within 0.1 s may gain speed as fast as it brakes.
"""

import math
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-9
ROUNDING = 4e-15
"""Of the difference of two goals of a few rad; a speed over a very short cycle is uncertain by this over the cycle."""
TICKS = [(0, 4095), (841, 2867), (898, 3094), (0, 4095), (830, 3504), (0, 4095), None] * 2
FREED_NS = 100_000_000
STALL_S = 0.010
"""After a longer cycle the goal has stood still, so the speed before it may be shed."""


@dataclass
class Joint:
    low: float
    high: float
    velocity: float
    acceleration: float
    braking: float
    lead: float
    slack: float
    """So far outside its limits a goal may be found when torque goes on; it only comes in from there."""


def _joint(ticks: tuple[int, int] | None) -> Joint:
    if ticks is None:
        return Joint(-0.2, 1.2, 5.0, 100.0, 1000.0, 0.5, 0.0)
    low, high = ((tick - 2048) * 2 * math.pi / 4096 for tick in ticks)
    return Joint(low + 0.02, high - 0.02, 2.5, 30.0, 300.0, 0.24, 0.02)


JOINTS = [_joint(ticks) for ticks in TICKS]
LOW = np.array([joint.low for joint in JOINTS])
HIGH = np.array([joint.high for joint in JOINTS])


class Judge:
    """Looks at consecutive goals and raises AssertionError for the first one outside the envelope."""

    def __init__(self, now_ns: int, goal: np.ndarray) -> None:
        self.restart(now_ns, goal)

    def restart(self, now_ns: int, goal: np.ndarray) -> None:
        """The arms had no torque: the goal may have jumped."""
        self.now_ns, self.goal, self.speed = now_ns, list(goal), [0.0] * 14
        self.noise = 0.0
        self.led_ns = [-FREED_NS - 1] * 14
        """When each goal was last further away than 0.217 rad, which is all that a servo notices."""

    def look(self, now_ns: int, goal: np.ndarray, present: np.ndarray, stop: bool) -> None:
        """`present`: the joints at this goal; `stop`: speed may be shed at once, because motion was ended or paused."""
        dt = (now_ns - self.now_ns) * 1e-9
        noise = TOLERANCE + (ROUNDING / dt if dt > 0 else 0.0)
        uncertain = noise + self.noise
        for index, (joint, g, p) in enumerate(zip(JOINTS, map(float, goal), map(float, present), strict=True)):
            where = f"number {index} at {now_ns}: {self.goal[index]} -> {g}, present {p}"
            low, high = (bound(limit, self.goal[index]) for bound, limit in ((min, joint.low), (max, joint.high)))
            assert low - TOLERANCE <= g <= high + TOLERANCE, f"position, {where}"
            assert joint.low - joint.slack - TOLERANCE <= g <= joint.high + joint.slack + TOLERANCE, (
                f"position, {where}"
            )
            step = g - self.goal[index]
            if dt <= 0:
                assert step == 0.0, f"moved in no time, {where}"
                continue
            before, after = self.speed[index], step / dt
            assert abs(after) <= joint.velocity + noise, f"velocity {after}, {where}"
            gained = abs(before) if after * before > 0 else 0.0
            gain = joint.braking if self.now_ns - self.led_ns[index] < FREED_NS else joint.acceleration
            assert abs(after) <= gained + gain * dt + uncertain, f"speed {before} to {after}, {where}"
            at_lead = abs(abs(g - p) - joint.lead) < TOLERANCE or abs(self.goal[index] - p) >= joint.lead - TOLERANCE
            if index % 7 != 6 and abs(g - p) >= 0.217:
                self.led_ns[index] = now_ns
            if not (stop or at_lead or dt > STALL_S):
                shed = abs(before) - (abs(after) if after * before > 0 else 0.0)
                assert shed <= joint.braking * dt + uncertain, f"braked from {before} to {after}, {where}"
            further = abs(g - p) > abs(self.goal[index] - p) + TOLERANCE
            assert abs(g - p) <= joint.lead + TOLERANCE or not further, f"lead {g - p}, {where}"
            self.goal[index], self.speed[index] = g, after
        if dt > 0:
            self.now_ns, self.noise = now_ns, noise


class Servos:
    """Joints that follow their goals with a first-order lag (s), as position-controlled servos do."""

    def __init__(self, position: np.ndarray, lag_s: float = 0.04) -> None:
        self.position = np.array(position, dtype=float)
        self.lag_s = lag_s

    def move(self, goal: np.ndarray, dt_s: float) -> np.ndarray:
        self.position = self.position + (goal - self.position) * (1.0 - math.exp(-dt_s / self.lag_s))
        return self.position.copy()
