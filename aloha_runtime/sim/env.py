"""Environments for evaluation, by name: what a policy acts in, step by step, in gymnasium's words.

    env = make_env("AlohaInsertion-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(policy.select_action(observation))
    info["is_success"]

Two kinds: gym-aloha's own (`gym_env.py`), and the simulated rig behind its safety gate (`rig_env.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.errors import SimulationError
from aloha_runtime.robot import DOF, Vector
from aloha_runtime.sim.model import TASKS, Task
from aloha_runtime.sim.render import Image

STATE, ENVIRONMENT_STATE, IMAGE_PREFIX = "observation.state", "observation.environment_state", "observation.images."

Observation = dict[str, NDArray[Any]]
"""`observation.state` (14,) float32, `observation.environment_state` (7,) or (14,) float32 and
`observation.images.NAME` (height, width, 3) uint8: names and units of a policy's inputs."""

Cameras = Mapping[str, tuple[int, int]]
"""`{name: (height, width)}` of the pictures in an observation."""

GYM_TASKS: dict[str, Task] = {"AlohaTransferCube-v0": "transfer_cube", "AlohaInsertion-v0": "insertion"}
"""gym-aloha's environments, and the same tasks as the simulated rig calls them."""


class Env(Protocol):
    """One task. A step is 20 ms; `stage`, 0 to 4, is the reward of the last one (`sim/tasks.py` says what it means)."""

    task: Task
    max_steps: int
    stage: int

    def reset(self, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start over with the objects where `seed` puts them: observation and `{"is_success": False}`."""

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated (solved), truncated (time is over), info with `is_success`."""

    def advance(self, action: Any) -> tuple[bool, bool]:
        """As `step`, but nothing is rendered: terminated, truncated."""

    def observe(self) -> Observation:
        """What a policy sees now."""

    def render(self, width: int = 640, height: int = 480) -> Image:
        """(height, width, 3) uint8 RGB for people to look at."""

    def demonstrator(self) -> Callable[[], Vector]:
        """The scripted demonstration from the state as it is: each call gives the action of the next step."""

    def close(self) -> None:
        """Free the OpenGL context; the environment cannot be used afterwards."""


def make_env(name: str, cameras: Cameras | None = None, max_steps: int | None = None) -> Env:
    """`AlohaTransferCube-v0` or `AlohaInsertion-v0` of gym-aloha, `transfer_cube` or `insertion` on the simulated rig.

    Raises:
        SimulationError: unknown name or camera, OpenGL or gym-aloha missing.
    """
    check_name(name)
    if name in TASKS:
        from aloha_runtime.sim.rig_env import RigEnv

        return RigEnv(name, cameras, max_steps)
    from aloha_runtime.sim.gym_env import GymEnv

    return GymEnv(name, cameras, max_steps)


def check_name(name: str) -> Task:
    """The task behind an environment's name, with or without `gym_aloha/`; SimulationError lists them all."""
    short = name.removeprefix("gym_aloha/")
    if short in GYM_TASKS:
        return GYM_TASKS[short]
    for task in TASKS:
        if name == task:
            return task
    raise SimulationError(
        f"no task {name!r}; gym-aloha has {', '.join(GYM_TASKS)}, the simulated rig {', '.join(TASKS)}"
    )


def as_action(action: Any) -> Vector:
    """(14,) float64 of an array or tensor on any device, (14,) or (1, 14); SimulationError for anything else."""
    if hasattr(action, "detach"):
        action = action.detach().cpu()
    numbers = np.asarray(action, dtype=np.float64)
    if numbers.shape not in ((DOF,), (1, DOF)) or not np.isfinite(numbers).all():
        raise SimulationError(f"an action is ({DOF},) finite numbers, this one has shape {numbers.shape}: {numbers}")
    return numbers.reshape(DOF)
