"""Whether a checkpoint fits a rig, as far as files tell: cameras, units, statistics, rate, calibration, training rig.

A failure is refused, whatever anybody says; a warning is for a person to judge (`--accept NAME`). What a checkpoint of
others or of an older release does not say is said to be unknown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from aloha_runtime.act import checkpoint, provenance
from aloha_runtime.act.card import is_card
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, ACTConfig
from aloha_runtime.act.header import check_weights, load_header, reads_checkpoint
from aloha_runtime.act.normalize import NEEDED
from aloha_runtime.act.observe import camera_sizes
from aloha_runtime.act.processing import Processing
from aloha_runtime.commands.findings import Finding, fail, ok, warn
from aloha_runtime.commands.preflight_steps import steps
from aloha_runtime.config import RigConfig
from aloha_runtime.control.pilot import GRIPPER_IN_POSE
from aloha_runtime.data.recorded import by_arm, described, differences
from aloha_runtime.data.units import GRIPPER_SLACK, WHOLE_TURN_RAD
from aloha_runtime.errors import AlohaError
from aloha_runtime.robot import CONTROL_HZ, DOF, IS_GRIPPER, NAMES, pose_vector

SMALL_STD = 1e-3
"""rad or openings: noise of a joint that rested in training would reach the network a thousandfold."""
MARGIN = np.where(IS_GRIPPER, 0.25, 0.10)
"""rad, openings: so far outside of what was seen in training a joint may stand. An arm sags 0.03, a gripper that is
closed by its torque stands a little below one that a person let close."""
WITHOUT_RANGE_STD = 4.0
"""Deviations around the mean, where a checkpoint does not know the range itself."""
SAME_EVERYWHERE = ("name", "codec", "simulated_task")
"""Parts of a rig's description that no policy notices."""
CALIBRATION = ("grippers", "gripper_current_ma", "start_pose")

Stats = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """What the checks look at. `origin`: its provenance.json, empty where there is none."""

    directory: Path
    config: ACTConfig
    stats: Stats
    origin: Mapping[str, Any]
    processing: Processing


@reads_checkpoint
def examine(directory: Path, rig: RigConfig) -> tuple[Checkpoint | None, list[Finding]]:
    """The checkpoint and every finding; None when it cannot be read, which then is the only one."""
    try:
        header = load_header(directory)
        if not is_card(directory):
            check_weights(directory)
        origin = provenance.read(directory)
    except AlohaError as error:
        return None, [fail("checkpoint", str(error), "name another checkpoint, or copy this one again")]
    try:
        stats: Stats = (checkpoint.load_stats if is_card(directory) else _all_stats)(directory)
    except AlohaError as error:
        return None, [fail("statistics", str(error), "copy the whole checkpoint again, or train")]
    config = header.config
    loaded = Checkpoint(directory, config, stats, origin, header.processing)
    found = [ok("checkpoint", f"{directory}: whole, {config.chunk_size} actions a chunk"), *steps(header)]
    found += [*cameras(loaded, rig), *sizes(loaded, rig), *names(loaded), *rate(loaded)]
    found += [*statistics(loaded), *start_pose(loaded, rig), *training_rig(loaded, rig)]
    return loaded, found


def _all_stats(directory: Path) -> Stats:
    return checkpoint.load(directory).stats


def cameras(loaded: Checkpoint, rig: RigConfig) -> Iterator[Finding]:
    """Names, sizes and order."""
    there = camera_sizes(rig)
    order = []
    for name, (height, width) in loaded.config.cameras.items():
        check, ours = f"cameras.{name}", rig.policy.cameras.get(name, name)
        order.append(ours)
        if name not in there:
            fix = f"map it in the rig file, `policy: {{cameras: {{{name}: ...}}}}`, or name a checkpoint of this rig"
            yield fail(check, f"the policy looks through it, the rig has {', '.join(rig.cameras) or 'no camera'}", fix)
        elif there[name] != (height, width):
            has = f"{there[name][1]}x{there[name][0]}"
            value = f"trained on {width}x{height}, {ours} of the rig gives {has}"
            yield fail(check, value, f"set width and height of cameras.{ours} in the rig file")
        else:
            yield ok(check, f"{ours} of the rig, {width}x{height}")
    twice = sorted({name for name in order if order.count(name) > 1})
    if twice:
        value = f"{twice[0]} of the rig stands for {order.count(twice[0])} cameras of the policy ({', '.join(order)})"
        yield warn("cameras.order", value, "correct `policy.cameras` in the rig file")
    elif order:
        yield ok("cameras.order", f"the network's order is {', '.join(order)}, each by its name")


