"""USB cameras over V4L2, and for tests network streams and video files, through OpenCV.

OpenCV's reads block as long as the driver does, so a thread of its own takes the frames and keeps the newest; `read`
keeps its time limit whatever the camera does.
"""

import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aloha_runtime.config import CameraConfig
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import v4l2_controls
from aloha_runtime.hardware.base import CameraFrame
from aloha_runtime.hardware.frame_stream import FrozenWatch
from aloha_runtime.realtime import NS_PER_S

FIRST_FRAME_S = 5.0
"""A USB camera that starts streaming shows its first frame within about a second."""
REOPEN_S = 1.0
"""A lost camera is looked for at this interval."""
JOIN_S = 2.0
"""How long `disconnect` waits for the reading thread; a driver that blocks longer is left to it."""
STAMP_AGE_MAX_NS = NS_PER_S
"""A V4L2 stamp this old (or from the future) is not on the monotonic clock: such drivers get the time of arrival."""
V4L2_MANUAL_EXPOSURE = 1
V4L2_APERTURE_PRIORITY = 3
"""Values of V4L2_CID_EXPOSURE_AUTO; the second is what UVC cameras call automatic."""


class OpenCVCamera:
    """One camera named by a device path (`/dev/CAM_HIGH`, `/dev/v4l/by-id/...`), a URL, or a video file.

    A file is paced at the configured rate and starts over a second after its end. Stamps are the driver's where V4L2
    gives them (start of exposure or end of transfer, as the camera has it), else the time of arrival. A camera that is
    unplugged makes `read` return None until it is back.
    """

    def __init__(self, name: str, config: CameraConfig) -> None:
        self.name = name
        self._config = config
        self._source = config.device or ""
        self._kind = _kind(self._source)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._arrived = threading.Condition()
        self._newest: CameraFrame | None = None
        self._sequence = 0
        self._last_stamp_ns = 0
        self._frozen = FrozenWatch()
        self.controls: dict[str, float] = {}

    @property
    def identical_frames(self) -> int:
        """How many frames in a row had the same pixels as the one before."""
        return self._frozen.identical

    def connect(self) -> None:
        """Open the camera and wait for its first frame; raises HardwareError naming what is there instead."""
        self.disconnect()
        cv2.setNumThreads(1)  # converting colours takes 0.1 ms; a pool of threads would cost more than it saves
        capture = self._open()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(capture, self._stopping), name=f"camera {self.name}", daemon=True
        )
        self._thread.start()
        with self._arrived:
            shown = self._arrived.wait_for(lambda: self._newest is not None, FIRST_FRAME_S)
        if not shown:
            self.disconnect()
            raise HardwareError(
                f"{self.name}: {self._source} opened but showed no {self._config.width}x{self._config.height} picture"
                f" within {FIRST_FRAME_S:.0f} s. Unplug the camera and plug it in again, or use another USB port."
            )

    def read(self, timeout_s: float) -> CameraFrame | None:
        """The newest frame not returned before, waiting up to `timeout_s`; None when there is none."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._newest is not None, timeout_s)
            frame, self._newest = self._newest, None
        return frame

    def disconnect(self) -> None:
        """Stop the thread and release the camera. Harmless when not connected."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)
            self._thread = None
        with self._arrived:
            self._newest = None

    def _run(self, capture: Any, stopping: threading.Event) -> None:
        """The thread: frames as they come, and a lost camera looked for every `REOPEN_S`."""
        due_s = time.monotonic()
        while not stopping.is_set():
            if self._kind == "file":
                due_s = max(due_s + 1 / self._config.fps, time.monotonic())
                stopping.wait(due_s - time.monotonic())
            if capture is None:
                stopping.wait(REOPEN_S)
                capture = self._reopen()
            elif not self._take(capture, stopping):
                capture.release()
                capture = None
        if capture is not None:
            capture.release()

    def _take(self, capture: Any, stopping: threading.Event) -> bool:
        """Read one frame and show it; False when the camera is lost."""
        try:
            if not capture.grab():
                return False
            arrival_ns = time.monotonic_ns()
            driver_ns = int(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6) if self._kind == "v4l2" else 0
            decoded, picture = capture.retrieve()
        except cv2.error:
            return False
        if not decoded:  # a damaged JPEG: the next one may be whole
            return True
        if picture.shape != (self._config.height, self._config.width, 3):
            return False
        image: NDArray[np.uint8] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        self._frozen.look(image)
        stamp_ns = driver_ns if 0 <= arrival_ns - driver_ns < STAMP_AGE_MAX_NS else arrival_ns
        self._last_stamp_ns = max(stamp_ns, self._last_stamp_ns + 1)
        self._sequence += 1
        with self._arrived:
            if not stopping.is_set():
                self._newest = CameraFrame(self._last_stamp_ns, image, self._sequence)
                self._arrived.notify()
        return True

    def _reopen(self) -> Any:
        try:
            return self._open()
        except HardwareError:
            return None

    def _open(self) -> Any:
        if self._kind == "v4l2":
            return self._open_v4l2()
        if stated := list(self._config.chosen()):
            raise HardwareError(
                f"{self.name}: {self._source} is a {self._kind}, not a camera of this machine: `{stated[0]}` cannot be"
                f" set there. Leave it out of {self.name}."
            )
        if self._kind == "file" and not Path(self._source).is_file():
            raise self._absent()
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 3000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000]
        capture = cv2.VideoCapture(self._source, cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            raise HardwareError(
                f"{self.name}: {self._source} cannot be opened as video. Check that it is served and that {self.name}"
                f" names it rightly."
            )
        self._check_size(capture)
        return capture

    def _open_v4l2(self) -> Any:
        path = Path(self._source)
        if not path.exists():
            raise self._absent()
        if not os.access(path, os.R_OK | os.W_OK):
            raise HardwareError(f"{self.name}: no permission to use {path}. Add this user to the group `video`.")
        capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
        if not capture.isOpened():
            raise HardwareError(
                f"{self.name}: {path} is there but does not open as a camera: another program uses it, or it is a"
                f" camera's second node. Close the other program (`fuser {path}` names it); present are: {_present()}."
            )
        config = self._config
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*config.pixel_format))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
        capture.set(cv2.CAP_PROP_FPS, config.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not the oldest of four
        self._check_size(capture)
        self._check_mode(capture)
        self._set_control(capture, "focus", cv2.CAP_PROP_AUTOFOCUS, (1, 0), cv2.CAP_PROP_FOCUS, config.focus)
        automatic = (V4L2_APERTURE_PRIORITY, V4L2_MANUAL_EXPOSURE)
        self._set_control(
            capture, "exposure", cv2.CAP_PROP_AUTO_EXPOSURE, automatic, cv2.CAP_PROP_EXPOSURE, config.exposure
        )
        try:
            self.controls = v4l2_controls.apply(self.name, self._source, config.chosen())
        except HardwareError:
            capture.release()
            raise
        return capture

    def _absent(self) -> HardwareError:
        return HardwareError(
            f"{self.name}: there is no {self._source}; present are: {_present()}. Plug the camera in, or correct"
            f" `device` of {self.name}."
        )

    def _check_size(self, capture: Any) -> None:
        config = self._config
        size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        if size != (config.width, config.height):
            capture.release()
            raise HardwareError(
                f"{self.name}: {self._source} gives {size[0]}x{size[1]}, not {config.width}x{config.height}. Set width"
                f" and height of {self.name} to what the camera has (`v4l2-ctl --list-formats-ext`)."
            )

    def _check_mode(self, capture: Any) -> None:
        config = self._config
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
        fps = capture.get(cv2.CAP_PROP_FPS)
        if code != config.pixel_format or round(fps) != config.fps:
            capture.release()
            raise HardwareError(
                f"{self.name}: {self._source} gives {code} at {fps:g} fps, not {config.pixel_format} at {config.fps}."
                f" Set pixel_format and fps of {self.name} to what the camera has (`v4l2-ctl --list-formats-ext`)."
            )

    def _set_control(
        self, capture: Any, word: str, mode: int, values: tuple[int, int], control: int, wanted: int | None
    ) -> None:
        """Set a control by hand (`values[1]`), or leave it to the camera (`values[0]`) when nothing is configured."""
        if wanted is None:
            capture.set(mode, values[0])  # refused by cameras without the automatic, which is as well
            return
        capture.set(mode, values[1])
        if not capture.set(control, wanted) or int(capture.get(control)) != wanted:
            found = capture.get(control)
            capture.release()
            raise HardwareError(
                f"{self.name}: {self._source} did not take {word} {wanted}; it is {found:g}. Choose a value from"
                f" `v4l2-ctl -d {self._source} --list-ctrls`, or leave `{word}` of {self.name} out."
            )


def _kind(source: str) -> str:
    """ "url", "file" (an ordinary file) or "v4l2" (everything under /dev, present or not)."""
    if "://" in source:
        return "url"
    path = Path(source)
    is_device = source.startswith("/dev/") or (path.exists() and stat.S_ISCHR(path.stat().st_mode))
    return "v4l2" if is_device else "file"


def _present() -> str:
    """The cameras of this machine, by their stable names where udev made some."""
    found = sorted(Path("/dev/v4l/by-id").glob("*-index0")) or sorted(Path("/dev").glob("video*"))
    return ", ".join(str(path) for path in found) or "no camera at all"
