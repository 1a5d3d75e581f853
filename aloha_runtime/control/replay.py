"""Replay of a recorded episode: a bounded way to its first action, then every action at its own time."""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.robot import IS_GRIPPER, TICK_NS, Vector

APPROACH_SPEED = np.where(IS_GRIPPER, 1.0, 0.5)
"""rad/s, openings/s: as slow as the ramp to the start pose, for an operator who judges where the arms are going."""

SETTLE_NS = 25 * TICK_NS
"""Half a second on the first action before the recording starts, so that it starts from rest."""


class Phase(StrEnum):
    """Where a replay is."""

    APPROACH = "approach"
    PLAY = "play"
    DONE = "done"


class Replay:
    """`actions` (T, 14) in action convention, recorded at `fps`; `begin` it, then ask `action` at every tick."""

    def __init__(self, actions: NDArray[np.floating], fps: float) -> None:
        self._actions = np.asarray(actions, dtype=np.float64)
        self._fps = fps
        self._from: Vector = self._actions[0]
        self._began_ns = 0
        self.play_ns = 0
        """When the first recorded action is due."""

    def begin(self, now_ns: int, position: Vector) -> None:
        """Start the approach from a (14,) position."""
        self._from, self._began_ns = np.array(position, dtype=np.float64), now_ns
        travel_s = float((np.abs(self._actions[0] - self._from) / APPROACH_SPEED).max())
        ticks = int(np.ceil(travel_s * 1e9 / TICK_NS))
        self.play_ns = now_ns + ticks * TICK_NS + SETTLE_NS

    @property
    def end_ns(self) -> int:
        """When the last recorded action is due."""
        return self.play_ns + round((len(self._actions) - 1) / self._fps * 1e9)

    def phase(self, now_ns: int) -> Phase:
        if now_ns < self.play_ns:
            return Phase.APPROACH
        return Phase.PLAY if now_ns < self.end_ns else Phase.DONE

    def action(self, now_ns: int) -> Vector:
        """The (14,) action of this moment, between two recorded ones on the line between them; at the end the last."""
        if now_ns < self.play_ns:
            duration_ns = max(self.play_ns - SETTLE_NS - self._began_ns, 1)
            share = min(1.0, (now_ns - self._began_ns) / duration_ns)
            return np.asarray(self._from + share * (self._actions[0] - self._from))
        place = min((now_ns - self.play_ns) * 1e-9 * self._fps, len(self._actions) - 1.0)
        index = int(place + 1e-6)  # a recorded instant is met exactly
        after = min(index + 1, len(self._actions) - 1)
        share = max(0.0, place - index)
        return np.asarray(self._actions[index] + share * (self._actions[after] - self._actions[index]))
