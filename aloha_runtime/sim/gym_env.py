"""gym-aloha's own two environments, one camera rendered instead of three.

The environment is made by gymnasium from the installed `gym_aloha` package and keeps its physics, seeds, reward and end
of an episode. It draws three pictures of 480x640 at every step, of which it hands out one; here a picture is drawn when
it is asked for, by the same call, so it has the same pixels at a third of the cost (110 -> 40 ms a step on two cores).
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.errors import SimulationError
from aloha_runtime.robot import CONTROL_HZ, Vector
from aloha_runtime.sim.demonstrator import Demonstrator
from aloha_runtime.sim.env import (
    ENVIRONMENT_STATE,
    GYM_TASKS,
    IMAGE_PREFIX,
    STATE,
    Cameras,
    Observation,
    as_action,
)
from aloha_runtime.sim.gl import ensure_gl
from aloha_runtime.sim.render import Image
from aloha_runtime.sim.tasks import OBJECTS

MAX_STEPS = 300
"""gym-aloha's own limit: 6 s."""
HEIGHT, WIDTH = 480, 640
"""Size of its pictures; a smaller one is averaged down from it."""
CAMERA = "top"
"""The only camera in its observations; a policy with one camera of whatever name looks through it."""


AT_REST_M = {"cube": 0.020, "peg": 0.010, "socket": 0.022}
"""Height of each object's centre when it lies on the table."""


class GymEnv:
    """One of gym-aloha's environments. States and actions are (14,): joints in rad, grippers 0..1 of finger travel.

    A gripper's action is a position of the finger there, as its state is, and not of the motor as on the rig. `reset`,
    `step` and `render` are gymnasium's; `advance` steps without a picture. A seed gives the pose that gym-aloha gives.
    """

    def __init__(self, name: str, cameras: Cameras | None = None, max_steps: int | None = None) -> None:
        """`cameras`: `{name: (height, width)}` of the wanted pictures, `top` at 480x640 unless given; {} draws none.

        Raises:
            SimulationError: unknown environment or camera, too large a picture, gym-aloha or OpenGL missing.
        """
        name = name.removeprefix("gym_aloha/")
        if name not in GYM_TASKS:
            raise SimulationError(f"gym-aloha has no environment {name!r}; it has: {', '.join(GYM_TASKS)}")
        self.task = GYM_TASKS[name]
        self.max_steps = MAX_STEPS if max_steps is None else max_steps
        self._env = _make(name, self.max_steps)
        self._control = self._env.unwrapped._env  # dm_control's environment: physics and task
        self._control.task.get_observation = self._unseen
        self._cameras = self._sources({CAMERA: (HEIGHT, WIDTH)} if cameras is None else cameras)
        self._drawn: dict[str, Image] = {}  # pictures of this instant by camera
        self._seed = 0
        self.stage = 0
        """Reward of the last step, 0 to 4: how far the task is (`sim/tasks.py` has the same stages)."""

    def reset(self, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start over with the objects where `seed` puts them; observation and `{"is_success": False}`."""
        _, info = self._env.reset(seed=seed)
        self._seed = seed or 0
        self.stage = 0
        self._drawn.clear()
        return self.observe(), info

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """20 ms under `action` (14,): observation, reward 0..4, terminated (solved), truncated (time is over), info."""
        terminated, truncated = self.advance(action)
        return self.observe(), float(self.stage), terminated, truncated, {"is_success": terminated}

    def advance(self, action: Any) -> tuple[bool, bool]:
        """As `step` without looking: terminated, truncated. `stage` has the reward."""
        _, reward, terminated, truncated, _ = self._env.step(as_action(action))
        self.stage = int(reward)
        self._drawn.clear()
        return bool(terminated), bool(truncated)

    def observe(self) -> Observation:
        """What a policy sees now."""
        seen: Observation = {STATE: self.state().astype(np.float32)}
        seen[ENVIRONMENT_STATE] = self.environment_state().astype(np.float32)
        for name, (camera, height, width) in self._cameras.items():
            seen[IMAGE_PREFIX + name] = self.render(width, height, camera)
        return seen

    def state(self) -> Vector:
        """(14,) float64, rad and 0..1: gym-aloha's `agent_pos`."""
        return np.asarray(self._control.task.get_qpos(self._control.physics))

    def environment_state(self) -> NDArray[np.float64]:
        """Poses (m, unit quaternion w x y z) of the cube (7,), or of peg and socket (14,)."""
        return np.asarray(self._control.task.get_env_state(self._control.physics))

    def render(self, width: int = WIDTH, height: int = HEIGHT, camera: str = CAMERA) -> Image:
        """(height, width, 3) uint8 RGB: gym-aloha's own picture, averaged by area when a smaller one is asked for."""
        if camera not in self._drawn:
            self._drawn[camera] = self._control.physics.render(height=HEIGHT, width=WIDTH, camera_id=camera)
        picture = self._drawn[camera]
        if (height, width) == (HEIGHT, WIDTH):
            return picture.copy()
        import cv2

        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def demonstrator(self) -> Callable[[], Vector]:
        """The scripted demonstration from the start of an episode: each call gives the action of the next step."""
        poses = self.environment_state().reshape(-1, 7)
        objects = {item.name: pose.copy() for item, pose in zip(OBJECTS[self.task], poses, strict=True)}
        for name, pose in objects.items():
            pose[2] = AT_REST_M[name]  # it falls for the first moments
        plan = Demonstrator(self.task, self._seed, objects, servos_sag=False)
        times = itertools.count()
        return lambda: plan.targets(next(times) / CONTROL_HZ)

    def close(self) -> None:
        """Free the OpenGL context; the environment cannot be used afterwards."""
        self._control.physics.free()

    def _unseen(self, physics: Any) -> dict[str, Any]:
        """In place of gym-aloha's observation, which renders three cameras."""
        return {"qpos": self._control.task.get_qpos(physics), "images": {CAMERA: np.empty(0, np.uint8)}}

    def _sources(self, wanted: Cameras) -> dict[str, tuple[str, int, int]]:
        """Camera, height and width behind each wanted picture."""
        model = self._control.physics.model
        there = [model.id2name(index, "camera") for index in range(model.ncam)]
        sources = {}
        for name, (height, width) in wanted.items():
            camera = CAMERA if len(wanted) == 1 and name not in there else name
            if camera not in there:
                raise SimulationError(f"gym-aloha has no camera {name!r}; it has: {', '.join(there)}")
            if height > HEIGHT or width > WIDTH:
                raise SimulationError(
                    f"gym-aloha's pictures are {WIDTH}x{HEIGHT}, the policy wants {width}x{height} of {name!r}; "
                    "use a policy trained on smaller pictures"
                )
            sources[name] = (camera, height, width)
        return sources


def _make(name: str, max_steps: int) -> Any:
    """gymnasium's environment with gym-aloha's wrappers. OpenGL is chosen first: dm-control takes it when imported."""
    ensure_gl()
    try:
        import gym_aloha  # noqa: F401 - registers its environments
        import gymnasium
    except ImportError as error:
        raise SimulationError(
            f"gym-aloha's environments cannot be loaded ({error}); install them with: pip install 'aloha-runtime[sim]'"
        ) from error
    return gymnasium.make(
        f"gym_aloha/{name}",
        obs_type="pixels_agent_pos",
        max_episode_steps=max_steps,
        disable_env_checker=True,  # it would want the pictures that are not drawn
    )
