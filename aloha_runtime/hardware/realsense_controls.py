"""Controls of a RealSense colour sensor: what the rig file states, set and read back."""

from typing import Any

import pyrealsense2 as rs

from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.v4l2_controls import POWER_LINE_MENU


def apply(camera: str, serial: str, sensor: Any, chosen: dict[str, Any], is_recording: bool) -> dict[str, float]:
    """Set device time instead of librealsense's wall-clock time, and the controls; returns them as read back.

    Exposure and white balance are automatic where nothing is stated. A recording shows what it shows: nothing is set
    there. Raises HardwareError naming the key, and what the camera has or says instead.
    """
    if settable(sensor, rs.option.global_time_enabled):
        sensor.set_option(rs.option.global_time_enabled, 0)
    for key, automatic in (
        ("exposure", rs.option.enable_auto_exposure),
        ("white_balance_k", rs.option.enable_auto_white_balance),
    ):
        if settable(sensor, automatic):
            sensor.set_option(automatic, 0 if key in chosen else 1)
    options = {
        "exposure": rs.option.exposure,
        "gain": rs.option.gain,
        "white_balance_k": rs.option.white_balance,
        "power_line_hz": rs.option.power_line_frequency,
        "dynamic_framerate": rs.option.auto_exposure_priority,
    }
    orders = {} if is_recording else {key: option for key, option in options.items() if key in chosen}
    return {option.name: _set(camera, serial, sensor, key, option, chosen[key]) for key, option in orders.items()}


def _set(camera: str, serial: str, sensor: Any, key: str, option: Any, wanted: int | bool) -> float:
    value = POWER_LINE_MENU[wanted] if key == "power_line_hz" else int(wanted)
    remedy = f"Correct `{key}` of {camera}, or leave it out (`rs-enumerate-devices -o` lists what there is)."
    if not settable(sensor, option):
        raise HardwareError(f"{camera}: RealSense {serial} has no control {option.name}, which `{key}` sets. {remedy}")
    allowed = sensor.get_option_range(option)
    if not allowed.min <= value <= allowed.max:
        raise HardwareError(
            f"{camera}: {key} {value} is outside what RealSense {serial} takes, {allowed.min:.0f} to"
            f" {allowed.max:.0f}. {remedy}"
        )
    sensor.set_option(option, value)
    now = float(sensor.get_option(option))
    if now != value:
        raise HardwareError(
            f"{camera}: RealSense {serial} did not take {option.name} {value} (`{key}`); it reads back {now:g}."
            f" {remedy}"
        )
    return now


def settable(sensor: Any, option: Any) -> bool:
    """Whether the sensor has this option and lets it be set."""
    return bool(sensor.supports(option)) and not sensor.is_option_read_only(option)
