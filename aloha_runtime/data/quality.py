"""What a take was like: measured tick by tick while it is recorded, judged by the rig's thresholds when it ends.

A take that misses a threshold is flagged, never thrown away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.config import QualityConfig
from aloha_runtime.robot import CONTROL_HZ, DOF, GRIPPER_INDEX, IS_GRIPPER, NAMES, SIDES

Vector32 = NDArray[np.float32]

STILL_RAD = 0.01
"""An arm whose joints stay this near to where they began (or end) stands still; encoders and hands tremble by less."""
SATURATED = 0.95
"""Share of the current limit from which on a gripper presses as hard as it may."""


@dataclass
class Takes:
    """The ticks of one take. Ages in ms; vectors (14,) in contract units."""

    cameras: Sequence[str]
    ages_ms: list[list[float]] = field(default_factory=list)
    """A number a camera, and the joints' last."""
    skew_ms: list[float] = field(default_factory=list)
    repeated: list[list[bool]] = field(default_factory=list)
    """By camera, and the joints last: what was there before had to stand in."""
    late_action: list[bool] = field(default_factory=list)
    """The tick had no action of its own: it came too late or never, and the one before stands in."""
    lateness_ms: list[float] = field(default_factory=list)
    position: list[Vector32] = field(default_factory=list)
    action: list[Vector32] = field(default_factory=list)
    effort_ma: list[Vector32] = field(default_factory=list)
    held_off: list[int] = field(default_factory=list)
    """Of each tick, the numbers that a limit kept off their target, by bit (`ArmsState.held_off`)."""
    skipped: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Missed servo cycles and lost frames during the take, by name."""


def report(take: Takes, frames: int, first: int, thresholds: QualityConfig, gripper_limit_ma: float) -> dict[str, Any]:
    """Figures of `frames` ticks from `first` on, and under "flags" what misses a threshold, in words."""
    part = slice(first, first + frames)
    seconds = frames / CONTROL_HZ
    repeated = np.array(take.repeated[part], dtype=bool)
    ages = np.array(take.ages_ms[part])
    action = np.array(take.action[part])
    effort = np.abs(np.array(take.effort_ma[part]))
    held_off = np.array(take.held_off[part], dtype=np.int64)[:, None] >> np.arange(DOF) & 1
    clipped = held_off.astype(bool) & ~IS_GRIPPER
    start, end = still_ends(np.array(take.position[part]))
    figures: dict[str, Any] = {
        "frames": frames,
        "seconds": seconds,
        "rate_hz": frames / (frames + take.skipped) * CONTROL_HZ,
        "skipped_ticks": take.skipped,
        "late_actions": sum(take.late_action[part]),
        "lateness_ms": _percentiles(take.lateness_ms[part]),
        "repeated": {name: int(count) for name, count in zip([*take.cameras, "joints"], repeated.sum(0), strict=True)},
        "age_ms": {name: _percentiles(column) for name, column in zip([*take.cameras, "joints"], ages.T, strict=True)},
        "camera_skew_ms": _percentiles(take.skew_ms[part]),
        "counts": dict(take.counts),
        "clipped_share": float(clipped.any(axis=1).mean()),
        "clipped_joints": [name for name, ever in zip(NAMES, clipped.any(axis=0), strict=True) if ever],
        "largest_effort_ma": {name: float(value) for name, value in zip(NAMES, effort.max(0), strict=True)},
        "gripper_saturated_share": {
            side: float((effort[:, index] >= SATURATED * gripper_limit_ma).mean())
            for side, index in zip(SIDES, GRIPPER_INDEX, strict=True)
        },
        "gripper_range": {
            side: [float(action[:, index].min()), float(action[:, index].max())]
            for side, index in zip(SIDES, GRIPPER_INDEX, strict=True)
        },
        "still_start_s": start,
        "still_end_s": end,
    }
    figures["flags"] = judge(figures, thresholds)
    return figures


def judge(figures: Mapping[str, Any], thresholds: QualityConfig) -> list[str]:
    """What misses a threshold, in words with the value."""
    found = []
    if figures["seconds"] < thresholds.shortest_s:
        found.append(f"only {figures['seconds']:.1f} s long")
    for name, count in figures["repeated"].items():
        if count > thresholds.repeated_share * figures["frames"]:
            found.append(f"{name}: {count} of {figures['frames']} frames repeated")
    if figures["skipped_ticks"] > thresholds.repeated_share * figures["frames"]:
        found.append(f"{figures['skipped_ticks']} ticks skipped")
    if figures["late_actions"] > thresholds.repeated_share * figures["frames"]:
        found.append(f"{figures['late_actions']} of {figures['frames']} actions came too late")
    if figures["camera_skew_ms"]["p99"] > thresholds.camera_skew_ms:
        found.append(f"cameras {figures['camera_skew_ms']['p99']:.0f} ms apart (p99)")
    if figures["clipped_share"] > thresholds.clipped_share:
        names = ", ".join(figures["clipped_joints"])
        found.append(f"targets clipped in {figures['clipped_share']:.0%} of the ticks ({names})")
    for where in ("start", "end"):
        if figures[f"still_{where}_s"] > thresholds.still_s:
            found.append(f"still for {figures[f'still_{where}_s']:.1f} s at the {where}")
    missed = figures["counts"].get("missed servo cycles", 0)
    if missed > thresholds.missed_per_s * figures["seconds"]:
        found.append(f"{missed} servo cycles missed")
    return found


def line(figures: Mapping[str, Any]) -> str:
    """The whole report in one line for the operator."""
    repeated = sum(figures["repeated"].values())
    newest = max((each["p99"] for each in figures["age_ms"].values()), default=0.0)
    said = (
        f"{figures['seconds']:.1f} s at {figures['rate_hz']:.1f} Hz, {repeated} frames repeated, "
        f"{figures.get('late_actions', 0)} actions late, "
        f"age p99 {newest:.0f} ms, skew p99 {figures['camera_skew_ms']['p99']:.0f} ms, "
        f"targets clipped in {figures['clipped_share']:.0%}"
    )
    return f"{said}; FLAGGED: {'; '.join(figures['flags'])}" if figures["flags"] else f"{said}; good"


def still_ends(position: NDArray[np.float32]) -> tuple[float, float]:
    """Seconds at the start and at the end of (T, 14) states in which no arm joint moves; a take without any motion is
    still from the start to its end."""
    joints = position[:, ~IS_GRIPPER]
    moved = np.abs(joints - joints[0]).max(axis=1) > STILL_RAD
    moving = np.abs(joints - joints[-1]).max(axis=1) > STILL_RAD
    if not moved.any():
        return len(position) / CONTROL_HZ, 0.0
    return float(moved.argmax()) / CONTROL_HZ, float(moving[::-1].argmax()) / CONTROL_HZ


def _percentiles(values: Sequence[float] | NDArray[np.floating]) -> dict[str, float]:
    if len(values) == 0:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    return {
        "p50": float(np.quantile(values, 0.5)),
        "p99": float(np.quantile(values, 0.99)),
        "max": float(np.max(values)),
    }
