"""USB devices as the kernel shows them in /sys: which adapter or camera hangs on which controller, and how fast."""

import os
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys")


@dataclass(frozen=True)
class UsbDevice:
    """One device. `speed_mbit`: of its own link; `bus`: number of the controller's root hub, `bus_mbit` its speed."""

    path: Path
    serial: str
    product: str
    speed_mbit: int
    bus: int
    bus_mbit: int


def of_tty(port: str, sys: Path = SYS) -> tuple[str, UsbDevice | None]:
    """Kernel name (`ttyUSB0`) of a serial port given by any link to it, and its USB device, if it is one."""
    name = os.path.basename(os.path.realpath(port))
    return name, above(sys / "class" / "tty" / name / "device")


def of_camera(device: str, sys: Path = SYS) -> UsbDevice | None:
    """The USB device of a V4L2 device given by any link to it."""
    return above(sys / "class" / "video4linux" / os.path.basename(os.path.realpath(device)) / "device")


def adapters(sys: Path = SYS) -> dict[str, UsbDevice]:
    """Every serial adapter by kernel name."""
    found = {path.name: above(path / "device") for path in sorted((sys / "class" / "tty").glob("tty[UA]*"))}
    return {name: device for name, device in found.items() if device is not None}


def cameras(sys: Path = SYS) -> dict[str, UsbDevice]:
    """Every camera by kernel name; of the devices of one camera the one with the pictures (index 0)."""
    found = {}
    for path in sorted((sys / "class" / "video4linux").glob("video*")):
        device = above(path / "device")
        if device is not None and _text(path / "index") == "0":
            found[path.name] = device
    return found


def latency_timer(port: str, sys: Path = SYS) -> Path | None:
    """The file with the milliseconds for which an FTDI adapter holds short replies back; None where there is none."""
    name = os.path.basename(os.path.realpath(port))
    path = sys / "class" / "tty" / name / "device" / "latency_timer"
    return path if path.is_file() else None


def above(path: Path) -> UsbDevice | None:
    """The USB device that a kernel device belongs to: the first folder upwards that has a `busnum`."""
    path = path.resolve()
    for folder in (path, *path.parents):
        if (folder / "busnum").is_file():
            bus = int(_text(folder / "busnum"))
            root = next((up for up in (folder, *folder.parents) if up.name == f"usb{bus}"), folder)
            return UsbDevice(
                folder,
                _text(folder / "serial"),
                _text(folder / "product"),
                _speed(folder),
                bus,
                _speed(root),
            )
    return None


def _speed(folder: Path) -> int:
    return int(float(_text(folder / "speed") or 0))  # 1.5 for the slowest


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
