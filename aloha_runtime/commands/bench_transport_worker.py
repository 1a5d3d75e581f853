"""The processes of the transport benchmark: the writer, a reader, a participant in virtual time. Run as a module."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from aloha_runtime.bus import Bus, wait_any
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import MS, camera_topic
from aloha_runtime.realtime import NS_PER_S, Pacer, WallClock
from aloha_runtime.ring_memory import Image
from aloha_runtime.rings import FramePublisher, FrameSubscriber
from aloha_runtime.virtual_time import VirtualClock

CAMERAS = ("high", "low", "left", "right")
SHAPE = (480, 640, 3)
FPS = 60
IN_FLIGHT_NS = NS_PER_S // 4
"""How long after the end frames may still arrive: what is on its way is not lost."""
_PAGE = 4096
_INLINE_QUEUE = 8


class Window:
    """From when to when frames count, and this process's CPU time meanwhile."""

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self._start_ns, self._end_ns = start_ns, end_ns
        self._cpu_at: list[int] = []

    def counts(self, stamp_ns: int) -> bool:
        """Whether a frame handed over at this instant counts."""
        return self._start_ns <= stamp_ns < self._end_ns

    def open(self) -> bool:
        """Ask once a cycle: whether to go on, which is until frames on their way at the end have come."""
        now_ns = time.monotonic_ns()
        if now_ns >= (self._start_ns, self._end_ns, now_ns + 1)[len(self._cpu_at)]:
            self._cpu_at.append(time.process_time_ns())
        return now_ns < self._end_ns + IN_FLIGHT_NS

    @property
    def cpu_ns(self) -> int:
        before, after = self._cpu_at
        return after - before


def _write(way: str, run_dir: Path, window: Window) -> dict[str, Any]:
    """A frame of every camera each 1/60 s, as from cameras that are synchronised."""
    images = [np.random.default_rng(index).integers(0, 256, SHAPE, np.uint8) for index, _ in enumerate(CAMERAS)]
    clock = WallClock()
    sent = 0
    with Bus(run_dir, clock) as bus, zmq.Context() as context, context.socket(zmq.PUB) as socket:
        if way == "ring":
            publishers = [FramePublisher(bus, camera_topic(camera), SHAPE) for camera in CAMERAS]
        else:
            socket.setsockopt(zmq.SNDHWM, _INLINE_QUEUE * len(CAMERAS))
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(f"ipc://{run_dir}/frames.ipc")
        pacer = Pacer(clock, NS_PER_S // FPS)
        while window.open():
            pacer.wait()
            for camera, image in enumerate(images):
                stamp_ns = clock.now_ns()
                if way == "ring":
                    publishers[camera].send(image, stamp_ns)
                else:
                    socket.send(stamp_ns.to_bytes(8, "little"), zmq.SNDMORE)
                    socket.send(image.data)
                sent += window.counts(stamp_ns)
    return {"sent": sent, "cpu_ns": window.cpu_ns}


def _touch(image: Image) -> int:
    return int(image.reshape(-1)[::_PAGE].sum())


def _ring_frames(bus: Bus, window: Window) -> Iterator[int]:
    """Stamps of the frames that came and were whole while they were touched."""
    cameras = [FrameSubscriber(bus, camera_topic(camera)) for camera in CAMERAS]
    by_messages = {camera.messages: camera for camera in cameras}
    while window.open():
        for messages in wait_any(by_messages, bus.clock.now_ns() + NS_PER_S // 10):
            for info in messages.drain():
                view = by_messages[messages].view(info)
                if view is not None:
                    _touch(view.image)
                    if view.valid():
                        yield view.stamp_ns


def _inline_frames(run_dir: Path, window: Window) -> Iterator[int]:
    """The same for two-part messages of stamp and pixels, which are used where ZeroMQ received them."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVHWM, _INLINE_QUEUE * len(CAMERAS))
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(f"ipc://{run_dir}/frames.ipc")
        while window.open():
            if socket.poll(100):
                stamp = socket.recv()
                pixels = socket.recv(copy=False)
                _touch(np.frombuffer(pixels.buffer, np.uint8).reshape(SHAPE))
                yield int.from_bytes(stamp, "little")


def _read(way: str, run_dir: Path, window: Window) -> dict[str, Any]:
    clock = WallClock()
    latencies_us = []
    with Bus(run_dir, clock) as bus:
        for stamp_ns in _ring_frames(bus, window) if way == "ring" else _inline_frames(run_dir, window):
            if window.counts(stamp_ns):
                latencies_us.append((clock.now_ns() - stamp_ns) / 1000)
    return {"latencies_us": latencies_us, "cpu_ns": window.cpu_ns}


def _participate(name: str, run_dir: Path) -> None:
    clock = VirtualClock(run_dir, name, timeout_s=60)
    with contextlib.suppress(TransportError):  # the server's end is the end
        while True:
            clock.sleep_until(clock.now_ns() + 5 * MS)


def main() -> None:
    """ROLE WAY RUN_DIR as arguments; start and end (ns) as a line on standard input once it has said that it is ready;
    its result as JSON on standard output. A participant just takes part, under the name in place of WAY."""
    role, way, run_dir = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if role == "participant":
        _participate(way, run_dir)
        return
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    start_ns, end_ns = sys.stdin.readline().split()
    window = Window(int(start_ns), int(end_ns))
    sys.stdout.write(json.dumps((_write if role == "writer" else _read)(way, run_dir, window)))


if __name__ == "__main__":
    main()