def sizes(loaded: Checkpoint, rig: RigConfig) -> Iterator[Finding]:
    """Numbers in and out: nothing that anybody could accept."""
    config = loaded.config
    for check, found in (("state.size", config.state_dim or DOF), ("action.size", config.action_dim)):
        if found == DOF:
            yield ok(check, f"{DOF} numbers")
        else:
            yield fail(check, f"{found} numbers, these arms have {DOF}", "name a checkpoint of a bimanual ALOHA")
    if ENVIRONMENT_STATE in config.input_shapes and rig.sim is None:
        fix = "name a checkpoint that was trained on images"
        yield fail("state.environment", "the policy sees where objects are, which only a simulated rig knows", fix)


def names(loaded: Checkpoint) -> Iterator[Finding]:
    """The joints and their order, as the training data named them."""
    known = loaded.origin.get("dataset", {}).get("names", {})
    for feature, check in ((STATE, "state.names"), (ACTION, "action.names")):
        given = list(known.get(feature) or [])
        if not given:
            yield ok(check, "unknown: the checkpoint does not say; taken for this rig's joints in their order")
        elif given == list(NAMES):
            yield ok(check, "this rig's joints in their order")
        else:
            pairs = zip([*given, *[""] * DOF], NAMES, strict=False)
            index, (theirs, ours) = next(
                (place for place in enumerate(pairs) if place[1][0] != place[1][1]), (DOF, (given[-1], ""))
            )
            value = f"number {index} is {theirs or 'missing'}, where this rig has {ours or 'no more'}"
            yield fail(check, value, "name a checkpoint whose data has this rig's joints, or reorder the data")


def rate(loaded: Checkpoint) -> Iterator[Finding]:
    """Frames a second of the training data: its actions are carried out at the rig's rate."""
    fps = loaded.origin.get("dataset", {}).get("fps")
    if fps is None:
        value = f"unknown: the checkpoint does not say; its actions go out at {CONTROL_HZ} Hz"
        slow = f"a policy trained at 30 Hz would move {CONTROL_HZ / 30:.2f} times as fast"
        yield warn("rate", value, f"look up `fps` of its training data: {slow}; accept when it is {CONTROL_HZ}")
    elif fps == CONTROL_HZ:
        yield ok("rate", f"{CONTROL_HZ} Hz")
    else:
        value = f"trained at {fps:g} Hz; at {CONTROL_HZ} Hz it would move {CONTROL_HZ / fps:.2g} times as fast"
        yield fail("rate", value, f"train on data of {CONTROL_HZ} Hz")


def statistics(loaded: Checkpoint) -> Iterator[Finding]:
    """Present, finite, in the units of the rig."""
    config = loaded.config
    for name, shape in {**config.input_shapes, **config.output_shapes}.items():
        check = f"statistics.{name.removeprefix('observation.')}"
        needed = NEEDED.get(loaded.processing.mode(name), ())
        given = {key: _numbers(loaded.stats, name, key) for key in needed}
        is_image = name.startswith(IMAGE_PREFIX)
        count = 3 if is_image else shape[0]
        largest = max((float(np.abs(values).max()) for values in given.values() if values is not None), default=0.0)
        wrong = _wrong(given, count)
        if wrong:
            fix = "compute them again (`aloha dataset stats`) and train, or copy the whole checkpoint"
            yield fail(check, wrong, fix)
        elif is_image and largest > 1:
            yield fail(check, f"pixels reach {largest:.3g}, this runtime's are 0..1", "train on pixels in 0..1")
        elif name == ACTION and loaded.processing.relative is not None:
            yield ok(check, "present, finite; actions are offsets from the state")
        elif name in (STATE, ACTION) and count == DOF:
            yield from _units(check, loaded.stats, name)
        else:
            yield ok(check, "present, finite" if needed else "not normalised")


def _wrong(given: Mapping[str, NDArray[np.float64] | None], count: int) -> str:
    """What is wrong with the statistics that a feature is normalised with."""
    for key, values in given.items():
        if values is None:
            return f"there is no {key}"
        if len(values) != count:
            return f"{key} has {len(values)} numbers instead of {count}"
        if not np.isfinite(values).all():
            return f"{key} of number {int(np.argmin(np.isfinite(values)))} is not finite"
        if key == "std" and values.min() <= 0:
            return f"std of number {int(np.argmin(values))} is {values.min():g}"
    low, high = given.get("min"), given.get("max")
    if low is not None and high is not None and (low >= high).any():
        return f"number {int(np.argmax(low >= high))} goes from {low[low >= high][0]:g} to {high[low >= high][0]:g}"
    return ""


