"""A simulated camera: renders the world's published state, with the same protocol as a real one."""

import os

import numpy as np

from aloha_runtime import messages
from aloha_runtime.bus import Bus
from aloha_runtime.config import CameraConfig, RigConfig
from aloha_runtime.hardware.base import CameraFrame
from aloha_runtime.messages import SimState
from aloha_runtime.realtime import NS_PER_S, Clock, Pacer
from aloha_runtime.robot import KITS, TICK_NS
from aloha_runtime.sim.model import build_model
from aloha_runtime.sim.render import Image, Renderer
from aloha_runtime.sim.world import Snapshot

RENDER_LEAD_NS = 14 * messages.MS
"""Exposures come this long before a 50 Hz tick (at 50 fps): the picture (9 ms) is just ready when the tick asks."""


class SimCamera:
    """One camera of the simulated world, `fps` exposures a second of the newest state that the world has published."""

    def __init__(self, name: str, config: CameraConfig, rig: RigConfig, bus: Bus, clock: Clock) -> None:
        self.name = name
        self._config = config
        self._rig = rig
        self._clock = clock
        self._states = bus.subscribe(messages.SIM_STATE)
        self._pacer = Pacer(clock, NS_PER_S // config.fps, phase_ns=TICK_NS - RENDER_LEAD_NS)
        self._sequence = 0
        self._shown_ns = 0
        self._renderer: Renderer | None = None

    def connect(self) -> None:
        """Make the off-screen renderer. Raises SimulationError when there is no OpenGL or no such camera."""
        assert self._rig.sim is not None, "a sim camera needs a rig with `sim:`; config.py refuses anything else"
        kit = KITS[self._rig.kit].follower_gripper
        self.disconnect()
        model = build_model(self._rig.sim.task, kit, self._rig.current_ma(), heavy_meshes=False)
        # Mesa draws in this thread: helpers of its own would not have its priority, and cost more than they gain.
        os.environ.setdefault("LP_NUM_THREADS", "0")
        # Buffers for shadows (67 MB) and for the largest report picture are not for a policy's small one.
        model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = 2 * max(self._config.width, self._config.height)
        self._renderer = Renderer(model, self._config.width, self._config.height, self.name)

    def read(self, timeout_s: float) -> CameraFrame | None:
        """The picture of the newest state at the next exposure; None when the world has published nothing new."""
        deadline_ns = self._clock.now_ns() + int(timeout_s * NS_PER_S)
        while self._renderer is not None and self._clock.now_ns() < deadline_ns:
            self._pacer.wait()
            state: SimState | None = self._states.latest()
            if state is not None and state.stamp_ns > self._shown_ns:
                self._shown_ns = state.stamp_ns
                self._sequence += 1
                return CameraFrame(state.stamp_ns, _picture(self._renderer, state), self._sequence)
        return None

    @property
    def controls(self) -> dict[str, float]:
        """A simulated camera has none."""
        return {}

    @property
    def identical_frames(self) -> int:
        """A simulated scene that stands still looks the same to the last bit: 0."""
        return 0

    def disconnect(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _picture(renderer: Renderer, state: SimState) -> Image:
    nothing = np.zeros(0)
    return renderer.render(Snapshot(state.stamp_ns, np.asarray(state.qpos), nothing, nothing))
