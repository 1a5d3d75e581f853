"""Camera frames on the bus: pixels in a shared-memory ring, or in the message itself (what rings are measured with)."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from aloha_runtime.bus import Bus, Closeable
from aloha_runtime.jpeg import jpeg_size
from aloha_runtime.messages import FrameInfo, Topic
from aloha_runtime.ring_memory import SLOTS, FrameView, Image, RingReader, RingWriter

if TYPE_CHECKING:
    from types import ModuleType

Inline = Literal["raw", "jpeg"]
MAX_FRAME_BYTES = 16 << 20
"""Largest message with inline pixels that a reader takes: more than a raw 1080p frame (6.2 MB)."""
INLINE_QUEUE_LIMIT = 8
"""Messages with pixels that a socket keeps, 7 MB at 640x480: a slow reader loses frames instead of memory."""
JPEG_QUALITY = 90
"""Percent; some 100 kB for a 640x480 frame."""


class FramePublisher:
    """Publishes one camera's frames. Each is copied once, into the ring; the message says where it is."""

    def __init__(
        self,
        bus: Bus,
        topic: Topic,
        shape: tuple[int, int, int],
        *,
        inline: Inline | None = None,
        slots: int = SLOTS,
    ) -> None:
        """`shape`: (height, width, 3). `inline`: put the pixels into the message instead of a ring.

        TransportError when the topic has a publisher already, or shared memory is full.
        """
        self._camera = topic.publisher.partition("@")[2]
        self._shape = shape
        self._inline = inline
        self._ring: RingWriter | None = None
        if inline:
            self._publisher = bus.publisher(topic, max_bytes=MAX_FRAME_BYTES, queue_limit=INLINE_QUEUE_LIMIT)
        else:
            self._publisher = bus.publisher(topic)
            self._ring = bus.own(RingWriter(bus.run_dir, self._camera, shape[:2], slots))

    def send(self, image: Image, stamp_ns: int) -> FrameInfo:
        """Publish a (height, width, 3) uint8 RGB frame; returns its message. ValueError for another shape or type."""
        if self._ring is not None:
            info = self._ring.write(image, stamp_ns, self._publisher.seq + 1)
        else:
            if image.shape != self._shape or image.dtype != np.uint8:
                raise ValueError(f"camera {self._camera}: {image.dtype} {image.shape} is not uint8 {self._shape}")
            info = FrameInfo(
                stamp_ns=stamp_ns,
                camera=self._camera,
                height=self._shape[0],
                width=self._shape[1],
                encoding=self._inline or "raw",
                pixels=_to_jpeg(image) if self._inline == "jpeg" else image.tobytes(),
            )
        self._publisher.send(info)
        return info


class FrameSubscriber(Closeable):
    """Reads one camera's frames, wherever their pixels are.

    `dropped` counts frames whose message was lost, `overwritten` those whose pixels were gone before they were read.
    """

    def __init__(self, bus: Bus, topic: Topic, depth: int = SLOTS) -> None:
        self.messages = bus.subscribe(topic, depth, max_bytes=MAX_FRAME_BYTES)
        """The topic itself, for `bus.wait_any`."""
        self._ring = RingReader()
        self.topic = topic
        self.latest = self.messages.latest
        self.fresh = self.messages.fresh
        self.drain = self.messages.drain
        self.wait = self.messages.wait
        self.age_ns = self.messages.age_ns

    @property
    def dropped(self) -> int:
        return self.messages.dropped

    @property
    def restarts(self) -> int:
        return self.messages.restarts

    @property
    def overwritten(self) -> int:
        return self._ring.overwritten

    def pixels(self, info: FrameInfo, out: Image | None = None) -> Image | None:
        """A copy of a frame's pixels, (height, width, 3) uint8 RGB, into `out` when given.

        None when they were overwritten meanwhile (counted), or when inline bytes are not a frame of this size.
        """
        if info.encoding == "ring":
            return self._ring.read(info, out)
        image = _decode(info)
        if image is None or out is None:
            return image
        np.copyto(out, image)
        return out

    def view(self, info: FrameInfo) -> FrameView | None:
        """A ring frame in place, without a copy: use it, then ask `valid()`. None when it is gone or in no ring."""
        return self._ring.view(info)

    def close(self) -> None:
        """Stop reading."""
        self.messages.close()
        self._ring.close()


def _opencv() -> "ModuleType":
    """OpenCV, loaded only where JPEG is really used: it costs every other process some 40 MB."""
    import cv2

    return cv2


def _to_jpeg(image: Image) -> bytes:
    cv2 = _opencv()
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, "OpenCV has no JPEG encoder"
    return bytes(data)


def _decode(info: FrameInfo) -> Image | None:
    shape = (info.height, info.width, 3)
    if info.encoding == "raw":
        data = np.frombuffer(info.pixels, np.uint8)
        return data.reshape(shape) if data.size == info.height * info.width * 3 else None
    if jpeg_size(info.pixels) != shape[:2]:
        return None
    cv2 = _opencv()
    image = cv2.imdecode(np.frombuffer(info.pixels, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) if image is not None and image.shape == shape else None
