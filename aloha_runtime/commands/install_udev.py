"""udev rules of a rig: a stable name for every adapter and camera whose serial number the rig file has."""

import re
from collections.abc import Iterator
from pathlib import Path
from string import Template

from aloha_runtime.config import CameraConfig, RigConfig
from aloha_runtime.errors import ConfigError

TEMPLATES = Path(__file__).resolve().parents[1] / "udev"
RULES = "60-aloha.rules"
REALSENSE_VENDOR = "8086"
"""Intel, as the RealSense cameras still say."""
SYSTEM_NAMES = ("/dev/input/", "/dev/serial/", "/dev/ttyUSB", "/dev/ttyACM", "/dev/ttyS")
"""Names that the system gives by itself."""


def rules(rig: RigConfig) -> str:
    """Content of the rules file. A device without a serial number in the rig file gets no rule."""
    lines = [*_adapters(rig), *_cameras(rig), *_stop_input(rig)]
    return Template((TEMPLATES / RULES).read_text()).substitute(rig=rig.name, rules="\n".join(lines))


def _adapters(rig: RigConfig) -> Iterator[str]:
    for arm in rig.arms.values():
        if arm.serial is not None:
            yield (
                f'SUBSYSTEM=="tty", ATTRS{{serial}}=="{arm.serial}", SYMLINK+="{_link(arm.port)}", '
                'ENV{ID_MM_DEVICE_IGNORE}="1", ATTR{device/latency_timer}="1", GROUP="dialout", MODE="0660"'
            )


def _cameras(rig: RigConfig) -> Iterator[str]:
    for camera in rig.cameras.values():
        if _named_by_udev(camera):
            # A camera shows several devices; index 0 has the pictures.
            yield (
                f'SUBSYSTEM=="video4linux", ATTRS{{serial}}=="{camera.serial}", ATTR{{index}}=="0", '
                f'SYMLINK+="{_link(camera.device or "")}", GROUP="video", MODE="0660"'
            )
    if any(camera.type == "realsense" for camera in rig.cameras.values()):
        yield f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{REALSENSE_VENDOR}", GROUP="video", MODE="0660"'


def _stop_input(rig: RigConfig) -> Iterator[str]:
    """The physical stop: readable by its group, and a serial adapter kept from ModemManager, which would probe it."""
    stop = rig.stop_input
    if stop is None:
        return
    name = "" if stop.path.startswith(SYSTEM_NAMES) else f'SYMLINK+="{_link(stop.path)}", '
    serial = "" if stop.serial is None else f', ATTRS{{serial}}=="{stop.serial}"'
    if stop.device is not None:
        yield f'SUBSYSTEM=="input", KERNEL=="event*"{serial}, {name if serial else ""}GROUP="input", MODE="0660"'
    elif serial:  # without one the rule would be about every adapter; the system's own rules give the group
        yield f'SUBSYSTEM=="tty"{serial}, {name}ENV{{ID_MM_DEVICE_IGNORE}}="1", GROUP="dialout", MODE="0660"'


def _named_by_udev(camera: CameraConfig) -> bool:
    """Whether the rig file asks for a name of its own; /dev/v4l and /dev/video0 are the system's names."""
    device = camera.device or ""
    own = device.startswith("/dev/") and not device.startswith(("/dev/v4l/", "/dev/video"))
    return camera.type == "opencv" and own and camera.serial is not None


def unnamed(rig: RigConfig) -> list[str]:
    """Arms, cameras and a stop that a real rig names by a link of its own, without the serial number a rule needs."""
    arms = [f"arms.{name}" for name, arm in rig.arms.items() if arm.serial is None and rig.sim is None]
    cameras = [
        f"cameras.{name}"
        for name, camera in rig.cameras.items()
        if camera.serial is None and _named_by_udev(camera.model_copy(update={"serial": ""}))
    ]
    stop = rig.stop_input
    named = stop is not None and stop.serial is None and rig.sim is None and not stop.path.startswith(SYSTEM_NAMES)
    return [*arms, *cameras, *(["stop_input"] if named else [])]


def _link(device: str) -> str:
    """Name of a link under /dev; whatever could mean something else in a rule is refused."""
    if not re.fullmatch(r"/dev/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", device) or ".." in device:
        raise ConfigError(f"{device!r} is no name that udev can give: choose one like /dev/ttyDXL_follower_left")
    return device.removeprefix("/dev/")
