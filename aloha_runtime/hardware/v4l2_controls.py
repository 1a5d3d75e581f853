"""Controls of a V4L2 camera for which OpenCV has no property, or no way to say what the camera answered.

Numbers and structures are those of linux/v4l2-controls.h and linux/videodev2.h. A second descriptor of the device may
set controls while OpenCV streams from the first.
"""

import errno
import fcntl
import os
import struct
from typing import Any, NamedTuple

from aloha_runtime.errors import HardwareError

_QUERY = struct.Struct("=II32siiiiI8x")
"""struct v4l2_queryctrl: id, type, name, minimum, maximum, step, default, flags."""
_CONTROL = struct.Struct("=Ii")
"""struct v4l2_control: id, value."""


def _iowr(number: int, size: int) -> int:
    """_IOWR('V', number, size) of asm-generic/ioctl.h."""
    return 3 << 30 | size << 16 | ord("V") << 8 | number


VIDIOC_G_CTRL, VIDIOC_S_CTRL = _iowr(27, _CONTROL.size), _iowr(28, _CONTROL.size)
VIDIOC_QUERYCTRL = _iowr(36, _QUERY.size)
DISABLED, READ_ONLY = 0x0001, 0x0004
"""Flags of a control."""
_USER, _CAMERA = 0x00980900, 0x009A0900
"""V4L2_CID_BASE, V4L2_CID_CAMERA_CLASS_BASE."""


class Control(NamedTuple):
    """A control, and how `v4l2-ctl --list-ctrls` calls it."""

    number: int
    name: str


AUTO_WHITE_BALANCE = Control(_USER + 12, "white_balance_automatic")
WHITE_BALANCE = Control(_USER + 26, "white_balance_temperature")
GAIN = Control(_USER + 19, "gain")
POWER_LINE = Control(_USER + 24, "power_line_frequency")
DYNAMIC_FRAMERATE = Control(_CAMERA + 3, "exposure_dynamic_framerate")
POWER_LINE_MENU = {0: 0, 50: 1, 60: 2}
"""Hz to V4L2_CID_POWER_LINE_FREQUENCY_*, which is also librealsense's number for it."""


def wanted(chosen: dict[str, Any]) -> list[tuple[str, Control, int]]:
    """Keys of the rig file with the controls that they stand for and the values to set, in the order of setting."""
    found = []
    if "gain" in chosen:
        found.append(("gain", GAIN, int(chosen["gain"])))
    if "white_balance_k" in chosen:
        found.append(("white_balance_k", AUTO_WHITE_BALANCE, 0))
        found.append(("white_balance_k", WHITE_BALANCE, int(chosen["white_balance_k"])))
    if "power_line_hz" in chosen:
        found.append(("power_line_hz", POWER_LINE, POWER_LINE_MENU[chosen["power_line_hz"]]))
    if "dynamic_framerate" in chosen:
        found.append(("dynamic_framerate", DYNAMIC_FRAMERATE, int(chosen["dynamic_framerate"])))
    return found


def apply(camera: str, path: str, chosen: dict[str, Any]) -> dict[str, float]:
    """Set what a rig file states; returns every control by V4L2's name as it was read back.

    White balance is made automatic where no value is stated, if the camera has it. Raises HardwareError naming the key,
    the control, and what the camera has or says instead.
    """
    orders = wanted(chosen)
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HardwareError(f"{camera}: {path} cannot be opened to set its controls: {error.strerror}.") from None
    try:
        if "white_balance_k" not in chosen and _described(device, AUTO_WHITE_BALANCE) is not None:
            _write(device, AUTO_WHITE_BALANCE, 1)
        return {control.name: _set(camera, path, device, key, control, value) for key, control, value in orders}
    finally:
        os.close(device)


def _set(camera: str, path: str, device: int, key: str, control: Control, value: int) -> int:
    """The value read back, which is the one asked for, or HardwareError."""
    remedy = f"Choose from `v4l2-ctl -d {path} --list-ctrls`, or leave `{key}` of {camera} out."
    found = _described(device, control)
    if found is None:
        raise HardwareError(f"{camera}: {path} has no control {control.name}, which `{key}` would set. {remedy}")
    least, most, step = found
    if not least <= value <= most or (value - least) % max(step, 1):
        raise HardwareError(
            f"{camera}: {path} takes {control.name} from {least} to {most} in steps of {step}, not {value} (`{key}`)."
            f" {remedy}"
        )
    why = _write(device, control, value)
    now = _read(device, control)
    if now != value:
        refused = f" ({why})" if why else ""
        raise HardwareError(
            f"{camera}: {path} did not take {control.name} {value} (`{key}`); it reads back {now}{refused}. {remedy}"
        )
    return now


def _described(device: int, control: Control) -> tuple[int, int, int] | None:
    """Least and greatest value and step; None for a control that is not there or cannot be set."""
    data = bytearray(_QUERY.pack(control.number, 0, b"", 0, 0, 0, 0, 0))
    try:
        fcntl.ioctl(device, VIDIOC_QUERYCTRL, data)
    except OSError:
        return None
    _, _, _, least, most, step, _, flags = _QUERY.unpack(data)
    return None if flags & (DISABLED | READ_ONLY) else (least, most, step)


def _read(device: int, control: Control) -> int | None:
    data = bytearray(_CONTROL.pack(control.number, 0))
    try:
        fcntl.ioctl(device, VIDIOC_G_CTRL, data)
    except OSError:
        return None
    return int(_CONTROL.unpack(data)[1])


def _write(device: int, control: Control, value: int) -> str:
    """Set it; why the driver refuses, empty when it does not."""
    try:
        fcntl.ioctl(device, VIDIOC_S_CTRL, bytearray(_CONTROL.pack(control.number, value)))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""
