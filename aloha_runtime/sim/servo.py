"""What stands behind an emulated servo chain: the `Plant` protocol, and a self-contained plant of one arm.

Vectors are lists of 7 in the order of `robot.JOINTS`: motor angles in rad (the gripper as its motor), rad/s, mA.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.control.gravity import NM_PER_A
from aloha_runtime.robot import JOINTS, JOINTS_PER_ARM, SERVOS, START_POSE, ticks_to_rad

MAX_STEP_NS = 5_000_000
"""Integration step. The shortest time constant below is 40 ms: 5 ms lengthen it by 6 %."""
LAG_S = 0.06
"""Time constant of a position servo at the standard gain (P 800), loaded: a step settles to 5 % in 0.18 s."""
HAND_LAG_S = 0.04
"""A person's hand drags a limp leader arm along with little delay."""
NO_LOAD_RAD_S = tuple(3.14 if joint != "gripper" else 4.8 for joint in JOINTS)
"""No-load speed at 12 V: 30 rev/min for the XM540-W270, 46 rev/min for the XM430-W350 on the gripper (e-manual)."""
CURRENT_MA_PER_RAD = 4000.0
"""Current that a position error draws: full drive (2 A) at half a radian."""
STALL_MA = 2000.0
FRICTION_NM = 0.1
"""Of a joint: what Trossen's description of the arm says."""
DRAG_NM_S = 0.85
"""Nm per rad/s: stall torque of an XM430-W350 (4.1 Nm) over its no-load speed (4.8 rad/s), e-manual."""
_MASTERS = [servo for servo in SERVOS["leader"] if servo.shadow_of is None]
STOPS_RAD = [(ticks_to_rad(servo.min_tick), ticks_to_rad(servo.max_tick)) for servo in _MASTERS]
"""Where a falling joint stops: a leader's limits."""
SETTLED_RAD = 1e-6
"""A thousandth of a tick: a joint this near its goal is there."""


class PlantState(NamedTuple):
    """Motor angles (rad), velocities (rad/s) and currents (mA) of the 7 motors."""

    angles: Sequence[float]
    velocities: Sequence[float]
    currents_ma: Sequence[float]


class Plant(Protocol):
    """One arm's motors as the chain drives them."""

    def read(self, now_ns: int) -> PlantState:
        """The state at `now_ns`, which never goes back."""

    def command(
        self,
        now_ns: int,
        goals: Sequence[float],
        torque: Sequence[bool],
        limit_ma: Sequence[float],
        push_ma: Sequence[float],
    ) -> None:
        """Goal angles (7, rad), which motors go there (7), the current that each may draw (7, mA), and the current that
        those which do not are pushed with (7, mA)."""


Weight = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Torques (6,) in Nm that gravity exerts on the joints at angles (6,) rad."""
Hand = Callable[[], Sequence[float] | None]
"""Where a person holds the arm: 7 motor angles in rad, or None when nobody does."""


def no_hand() -> None:
    """Nobody holds the arm."""


class ServoPlant:
    """First-order position servos with a speed limit; joints without torque follow a person's hand, else stay.

    With a `weight`, joints that nobody holds fall, or go where the current of their motors pushes them. The
    demonstrator moves leaders by such a hand; tests use it for any arm. Deterministic in the sequence of calls.
    """

    def __init__(
        self, angles: Sequence[float] = (*START_POSE, 0.0), hand: Hand = no_hand, weight: Weight | None = None
    ) -> None:
        self.weight = weight
        self._push_ma = [0.0] * JOINTS_PER_ARM
        self.angles = [float(angle) for angle in angles]
        self.hand = hand
        self._velocities = [0.0] * JOINTS_PER_ARM
        self._currents = [0.0] * JOINTS_PER_ARM
        self._goals = list(self.angles)
        self._torque: list[bool] = [False] * JOINTS_PER_ARM
        self._limit_ma = [STALL_MA] * JOINTS_PER_ARM
        self._time_ns: int | None = None

    def command(
        self,
        now_ns: int,
        goals: Sequence[float],
        torque: Sequence[bool],
        limit_ma: Sequence[float],
        push_ma: Sequence[float],
    ) -> None:
        self._advance(now_ns)
        self._goals[:], self._torque[:], self._limit_ma[:], self._push_ma[:] = goals, torque, limit_ma, push_ma

    def read(self, now_ns: int) -> PlantState:
        self._advance(now_ns)
        return PlantState(self.angles, self._velocities, self._currents)

    def _advance(self, now_ns: int) -> None:
        if self._time_ns is None:
            self._time_ns = now_ns
        hand = self.hand()
        while self._time_ns < now_ns:
            step_ns = min(MAX_STEP_NS, now_ns - self._time_ns)
            if not self._step(step_ns * 1e-9, hand):
                self._time_ns = now_ns
                return
            self._time_ns += step_ns

    def _step(self, step_s: float, hand: Sequence[float] | None) -> bool:
        """Move every joint for `step_s`; False when nothing moves, so that a long idle time costs one step."""
        moving = False
        weights = self._weights() if hand is None and not all(self._torque) else None
        for index, goal in enumerate(self._goals):
            driven = self._torque[index]
            if driven:
                error, lag_s = goal - self.angles[index], LAG_S
            elif hand is not None:
                error, lag_s = hand[index] - self.angles[index], HAND_LAG_S
            elif weights is not None and index < len(weights):
                moving |= self._fall(index, weights[index], step_s)
                continue
            else:
                error = lag_s = 0.0
            if -SETTLED_RAD < error < SETTLED_RAD:
                self._velocities[index] = self._currents[index] = 0.0
                continue
            moving = True
            most, velocity = NO_LOAD_RAD_S[index], error / (lag_s + step_s)  # backward Euler: never overshoots
            velocity = most if velocity > most else -most if velocity < -most else velocity
            self._velocities[index] = velocity
            self.angles[index] += velocity * step_s
            limit, current = self._limit_ma[index] if driven else 0.0, error * CURRENT_MA_PER_RAD
            self._currents[index] = limit if current > limit else -limit if current < -limit else current
        return moving

    def _weights(self) -> Sequence[float] | None:
        return None if self.weight is None else self.weight(np.array(self.angles[:-1])).tolist()

    def _fall(self, index: int, weight_nm: float, step_s: float) -> bool:
        """Move a joint that nobody holds by its weight and its motors' current, as far as its stop."""
        torque = weight_nm + self._push_ma[index] * 1e-3 * NM_PER_A
        self._currents[index] = self._push_ma[index]
        driving = max(0.0, abs(torque) - FRICTION_NM)
        velocity = math.copysign(min(driving / DRAG_NM_S, NO_LOAD_RAD_S[index]), torque)
        before, (low, high) = self.angles[index], STOPS_RAD[index]
        self.angles[index] = min(max(before + velocity * step_s, min(low, before)), max(high, before))
        self._velocities[index] = (self.angles[index] - before) / step_s
        return self.angles[index] != before
