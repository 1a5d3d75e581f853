"""The simulated rig as an environment: arms behind their safety gate, in virtual time, as a policy meets them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.robot import CONTROL_HZ, IS_GRIPPER, KITS, Kit, Vector
from aloha_runtime.sim import episode
from aloha_runtime.sim.env import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Cameras, Observation, as_action
from aloha_runtime.sim.model import Task
from aloha_runtime.sim.render import Image, Renderer
from aloha_runtime.sim.tasks import SUCCESS_STAGE
from aloha_runtime.sim.world import World

MAX_STEPS = 400
"""8 s: demonstrations take 5.4 s on average, and a policy may hesitate."""
START_OFFSET_RAD = 0.01
"""Arms start this much beside the start pose at most, as they do after a ramp."""
VIEW = "overview"
"""Camera of the pictures for people."""


class RigEnv:
    """A task on the rig (`sim/env.py` has the methods). States and actions are (14,) in the contract's convention."""

    def __init__(
        self, task: Task, cameras: Cameras | None = None, max_steps: int | None = None, kit: Kit = KITS["aloha"]
    ) -> None:
        """`cameras`: pictures wanted of the rig's cameras, cam_high at 640x480 unless given; {} draws none."""
        self.task = task
        self.max_steps = MAX_STEPS if max_steps is None else max_steps
        self.stage = 0
        self._kit, self._world = kit, World(task, kit=kit)
        wanted = {"cam_high": (480, 640)} if cameras is None else cameras
        self._cameras = {
            name: Renderer(self._world.model, width, height, name) for name, (height, width) in wanted.items()
        }
        self._views: dict[tuple[int, int], Renderer] = {}
        self._start(seed=0)

    def reset(self, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        self._start(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
        return self.observe(), {"is_success": False}

    def _start(self, seed: int) -> None:
        offset = np.random.default_rng([seed, 3]).uniform(-START_OFFSET_RAD, START_OFFSET_RAD, IS_GRIPPER.size)
        self._world.reset(seed, self._world.closed_start() + np.where(IS_GRIPPER, 0.0, offset))
        self._followers = episode.Followers(self._world)
        self._seed, self._steps, self.stage = seed, 0, 0

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        terminated, truncated = self.advance(action)
        return self.observe(), float(self.stage), terminated, truncated, {"is_success": terminated}

    def advance(self, action: Any) -> tuple[bool, bool]:
        self._followers.tick(as_action(action), episode.DELAY_CYCLES)
        self._steps += 1
        self.stage = self._world.stage()
        return self.stage == SUCCESS_STAGE, self._steps >= self.max_steps

    def observe(self) -> Observation:
        seen: Observation = {STATE: self.state().astype(np.float32)}
        seen[ENVIRONMENT_STATE] = self.environment_state().astype(np.float32)
        snapshot = self._world.snapshot()
        for name, camera in self._cameras.items():
            seen[IMAGE_PREFIX + name] = camera.render(snapshot)
        return seen

    def state(self) -> Vector:
        """(14,) float64, rad, grippers 0..1 of the finger's travel."""
        return self._followers.state()

    def environment_state(self) -> NDArray[np.float64]:
        """Poses (m, unit quaternion w x y z) of the cube (7,), or of peg and socket (14,)."""
        return self._world.environment_state()

    def render(self, width: int = 640, height: int = 480) -> Image:
        if (width, height) not in self._views:
            self._views[width, height] = Renderer(self._world.model, width, height, VIEW, report=True)
        return self._views[width, height].render(self._world.snapshot())

    def demonstrator(self) -> Callable[[], Vector]:
        """The scripted demonstration for the world as it now stands: each call gives the action of the next step."""
        act, _ = episode.demonstration(self._world, self._seed, self._kit)

        def action() -> Vector:
            time_s = self._steps / CONTROL_HZ
            return act(episode.Observation(time_s, self.state(), self.environment_state(), {}))

        return action

    def close(self) -> None:
        for renderer in (*self._cameras.values(), *self._views.values()):
            renderer.close()
