"""What the fuzzer throws at the gate: actions of every kind, modes, readings and a clock that stalls. Seeded."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from aloha_runtime.control.gate import Target
from aloha_runtime.control.limits import Limits
from aloha_runtime.messages import MOVING, MS, Mode, ModeHeartbeat
from aloha_runtime.robot import DOF, TICK_NS, Vector

HUGE = (1e9, -1e9, 1e300, -1e300, 1.7976931348623157e308, -1.7976931348623157e308, 2.0**63)
TINY = (5e-324, -5e-324, 2.2e-308, -0.0, 1e-16)
UNUSABLE: tuple[Any, ...] = (
    None,
    "waist",
    b"\xff" * 112,
    {},
    [],
    3.0,
    [0.0] * 13,
    [0.0] * 15,
    [[0.0] * 7] * 2,
    ["0"] * DOF,
    [True] * DOF,
    [1j] * DOF,
    [10**400] * DOF,
    [[0.0]] * 13 + [0.0],
    np.full((DOF, 1), 0.1),
)
"""Wrong shapes and types, as a message of another program might carry them."""
PERIODS_NS = (1, 5 * MS, TICK_NS, 2 * TICK_NS)
MODES = (*Mode, None)
PUSH_RAD_S = 6.0
"""How fast something may move a joint against its servo: what the driver still believes of a reading."""


class Fuzzer:
    """One run: a stream of cycles from one seed. Ask in this order: `tick`, `heartbeat`, `action`, `present`."""

    def __init__(self, seed: int, limits: Limits) -> None:
        self.chance = random.Random(seed)  # noqa: S311 — a test, no secret
        self.limits = limits
        self.now_ns = 10**12
        self._mode: Mode | None = Mode.IDLE
        self._order_ns = 0
        self._pose = ""
        self._left = 0
        self._make: Callable[[Vector], Any] = self._near
        self._newest_ns = 0
        self._phase = self.chance.uniform(0, 10)

    def tick(self) -> int:
        """Time of the next cycle (ns): 5 ms later but for jitter, stalls and a clock that stands still."""
        luck = self.chance.random()
        if luck < 0.9:
            step_ns = self.chance.randrange(4 * MS, 6 * MS)
        elif luck < 0.96:
            step_ns = self.chance.randrange(1, 20 * MS)
        elif luck < 0.99:
            step_ns = 0
        else:
            step_ns = self.chance.choice((30, 90, 300, 700)) * MS
        self.now_ns += step_ns
        return self.now_ns

    def heartbeats(self, wants_out: bool) -> list[ModeHeartbeat]:
        """What the supervisor says: mostly a mode that moves, armed again after something ended the motion
        (`wants_out`), now and then any other mode, or nothing."""
        chance = self.chance
        if chance.random() < 0.004:
            self._enter(chance.choice(MODES))
        elif (wants_out and chance.random() < 0.2) or (self._mode not in MOVING and chance.random() < 0.05):
            self._enter(chance.choice(MOVING) if self._mode is Mode.ARMED and not wants_out else Mode.ARMED)
        if self._mode is None:
            return []
        order_ns = self._order_ns
        beat = ModeHeartbeat(
            stamp_ns=self.now_ns, mode=self._mode, pose=self._pose, order_ns=order_ns, asked_ns=order_ns
        )
        return [beat]

    def _enter(self, mode: Mode | None) -> None:
        self._mode, self._order_ns = mode, max(self.now_ns, self._order_ns + 1)
        self._pose = self.chance.choice(("", "start")) if mode is Mode.ARMED else "sleep" if mode is Mode.PARK else ""

    def action(self, goal: Vector) -> Target:
        """The action of this cycle: its numbers of the kind that is on now, its stamps mostly good."""
        chance = self.chance
        if self._left <= 0:
            self._make = chance.choices(
                (self._swing, self._near, self._far, self._ends, self._odd, self._spoilt, self._unusable),
                (6, 4, 4, 4, 2, 1, 1),
            )[0]
            self._left = chance.randrange(1, 120) if self._make not in (self._spoilt, self._unusable) else 3
        self._left -= 1
        position = self._make(goal)
        stamp_ns, luck = self.now_ns, chance.random()
        if luck < 0.02:  # stale
            stamp_ns -= chance.randrange(40 * MS, 10_000 * MS)
        elif luck < 0.04:  # out of order, or the last one again
            stamp_ns = self._newest_ns - chance.choice((0, 1, 5 * MS, 10**12))
        elif luck < 0.05:  # of another clock
            stamp_ns += chance.choice((1, 19 * MS, 21 * MS, 10**18))
        elif luck < 0.06:
            stamp_ns = chance.choice((0, -1, -(10**18), 2**63))
        self._newest_ns = max(self._newest_ns, min(stamp_ns, self.now_ns))
        tick = self.now_ns // TICK_NS + chance.choice((0, 0, 0, 0, -1, 1, -1000, 10**9, -(10**12)))
        return Target(position, stamp_ns, tick, chance.choice(PERIODS_NS))

    def _swing(self, _goal: Vector) -> Vector:
        """A smooth motion between the ends of every joint, faster than allowed in most places."""
        low, high = self.limits.low, self.limits.high
        time_s = self.now_ns * 1e-9 + self._phase
        wave = np.sin(time_s * np.linspace(0.5, 12.0, DOF) + self._phase * np.arange(DOF))
        return np.asarray(low + (high - low) * (0.5 + 0.55 * wave))

    def _near(self, goal: Vector) -> Vector:
        return np.asarray(goal + self._noise(self.chance.choice((1e-6, 1e-3, 0.02, 0.1))))

    def _far(self, _goal: Vector) -> Vector:
        return self._noise(self.chance.choice((1.0, 4.0, 100.0)))

    def _ends(self, _goal: Vector) -> Vector:
        """From one end to the other and back, every cycle or every few."""
        turn = self.now_ns // (self.chance.choice((5, 10, 40)) * MS)
        return self.limits.low.copy() if turn % 2 else self.limits.high.copy()

    def _noise(self, size: float) -> Vector:
        chance = self.chance
        return np.array([chance.uniform(-size, size) for _ in range(DOF)])

    def _odd(self, goal: Vector) -> Vector:
        """Huge and denormal numbers in some places."""
        position = goal.copy()
        for _ in range(self.chance.randrange(1, DOF)):
            position[self.chance.randrange(DOF)] = self.chance.choice(HUGE + TINY)
        return position

    def _spoilt(self, goal: Vector) -> Vector:
        """A number that is none."""
        position = goal.copy()
        position[self.chance.randrange(DOF)] = self.chance.choice((math.nan, math.inf, -math.inf, -math.nan))
        return position

    def _unusable(self, _goal: Vector) -> Any:
        return self.chance.choice(UNUSABLE)


class Joints:
    """Fourteen joints that follow their goals as servos do, and are pushed, jerked and let go."""

    LAG_S, FASTEST_S = 0.06, np.where(np.arange(DOF) % 7 == 6, 12.0, 3.14)

    def __init__(self, chance: random.Random, limits: Limits) -> None:
        share = np.array([chance.uniform(0.02, 0.98) for _ in range(DOF)])
        self._chance, self._limits = chance, limits
        self.position = limits.low + share * (limits.high - limits.low)
        self._push = np.zeros(DOF)
        self._left = 0

    def move(self, goal: Vector | None, dt_s: float) -> Vector:
        """Position (14,) after `dt_s` under a goal; None: no torque."""
        chance = self._chance
        if goal is not None and dt_s > 0:
            step = (goal - self.position) * (1 - math.exp(-dt_s / self.LAG_S))
            most = self.FASTEST_S * dt_s
            self.position = self.position + np.minimum(np.maximum(step, -most), most)
        luck = chance.random()
        if luck < 0.002:  # somebody leans on a joint for a while
            self._left, self._push[:] = chance.randrange(1, 100), 0.0
            self._push[chance.randrange(DOF)] = chance.uniform(-PUSH_RAD_S, PUSH_RAD_S)
        elif luck < 0.003:  # a blow
            self.position[chance.randrange(DOF)] += chance.uniform(-0.6, 0.6)
        if self._left > 0:
            self._left -= 1
            self.position = self.position + self._push * min(dt_s, 0.02)
        self.position = np.minimum(np.maximum(self.position, self._limits.low - 0.3), self._limits.high + 0.3)
        return self.position
