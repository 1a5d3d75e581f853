"""The OpenCV backend: real streams and files, and for the settings of V4L2 a stand-in for `cv2.VideoCapture`."""

import subprocess
import sys
import time
from typing import ClassVar

import cv2
import numpy as np
import pytest
from camera_sources import FPS, HEIGHT, WIDTH, MjpegServer, picture, write_video

from aloha_runtime.config import CameraConfig
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import opencv
from aloha_runtime.hardware.opencv import OpenCVCamera

DEVICE = "/dev/null"
"""A character device that is surely there; the stand-in below makes a camera of it."""


def config(**entries):
    return CameraConfig(**{"type": "opencv", "width": WIDTH, "height": HEIGHT, "fps": FPS, **entries})


class V4L2Capture:
    """What `cv2.VideoCapture` is on a V4L2 device, as far as the backend uses it. Records what was set, in order."""

    refused: ClassVar[dict[int, float]] = {}
    """Property -> the value it keeps whatever is set."""
    stamp_ms = None
    """The driver's stamp; None: the present monotonic time less 5 ms."""

    def __init__(self, path, api):
        self.opened_with = (path, api)
        self.values, self.order, self.released, self.frames = {}, [], False, 0
        V4L2Capture.last = self

    def isOpened(self):
        return True

    def set(self, prop, value):
        self.order.append(prop)
        self.values[prop] = self.refused.get(prop, value)
        return prop not in self.refused

    def get(self, prop):
        if prop == cv2.CAP_PROP_POS_MSEC:
            return time.monotonic_ns() / 1e6 - 5 if self.stamp_ms is None else self.stamp_ms
        return self.values.get(prop, 0.0)

    def grab(self):
        time.sleep(0.005)
        self.frames += 1
        return not self.released

    def retrieve(self):
        return True, cv2.cvtColor(picture(self.frames), cv2.COLOR_RGB2BGR)

    def release(self):
        self.released = True


@pytest.fixture
def v4l2(monkeypatch):
    monkeypatch.setattr(opencv.cv2, "VideoCapture", V4L2Capture)
    monkeypatch.setattr(V4L2Capture, "refused", {})
    return V4L2Capture


@pytest.fixture
def server():
    running = MjpegServer()
    yield running
    running.stop()


def test_v4l2_settings(v4l2):
    camera = OpenCVCamera("cam_high", config(device=DEVICE, focus=35, exposure=200, pixel_format="YUYV"))
    camera.connect()
    capture = v4l2.last
    frame = camera.read(5)
    camera.disconnect()
    assert capture.opened_with == (DEVICE, cv2.CAP_V4L2)
    assert capture.values == {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV"),
        cv2.CAP_PROP_FRAME_WIDTH: WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT: HEIGHT,
        cv2.CAP_PROP_FPS: FPS,
        cv2.CAP_PROP_BUFFERSIZE: 1,
        cv2.CAP_PROP_AUTOFOCUS: 0,
        cv2.CAP_PROP_FOCUS: 35,
        cv2.CAP_PROP_AUTO_EXPOSURE: opencv.V4L2_MANUAL_EXPOSURE,
        cv2.CAP_PROP_EXPOSURE: 200,
    }
    assert capture.order.index(cv2.CAP_PROP_FOURCC) == 0, "the format decides which sizes and rates there are"
    assert capture.order.index(cv2.CAP_PROP_AUTOFOCUS) < capture.order.index(cv2.CAP_PROP_FOCUS)
    assert capture.order.index(cv2.CAP_PROP_AUTO_EXPOSURE) < capture.order.index(cv2.CAP_PROP_EXPOSURE)
    assert capture.released
    assert tuple(frame.image[0, 0]) in {(200, 20, 20), (128, 128, 128)}


def test_controls_beyond_opencv_are_set_and_a_refusal_releases_the_camera(v4l2, monkeypatch):
    def apply(camera, path, chosen):
        if chosen["gain"] == 300:
            raise HardwareError(f"{camera}: {path} takes gain from 0 to 255")
        return dict(chosen)

    monkeypatch.setattr(opencv.v4l2_controls, "apply", apply)
    camera = OpenCVCamera("cam_high", config(device=DEVICE, exposure=200, gain=20))
    camera.connect()
    camera.disconnect()
    assert camera.controls == {"exposure": 200, "gain": 20}
    with pytest.raises(HardwareError, match=f"cam_high: {DEVICE} takes gain"):
        OpenCVCamera("cam_high", config(device=DEVICE, exposure=200, gain=300)).connect()
    assert v4l2.last.released


@pytest.mark.parametrize("stated", [{"white_balance_k": 4600}, {"focus": 5}])
def test_a_stream_whose_camera_is_elsewhere_takes_no_controls(server, stated):
    camera = OpenCVCamera("cam_high", config(device=server.url, **stated))
    with pytest.raises(HardwareError, match=f"is a url, not a camera of this machine: `{next(iter(stated))}` cannot"):
        camera.connect()


def test_v4l2_leaves_automatics_on_when_nothing_is_configured(v4l2):
    camera = OpenCVCamera("cam_high", config(device=DEVICE))
    camera.connect()
    camera.disconnect()
    assert v4l2.last.values[cv2.CAP_PROP_AUTOFOCUS] == 1
    assert v4l2.last.values[cv2.CAP_PROP_AUTO_EXPOSURE] == opencv.V4L2_APERTURE_PRIORITY
    assert not {cv2.CAP_PROP_FOCUS, cv2.CAP_PROP_EXPOSURE} & v4l2.last.values.keys()


