"""When a take begins and ends: the recorder's decisions, pure. One take becomes one episode.

    IDLE --next--> READY --arms move--> TAKING --order, sign, arms stop, loss, time--> IDLE

A take begins by itself when the arms move after `next`, so that a person's hands stay on the leaders. It ends by an
order, by a sign of the leader grippers (`control/signs.py`), and by itself when the arms stop, when there was nothing
to record for a second, or when it is long enough. What ends it says whether it is kept. Continuous recording is always
ready for the next one.
"""

from dataclasses import dataclass
from enum import StrEnum

from aloha_runtime.messages import MOVING, MS, Mode
from aloha_runtime.robot import TICK_NS

SECOND_TICKS = 1000 * MS // TICK_NS


class Phase(StrEnum):
    IDLE = "idle"
    READY = "ready"
    TAKING = "taking"


class Outcome(StrEnum):
    """What the operator says of a take."""

    UNKNOWN = ""
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True)
class TakeLimits:
    """`lost_ticks`: a take ends by itself after so many ticks without something to record. `max_ticks`: its longest."""

    lost_ticks: int = SECOND_TICKS
    max_ticks: int = 600 * SECOND_TICKS


@dataclass(frozen=True)
class Ending:
    """A take is over. `keep`: becomes an episode. Of its frames the last `drop` (a sign, a loss) are left out; `last`:
    only so many of what remains are kept (None: all)."""

    keep: bool
    cause: str
    outcome: Outcome = Outcome.UNKNOWN
    drop: int = 0
    last: int | None = None


class Take:
    """The recorder's state. Call `order` for a wish, `tick` once per tick with what there was to record."""

    def __init__(self, limits: TakeLimits, continuous: bool = False) -> None:
        """`continuous`: the first take and every next one begin without an order, when the arms move."""
        self.limits = limits
        self.phase = Phase.READY if continuous else Phase.IDLE
        self.frames = 0
        """Of the take that is running, or of the last one."""
        self._continuous = continuous
        self._lost = 0
        self._ending: Ending | None = None

    def next(self) -> None:
        """The next take begins when the arms move."""
        if self.phase is Phase.IDLE:
            self.phase = Phase.READY

    def end(self, ending: Ending) -> str:
        """End the take at the next tick; why that is not possible, empty when it is."""
        if self.phase is not Phase.TAKING:
            return f"nothing is being recorded ({self.phase})"
        self._ending = ending
        return ""

    def cancel(self) -> None:
        """Back to IDLE, when no take has begun."""
        if self.phase is Phase.READY:
            self.phase = Phase.IDLE

    def tick(self, mode: Mode, mode_cause: str, missing: str) -> Ending | None:
        """One tick has passed. `missing`: why there is nothing of it to record, empty when there is.

        While `phase` is TAKING afterwards the caller adds a frame, a repeated one where something is missing; an ending
        is carried out without this tick.
        """
        if self.phase is Phase.READY and mode in MOVING and not missing:
            self.phase, self.frames, self._lost, self._ending = Phase.TAKING, 0, 0, None
        if self.phase is not Phase.TAKING:
            return None
        ending = self._ending or self._own_ending(mode, mode_cause, missing)
        if ending is not None:
            self.phase, self._ending = (Phase.READY if self._continuous else Phase.IDLE), None
            return ending
        self.frames += 1
        self._lost = self._lost + 1 if missing else 0
        return None

    def _own_ending(self, mode: Mode, mode_cause: str, missing: str) -> Ending | None:
        if mode not in MOVING:
            return Ending(True, f"the arms went to {mode}: {mode_cause}", drop=self._lost)
        if self._lost >= self.limits.lost_ticks:
            return Ending(True, f"nothing to record for {_seconds(self._lost)}: {missing}", drop=self._lost)
        if self.frames >= self.limits.max_ticks:
            return Ending(True, f"{_seconds(self.frames)} are over", drop=self._lost)
        return None


def _seconds(ticks: int) -> str:
    return f"{ticks / SECOND_TICKS:.1f} s"
