"""What a physical stop means for the mode: a press is STOP; pressed or missing it refuses arming. Pure."""

from collections.abc import Iterator

from aloha_runtime.control.events import BlockerChanged, Event, HoldAsked
from aloha_runtime.hardware.base import StopSeen
from aloha_runtime.messages import MOVING, Mode, Request

SENDER = "stop input"
STOPPED = (Mode.ARMED, *MOVING, Mode.PARK)
"""Modes in which arms may move, which a stop that is held down ends again and again."""


class StopOrders:
    """Turns what is seen of a stop into requests and events. `name`: what it is, for messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._presses = 0
        self._blocker = ""
        self._missing = True
        """So a stop that is missing at the start refuses arming and holds nobody."""

    def take(self, seen: StopSeen, mode: Mode) -> Iterator[Request | Event]:
        """What the mode machine must be told now. A stop that is missing does not keep the arms from being parked."""
        if seen.presses != self._presses or (seen.held and mode in STOPPED):
            self._presses = seen.presses
            yield Request(verb="stop", sender=SENDER)
        if seen.missing and not self._missing:
            yield HoldAsked(f"{SENDER}: {seen.missing}")
        self._missing = bool(seen.missing)
        blocker = seen.missing or (f"{self._name} is pressed or its circuit is open; release it" if seen.held else "")
        if blocker != self._blocker:
            self._blocker = blocker
            yield BlockerChanged(SENDER, blocker)

    @property
    def trouble(self) -> str:
        """Why arming is refused now; empty when it is not."""
        return f"{SENDER}: {self._blocker}" if self._blocker else ""
