"""The simulated rig: MuJoCo world, off-screen cameras, tasks, scripted demonstrators, lock-step episodes."""

import os

# Without a choice mujoco tries to open a window when it is imported, and complains where there is no display. Physics
# needs no OpenGL; `gl.ensure_gl` chooses one before anything is rendered.
os.environ.setdefault("MUJOCO_GL", "disable")
