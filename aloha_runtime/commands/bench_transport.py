"""Frames between processes: shared-memory rings against ZeroMQ ipc with the pixels inline, in one run.

Four cameras of 480x640x3 at 60 fps from one writer process to one and to two reader processes; a reader touches every
page of every frame. Latency runs from before the writer hands a frame over until a reader has touched it; CPU is that
of all threads of the processes. Run as a module, this file is the writer or a reader.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from aloha_runtime.bus import Bus, wait_any
from aloha_runtime.commands.bench import Row
from aloha_runtime.messages import MS, camera_topic
from aloha_runtime.realtime import NS_PER_S, Pacer, WallClock
from aloha_runtime.ring_memory import Image
from aloha_runtime.rings import FramePublisher, FrameSubscriber
from aloha_runtime.run_directory import RunDirectory

WAYS = ("ring", "inline")
CAMERAS = ("high", "low", "left", "right")
SHAPE = (480, 640, 3)
FPS = 60
ROUNDS = 2
"""Both ways take turns, so that whatever else the machine does falls on both."""
WARM_UP_NS = NS_PER_S
"""Between the processes being ready and the first frame that counts: subscriptions arrive, memory is touched."""
IN_FLIGHT_NS = NS_PER_S // 4
"""How long after the end frames may still arrive: what is on its way is not lost."""
_PAGE = 4096
_INLINE_QUEUE = 8


@dataclass
class Sums:
    """What was measured in all rounds of one way with one number of readers."""

    sent: int = 0
    received: int = 0
    cpu_ns: int = 0
    latencies_us: list[float] = field(default_factory=list)

    def cpu_ms_per_frame(self) -> float:
        return self.cpu_ns / MS / self.sent

    def lost_percent(self, readers: int) -> float:
        return 100 * (1 - self.received / (self.sent * readers))

    def latency_us(self, percent: int) -> float:
        return statistics.quantiles(self.latencies_us, n=100)[percent - 1]


def run(seconds: float) -> list[Row]:
    """Measure for `seconds` per way and number of readers; four times as long in all."""
    sums = {(way, readers): Sums() for way in WAYS for readers in (1, 2)}
    for _ in range(ROUNDS):
        for (way, readers), case in sums.items():
            _measure(way, readers, seconds / ROUNDS, case)
    rows = []
    for readers, text in ((1, "one reader"), (2, "two readers")):
        ring, inline = sums["ring", readers], sums["inline", readers]
        for percent in (50, 99):
            name = f"frame latency p{percent}, {text}"
            share = 1 / 3 if percent == 50 else None  # the tail is the machine's: it is shown, not judged
            rows.append(_row(name, "us", ring.latency_us(percent), inline.latency_us(percent), share))
        share = 2 / 3 if readers == 1 else None
        cpu = ring.cpu_ms_per_frame(), inline.cpu_ms_per_frame()
        rows.append(_row(f"CPU a frame, writer and {text}", "ms", *cpu, share))
        rows.append(_row(f"frames lost, {text}", "%", ring.lost_percent(readers), inline.lost_percent(readers), None))
    ring_adds, inline_adds = (sums[w, 2].cpu_ms_per_frame() - sums[w, 1].cpu_ms_per_frame() for w in WAYS)
    rows.append(_row("CPU a frame that the second reader adds", "ms", ring_adds, inline_adds, 1 / 4))
    return rows


def _row(name: str, unit: str, value: float, peer: float, share: float | None) -> Row:
    """A figure held against a share of the peer's."""
    goal = None if share is None else peer * share
    return Row(name, value, unit, peer, goal, None if goal is None else value <= goal)


def _measure(way: str, readers: int, seconds: float, sums: Sums) -> None:
    with tempfile.TemporaryDirectory(prefix="aloha-bench-") as parent, RunDirectory(Path(parent) / "run") as directory:
        children = [_start(role, way, directory.path) for role in ["writer", *["reader"] * readers]]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()  # it is ready
        start_ns = WallClock().now_ns() + WARM_UP_NS
        window = f"{start_ns} {start_ns + int(seconds * NS_PER_S)}\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write(window)
            child.stdin.flush()
        for child in children:
            result = json.loads(child.communicate()[0])
            sums.cpu_ns += result["cpu_ns"]
            sums.sent += result.get("sent", 0)
            sums.received += len(result.get("latencies_us", ()))
            sums.latencies_us += result.get("latencies_us", [])


def _start(role: str, way: str, run_dir: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "aloha_runtime.commands.bench_transport", role, way, str(run_dir)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class _Window:
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


def _write(way: str, run_dir: Path, window: _Window) -> dict[str, Any]:
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


def _ring_frames(bus: Bus, window: _Window) -> Iterator[int]:
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


def _inline_frames(run_dir: Path, window: _Window) -> Iterator[int]:
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


def _read(way: str, run_dir: Path, window: _Window) -> dict[str, Any]:
    clock = WallClock()
    latencies_us = []
    with Bus(run_dir, clock) as bus:
        for stamp_ns in _ring_frames(bus, window) if way == "ring" else _inline_frames(run_dir, window):
            if window.counts(stamp_ns):
                latencies_us.append((clock.now_ns() - stamp_ns) / 1000)
    return {"latencies_us": latencies_us, "cpu_ns": window.cpu_ns}


def main() -> None:
    """The writer or a reader: ROLE WAY RUN_DIR as arguments, start and end (ns) as a line on standard input when it has
    said that it is ready; its result as JSON on standard output."""
    role, way, run_dir = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    start_ns, end_ns = sys.stdin.readline().split()
    window = _Window(int(start_ns), int(end_ns))
    sys.stdout.write(json.dumps((_write if role == "writer" else _read)(way, Path(run_dir), window)))


if __name__ == "__main__":
    main()