@pytest.mark.parametrize(
    ("refused", "entries", "message"),
    [
        ({cv2.CAP_PROP_FRAME_WIDTH: 640.0}, {}, "gives 640x48, not 64x48"),
        ({cv2.CAP_PROP_FPS: 15.0}, {}, "MJPG at 15 fps, not MJPG at 30"),
        ({cv2.CAP_PROP_FOURCC: 0x56595559}, {}, "gives YUYV at 30 fps, not MJPG"),
        ({cv2.CAP_PROP_FOCUS: 0.0}, {"focus": 35}, "did not take focus 35; it is 0"),
        ({cv2.CAP_PROP_EXPOSURE: 156.0}, {"exposure": 5000}, "did not take exposure 5000; it is 156"),
    ],
)
def test_v4l2_settings_that_the_camera_does_not_take(v4l2, monkeypatch, refused, entries, message):
    monkeypatch.setattr(v4l2, "refused", refused)
    with pytest.raises(HardwareError, match=f"cam_high: {DEVICE} .*{message}"):
        OpenCVCamera("cam_high", config(device=DEVICE, **entries)).connect()
    assert v4l2.last.released


def test_driver_stamps_are_used_when_they_are_monotonic_time(v4l2, monkeypatch):
    camera = OpenCVCamera("cam_high", config(device=DEVICE))
    camera.connect()
    frame = camera.read(5)
    now_ns = time.monotonic_ns()
    camera.disconnect()
    assert frame.stamp_ns <= now_ns - 5_000_000
    for foreign in (0.0, 1.8e12):  # no stamp; wall-clock time
        monkeypatch.setattr(v4l2, "stamp_ms", foreign)
        before_ns = time.monotonic_ns()
        camera.connect()
        frame = camera.read(5)
        camera.disconnect()
        assert before_ns < frame.stamp_ns <= time.monotonic_ns()


def test_device_that_is_no_camera():
    with pytest.raises(HardwareError, match=rf"cam_high: {DEVICE} is there but does not open as a camera.*fuser"):
        OpenCVCamera("cam_high", config(device=DEVICE)).connect()


def test_absent_device_names_what_is_there():
    with pytest.raises(
        HardwareError, match=r"cam_high: there is no /dev/CAM_HIGH; present are: .*`device` of cam_high"
    ):
        OpenCVCamera("cam_high", config(device="/dev/CAM_HIGH")).connect()


def test_stream_of_another_size(server):
    camera = OpenCVCamera("cam_high", config(device=server.url, width=640, height=480))
    with pytest.raises(HardwareError, match=r"gives 64x48, not 640x480"):
        camera.connect()


def test_stream_that_shows_nothing(server, monkeypatch):
    monkeypatch.setattr(opencv, "FIRST_FRAME_S", 0.2)
    monkeypatch.setattr(OpenCVCamera, "_take", lambda self, capture, stopping: not stopping.wait(0.01))
    camera = OpenCVCamera("cam_high", config(device=server.url))
    with pytest.raises(HardwareError, match=r"opened but showed no 64x48 picture"):
        camera.connect()


def test_silent_stream_gives_none_and_goes_on(server):
    """A stream that stalls without ending: no frame, no blocking, and frames again when it goes on."""
    camera = OpenCVCamera("cam_high", config(device=server.url))
    camera.connect()
    server.playing.clear()
    assert any(camera.read(0.2) is None for _ in range(20))
    server.playing.set()
    assert any(camera.read(0.5) is not None for _ in range(60))
    camera.disconnect()


def test_only_the_newest_frame_waits(server):
    """A reader that comes late gets one frame, and the sequence tells how many it missed."""
    camera = OpenCVCamera("cam_high", config(device=server.url))
    camera.connect()
    first = camera.read(5)
    while camera._sequence < first.sequence + 5:
        time.sleep(0.01)
    late = camera.read(5)
    assert late.sequence >= first.sequence + 5
    camera.disconnect()


def test_frozen_stream_is_counted(server):
    server.frozen = True
    camera = OpenCVCamera("cam_high", config(device=server.url))
    camera.connect()
    while camera.identical_frames < 3:
        assert camera.read(5) is not None
    server.frozen = False
    while camera.identical_frames:
        assert camera.read(5) is not None
    camera.disconnect()


def test_file_shows_its_frames_in_order(tmp_path):
    write_video(tmp_path / "video.mp4", 40)
    camera = OpenCVCamera("cam_high", config(device=str(tmp_path / "video.mp4")))
    camera.connect()
    shown = []
    for _ in range(5):
        bar = np.abs(camera.read(5).image.astype(int) - 128).sum(axis=(0, 2))
        shown.append(int(np.argmin(bar)))
    camera.disconnect()
    assert shown == sorted(set(shown))


MEMORY = """
import sys
import psutil
from aloha_runtime.config import CameraConfig
from aloha_runtime.processes import camera as process
source = CameraConfig(type=sys.argv[1], device=sys.argv[2], serial=sys.argv[2], width=640, height=480, fps=30)
if sys.argv[1] == "opencv":
    from aloha_runtime.hardware.opencv import OpenCVCamera as Backend
    camera = Backend("cam_high", source)
    camera.connect()
    frames = [camera.read(5) for _ in range(20)]
    assert frames[-1] is not None
else:
    from aloha_runtime.hardware.realsense import RealSenseCamera as Backend
    from pyrealsense2 import context
    assert len(context().query_devices()) >= 0
print(psutil.Process().memory_info().rss)
"""


@pytest.mark.parametrize("backend", ["opencv", "realsense"])
def test_camera_process_is_small(backend, tmp_path):
    """Under 150 MB with the backend's library loaded and, for OpenCV, 640x480 frames flowing."""
    path = tmp_path / "video.mp4"
    write_video(path, 60, size=(480, 640))
    command = [sys.executable, "-c", MEMORY, backend, str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(finished.stdout) < 150_000_000
