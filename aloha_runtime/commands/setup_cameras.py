"""Which camera is which: all that are plugged in are shown on one picture, and a person names them."""

from pathlib import Path
from typing import Any

from aloha_runtime.commands import usb
from aloha_runtime.commands.setup_talk import Person
from aloha_runtime.config import CameraConfig
from aloha_runtime.errors import AlohaError

NAMES = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
NONE = "none"


def present() -> dict[str, dict[str, Any]]:
    """Entries for the rig file of every camera that is plugged in, by serial number (or kernel name without one)."""
    found: dict[str, dict[str, Any]] = {}
    realsense = _realsense_serials()
    for name, device in usb.cameras().items():
        if not realsense or "RealSense" not in device.product:
            found[device.serial or name] = {"type": "opencv", "device": f"/dev/{name}", "serial": device.serial or None}
    return {**found, **{serial: {"type": "realsense", "serial": serial} for serial in realsense}}


def _realsense_serials() -> list[str]:
    try:
        import pyrealsense2 as rs
    except ImportError:
        return []
    return [device.get_info(rs.camera_info.serial_number) for device in rs.context().query_devices()]


def name_cameras(there: dict[str, dict[str, Any]], sheet_path: Path, person: Person) -> dict[str, dict[str, Any]]:
    """Entries of the rig file by the name that each camera got. A USB camera with a serial number gets a link of its
    own (`/dev/CAM_HIGH`), which `aloha install` makes."""
    if not there:
        person.say("no camera is plugged in: the rig file keeps those of the kit")
        return {}
    _show(there, sheet_path, person)
    left, chosen = dict(there), {}
    for name in NAMES:
        if not left:
            break
        key = person.ask(f"cameras.{name}", f"Which is {name}? ({', '.join(left)}, or {NONE})", NONE)
        if key == NONE:
            continue
        if key not in left:
            raise AlohaError(f"cameras.{name}: there is no camera {key!r} (left); left are: {', '.join(left)}")
        entry = left.pop(key)
        if entry["type"] == "opencv" and entry["serial"]:
            entry = {**entry, "device": f"/dev/{name.upper()}"}
        chosen[name] = {field: value for field, value in entry.items() if value is not None}
    return chosen


def _show(there: dict[str, dict[str, Any]], path: Path, person: Person) -> None:
    """A sheet of all of them, labelled with what a person types."""
    from aloha_runtime.commands import snapshots

    pictures = {}
    for key, entry in there.items():
        try:
            pictures[key] = snapshots.live(key, CameraConfig.model_validate(entry))
        except AlohaError as error:
            person.say(str(error))
    if pictures:
        snapshots.sheet(pictures, path)
        person.say(f"all cameras, with their serial numbers: {path}")
