"""What the rig's processes publish, as the observation of a tick: the policy and the recorder look through this alone,
so that training sees what running sees."""

from collections.abc import Collection, Iterable

from aloha_runtime import messages
from aloha_runtime.bus import Bus, Closeable
from aloha_runtime.config import RigConfig
from aloha_runtime.control.sync import Missing, Observation, Synchroniser
from aloha_runtime.messages import ArmsState
from aloha_runtime.ring_memory import Image
from aloha_runtime.rings import FrameSubscriber
from aloha_runtime.robot import TICK_NS

STATES_DEPTH = 64
"""A third of a second of joint states may wait for the next tick."""
LOOKS_KEPT = 16
"""Ticks that are remembered: no frame ring reaches further back."""


class RigInputs(Closeable):
    """Subscribes to the followers and to some cameras of one rig."""

    def __init__(self, bus: Bus, rig: RigConfig, cameras: Iterable[str]) -> None:
        self.frames = {
            camera: FrameSubscriber(bus, messages.camera_topic(camera, rig.cameras[camera].fps)) for camera in cameras
        }
        self.followers = bus.subscribe(messages.FOLLOWERS, depth=STATES_DEPTH)
        self._looked: dict[int, Observation | Missing] = {}
        self.sync = Synchroniser({camera: rig.cameras[camera].max_age_ms for camera in self.frames})

    def poll(self) -> list[ArmsState]:
        """Take what has arrived; returns the new states of the followers."""
        states: list[ArmsState] = self.followers.drain()
        for state in states:
            self.sync.add_state(state)
        for camera, subscriber in self.frames.items():
            for info in subscriber.drain():
                self.sync.add_frame(camera, info.stamp_ns, info.valid, info)
        return states

    def look(self, tick: int) -> None:
        """Remember what is known of a tick now: `at` goes by it later, whatever has arrived by then."""
        self._looked[tick] = self.sync.observation(tick * TICK_NS)
        for old in [each for each in self._looked if each <= tick - LOOKS_KEPT]:
            del self._looked[old]

    def at(
        self, tick: int, without: Collection[str] = (), out: dict[str, Image] | None = None
    ) -> tuple[Observation, dict[str, Image]] | Missing:
        """What the robot knew at the start of a tick, with the pictures, (height, width, 3) uint8 RGB by camera.

        `without`: cameras that are not waited for. `out`: arrays by camera that the pictures are copied into.
        """
        found = self._looked.get(tick)
        if found is None or isinstance(found, Missing):  # not looked at in time; a camera's first frame may have come
            found = self.sync.observation(tick * TICK_NS, without)
        if isinstance(found, Missing):
            return found
        found = found.less(without)
        images: dict[str, Image] = {}
        for camera, info in found.frames.items():
            pixels = self.frames[camera].pixels(info, None if out is None else out[camera])
            if pixels is None:
                return Missing(f"{camera}: the frame was overwritten before it could be read", camera)
            images[camera] = pixels
        return found, images

    def close(self) -> None:
        """Stop listening."""
        for reader in (*self.frames.values(), self.followers):
            reader.close()
