"""What the recorder writes of each tick beside the pictures, and which rig it wrote it on."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from aloha_runtime.config import CameraConfig, RigConfig
from aloha_runtime.data import ending, files, reports
from aloha_runtime.data.staging import ASIDE
from aloha_runtime.data.writer import DatasetWriter
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import CONTROL_HZ, NAMES, ROLES

JOINTS = "joints"
FLAGS = "flags"
ENVIRONMENT = "observation.environment_state"
"""Where the objects are: the simulated rig knows it, and a policy may learn to estimate it (`estimate_dim`)."""
INTERVENTION = "intervention"
"""A person had taken over from the policy. LeRobot's name and dtype (bool) for it, as its DAgger rollout writes them
(`lerobot/rollout/context.py` and `rollout/strategies/dagger.py`, 0.6.1)."""
LATE_ACTION = "late_action"
"""The tick had no action of its own: it came too late or never, and `action` is the one before."""


def repeated_names(cameras: Sequence[str]) -> list[str]:
    """Names of the flags that say what of a tick did not come, in the order of the cameras, the joints last."""
    return [f"repeated_{source}" for source in (*cameras, JOINTS)]


def flag_names(cameras: Sequence[str]) -> list[str]:
    """Names of the numbers of `flags` in a new dataset."""
    return [*repeated_names(cameras), LATE_ACTION]


def vectors(cameras: Sequence[str], environment: Sequence[str] = ()) -> dict[str, list[str]]:
    """Every vector feature with the names of its numbers; `environment`: those of the simulated objects' poses.

    `action` is as commanded, `goal` as really sent to the servos after every limit. LeRobot trains on `observation.*`
    and `action` alone and leaves the rest.
    """
    names = list(NAMES)
    features = {
        "observation.state": names,
        "observation.velocity": names,
        "observation.effort": names,
        ENVIRONMENT: list(environment),
        "action": names,
        "goal": names,
        "temperature_c": names,
        "servo_error": names,
        "frame_age_ms": [*cameras, JOINTS],
        "capture_s": list(cameras),
        FLAGS: flag_names(cameras),
    }
    return {key: value for key, value in features.items() if value}


def create(path: Path, rig: RigConfig, environment: Sequence[str] = ()) -> None:
    """A dataset without episodes for this rig; DatasetError when something is there already."""
    cameras = {name: camera.shape for name, camera in rig.cameras.items()}
    writer = DatasetWriter.create(
        path,
        vectors=vectors(list(cameras), environment),
        cameras=cameras,
        fps=CONTROL_HZ,
        codec=rig.recording.codec,
        scalars={INTERVENTION: "bool", **ending.COLUMNS},
    )
    with writer:
        content = msgspec.json.format(msgspec.json.encode(described(rig)), indent=2)
        files.publish_bytes(content, path / ASIDE / "rig.json", path / reports.RIG_PATH)


def described(rig: RigConfig) -> dict[str, Any]:
    """What of a rig shapes its recordings: kit, servos, cameras, calibration, limits. Ports and the like may change."""
    return {
        "name": rig.name,
        "kit": rig.kit,
        "arms": {name: {str(servo): model for servo, model in arm.models.items()} for name, arm in rig.arms.items()},
        "cameras": {name: _described(camera) for name, camera in rig.cameras.items()},
        "grippers": {
            f"{role}_{side}": msgspec.to_builtins(rig.gripper(role, side))
            for role in ROLES
            for side in rig.arms_of(role)
        },
        "gripper_current_ma": rig.current_ma(),
        "start_pose": list(rig.start_pose),
        "limits": rig.limits.model_dump(mode="json", exclude=None if rig.limits.joints else {"joints"}),
        "simulated_task": rig.sim.task if rig.sim else None,
        "codec": rig.recording.codec,
    }


ALWAYS_DESCRIBED = {"type", "serial", "width", "height", "fps", "exposure", "focus", "pixel_format"}
"""Of a camera. The rest of what shapes its pictures is described where the rig file states it, so that a description
from before there was such a key still says the same."""


def _described(camera: CameraConfig) -> dict[str, Any]:
    every = camera.model_dump(mode="json", exclude={"device", "max_age_ms"})
    stated = camera.model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in every.items() if key in ALWAYS_DESCRIBED or key in stated}


def recorded_only(path: Path) -> set[str]:
    """Cameras of a dataset that its rig only recorded: no policy is to be trained on them."""
    try:
        cameras = msgspec.json.decode((path / reports.RIG_PATH).read_bytes())["cameras"]
        return {name for name, camera in cameras.items() if camera.get("recorded_only") is True}
    except (FileNotFoundError, msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return set()


def refuse_other_rig(path: Path, rig: RigConfig) -> None:
    """Raise DatasetError naming every difference between this rig and the one that recorded the dataset."""
    try:
        before = msgspec.json.decode((path / reports.RIG_PATH).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        raise DatasetError(
            f"{path} does not say which rig recorded it ({reports.RIG_PATH}); record into a new dataset and join them"
            " with `aloha dataset merge`."
        ) from None
    now = msgspec.json.decode(msgspec.json.encode(described(rig)))
    if found := differences(by_arm(before, now), now):
        raise DatasetError(
            f"{path} was recorded on another rig: {'; '.join(found)}. Record into a new dataset, or set the rig back."
        )


def by_arm(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A description from when both arms of a role had one gripper range, in today's shape: each arm has its own."""
    grippers = before.get("grippers")
    if not isinstance(grippers, dict) or not set(grippers) <= set(ROLES):
        return before
    return before | {"grippers": {arm: grippers.get(arm.partition("_")[0]) for arm in now["grippers"]}}


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Each value that differs, with its name and both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in [*before, *(key for key in now if key not in before)]:
            found += differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)
        return found
    if before == now:
        return []
    if isinstance(before, dict) or isinstance(now, dict):
        return [f"{where} is {'gone' if now is None else 'new'}"]
    return [f"{where} was {before}, is {now}"]


def flags(names: Sequence[str], true: Collection[str]) -> NDArray[np.float32]:
    """The numbers of `flags` in the order of `names`; a dataset of an older version has other names."""
    return np.array([name in true for name in names], dtype=np.float32)
