"""What a policy that only shadows would have done, tick by tick, beside what the arms were told meanwhile."""

import contextlib
import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import Action, ArmsState, PolicyTick
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import DOF, NAMES, TICK_NS

PATIENCE_TICKS = 5
"""Without an action of that tick by then (100 ms) nobody moved the arms in it."""
UNKNOWN = [float("nan")] * DOF
PARTS = ("predicted", "commanded", "position")
"""Columns of a row, 14 numbers each (rad; grippers 0..1): of the policy, of the person or program that
moved the arms (NaN: none did), and where the arms stood."""


class ShadowLog:
    """Rows of a CSV file, each written as soon as it is known, so that whatever ends the run loses the last ticks only.

    Give it every message in order of arrival. `rows` has the same numbers, (T, 3, 14) float32.
    """

    def __init__(self, path: Path) -> None:
        self.reasons: Counter[str] = Counter()
        """Why there was no prediction, by ticks."""
        self._rows: list[NDArray[np.float32]] = []
        self._waiting: dict[int, Action] = {}
        self._began_tick: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", newline="", encoding="utf-8", buffering=1)
        except OSError as error:
            raise _unwritable(path, error) from None
        self._path, self._writer = path, csv.writer(self._file)
        self._put(["time_s", "tick", *(f"{part}.{name}" for part in PARTS for name in NAMES)])

    @property
    def rows(self) -> NDArray[np.float32]:
        return np.array(self._rows, dtype=np.float32).reshape(-1, len(PARTS), DOF)

    def add(self, actions: Iterable[Action], states: Iterable[ArmsState], ticks: Iterable[PolicyTick] = ()) -> None:
        """What has arrived since the last call: predictions, states of the followers, the policy's own account."""
        self._waiting |= {action.tick: action for action in actions}
        self.reasons.update(tick.reason for tick in ticks if tick.reason)
        for state in states:
            for tick in [tick for tick in self._waiting if state.stamp_ns > tick * TICK_NS]:
                obeyed = state.target is not None and state.action_tick >= tick
                if obeyed or state.stamp_ns > (tick + PATIENCE_TICKS) * TICK_NS:
                    self._write(tick, state, state.target if obeyed and state.target is not None else UNKNOWN)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a full disk, which was said when it happened
            self._file.close()

    def _put(self, row: list[Any]) -> None:
        try:
            self._writer.writerow(row)
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def _write(self, tick: int, state: ArmsState, commanded: list[float]) -> None:
        action = self._waiting.pop(tick)
        self._began_tick = tick if self._began_tick is None else self._began_tick
        numbers = [*action.position, *commanded, *state.position]
        time_s = (tick - self._began_tick) * TICK_NS / NS_PER_S
        self._put([f"{time_s:.2f}", tick, *("" if np.isnan(x) else f"{x:.4f}" for x in numbers)])
        self._rows.append(np.array(numbers, dtype=np.float32))


def _unwritable(path: Path, error: OSError) -> AlohaError:
    return AlohaError(f"{path} cannot be written ({error.strerror}): make room, or choose another place with --out")


def distances(rows: NDArray[np.float32]) -> tuple[str, NDArray[np.float64]]:
    """How far predictions were from what was commanded: a name, and mean, 95th percentile and largest of each joint,
    (3, 14). Where nobody moved the arms: from where they stood."""
    commanded = rows[np.isfinite(rows[:, 1]).all(axis=1)]
    what, gap = "commanded", np.abs(commanded[:, 0] - commanded[:, 1])
    if not len(commanded):
        what, gap = "position", np.abs(rows[:, 0] - rows[:, 2])
    if not len(gap):
        return what, np.full((3, DOF), np.nan)
    return what, np.array([gap.mean(axis=0), np.percentile(gap, 95, axis=0), gap.max(axis=0)], dtype=np.float64)
