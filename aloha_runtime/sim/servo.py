"""What stands behind an emulated servo chain: the `Plant` protocol, and a self-contained plant of one arm.

Vectors are lists of 7 in the order of `robot.JOINTS`: motor angles in rad (the gripper as its motor), rad/s, mA.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from aloha_runtime.robot import JOINTS, JOINTS_PER_ARM, SERVOS, START_POSE, Role, ticks_to_rad
from aloha_runtime.sim.weight import Stiffness, weight_torques

MAX_STEP_NS = 5_000_000
"""Integration step. The shortest time constant below is 40 ms: 5 ms lengthen it by 6 %."""
MAX_STEP_S = MAX_STEP_NS * 1e-9
LAG_S = 0.06
"""Time constant of a position servo at the standard gain (P 800), loaded: a step settles to 5 % in 0.18 s."""
HAND_LAG_S = 0.04
"""A person's hand drags a limp leader arm along with little delay."""
NO_LOAD_RAD_S = tuple(3.14 if joint != "gripper" else 4.8 for joint in JOINTS)
"""No-load speed at 12 V: 30 rev/min for the XM540-W270, 46 rev/min for the XM430-W350 on the gripper (e-manual)."""
STALL_MA = 2000.0
FRICTION_NM = 0.1
"""Of a joint: what Trossen's description of the arm says."""
FRICTION_RAD_S = 0.02
"""From this speed on the whole friction costs current."""
DRAG_NM_S = 0.85
"""Nm per rad/s: stall torque of an XM430-W350 (4.1 Nm) over its no-load speed (4.8 rad/s), e-manual."""
_MASTERS = [servo for servo in SERVOS["leader"] if servo.shadow_of is None]
STOPS_RAD = [(ticks_to_rad(servo.min_tick), ticks_to_rad(servo.max_tick)) for servo in _MASTERS]
"""Where a falling joint stops: a leader's limits."""
SETTLED_RAD = 1e-6
"""A thousandth of a tick: a joint this near its goal is there."""
WEIGHED_RAD = 1e-3
"""The weight is worked out again when a joint has moved this far; it changes the sag by less than 0.2 ticks."""


class Loop(NamedTuple):
    """What the registers make of a joint's position control. `gain`: P gain of its motors, 1 for 800; `integral`:
    share of the error (1/s) that the I gain adds to the goal; `output`: Goal_PWM, 1 for full voltage."""

    gain: float = 1.0
    integral: float = 0.0
    output: float = 1.0


STANDARD_LOOPS = (Loop(),) * JOINTS_PER_ARM


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
        loops: Sequence[Loop],
    ) -> None:
        """Goal angles (7, rad), which motors go there (7), the current that each may draw (7, mA), the current that
        those which do not are pushed with (7, mA), and how those which do are controlled (7)."""


Hand = Callable[[], Sequence[float] | None]
"""Where a person holds the arm: 7 motor angles in rad, or None when nobody does."""


def no_hand() -> None:
    """Nobody holds the arm."""


