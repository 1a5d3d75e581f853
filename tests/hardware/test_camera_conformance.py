"""What every camera backend promises (`hardware/base.py`). A new backend is one more function in `BACKENDS`.

Such a function is a generator: it yields a `Bench` and cleans up. Nothing here judges how fast a frame comes.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_sources import (
    FPS,
    HEIGHT,
    WIDTH,
    MjpegServer,
    MovingWorld,
    SoftwareRealSense,
    record_realsense,
    write_video,
)

from aloha_runtime.bus import Bus
from aloha_runtime.config import CameraConfig, load
from aloha_runtime.errors import AlohaError, HardwareError, SimulationError
from aloha_runtime.hardware import opencv, realsense
from aloha_runtime.hardware.opencv import OpenCVCamera
from aloha_runtime.hardware.realsense import RealSenseCamera
from aloha_runtime.realtime import WallClock
from aloha_runtime.run_directory import RunDirectory
from aloha_runtime.sim.camera import SimCamera

PATIENCE = 60
"""Reads of half a second before a frame counts as not coming, on a machine however busy."""


@dataclass
class Bench:
    """A camera that shows something red, and the means to take its source away and bring it back. `absent` is the same
    kind of camera, configured for a device that is not there, and `absent_words` must be in its error."""

    camera: Any
    shape: tuple[int, int, int]
    unplug: Callable[[], None]
    plug_in: Callable[[], None]
    absent: Any
    absent_words: tuple[str, ...]
    absent_error: type[AlohaError] = HardwareError


def config(**entries):
    return CameraConfig(**{"width": WIDTH, "height": HEIGHT, "fps": FPS, **entries})


def opencv_url(tmp_path):
    server = MjpegServer()
    missing = "http://127.0.0.1:9/stream.mjpg"
    try:
        yield Bench(
            OpenCVCamera("cam_test", config(type="opencv", device=server.url)),
            (HEIGHT, WIDTH, 3),
            server.stop,
            server.start,
            OpenCVCamera("cam_gone", config(type="opencv", device=missing)),
            (missing, "cannot be opened"),
        )
    finally:
        server.stop()


def opencv_file(tmp_path):
    path, away = tmp_path / "video.mp4", tmp_path / "away.mp4"
    write_video(path, 8)
    missing = str(tmp_path / "missing.mp4")
    yield Bench(
        OpenCVCamera("cam_test", config(type="opencv", device=str(path))),
        (HEIGHT, WIDTH, 3),
        lambda: path.rename(away),
        lambda: away.rename(path),
        OpenCVCamera("cam_gone", config(type="opencv", device=missing)),
        (missing, "present are:"),
    )


def realsense_recording(tmp_path):
    path, away = tmp_path / "recording.db3", tmp_path / "away.db3"
    record_realsense(path, 12)
    missing = str(tmp_path / "missing.db3")
    yield Bench(
        RealSenseCamera("cam_test", config(type="realsense", serial=str(path))),
        (HEIGHT, WIDTH, 3),
        lambda: path.rename(away),
        lambda: away.rename(path),
        RealSenseCamera("cam_gone", config(type="realsense", serial=missing)),
        (missing, "no recording"),
    )


def realsense_software_device(tmp_path):
    source, plugged = SoftwareRealSense(), [True]

    def open_device():
        if not plugged[0]:
            raise HardwareError("cam_test: unplugged")
        return source.device

    def unplug():
        plugged[0] = False
        source.stop()

    def plug_in():
        plugged[0] = True
        source.start()

    source.start()
    try:
        yield Bench(
            RealSenseCamera("cam_test", config(type="realsense", serial="software"), open_device),
            (HEIGHT, WIDTH, 3),
            unplug,
            plug_in,
            RealSenseCamera("cam_gone", config(type="realsense", serial="123456789012")),
            ("123456789012", "connected are:"),
        )
    finally:
        source.stop()


def simulated(tmp_path):
    parent = Path(tempfile.mkdtemp(prefix="aloha-test-"))  # tmp_path is too long for sockets
    run_dir = RunDirectory(parent / "run")
    rig = load("sim")
    world = MovingWorld(run_dir.path)
    try:
        with Bus(run_dir.path, WallClock()) as bus:
            world.start()
            yield Bench(
                SimCamera("cam_high", rig.cameras["cam_high"], rig, bus, WallClock()),
                (120, 160, 3),
                world.stop,
                world.start,
                SimCamera("cam_gone", rig.cameras["cam_high"], rig, bus, WallClock()),
                ("cam_high", "cam_low"),
                SimulationError,
            )
    finally:
        world.close()
        run_dir.cleanup()
        shutil.rmtree(parent)


BACKENDS = [opencv_url, opencv_file, realsense_recording, realsense_software_device, simulated]


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def bench(request, tmp_path, monkeypatch):
    monkeypatch.setattr(opencv, "REOPEN_S", 0.05)
    monkeypatch.setattr(realsense, "LOST_AFTER_S", 0.4)
    with contextlib.contextmanager(request.param)(tmp_path) as made:
        yield made
        made.camera.disconnect()


def next_frame(camera):
    for _ in range(PATIENCE):
        frame = camera.read(0.5)
        if frame is not None:
            return frame
    raise AssertionError("no frame came")


def read_until_none(camera):
    """Unplugged, a camera may have one or two frames on the way; then it has none."""
    for _ in range(PATIENCE):
        if camera.read(0.2) is None:
            return
    raise AssertionError("frames keep coming from a source that is gone")


def test_frames(bench):
    """Shape, type, colour order, increasing stamps on the monotonic clock, increasing sequence, no frame twice."""
    before_ns = time.monotonic_ns()
    bench.camera.connect()
    frames, arrivals_ns = [], []
    for _ in range(6):
        frames.append(next_frame(bench.camera))
        arrivals_ns.append(time.monotonic_ns())
    for frame in frames:
        assert frame.image.shape == bench.shape
        assert frame.image.dtype == np.uint8
        red, green, blue = frame.image.astype(int).transpose(2, 0, 1)
        assert (red - np.maximum(green, blue)).max() > 100, "red stays red"
        assert (blue - np.maximum(red, green)).max() < 60, "and does not become blue"
    stamps = [frame.stamp_ns for frame in frames]
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert all(before_ns < stamp <= arrival for stamp, arrival in zip(stamps, arrivals_ns, strict=True))
    sequences = [frame.sequence for frame in frames]
    assert all(earlier < later for earlier, later in pairwise(sequences))
    assert all((a.image != b.image).any() for a, b in pairwise(frames))


def test_images_are_the_readers_own(bench):
    """A frame that was handed out is not written again."""
    bench.camera.connect()
    frame = next_frame(bench.camera)
    copy = frame.image.copy()
    for _ in range(3):
        assert not np.shares_memory(frame.image, next_frame(bench.camera).image)
    assert np.array_equal(frame.image, copy)


def test_gone_and_back(bench):
    """None while the source is away, frames again when it is back, stamps and sequence still increasing."""
    bench.camera.connect()
    first = next_frame(bench.camera)
    bench.unplug()
    read_until_none(bench.camera)
    bench.plug_in()
    again = next_frame(bench.camera)
    assert again.stamp_ns > first.stamp_ns
    assert again.sequence > first.sequence


def test_connect_and_disconnect_in_any_order(bench):
    bench.camera.disconnect()
    assert bench.camera.read(0.01) is None
    bench.camera.connect()
    next_frame(bench.camera)
    bench.camera.connect()
    next_frame(bench.camera)
    bench.camera.disconnect()
    bench.camera.disconnect()
    assert bench.camera.read(0.01) is None
    bench.camera.connect()
    assert next_frame(bench.camera).image.shape == bench.shape


def test_absent_device(bench):
    """The error names the camera, the device asked for, and what is there."""
    with pytest.raises(bench.absent_error) as caught:
        bench.absent.connect()
    for word in ("cam_gone", *bench.absent_words):
        assert word in str(caught.value)
    assert bench.absent.read(0.01) is None
    bench.absent.disconnect()
