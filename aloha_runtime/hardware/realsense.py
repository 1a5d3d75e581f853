"""Intel RealSense colour cameras (ALOHA 2: D405) through librealsense.

The colour sensor is opened directly, without a pipeline: one stream needs no synchroniser, and a live camera, a
recording and librealsense's software device then take the same way.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyrealsense2 as rs
from numpy.typing import NDArray

from aloha_runtime.config import CameraConfig
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import realsense_controls
from aloha_runtime.hardware.base import CameraFrame
from aloha_runtime.hardware.frame_stream import DeviceClock, FrozenWatch

RECORDING_SUFFIXES = (".db3", ".bag")
"""A `serial` with one of these endings names a recording by librealsense, which is played in its own time."""
LOST_AFTER_S = 1.0
"""Without a frame for so long the camera is taken for unplugged, and looked for at this interval."""
NS_PER_MS = 1_000_000


class RealSenseCamera:
    """One colour stream of a RealSense, found by its serial number.

    Stamps are the camera's own (exposure where the driver tells it, else start of transfer), mapped to the monotonic
    clock. An unplugged camera makes `read` return None until it is back; it is reopened by `read`.
    """

    def __init__(self, name: str, config: CameraConfig, open_device: Callable[[], Any] | None = None) -> None:
        """`open_device` returns the `rs.device` to use; by default the one with the configured serial number."""
        self.name = name
        self._config = config
        self._open_device = open_device or (lambda: find_device(name, config.serial or ""))
        self._sensor: Any = None
        self._queue: Any = None
        self._wanted = False
        self._last_frame_s = 0.0
        self._device_clock = DeviceClock()
        self._frozen = FrozenWatch()
        self._sequence = 0
        self._number: int | None = None
        self.controls: dict[str, float] = {}

    @property
    def identical_frames(self) -> int:
        """How many frames in a row had the same pixels as the one before."""
        return self._frozen.identical

    def connect(self) -> None:
        """Open the sensor and start the stream; raises HardwareError naming what is there instead."""
        self.disconnect()
        self._start()
        self._wanted = True

    def read(self, timeout_s: float) -> CameraFrame | None:
        """The newest frame not returned before, waiting up to `timeout_s`; None when there is none."""
        deadline_s = time.monotonic() + timeout_s
        while self._wanted:
            if self._sensor is None:
                self._look_again(deadline_s)
            else:
                arrived, frame = self._queue.try_wait_for_frame(max(0, int(1e3 * (deadline_s - time.monotonic()))))
                if arrived and frame.get_frame_number() != self._number:
                    return self._convert(frame)
                if time.monotonic() - self._last_frame_s > LOST_AFTER_S:
                    self._stop()
            if time.monotonic() >= deadline_s:
                break
        return None

    def disconnect(self) -> None:
        """Stop the stream and release the camera. Harmless when not connected."""
        self._wanted = False
        self._stop()

    def _start(self) -> None:
        queue = rs.frame_queue(1)  # one place: a frame that nobody took gives way to a newer one
        try:
            device = self._open_device()
            sensor, profile = self._colour_profile(device)
            serial = self._config.serial or ""
            is_recording = serial.endswith(RECORDING_SUFFIXES)
            self.controls = realsense_controls.apply(self.name, serial, sensor, self._config.chosen(), is_recording)
            sensor.open(profile)
            try:
                sensor.start(queue)
            except RuntimeError:
                sensor.close()
                raise
        except RuntimeError as error:
            raise HardwareError(
                f"{self.name}: RealSense {self._config.serial} does not start: {error}. Close every other program that"
                f" uses it (realsense-viewer), or unplug it and plug it in again."
            ) from None
        self._device, self._sensor, self._queue = device, sensor, queue
        self._last_frame_s = time.monotonic()
        self._number = None

    def _stop(self) -> None:
        if self._sensor is not None:
            for step in (self._sensor.stop, self._sensor.close):
                with contextlib.suppress(RuntimeError):  # what an unplugged camera answers
                    step()
        self._device = self._sensor = self._queue = None
        self._last_frame_s = time.monotonic()

    def _look_again(self, deadline_s: float) -> None:
        """Reopen a lost camera when it is time to; otherwise wait, at most until the deadline."""
        due_s = self._last_frame_s + LOST_AFTER_S
        time.sleep(max(0.0, min(due_s, deadline_s) - time.monotonic()))
        if time.monotonic() >= due_s:
            self._last_frame_s = time.monotonic()
            with contextlib.suppress(HardwareError):
                self._start()

    def _convert(self, frame: Any) -> CameraFrame:
        self._last_frame_s = time.monotonic()
        arrival_ns = time.monotonic_ns()
        number = frame.get_frame_number()
        follows = self._number is not None and number > self._number
        self._sequence += number - self._number if follows else 1
        self._number = number
        device_ns = int(frame.get_timestamp() * NS_PER_MS) - _exposure_lead_ns(frame)
        image: NDArray[np.uint8] = np.array(frame.get_data())
        self._frozen.look(image)
        return CameraFrame(self._device_clock.stamp_ns(device_ns, arrival_ns), image, self._sequence)

    def _colour_profile(self, device: Any) -> tuple[Any, Any]:
        """The sensor and stream profile of the configured picture; a D405 has colour in its stereo module."""
        config, modes = self._config, set()
        for sensor in device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != rs.stream.color or profile.format() != rs.format.rgb8:
                    continue
                video = profile.as_video_stream_profile()
                mode = (video.width(), video.height(), profile.fps())
                if mode == (config.width, config.height, config.fps):
                    return sensor, profile
                modes.add(mode)
        offered = ", ".join(f"{width}x{height} at {fps}" for width, height, fps in sorted(modes)) or "no colour picture"
        usb = _info(device, rs.camera_info.usb_type_descriptor)
        slow = f" It is connected as USB {usb}: use a USB 3 port and cable." if usb.startswith(("1", "2")) else ""
        raise HardwareError(
            f"{self.name}: RealSense {config.serial} gives no {config.width}x{config.height} picture at"
            f" {config.fps} fps; it offers {offered}. Set width, height and fps of {self.name} to one of these.{slow}"
        )


def find_device(camera: str, serial: str) -> Any:
    """The `rs.device` with a serial number, or the recording that `serial` names by its ending."""
    context = rs.context()
    if serial.endswith(RECORDING_SUFFIXES):
        if not Path(serial).is_file():
            raise HardwareError(f"{camera}: there is no recording {serial}. Check `serial` of {camera}.")
        try:
            return context.load_device(serial)
        except RuntimeError as error:
            raise HardwareError(f"{camera}: {serial} is no RealSense recording ({error}). Record it again.") from None
    present = {}
    for device in context.query_devices():
        present[_info(device, rs.camera_info.serial_number)] = device
    if serial in present:
        return present[serial]
    found = [f"{number} ({_info(device, rs.camera_info.name)})" for number, device in present.items()]
    raise HardwareError(
        f"{camera}: no RealSense with serial {serial} is connected; connected are: {', '.join(found) or 'none'}. Plug"
        f" it into a USB 3 port, or correct `serial` of {camera} (it is printed on the camera)."
    )


def _info(device: Any, item: Any) -> str:
    return str(device.get_info(item)) if device.supports(item) else ""


def _exposure_lead_ns(frame: Any) -> int:
    """How long before its time stamp a frame was exposed, from the sensor's metadata; 0 where the driver has none."""
    frame_us, sensor_us = rs.frame_metadata_value.frame_timestamp, rs.frame_metadata_value.sensor_timestamp
    if not (frame.supports_frame_metadata(frame_us) and frame.supports_frame_metadata(sensor_us)):
        return 0
    return max(0, int(frame.get_frame_metadata(frame_us)) - int(frame.get_frame_metadata(sensor_us))) * 1000
