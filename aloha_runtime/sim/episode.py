"""One episode in virtual time, in one process and in lock-step: as fast as the machine can, the same on any machine.

Every 20 ms tick: observe, ask the controller for an action, and let the gate move the followers' goals to it at 200 Hz
while the world passes. The state is in contract convention (gripper from the finger position), and so is the action
(gripper from the motor angle).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.control.gate import Gate, Target
from aloha_runtime.control.limits import default_limits
from aloha_runtime.control.teleop import follower_action
from aloha_runtime.robot import CONTROL_HZ, DOF, GRIPPER_INDEX, KITS, SIDES, TICK_NS, Kit, Vector
from aloha_runtime.sim.demonstrator import Demonstrator
from aloha_runtime.sim.model import Task
from aloha_runtime.sim.render import Image, Renderer
from aloha_runtime.sim.tasks import SUCCESS_STAGE
from aloha_runtime.sim.world import World

CYCLE_NS = 5_000_000
"""The arms process runs at 200 Hz."""
CYCLES_PER_TICK = TICK_NS // CYCLE_NS

DELAY_CYCLES = 2
"""An action reaches the arms this many cycles after the tick it was computed for: 10 ms of inference and transport."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """What a controller sees at a tick: time since the start (s), state (14,), object poses, images by camera."""

    time_s: float
    state: Vector
    environment_state: Array
    images: Mapping[str, Image]


Controller = Callable[[Observation], Vector]
"""Observation to action (14,) in contract convention."""


@dataclass(frozen=True)
class Episode:
    """A recorded episode of T ticks.

    `state`, `velocity` (rad/s), `effort` (mA) and `action` are (T, 14), `environment_state` (T, 7 or 14), `images` (T,
    height, width, 3) uint8 by camera, `stages` (T,) the task's stage after each tick.
    """

    task: Task
    seed: int
    state: Array
    velocity: Array
    effort: Array
    action: Array
    environment_state: Array
    images: dict[str, Image]
    stages: NDArray[np.int64]

    @property
    def success(self) -> bool:
        """Whether the task was ever solved, as the original counts it."""
        return bool((self.stages == SUCCESS_STAGE).any())

    @property
    def solved_at_end(self) -> bool:
        """Whether the task is still solved when the episode ends (contacts flicker, so half a second counts)."""
        return bool((self.stages[-25:] == SUCCESS_STAGE).any())


class Followers:
    """The followers of a world in contract convention, behind the same gate that guards the real ones."""

    def __init__(self, world: World) -> None:
        self._world, self._grippers = world, [world.grippers[side] for side in SIDES]
        self._now_ns = 0
        self._gate = Gate(default_limits(), self._present(), -CYCLE_NS)
        self._gate.follow(-CYCLE_NS)
        self._torque = np.ones(DOF, dtype=bool)
        self._sent: Target | None = None

    def state(self) -> Vector:
        """(14,) rad, grippers as openings of the finger position."""
        angles = self._world.angles()
        for gripper, index in zip(self._grippers, GRIPPER_INDEX, strict=True):
            angles[index] = gripper.state_from_angle(float(angles[index]))
        return angles

    def velocity(self) -> Vector:
        """(14,) rad/s, grippers in openings/s of the finger position."""
        angles, velocity = self._world.angles(), self._world.velocities()
        for gripper, index in zip(self._grippers, GRIPPER_INDEX, strict=True):
            span = gripper.position_open - gripper.position_close
            velocity[index] *= gripper.slope(float(angles[index])) / span
        return velocity

    def tick(self, action: Vector, delay_cycles: int) -> None:
        """Let one tick of 20 ms pass; `action` was computed at its start and arrives `delay_cycles` (0..3) later."""
        stamp_ns = self._now_ns
        for cycle in range(CYCLES_PER_TICK):
            if cycle == delay_cycles:
                self._sent = Target(action, stamp_ns)
            goal = self._gate.step(self._now_ns, self._present(), self._sent).goal
            for gripper, index in zip(self._grippers, GRIPPER_INDEX, strict=True):
                goal[index] = gripper.angle_from_action(float(goal[index]))
            self._world.command(goal, self._torque)
            self._world.step(CYCLE_NS)
            self._now_ns += CYCLE_NS

    def _present(self) -> Vector:
        """(14,) in action convention."""
        angles = self._world.angles()
        for gripper, index in zip(self._grippers, GRIPPER_INDEX, strict=True):
            angles[index] = gripper.action_from_angle(float(angles[index]))
        return angles


def demonstration(world: World, seed: int, kit: Kit = KITS["aloha"]) -> tuple[Controller, int]:
    """A controller that plays the scripted demonstration for the world as it stands, and its length in ticks."""
    demonstrator = Demonstrator(world.task, seed, world.object_poses(), kit)

    def act(observation: Observation) -> Vector:
        leaders = demonstrator.leader_angles(observation.time_s)
        for index in GRIPPER_INDEX:
            leaders[index] = kit.leader_gripper.action_from_angle(float(leaders[index]))
        return follower_action(leaders, held=leaders)

    return act, round(demonstrator.duration_s * 1e9) // TICK_NS


def run_episode(
    world: World,
    seed: int,
    controller: Controller,
    ticks: int,
    cameras: Mapping[str, Renderer] | None = None,
    disturbance: Array | None = None,
    delay_cycles: int = DELAY_CYCLES,
) -> Episode:
    """Let `controller` act for `ticks` ticks in a world that has just been reset with `seed`.

    `disturbance` (ticks, 14) is added to what the arms are told but not to what is recorded as action, as if something
    pushed them: the record then shows how to come back.
    """
    followers = Followers(world)
    names = ("state", "velocity", "effort", "action", "environment_state")
    rows: dict[str, list[Array]] = {name: [] for name in names}
    images: dict[str, list[Image]] = {name: [] for name in cameras or {}}
    stages = []
    for tick in range(ticks):
        snapshot = world.snapshot()
        for name, camera in (cameras or {}).items():
            images[name].append(camera.render(snapshot))
        observation = Observation(
            tick / CONTROL_HZ,
            followers.state(),
            world.environment_state(),
            {name: frames[-1] for name, frames in images.items()},
        )
        action = np.asarray(controller(observation), dtype=np.float64)
        measured = (observation.state, followers.velocity(), world.efforts_ma(), action, observation.environment_state)
        for name, value in zip(names, measured, strict=True):
            rows[name].append(value)
        followers.tick(action if disturbance is None else action + disturbance[tick], delay_cycles)
        stages.append(world.stage())
    return Episode(
        task=world.task,
        seed=seed,
        images={name: np.stack(frames) for name, frames in images.items()},
        stages=np.array(stages),
        **{name: np.stack(values) for name, values in rows.items()},
    )
