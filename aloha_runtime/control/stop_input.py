"""What a physical stop means for the mode: a press is STOP; pressed or missing it refuses arming. Pure."""

from collections.abc import Iterator

from aloha_runtime.control.events import BlockerChanged, Event, HoldAsked
from aloha_runtime.hardware.base import StopSeen
from aloha_runtime.messages import POWERED, Mode, Request

SENDER = "stop input"


class StopOrders:
    """Turns what is seen of a stop into requests and events. `name`: what it is, for messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._presses = 0
        self._blocker = ""
        self._missing = True
        """So a stop that is missing at the start refuses arming and holds nobody."""

    def take(self, seen: StopSeen, mode: Mode, now_ns: int) -> Iterator[Request | Event]:
        """What the mode machine must be told now. A stop that is held down ends every mode with power again; one that
        is missing does not keep the arms from being parked."""
        if seen.presses != self._presses or (seen.held and mode in POWERED):
            self._presses = seen.presses
            yield Request(verb="stop", sender=SENDER)
        if seen.missing and not self._missing:
            yield HoldAsked(f"{SENDER}: {seen.missing}", now_ns)
        self._missing = bool(seen.missing)
        blocker = seen.missing or (f"{self._name} is pressed or its circuit is open; release it" if seen.held else "")
        if blocker != self._blocker:
            self._blocker = blocker
            yield BlockerChanged(SENDER, blocker, now_ns)

    @property
    def trouble(self) -> str:
        """Why arming is refused now; empty when it is not."""
        return f"{SENDER}: {self._blocker}" if self._blocker else ""
