"""A recorded episode as something that arms can do again, or the reason why they cannot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.control.limits import Limits
from aloha_runtime.data.reader import Dataset
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF, IS_GRIPPER, NAMES

ACTION, STATE = "action", "observation.state"
WHOLE_TURN_RAD = 2 * np.pi
"""No joint of the arms goes further; a number beyond it is in degrees or ticks."""
GRIPPER_SLACK = 0.6
"""How far a recorded gripper opening may lie outside 0..1: the published ALOHA 2 constants reach -0.08 and 1.33."""


@dataclass(frozen=True)
class Recording:
    """`actions` and, where it was recorded, `state`: (T, 14) in contract units, at `fps`."""

    actions: NDArray[np.float32]
    state: NDArray[np.float32] | None
    fps: float
    task: str


def load(path: Path, episode: int, limits: Limits) -> Recording:
    """Read one episode; DatasetError when its joints, units or range are not those of this rig."""
    dataset = Dataset(path)
    if not 0 <= episode < len(dataset.episodes):
        raise DatasetError(f"{path} has episodes 0 to {len(dataset.episodes) - 1}; {episode} is outside.")
    found = dataset.episodes[episode]
    span = slice(found.from_index, found.to_index)
    _refuse_other_joints(dataset)
    actions = dataset.vectors(ACTION)[span]
    _refuse_other_units(path, episode, actions)
    _refuse_out_of_reach(path, episode, actions, limits)
    state = dataset.vectors(STATE)[span] if dataset.info.vectors.get(STATE) == DOF else None
    return Recording(actions, state, float(dataset.fps), ", ".join(found.tasks))


def _refuse_other_joints(dataset: Dataset) -> None:
    if dataset.info.vectors.get(ACTION) != DOF:
        has = dataset.info.vectors.get(ACTION, "no")
        raise DatasetError(f"{dataset.path}: action has {has} numbers; these arms need {DOF}. Choose another dataset.")
    names = _flat(dataset.features[ACTION].names)
    if names and names != list(NAMES):
        wrong = next(pair for pair in zip(names + [""] * DOF, NAMES, strict=False) if pair[0] != pair[1])
        raise DatasetError(
            f"{dataset.path}: the action's joints are others than this rig's: {wrong[0] or 'nothing'} where"
            f" {wrong[1]} belongs. Choose a dataset of a bimanual ALOHA."
        )


def _flat(names: Any) -> list[str]:
    """Feature names as a list; LeRobot also writes {"motors": [...]}."""
    if isinstance(names, dict):
        return [name for part in names.values() for name in part]
    return [str(name) for name in names or []]


def _refuse_other_units(path: Path, episode: int, actions: NDArray[np.float32]) -> None:
    where = f"{path}, episode {episode}"
    if not np.isfinite(actions).all():
        frame, joint = np.argwhere(~np.isfinite(actions))[0]
        raise DatasetError(f"{where}: {NAMES[joint]} is {actions[frame, joint]} in frame {frame}. Choose another one.")
    low, high = actions.min(axis=0), actions.max(axis=0)
    for joint, name in enumerate(NAMES):
        if not IS_GRIPPER[joint] and max(-low[joint], high[joint]) > WHOLE_TURN_RAD:
            raise DatasetError(
                f"{where}: {name} goes from {low[joint]:.1f} to {high[joint]:.1f}, which cannot be radians. Convert the"
                f" dataset to rad first."
            )
        if IS_GRIPPER[joint] and (low[joint] < -GRIPPER_SLACK or high[joint] > 1 + GRIPPER_SLACK):
            raise DatasetError(
                f"{where}: {name} goes from {low[joint]:.2f} to {high[joint]:.2f}; openings go from 0 (closed) to 1"
                f" (open). Convert the dataset first."
            )


def _refuse_out_of_reach(path: Path, episode: int, actions: NDArray[np.float32], limits: Limits) -> None:
    """An arm joint that would be led further outside its range than the lead never gets where the recording was."""
    gap = np.where(IS_GRIPPER, 0.0, np.maximum(limits.low - actions, actions - limits.high))
    frame, joint = np.unravel_index(int(gap.argmax()), gap.shape)
    if gap[frame, joint] > limits.lead[joint]:
        raise DatasetError(
            f"{path}, episode {episode}: {NAMES[joint]} goes to {actions[frame, joint]:.2f} rad in frame {frame}; this"
            f" rig allows {limits.low[joint]:.2f} to {limits.high[joint]:.2f}. Another kit or calibration recorded it."
        )
