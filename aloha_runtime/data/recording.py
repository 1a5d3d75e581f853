"""A recorded episode as something that arms can do again, or the reason why they cannot."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.control.limits import Limits
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.units import flat_names, refuse_other_order, refuse_other_units
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF, IS_GRIPPER, NAMES

ACTION, STATE = "action", "observation.state"


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
    refuse_other_units(f"{path}, episode {episode}", actions)
    _refuse_out_of_reach(path, episode, actions, limits)
    state = dataset.vectors(STATE)[span] if dataset.info.vectors.get(STATE) == DOF else None
    return Recording(actions, state, float(dataset.fps), ", ".join(found.tasks))


def _refuse_other_joints(dataset: Dataset) -> None:
    if dataset.info.vectors.get(ACTION) != DOF:
        has = dataset.info.vectors.get(ACTION, "no")
        raise DatasetError(f"{dataset.path}: action has {has} numbers; these arms need {DOF}. Choose another dataset.")
    if names := flat_names(dataset.features[ACTION].names):
        refuse_other_order(f"{dataset.path}: action", names)


def _refuse_out_of_reach(path: Path, episode: int, actions: NDArray[np.float32], limits: Limits) -> None:
    """An arm joint that would be led further outside its range than the lead never gets where the recording was."""
    gap = np.where(IS_GRIPPER, 0.0, np.maximum(limits.low - actions, actions - limits.high))
    frame, joint = np.unravel_index(int(gap.argmax()), gap.shape)
    if gap[frame, joint] > limits.lead[joint]:
        raise DatasetError(
            f"{path}, episode {episode}: {NAMES[joint]} goes to {actions[frame, joint]:.2f} rad in frame {frame}; this"
            f" rig allows {limits.low[joint]:.2f} to {limits.high[joint]:.2f}. Another kit or calibration recorded it."
        )