class ServoPlant:
    """First-order position servos that sag under the arm's weight; joints without torque follow a person's hand.

    A position loop without I gain needs an error to carry a load, so a joint stands weight / stiffness beside its goal:
    2 to 3 degrees on a raised shoulder at P 800. `falls`: joints that nobody holds fall, or go where the current of
    their motors pushes them, else they stay. The demonstrator moves leaders by such a hand; tests use it for any arm.
    Deterministic in the sequence of calls. Left out: static friction, inertia but in the current of speeding up, the D
    and feedforward gains.
    """

    def __init__(
        self, role: Role, angles: Sequence[float] = (*START_POSE, 0.0), hand: Hand = no_hand, falls: bool = False
    ) -> None:
        self.falls = falls
        self.angles = [float(angle) for angle in angles]
        self.hand = hand
        self._role: Role = role
        self._stiffness = Stiffness(role)
        self._push_ma = [0.0] * JOINTS_PER_ARM
        self._velocities = [0.0] * JOINTS_PER_ARM
        self._currents = [0.0] * JOINTS_PER_ARM
        self._goals = list(self.angles)
        self._torque: list[bool] = [False] * JOINTS_PER_ARM
        self._limit_ma = [STALL_MA] * JOINTS_PER_ARM
        self._loops: list[Loop] = list(STANDARD_LOOPS)
        self._wound = [0.0] * JOINTS_PER_ARM
        """What the I gain has added to the goal, rad."""
        self._weights = [0.0] * JOINTS_PER_ARM
        self._weighed_at = [math.inf] * JOINTS_PER_ARM
        self._time_ns: int | None = None

    def command(
        self,
        now_ns: int,
        goals: Sequence[float],
        torque: Sequence[bool],
        limit_ma: Sequence[float],
        push_ma: Sequence[float],
        loops: Sequence[Loop] = STANDARD_LOOPS,
    ) -> None:
        self._advance(now_ns)
        self._goals[:], self._torque[:], self._limit_ma[:], self._push_ma[:] = goals, torque, limit_ma, push_ma
        self._loops[:] = loops

    def read(self, now_ns: int) -> PlantState:
        self._advance(now_ns)
        return PlantState(self.angles, self._velocities, self._currents)

    def sags(self) -> list[float]:
        """How far (7, rad) its weight moves each joint when it gets torque where it is, at a P gain of 800."""
        weights = [*weight_torques(self._role, self.angles), 0.0]
        return [weight / stiffness for weight, stiffness in zip(weights, self._stiffness.nm_per_rad, strict=True)]

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
        if True in self._torque or (self.falls and hand is None):
            self._weigh()
        for index in range(JOINTS_PER_ARM):
            if self._torque[index]:
                moving |= self._drive(index, step_s)
                continue
            self._wound[index] = 0.0
            if hand is not None:
                moving |= self._lead(index, hand[index], step_s)
            elif self.falls and index < JOINTS_PER_ARM - 1:
                moving |= self._fall(index, self._weights[index], step_s)
            else:
                self._velocities[index] = self._currents[index] = 0.0
        return moving

    def _weigh(self) -> None:
        """Work the weight out again when the arm has moved."""
        for angle, before in zip(self.angles, self._weighed_at, strict=True):
            if not -WEIGHED_RAD < angle - before < WEIGHED_RAD:
                self._weights[:-1] = weight_torques(self._role, self.angles)
                self._weighed_at[:] = self.angles
                return

    def _drive(self, index: int, step_s: float) -> bool:
        """Move a joint by its position control, against its weight."""
        gain, integral, output = self._loops[index]
        weight, before = self._weights[index], self._velocities[index]
        sag, lag_s = weight / (self._stiffness.nm_per_rad[index] * gain), LAG_S / gain
        error = self._goals[index] - self.angles[index]
        if integral:
            self._wound[index] += integral * error * step_s
        error += self._wound[index] + sag
        if -SETTLED_RAD < error < SETTLED_RAD:
            velocity = 0.0
        else:
            most, drift = NO_LOAD_RAD_S[index] * output, sag / lag_s
            velocity = error / (lag_s + step_s)  # backward Euler: never overshoots
            velocity = min(most + drift, max(drift - most, velocity))
            self.angles[index] += velocity * step_s
        torque = -weight
        if velocity * (velocity - before) > 0:  # back EMF brakes, at no cost
            torque += self._stiffness.inertia[index] * (velocity - before) / MAX_STEP_S
        torque += FRICTION_NM * min(1.0, max(-1.0, velocity / FRICTION_RAD_S))
        limit = self._limit_ma[index]
        self._currents[index] = min(limit, max(-limit, torque / self._stiffness.nm_per_ma[index]))
        self._velocities[index] = velocity
        return velocity != 0.0 or bool(integral)

    def _lead(self, index: int, held: float, step_s: float) -> bool:
        """Move a limp joint to where a person holds it."""
        error = held - self.angles[index]
        self._currents[index] = 0.0
        if -SETTLED_RAD < error < SETTLED_RAD:
            self._velocities[index] = 0.0
            return False
        most = NO_LOAD_RAD_S[index]
        self._velocities[index] = min(most, max(-most, error / (HAND_LAG_S + step_s)))
        self.angles[index] += self._velocities[index] * step_s
        return True

    def _fall(self, index: int, weight_nm: float, step_s: float) -> bool:
        """Move a joint that nobody holds by its weight and its motors' current, as far as its stop."""
        push_ma = self._push_ma[index]  # of all its motors together
        torque = weight_nm + push_ma * self._stiffness.nm_per_ma[index] / self._stiffness.motors[index]
        self._currents[index] = push_ma
        driving = max(0.0, abs(torque) - FRICTION_NM)
        velocity = math.copysign(min(driving / DRAG_NM_S, NO_LOAD_RAD_S[index]), torque)
        before, (low, high) = self.angles[index], STOPS_RAD[index]
        self.angles[index] = min(max(before + velocity * step_s, min(low, before)), max(high, before))
        self._velocities[index] = (self.angles[index] - before) / step_s
        return self.angles[index] != before
