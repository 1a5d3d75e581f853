"""Pictures of the simulated world, rendered off-screen on the CPU.

Two qualities. The policy's is fast: no multisampling, no shadows, heavy meshes left out; a small picture is rendered at
twice its size and averaged down, which costs less than multisampling and looks the same. The report's draws everything.
"""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aloha_runtime.errors import SimulationError
from aloha_runtime.sim.gl import ensure_gl, mujoco
from aloha_runtime.sim.model import HEAVY_GROUP
from aloha_runtime.sim.world import Snapshot

SUPERSAMPLE_BELOW_WIDTH = 320
"""Pictures narrower than this are rendered at twice their size and averaged."""

Image = NDArray[np.uint8]


class Renderer:
    """One camera of a world: `render(snapshot)` gives a (height, width, 3) uint8 RGB picture.

    Belongs to the thread that made it (an OpenGL context does). Works on its own copy of the state, so it can show a
    world that lives in another process: give it a model built by `model.build_model` with the same arguments.

    Raises:
        SimulationError: no off-screen OpenGL here, or the model has no such camera.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int, camera: str, report: bool = False) -> None:
        ensure_gl()
        names = [model.camera(index).name for index in range(model.ncam)]
        if camera not in names:
            raise SimulationError(f"the simulated rig has no camera {camera!r}; it has: {', '.join(names)}")
        self._model, self._data, self._camera = model, mujoco.MjData(model), camera
        self._scale = 2 if width < SUPERSAMPLE_BELOW_WIDTH else 1
        self._renderer = mujoco.Renderer(model, height * self._scale, width * self._scale)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[HEAVY_GROUP] = report
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = report
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = report

    def render(self, snapshot: Snapshot) -> Image:
        """The picture at a snapshot: (height, width, 3) uint8, RGB."""
        return self.render_qpos(snapshot.qpos)

    def render_qpos(self, qpos: ArrayLike) -> Image:
        """The picture at generalised positions (nq,) of the model: (height, width, 3) uint8, RGB."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera, self._options)
        picture = self._renderer.render()
        if self._scale == 1:
            return np.asarray(picture, dtype=np.uint8).copy()
        return _halve(picture)

    def close(self) -> None:
        """Release the OpenGL context; the renderer cannot be used afterwards."""
        self._renderer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _halve(picture: Image) -> Image:
    """Mean of every 2 x 2 pixels, rounded: (2 H, 2 W, 3) to (H, W, 3)."""
    rows = picture[0::2].astype(np.uint16) + picture[1::2]
    return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
