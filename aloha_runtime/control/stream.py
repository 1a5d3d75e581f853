"""The stream of actions that drives the followers: which are fit to follow, and how fresh they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from aloha_runtime.messages import MS
from aloha_runtime.robot import DOF, NAMES, TICK_NS, Vector


@dataclass(frozen=True)
class GateTiming:
    """When the gate gives up. All in ns except the count."""

    period_ns: int = 5 * MS
    """Cycle of the arms process."""
    hold_after_ns: int = 60 * MS
    """Three ticks without a fresh action."""
    resume_within_ns: int = 500 * MS
    """A longer silence needs the operator."""
    first_action_within_ns: int = 3000 * MS
    """After `follow`, before anything moves: a policy's first inference is slow."""
    future_ns: int = TICK_NS
    """A stamp further ahead is no stamp of this clock."""
    present_within_ns: int = 100 * MS
    """Longest time without a finite joint position."""
    invalid_in_row: int = 3


@dataclass(frozen=True, slots=True)
class Target:
    """An action as it arrived: `position` should be 14 numbers in action convention; the gate checks.

    `stamp_ns`: when it was computed. `period_ns`: how far apart such actions are (50 Hz policy, 200 Hz teleoperation).
    """

    position: Any
    stamp_ns: int
    tick: int = -1
    period_ns: int = TICK_NS


@dataclass
class GateCounters:
    """What happened since the process started, in cycles or actions."""

    cycles: int = 0
    late_cycles: int = 0
    held_off_cycles: int = 0
    shaped_cycles: int = 0
    bad_present: int = 0
    accepted: int = 0
    invalid: int = 0
    stale: int = 0
    repeated: int = 0
    disordered: int = 0
    from_future: int = 0
    ignored: int = 0
    pauses: int = 0
    resumes: int = 0
    holds: int = 0


class ActionStream:
    """Actions since the gate was told to follow. Time is the caller's."""

    def __init__(self, timing: GateTiming, counters: GateCounters, began_ns: int) -> None:
        self.newest: Target | None = None
        """The newest accepted action."""
        self.position: Vector | None = None
        """Its 14 numbers, as commanded."""
        self._timing = timing
        self._counters = counters
        self._began_ns = began_ns
        self._seen: tuple[int, int] | None = None
        self._invalid_in_row = 0

    def take(self, now_ns: int, target: Target) -> Vector | str:
        """The (14,) position of an action to follow; else why the stream must end, or "" when this one is passed over.

        What is passed over is counted: repeated, out of order or from before the start, stale, from the future, and
        what is not 14 finite numbers, of which the third in a row ends the stream.
        """
        counters = self._counters
        if (target.stamp_ns, target.tick) == self._seen:
            counters.repeated += 1
            return ""
        self._seen = (target.stamp_ns, target.tick)
        position = numbers(target.position)
        if isinstance(position, str):
            counters.invalid += 1
            self._invalid_in_row += 1
            if self._invalid_in_row < self._timing.invalid_in_row:
                return ""
            return f"{self._invalid_in_row} actions in a row were refused, the last because {position}"
        if target.stamp_ns > now_ns + self._timing.future_ns:
            counters.from_future += 1
        elif target.stamp_ns < self._began_ns or (self.newest is not None and target.stamp_ns <= self.newest.stamp_ns):
            counters.disordered += 1
        elif now_ns - target.stamp_ns >= self._timing.hold_after_ns:
            counters.stale += 1
        else:
            counters.accepted += 1
            self._invalid_in_row = 0
            self.newest, self.position = target, position
            return position
        return ""

    def silence(self, now_ns: int) -> str:
        """Why the operator must look after a silence too long to go on from; empty while the stream may still go on."""
        if self.newest is None:
            waited_ns, allowed_ns = now_ns - self._began_ns, self._timing.first_action_within_ns
        else:
            waited_ns, allowed_ns = now_ns - self.newest.stamp_ns, self._timing.resume_within_ns
        if waited_ns <= allowed_ns:
            return ""
        return f"no action for {waited_ns // MS} ms; see in `aloha status` which process should send it, then arm again"

    def pauses(self, now_ns: int) -> bool:
        """True when the newest action is too old to go on moving."""
        return self.newest is not None and now_ns - self.newest.stamp_ns >= self._timing.hold_after_ns


def numbers(position: Any) -> Vector | str:
    """A (14,) float64 copy, or why it is not 14 finite numbers."""
    try:
        array = np.array(position)
    except (TypeError, ValueError, OverflowError):
        return "it is no list of numbers"
    if array.dtype.kind not in ("f", "i", "u"):
        return f"it holds {array.dtype} instead of numbers"
    if array.shape != (DOF,):
        return f"its shape is {array.shape} instead of ({DOF},)"
    finite = np.isfinite(array)
    if not finite.all():
        index = int(np.argmin(finite))
        return f"{NAMES[index]} is {array[index]}"
    return np.asarray(array, np.float64)
