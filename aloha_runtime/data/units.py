"""Whether numbers are what their names say: the arms' joints, in their order and units."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF, IS_GRIPPER, NAMES

WHOLE_TURN_RAD = 2 * np.pi
"""No joint of the arms goes further; a number beyond it is in degrees or ticks."""
DEEPEST = 8
"""Lists in lists in which names are looked for; the deepest seen in public datasets is 3."""
GRIPPER_SLACK = 0.6
"""How far a recorded gripper opening may lie outside 0..1: the published ALOHA 2 constants reach -0.08 and 1.33."""


def flat_names(names: Any, depth: int = 0) -> list[str]:
    """Names of a feature's numbers as a list, however deep public converters nest them: `[...]`, `[[...]]`,
    `{"motors": [...]}`, `{"motors": {"left": [...]}}`, and `{"left_waist": 0, ...}`, which counts places."""
    if depth > DEEPEST:
        return []
    if isinstance(names, dict):
        if names and all(isinstance(place, int) for place in names.values()):
            return [str(name) for name in sorted(names, key=lambda name: int(names[name]))]
        return [name for part in names.values() for name in flat_names(part, depth + 1)]
    if isinstance(names, list | tuple):
        return [name for part in names for name in flat_names(part, depth + 1)]
    return [] if names is None else [str(names)]


def is_of_aloha(names: Sequence[str]) -> bool:
    """Whether a vector with these names is that of two ALOHA arms: it says so, at least in part."""
    return bool(set(names) & set(NAMES))


def refuse_other_order(where: str, names: Sequence[str]) -> None:
    """Raise DatasetError unless `names` are the 14 of the contract in its order."""
    if list(names) != list(NAMES):
        wrong = next(pair for pair in zip([*names, *[""] * DOF], [*NAMES, ""], strict=False) if pair[0] != pair[1])
        raise DatasetError(
            f"{where}: the joints are others than this rig's, or in another order: {wrong[0] or 'nothing'} where"
            f" {wrong[1] or 'nothing'} belongs. Choose a dataset of a bimanual ALOHA, or reorder it."
        )


def refuse_other_units(where: str, values: NDArray[np.float32]) -> None:
    """Raise DatasetError unless (T, 14) values are finite, in rad, and grippers about 0 (closed) to 1 (open)."""
    if not np.isfinite(values).all():
        frame, joint = np.argwhere(~np.isfinite(values))[0]
        raise DatasetError(f"{where}: {NAMES[joint]} is {values[frame, joint]} in frame {frame}. Choose another one.")
    low, high = values.min(axis=0), values.max(axis=0)
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
