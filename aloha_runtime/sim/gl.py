"""Find an off-screen OpenGL for MuJoCo: EGL first (fastest on Mesa's CPU driver), then OSMesa.

MuJoCo reads `MUJOCO_GL` once, when it is first imported (its choice is made again here if that has happened), and a
missing library shows as three different exceptions (ImportError, AttributeError, or a fatal error inside Mesa), so each
backend is tried in a child process.
"""

import functools
import importlib
import os
import subprocess
import sys

from aloha_runtime.errors import SimulationError

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

    A `MUJOCO_GL` that the operator has set is the only one tried ("disable" is no choice). Call this before anything
    renders.

    Raises:
        SimulationError: no backend works; names the reasons and the command that installs one.
    """
    asked = os.environ.get("MUJOCO_GL", "disable")
    reasons = []
    for backend in BACKENDS if asked == "disable" else (asked,):
        reason = _probe(backend)
        if reason is None:
            os.environ["MUJOCO_GL"] = backend
            chosen = sys.modules.get("mujoco.rendering.classic.gl_context")
            if chosen is not None and backend != asked:
                importlib.reload(chosen)
            return backend
        reasons.append(f"{backend}: {reason}")
    remedy = f"install one with: {APT_COMMAND}" if asked == "disable" else f"unset MUJOCO_GL, which asks for {asked}"
    raise SimulationError(f"no off-screen OpenGL for the simulated cameras ({'; '.join(reasons)}); {remedy}")
