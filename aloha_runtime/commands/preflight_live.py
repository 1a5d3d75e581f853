"""What cameras and arms show now, against what a checkpoint was trained on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aloha_runtime import messages
from aloha_runtime.act import training_frames
from aloha_runtime.bus import Bus, Subscriber
from aloha_runtime.commands.findings import Finding, Level, fail, ok, warn
from aloha_runtime.commands.preflight_checks import Checkpoint, outside
from aloha_runtime.commands.snapshots import Image, against
from aloha_runtime.config import RigConfig
from aloha_runtime.control.sync import Missing
from aloha_runtime.errors import AlohaError
from aloha_runtime.inputs import RigInputs
from aloha_runtime.messages import Health
from aloha_runtime.realtime import NS_PER_S, Clock
from aloha_runtime.robot import DOF, IS_GRIPPER, NAMES, TICK_NS

PATIENCE_S = 5.0
"""A camera that has just been opened needs a second."""
DARK = 2.0
"""Grey levels: the deviation of a picture that shows nothing. A lens cap leaves less, any scene ten times as much."""
RATE_SPAN_S = 0.5
"""Fifteen frames of the slowest supported camera (30 fps)."""
RATE_DEPTH = 256
"""More frames than the fastest camera (120 fps) delivers meanwhile."""
RATE_SHARE = 0.8
"""Of the configured rate, at least. Automatic exposure in a dark room halves it."""
GRIPPER_SLACK = 0.15
"""Openings outside 0..1 that a well calibrated gripper reads at most, pressing against its stop."""


@dataclass(frozen=True)
class Look:
    """An observation as the policy would get it: (14,) position and a picture by camera of the rig; or why not."""

    position: NDArray[np.float64] | None
    pictures: Mapping[str, Image]
    reason: str = ""
    rates_hz: Mapping[str, float] = field(default_factory=dict)
    """Frames a second that each camera really delivers."""


class Running(Protocol):
    """A system that runs, however it was started (`Stack`, `start.Found`)."""

    rig: RigConfig
    bus: Bus
    clock: Clock
    health: dict[str, Subscriber]

    def watch(self) -> None:
        """Raises AlohaError when the system has ended."""

    def pause(self, seconds: float = ...) -> None:
        """Let time pass, on the rig's own clock."""


def look(stack: Running, cameras: Sequence[str]) -> Look:
    """The first observation of these cameras and the arms, through the policy's own eyes (`inputs.py`)."""
    with RigInputs(stack.bus, stack.rig, cameras) as inputs:
        return _first(stack, inputs, cameras)


