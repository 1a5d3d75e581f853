"""What `aloha dataset convert` makes of the numbers: rad of degrees, arms in the contract's order, another rate."""

from dataclasses import dataclass
from fractions import Fraction

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aloha_runtime.data.layout import COUNTERS, Feature, Info
from aloha_runtime.data.units import flat_names
from aloha_runtime.robot import IS_GRIPPER, NAMES

TURNED = ("observation.state", "observation.velocity", "action", "goal")
"""Vectors of angles and of their speeds."""
BETWEEN = ("observation.state", "observation.velocity", "observation.effort", "action", "goal")
"""Vectors whose numbers between two frames lie on the line between them; of all other features the nearest is taken."""


@dataclass(frozen=True)
class Conversion:
    """`degrees`: joints are in degrees. `arm_order`: reorder by the names. `rate`: frames a second from now on, None
    keeps it. `before` is the description of the dataset as it was."""

    before: Info
    degrees: bool = False
    arm_order: bool = False
    rate: Fraction | None = None

    def described(self, info: Info) -> Info:
        """The description of what comes out."""
        changed = {key: self._feature(key, feature) for key, feature in info.features.items()}
        fps = info.fps if self.rate is None else float(self.rate)
        return msgspec.structs.replace(info, features=changed, fps=int(fps) if fps == int(fps) else fps)

    def _feature(self, key: str, feature: Feature) -> Feature:
        names = list(NAMES) if self.order(key) is not None else feature.names
        said = feature.info
        if self.rate is not None and said and "video.fps" in said:
            said = {**said, "video.fps": float(self.rate)}
        return Feature(feature.dtype, feature.shape, names, said)

    def order(self, key: str) -> NDArray[np.int64] | None:
        """Where each of the 14 joints of the contract is in a vector; None when it stays as it is."""
        names = flat_names(self.before.features[key].names)
        if not self.arm_order or sorted(names) != sorted(NAMES) or names == list(NAMES):
            return None
        return np.array([names.index(name) for name in NAMES])

    def picks(self, frames: int) -> NDArray[np.int64] | None:
        """Which frame of an episode each new one shows; None when the rate stays."""
        if self.rate is None:
            return None
        last = Fraction(frames - 1) / self.before.rate
        steps = np.arange(int(last * self.rate) + 1)
        nearest = np.rint(steps * float(self.before.rate / self.rate)).astype(np.int64)
        return np.asarray(np.minimum(nearest, frames - 1), dtype=np.int64)

    def numbers(self, table: pa.Table) -> pa.Table:
        """The rows as they come out."""
        picks = self.picks(len(table))
        made = table if picks is None else table.take(pa.array(picks))
        for key in table.column_names:
            if key in COUNTERS or key not in self.before.vectors:
                continue
            order, turned = self.order(key), self.degrees and key in TURNED
            if order is None and not turned and (picks is None or key not in BETWEEN):
                continue
            flat = table[key].combine_chunks()
            kind = flat.type
            values = (flat if pa.types.is_floating(kind) else flat.flatten()).to_numpy().reshape(len(table), -1)
            if picks is not None and key in BETWEEN:
                at = np.arange(len(picks)) * float(self.before.rate / (self.rate or 1))
                values = np.stack([np.interp(at, np.arange(len(table)), column) for column in values.T], axis=1)
            elif picks is not None:
                values = values[picks]
            values = values if order is None else values[:, order]
            if turned and values.shape[1] == len(NAMES):
                values = np.where(IS_GRIPPER, values, np.deg2rad(values))
            flat = pa.array(values.ravel(), type=kind if pa.types.is_floating(kind) else kind.value_type)
            made = made.set_column(made.schema.get_field_index(key), key, _shaped(flat, values.shape[1], kind))
        return made


def _shaped(flat: pa.Array, size: int, kind: pa.DataType) -> pa.Array:
    return flat if pa.types.is_floating(kind) else pa.FixedSizeListArray.from_arrays(flat, size)
