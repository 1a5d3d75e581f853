"""MuJoCo, and an off-screen OpenGL for it: EGL first (fastest on Mesa's CPU driver), then OSMesa.

MuJoCo loads the OpenGL that `MUJOCO_GL` names when it is imported, where a missing library is a traceback, and without
a name tries to open a window. Physics needs none of that: the simulated rig takes `mujoco` from here, imported without
OpenGL, and `ensure_gl` chooses one before anything is rendered. A missing library shows as three different exceptions
(ImportError, AttributeError, or a fatal error inside Mesa), so each backend is tried in a child process.
"""

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from aloha_runtime.errors import SimulationError


@contextmanager
def _no_gl() -> Iterator[None]:
    asked = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"
    yield
    if asked is None:
        del os.environ["MUJOCO_GL"]
    else:
        os.environ["MUJOCO_GL"] = asked


with _no_gl():
    import mujoco

__all__ = ["ensure_gl", "mujoco"]

BACKENDS = ("egl", "osmesa")
PROBE_TIMEOUT_S = 60.0
"""A cold import of mujoco on a loaded machine takes several seconds; a hang is not waited for longer than this."""

APT_COMMAND = "sudo apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6"

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 8, 8)
renderer.update_scene(data)
renderer.render()
"""


def _probe(backend: str) -> str | None:
    """Why `backend` cannot render here, or None when it can."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)
    try:
        child = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {PROBE_TIMEOUT_S:.0f} s"
    if child.returncode == 0:
        return None
    lines = child.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with status {child.returncode}"


@functools.cache
def ensure_gl() -> str:
    """Choose a working off-screen OpenGL, set `MUJOCO_GL` for this process and its children, and name it.

    A `MUJOCO_GL` that the operator has set is the only one tried (empty or "disable" is no choice). Call this before
    anything renders.

    Raises:
        SimulationError: no backend works; names the reasons and the command that installs one.
    """
    asked = os.environ.get("MUJOCO_GL") or "disable"
    reasons = []
    for backend in BACKENDS if asked == "disable" else (asked,):
        reason = _probe(backend)
        if reason is None:
            os.environ["MUJOCO_GL"] = backend
            importlib.reload(importlib.import_module("mujoco.rendering.classic.gl_context"))
            return backend
        reasons.append(f"{backend}: {reason}")
    remedy = f"install one with: {APT_COMMAND}" if asked == "disable" else f"unset MUJOCO_GL, which asks for {asked}"
    raise SimulationError(f"no off-screen OpenGL for the simulated cameras ({'; '.join(reasons)}); {remedy}")
