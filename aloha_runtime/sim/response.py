"""Step response of a simulated follower joint: how the world's servos lag, settle and saturate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.robot import DOF, NAMES, Vector
from aloha_runtime.sim.model import TIMESTEP_NS
from aloha_runtime.sim.world import World

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StepResponse:
    """One joint after a step of its goal at time 0, every 2 ms.

    `time_s`, `angle` (rad), `velocity` (rad/s) and `effort_ma` are (N,); `start` and `goal` (rad) are before and after.
    """

    joint: str
    start: float
    goal: float
    time_s: Array
    angle: Array
    velocity: Array
    effort_ma: Array

    def time_to(self, share: float) -> float:
        """Seconds until the joint has gone `share` of the way to where it ends."""
        way = (self.angle - self.start) / (self.angle[-1] - self.start)
        return float(self.time_s[int(np.argmax(way >= share))])

    @property
    def rise_s(self) -> float:
        """Seconds from 10 % to 90 % of the way."""
        return self.time_to(0.9) - self.time_to(0.1)

    @property
    def overshoot(self) -> float:
        """How far it went beyond where it ends, as a share of the way."""
        way = (self.angle - self.start) / (self.angle[-1] - self.start)
        return float(way.max() - 1.0)

    @property
    def steady_error(self) -> float:
        """Goal minus where it ends, rad: sag under load, gear friction."""
        return self.goal - float(self.angle[-1])


def step_response(
    world: World, joint: str, size_rad: float, duration_s: float = 1.0, base: Vector | None = None
) -> StepResponse:
    """Reset `world` with the goal at `base` (14,) (START_POSE, grippers closed) and step the goal of one joint.

    `joint` is one of `robot.NAMES`; `size_rad` may be negative.
    """
    index = NAMES.index(joint)
    goal = world.closed_start() if base is None else base.copy()
    world.reset(0, goal)
    start = float(world.angles()[index])
    goal[index] += size_rad
    world.command(goal, np.ones(DOF, dtype=bool))
    rows = []
    for number in range(1, round(duration_s * 1e9) // TIMESTEP_NS + 1):
        world.step(TIMESTEP_NS)
        seconds = number * TIMESTEP_NS * 1e-9
        rows.append((seconds, world.angles()[index], world.velocities()[index], world.efforts_ma()[index]))
    time_s, angle, velocity, effort_ma = np.array(rows).T
    return StepResponse(joint, start, float(goal[index]), time_s, angle, velocity, effort_ma)
