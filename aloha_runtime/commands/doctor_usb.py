"""USB of a rig: serial numbers, the adapters' latency timer, and whether each controller carries its cameras."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from aloha_runtime.commands import usb
from aloha_runtime.commands.findings import Finding, fail, ok, warn
from aloha_runtime.commands.usb import UsbDevice
from aloha_runtime.config import CameraConfig, RigConfig
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.serial_port import LATENCY_LIMIT_MS

BITS_PER_PIXEL = {"YUYV": 16, "MJPG": 4}
"""YUYV has two bytes a pixel; JPEG of a scene about half a byte at the quality of USB cameras."""
ADAPTER_MBIT = 12
"""A U2D2 is a full-speed device behind its hub: 2 Mb/s are used, 12 is its link."""
USABLE = 0.8
"""Share of a bus that periodic transfers may take (USB 2.0 specification, 5.6.4)."""
SUPERSPEED_MBIT = 5000


def check_usb(rig: RigConfig, port_of: Callable[[str], str], sys: Path = usb.SYS) -> Iterator[Finding]:
    """All adapters and cameras of the rig. `port_of`: device of an arm's port."""
    loads: dict[tuple[int, int], list[tuple[str, float]]] = defaultdict(list)
    for name, arm in rig.arms.items():
        port = port_of(name)
        yield from _check_latency(f"arms.{name}.latency_timer", port, sys)
        _, device = usb.of_tty(port, sys)
        if device is None:
            continue
        yield from _check_serial(f"arms.{name}", arm.serial, device)
        loads[device.bus, device.bus_mbit].append((name, ADAPTER_MBIT))
    for camera_name, camera in rig.cameras.items():
        device = _camera_device(camera, sys)
        if device is None:
            continue
        if camera.type == "opencv":
            yield from _check_serial(f"cameras.{camera_name}", camera.serial, device)
        if camera.type == "realsense" and device.speed_mbit < SUPERSPEED_MBIT:
            remedy = "use a USB 3 port and cable: several RealSense cameras do not fit on one USB 2 bus"
            yield warn(f"cameras.{camera_name}.speed", f"runs at {device.speed_mbit} Mb/s", remedy)
        loads[device.bus, device.bus_mbit].append((camera_name, _megabits(camera)))
    for (bus, speed), users in sorted(loads.items()):
        yield _check_bus(bus, speed, users)


def _check_latency(check: str, port: str, sys: Path) -> Iterator[Finding]:
    timer = usb.latency_timer(port, sys)
    if timer is None:
        return
    found_ms = int(timer.read_text())
    if found_ms <= LATENCY_LIMIT_MS:
        yield ok(check, f"{found_ms} ms")
        return
    finding = fail(
        check,
        f"{found_ms} ms, which limits the arm to {1000 // found_ms} Hz",
        f"`echo {LATENCY_LIMIT_MS} | sudo tee {timer}` now; for good, with `aloha install` and the adapter's serial"
        " number in the rig file",
    )

    def mend() -> None:
        timer.write_text(f"{LATENCY_LIMIT_MS}\n")

    finding.mend = mend
    yield finding


def _check_serial(check: str, wanted: str | None, device: UsbDevice) -> Iterator[Finding]:
    if wanted is None:
        if device.serial:
            remedy = f"write `serial: {device.serial}` under {check} and run `aloha install`: a stable name needs it"
            yield warn(f"{check}.serial", f"{device.serial}, not in the rig file", remedy)
    elif wanted != device.serial:
        remedy = f"plug the devices as they were, or correct `serial` under {check}; then `aloha install`"
        yield fail(f"{check}.serial", f"{device.serial or 'none'}, the rig file says {wanted}", remedy)
    else:
        yield ok(f"{check}.serial", f"{wanted} ({device.product or 'unnamed'}, {device.path.name})")


def _camera_device(camera: CameraConfig, sys: Path) -> UsbDevice | None:
    if camera.type == "opencv":
        return usb.of_camera(camera.device or "", sys)
    if camera.type == "realsense":
        return _realsense_device(camera.serial or "")
    return None


def _realsense_device(serial: str) -> UsbDevice | None:
    """Where librealsense found it; None when it is absent (another check says so) or its backend does not tell."""
    import pyrealsense2 as rs

    from aloha_runtime.hardware.realsense import find_device

    with contextlib.suppress(HardwareError, RuntimeError):
        return usb.above(Path(find_device("camera", serial).get_info(rs.camera_info.physical_port)))
    return None


def _megabits(camera: CameraConfig) -> float:
    """What a camera sends in a second (Mb/s); a RealSense sends its colour as YUYV."""
    kind = "YUYV" if camera.type == "realsense" else camera.pixel_format
    return camera.width * camera.height * camera.fps * BITS_PER_PIXEL[kind] / 1e6


def _check_bus(bus: int, speed: int, users: list[tuple[str, float]]) -> Finding:
    total, room = sum(load for _, load in users), speed * USABLE
    value = f"{', '.join(f'{name} {load:.0f}' for name, load in users)}: {total:.0f} of {room:.0f} usable Mb/s"
    if total <= room:
        return ok(f"usb.bus_{bus}", value)
    return fail(
        f"usb.bus_{bus}",
        value,
        "move some of these to ports of another controller (`lsusb -t`), choose MJPG, or a lower rate",
    )
