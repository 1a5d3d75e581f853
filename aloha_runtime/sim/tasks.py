"""The two tasks of the original ALOHA simulation: where objects start, and how far an episode has come.

Stages are the staged reward of the original tasks (`gym_aloha/tasks/sim.py`), 0 to 4:

| | transfer_cube | insertion |
|---|---|---|
| 1 | the right gripper touches the cube | both grippers touch their object |
| 2 | and the cube is off the table | and both objects are off the table |
| 3 | the left gripper touches the cube | the peg touches the socket in the air |
| 4 | and the cube is off the table | the peg touches the pin inside the socket |
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.sim.gl import mujoco
from aloha_runtime.sim.model import Task

SUCCESS_STAGE = 4

START_HEIGHT_M = 0.05
"""Objects are let go a little above the table and settle on it before the episode starts."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Object:
    """A free body of a task: its joint in the model, and where (m, in the world) its start is drawn from."""

    name: str
    joint: str
    x_range: Range
    y_range: Range


OBJECTS: dict[Task, tuple[Object, ...]] = {
    "transfer_cube": (Object("cube", "red_box_joint", (0.0, 0.2), (0.4, 0.6)),),
    "insertion": (
        Object("peg", "red_peg_joint", (0.1, 0.2), (0.4, 0.6)),
        Object("socket", "blue_socket_joint", (-0.2, -0.1), (0.4, 0.6)),
    ),
}

POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")


def environment_names(task: Task) -> list[str]:
    """Names of the numbers of `environment_state`: pose of every object, `cube_x` and so on."""
    return [f"{item.name}_{part}" for item in OBJECTS[task] for part in POSE]


FINGER = {"left": "vx300s_left/10_left_gripper_finger", "right": "vx300s_right/10_right_gripper_finger"}
"""The finger of each gripper whose contacts the original tasks count."""

SOCKET_WALLS = ("socket-1", "socket-2", "socket-3", "socket-4")


def draw_poses(task: Task, seed: int) -> dict[str, NDArray[np.float64]]:
    """Start pose of every object for a seed: position (m) and unit quaternion (w, x, y, z), (7,) each."""
    random = np.random.default_rng(seed)
    return {
        item.name: np.array(
            [random.uniform(*item.x_range), random.uniform(*item.y_range), START_HEIGHT_M, 1.0, 0.0, 0.0, 0.0]
        )
        for item in OBJECTS[task]
    }


Contacts = set[frozenset[str]]
"""Pairs of geoms that touch."""


def stage(task: Task, model: mujoco.MjModel, data: mujoco.MjData) -> int:
    """Stage of the task right now, 0 to 4, from the contacts of the last physics step."""
    contacts = {frozenset((model.geom(first).name, model.geom(second).name)) for first, second in data.contact.geom}
    return _transfer_stage(contacts) if task == "transfer_cube" else _insertion_stage(contacts)


def _touch(contacts: Contacts, one: str, *others: str) -> bool:
    return any(frozenset((one, other)) in contacts for other in others)


def _transfer_stage(contacts: Contacts) -> int:
    on_table = _touch(contacts, "table", "red_box")
    if _touch(contacts, FINGER["left"], "red_box"):
        return 3 if on_table else 4
    if _touch(contacts, FINGER["right"], "red_box"):
        return 1 if on_table else 2
    return 0


def _insertion_stage(contacts: Contacts) -> int:
    if _touch(contacts, "red_peg", "pin"):
        return 4
    lifted = not _touch(contacts, "table", "red_peg", *SOCKET_WALLS)
    if lifted and _touch(contacts, "red_peg", *SOCKET_WALLS):
        return 3
    if _touch(contacts, FINGER["right"], "red_peg") and _touch(contacts, FINGER["left"], *SOCKET_WALLS):
        return 2 if lifted else 1
    return 0
