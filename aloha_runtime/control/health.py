"""The late-tick rule: success over the last 100 ticks; under 0.95 health is degraded, under 0.80 the arms HOLD."""

from collections import deque
from enum import StrEnum

WINDOW = 100
"""Ticks: the last two seconds."""
DEGRADED_BELOW = 0.95
HOLD_BELOW = 0.80


class TickHealth(StrEnum):
    """Verdict on a loop."""

    GOOD = "good"
    DEGRADED = "degraded"
    HOLD = "hold"


class TickRecord:
    """The last `WINDOW` ticks of one loop; those before the first count as good, else one late tick would HOLD."""

    def __init__(self) -> None:
        self._recent: deque[bool] = deque([True] * WINDOW, maxlen=WINDOW)
        self._late = 0

    def add(self, on_time: bool, skipped: int = 0) -> TickHealth:
        """Record a tick and the `skipped` ones before it, which were late by definition."""
        for success in (*[False] * min(skipped, WINDOW), on_time):
            self._late += (not success) - (not self._recent[0])
            self._recent.append(success)
        return self.verdict

    @property
    def success(self) -> float:
        """Share of the last ticks that were on time."""
        return (WINDOW - self._late) / WINDOW

    @property
    def verdict(self) -> TickHealth:
        """What the share means."""
        if self.success < HOLD_BELOW:
            return TickHealth.HOLD
        return TickHealth.DEGRADED if self.success < DEGRADED_BELOW else TickHealth.GOOD