def _units(check: str, stats: Stats, name: str) -> Iterator[Finding]:
    """rad for joints, 0..1 for grippers; and no joint that never moved."""
    low, high = seen(stats, name)
    std = _numbers(stats, name, "std")
    for joint, far in enumerate(np.maximum(-low, high)):
        if not IS_GRIPPER[joint] and far > WHOLE_TURN_RAD:
            yield fail(check, f"{NAMES[joint]} reaches {far:.1f}, which cannot be radians", "train on data in rad")
            return
        if IS_GRIPPER[joint] and (low[joint] < -GRIPPER_SLACK or high[joint] > 1 + GRIPPER_SLACK):
            value = f"{NAMES[joint]} goes from {low[joint]:.2f} to {high[joint]:.2f}; openings go from 0 to 1"
            yield fail(check, value, "train on data whose grippers are 0 (closed) to 1 (open)")
            return
    if std is not None and std.min() < SMALL_STD:
        value = f"{NAMES[int(np.argmin(std))]} hardly moved in training (std {std.min():.2g})"
        yield warn(
            check, value, "its noise will reach the network magnified: train again with this runtime's floor of 0.01"
        )
        return
    yield ok(check, "present, finite, in rad and openings")


def seen(stats: Stats, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest of each of the 14 numbers in training; where unknown, so many deviations around the mean."""
    low, high, mean, std = (_numbers(stats, name, key) for key in ("min", "max", "mean", "std"))
    if low is not None and high is not None and len(low) == len(high) == DOF:
        return low, high
    if mean is not None and std is not None and len(mean) == len(std) == DOF:
        return mean - WITHOUT_RANGE_STD * std, mean + WITHOUT_RANGE_STD * std
    return np.full(DOF, -np.inf), np.full(DOF, np.inf)


def outside(stats: Stats, position: NDArray[np.float64]) -> Iterator[tuple[str, str]]:
    """Name and value of each number of a (14,) position that training never came near."""
    low, high = seen(stats, STATE)
    for joint in np.flatnonzero((position < low - MARGIN) | (position > high + MARGIN)):
        unit = "" if IS_GRIPPER[joint] else " rad"
        yield (
            NAMES[joint],
            f"{NAMES[joint]} stands at {position[joint]:.2f}{unit}, training saw {low[joint]:.2f} to {high[joint]:.2f}",
        )


def start_pose(loaded: Checkpoint, rig: RigConfig) -> Iterator[Finding]:
    """Where the policy would begin on this rig, against where it has been."""
    if loaded.config.state_dim != DOF:
        return
    found = list(outside(loaded.stats, pose_vector(rig.start_pose, GRIPPER_IN_POSE["follower"])))
    for name, value in found:
        fix = "set `start_pose` in the rig file to that of the recordings"
        yield warn(f"start_pose.{name}", f"in the start pose {value}", fix)
    if not found:
        yield ok("start_pose", "within what was seen in training")


def training_rig(loaded: Checkpoint, rig: RigConfig) -> Iterator[Finding]:
    """Calibration and rig of the training data, against this one."""
    now = msgspec.json.decode(msgspec.json.encode(described(rig)))
    for part, keys, fix in (
        ("calibration", CALIBRATION, "calibrate (`aloha setup`), or set the rig file back to that of the recordings"),
        (
            "rig",
            [key for key in now if key not in (*CALIBRATION, *SAME_EVERYWHERE)],
            "set the rig back, or record here",
        ),
    ):
        before = loaded.origin.get(part)
        if not isinstance(before, dict) or not before:
            yield ok(part, "unknown: the checkpoint does not say on which rig its data was recorded")
            continue
        before = by_arm(before, now)
        found = differences({key: before.get(key) for key in keys}, {key: now.get(key) for key in keys})
        for difference in found:
            yield warn(f"{part}.{difference.split()[0]}", f"{difference} since the recordings", fix)
        if not found:
            yield ok(part, "as it was for the recordings")


def _numbers(stats: Stats, name: str, key: str) -> NDArray[np.float64] | None:
    value = stats.get(name, {}).get(key)
    return None if value is None else np.asarray(value, dtype=np.float64).reshape(-1)
