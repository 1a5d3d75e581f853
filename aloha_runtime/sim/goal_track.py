"""What the goal monitor knows of one servo: the envelope of its goals, and the goals it was given of late."""

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

from aloha_runtime import robot
from aloha_runtime.control.limits import Limits
from aloha_runtime.robot import SERVOS, Gripper, Role
from aloha_runtime.sim.torque_watch import TorqueWatch

TICKS_PER_TURN = 4096
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
CENTRE_TICK = 2048
"""The monitor's own figures, from the e-manual."""

MOVED_RAD = 0.01
BEGIN_S = 0.015
"""Three cycles from rest by the acceleration of the envelope: next to nothing for an arm's joint."""
RECENT = 4
"""Sightings of a servo against which the lead is judged: on a bad line the gate may have seen an older one."""
HISTORY = 256
"""Goals kept of each servo: a quarter second at 1 kHz."""


@dataclass(frozen=True)
class Bounds:
    """Envelope of one servo, in ticks and seconds."""

    joint: str
    low: float
    high: float
    velocity: float
    acceleration: float
    lead: float

    @property
    def first_step(self) -> float:
        """How far a goal may move while torque is switched on: 0.01 rad; a gripper may begin to move at once."""
        return max(MOVED_RAD / RAD_PER_TICK, self.acceleration * BEGIN_S**2 / 2)


def envelope(role: Role, limits: Limits, gripper: Gripper, side: robot.Side) -> dict[int, Bounds]:
    """Bounds by servo id, shadows included, from limits in contract units (rad, openings)."""
    bounds = {}
    for servo in SERVOS[role]:
        joint = robot.JOINTS.index(servo.joint)
        index = robot.SIDE_SLICE[side].start + joint
        low, high = float(limits.low[index]), float(limits.high[index])
        scale = 1 / RAD_PER_TICK
        if servo.joint == "gripper":
            span = gripper.angle_open - gripper.angle_close
            low, high = sorted(gripper.angle_close + share * span for share in (low, high))
            scale *= abs(span)
        rates = [float(rate[index]) * scale for rate in (limits.velocity, limits.acceleration, limits.lead)]
        ticks = [CENTRE_TICK + angle / RAD_PER_TICK for angle in (low, high)]
        bounds[servo.id] = Bounds(servo.joint, *ticks, *rates)
    return bounds


class GoalTrack:
    """What is known of one servo, and its goals of the last quarter second since its torque went on."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.torque = False
        self.mode = 3
        self.watchdog = 0
        """Bus_Watchdog as written, units of 20 ms."""
        self.switch = TorqueWatch()
        self.presents: deque[int] = deque(maxlen=RECENT)
        self.turned: list[int] = []
        """Where it may be since its torque went on: as before, within one turn, or a turn beside that."""
        self.turned_ns = 0
        self.far_ns = -(1 << 62)
        """When a goal was last so far away that the servo gave all it has."""
        self._stamps: list[int] = []
        self._goals: list[int] = []
        self._direction = 0

    def restart(self) -> None:
        """Forget goals: torque went on, or the goal was put where the arm is."""
        self._stamps, self._goals, self._direction, self.turned_ns = [], [], 0, 0

    def lose_torque(self) -> None:
        """The servo has restarted, or has switched its torque off: its RAM may be that of power-up."""
        self.torque, self.watchdog = False, 0
        self.switch.forget()

    def turn(self) -> None:
        """Torque goes on: the position may fall back into one turn, in which a Homing_Offset shifts the ends."""
        self.turned = []
        if self.presents:
            before = self.presents[-1]
            first = before % TICKS_PER_TURN
            self.turned = [before, first, first - TICKS_PER_TURN, first + TICKS_PER_TURN]
        self.presents.clear()

    def last(self) -> tuple[int, int] | None:
        """(stamp, goal) of the newest goal."""
        return (self._stamps[-1], self._goals[-1]) if self._goals else None

    def add(self, stamp_ns: int, tick: int) -> None:
        if self._goals:
            step = tick - self._goals[-1]
            direction = (step > 0) - (step < 0)
            if direction and direction != self._direction:
                if self._direction:
                    self.turned_ns = self._stamps[-1]
                self._direction = direction
        self._stamps.append(stamp_ns)
        self._goals.append(tick)
        if len(self._goals) > 2 * HISTORY:
            del self._stamps[:HISTORY], self._goals[:HISTORY]

    def before(self, stamp_ns: int) -> tuple[int, int] | None:
        """The newest goal that was there at `stamp_ns`."""
        at = bisect_right(self._stamps, stamp_ns) - 1
        return (self._stamps[at], self._goals[at]) if at >= 0 else None

    def runs_away(self, tick: int, bound: float) -> bool:
        """Whether a goal is further than `bound` from the servo and no nearer than the goal before, to one tick; by
        every recent sighting, since it is not known which of them the gate had heard of."""
        last = self._goals[-1] if self._goals else None
        return all(
            abs(tick - present) > bound and (last is None or abs(tick - present) > abs(last - present) + 1)
            for present in self.presents
        )