def _first(stack: Running, inputs: RigInputs, cameras: Sequence[str]) -> Look:
    end_ns = stack.clock.now_ns() + int(PATIENCE_S * NS_PER_S)
    reason = ""
    while stack.clock.now_ns() < end_ns:
        stack.watch()
        stack.pause()
        inputs.poll()
        seen = inputs.at(stack.clock.now_ns() // TICK_NS)
        if not isinstance(seen, Missing):
            found, images = seen
            pictures = {name: np.array(image) for name, image in images.items()}
            position = np.asarray(found.position, dtype=np.float64)
            return Look(position, pictures, rates_hz=_rates_hz(stack, cameras))
        reason = seen.reason
    return Look(None, {}, reason)


def _rates_hz(stack: Running, cameras: Sequence[str]) -> dict[str, float]:
    """By the frames' own stamps, so that a reader who is late does not matter."""
    topics = {name: messages.camera_topic(name, stack.rig.cameras[name].fps) for name in cameras}
    with ExitStack() as opened:
        readers = {
            name: opened.enter_context(stack.bus.subscribe(topic, depth=RATE_DEPTH)) for name, topic in topics.items()
        }
        end_ns = stack.clock.now_ns() + int(RATE_SPAN_S * NS_PER_S)
        while stack.clock.now_ns() < end_ns:
            stack.watch()
            stack.pause()
        stamps = {name: [info.stamp_ns for info in reader.drain()] for name, reader in readers.items()}
    return {name: rate_hz(found) for name, found in stamps.items()}


def rate_hz(stamps_ns: Sequence[int]) -> float:
    """Frames a second of frames taken at these times; 0 for less than two."""
    span_ns = stamps_ns[-1] - stamps_ns[0] if len(stamps_ns) > 1 else 0
    return (len(stamps_ns) - 1) * NS_PER_S / span_ns if span_ns > 0 else 0.0


def examine(
    loaded: Checkpoint, seen: Look, at_start: bool, rig: RigConfig
) -> tuple[list[Finding], dict[str, list[Image]]]:
    """Every finding, and the training frames by camera of the rig. `at_start`: the arms are where the policy would
    begin."""
    if seen.position is None:
        fix = "see `aloha doctor`; the policy would get no observation"
        return [fail("observation", f"there was none within {PATIENCE_S:.0f} s: {seen.reason}", fix)], {}
    found = [ok("observation", f"complete: {len(seen.pictures)} cameras and the arms")]
    found += [*_pictures(seen.pictures), *rates(seen, rig)]
    frames: dict[str, list[Image]] = {}
    try:
        kept = training_frames.read(loaded.directory)
        frames = {rig.policy.cameras.get(name, name): pictures for name, pictures in kept.items()}
    except AlohaError as error:
        found.append(warn("cameras.training", str(error), "compare the cameras by eye with a frame of the dataset"))
    else:
        found += list(_views(seen.pictures, frames))
    return [*found, *positions(loaded, seen.position, at_start)], frames


def _pictures(pictures: Mapping[str, Image]) -> Iterator[Finding]:
    for name, picture in pictures.items():
        if picture.std() < DARK:
            value = f"shows nothing (grey levels deviate by {picture.std():.1f})"
            yield warn(f"cameras.{name}.live", value, "take the cap off the lens, switch the light on")


def rates(seen: Look, rig: RigConfig) -> Iterator[Finding]:
    """Frames that cameras deliver, against what they are set to."""
    for name, found_hz in seen.rates_hz.items():
        wanted_hz = rig.cameras[name].fps
        if found_hz < RATE_SHARE * wanted_hz:
            fix = "give it more light or a fixed `exposure`, or a USB controller of its own (`aloha doctor`)"
            yield warn(f"cameras.{name}.rate", f"delivers {found_hz:.0f} frames/s, set to {wanted_hz}", fix)
        else:
            yield ok(f"cameras.{name}.rate", f"{found_hz:.0f} frames/s")


def _views(pictures: Mapping[str, Image], frames: Mapping[str, Sequence[Image]]) -> Iterator[Finding]:
    if not frames:
        value = "unknown: the checkpoint has no training frames (it was made before checkpoints kept some)"
        yield ok("cameras.training", value)
        return
    for finding in against(pictures, frames, "training"):  # by correlation, so a person may know better
        yield replace(finding, level=Level.WARN) if finding.level is Level.FAIL else finding


def positions(loaded: Checkpoint, position: NDArray[np.float64], at_start: bool) -> Iterator[Finding]:
    """Where the joints stand now."""
    if not at_start:
        yield ok("position", "the arms are not in their start pose; `aloha deploy` looks again when they are")
    elif loaded.config.state_dim == DOF:
        found = list(outside(loaded.stats, position))
        for name, value in found:
            # The name that the rig file's start pose has as well: to accept the one is to accept the other.
            yield warn(f"start_pose.{name}", value, "record demonstrations that begin here, or change `start_pose`")
        if not found:
            yield ok("position", "within what was seen in training")
    for joint in np.flatnonzero(IS_GRIPPER):
        if not -GRIPPER_SLACK <= position[joint] <= 1 + GRIPPER_SLACK:
            value = f"{NAMES[joint]} reads {position[joint]:.2f}; 0 is closed, 1 is open"
            yield warn(f"gripper.{NAMES[joint]}", value, "calibrate the grippers with `aloha setup`")


def speed(loaded: Checkpoint, health: Health | None) -> Iterator[Finding]:
    """Whether chunks come before the last ones have run out."""
    if health is not None and not health.ok:
        yield fail("inference", health.message, "start the policy again")
        return
    usual_ms = health.figures.get("inference_ms", 0.0) if health is not None else 0.0
    lasts_ms = loaded.config.chunk_size * TICK_NS / 1e6
    if usual_ms >= lasts_ms / 2:
        value = f"an inference takes {usual_ms:.0f} ms, and a chunk lasts {lasts_ms:.0f} ms"
        yield fail("inference", value, "choose a faster engine (`--engine`, `aloha export`) or a machine with a GPU")
    else:
        where = f": {health.message}" if health is not None and health.message else ""
        yield ok("inference", f"takes {usual_ms:.1f} ms, a chunk lasts {lasts_ms:.0f} ms{where}")
