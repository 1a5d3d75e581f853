"""When a log is written, and of what it tells: events that come close together share one. Pure: time is an argument."""

from aloha_runtime.flight_log.triggers import KINDS, Event
from aloha_runtime.realtime import NS_PER_S

LONGEST_AFTER_NS = 30 * NS_PER_S
"""A log is written then, whatever else has happened since its first event."""
AGAIN_NS = 10 * NS_PER_S
"""A log that could not be written is tried again."""


class Due:
    """Events that wait for their log. `after_ns`: how long what comes after an event belongs to it, too."""

    def __init__(self, after_ns: int, longest_ns: int) -> None:
        self.events: list[Event] = []
        self._after_ns, self._longest_ns = after_ns, longest_ns
        self._at_ns = self._latest_ns = 0

    def add(self, event: Event, now_ns: int) -> None:
        """Wait for what comes after this event; what a person asks for is written at once."""
        if not self.events:
            self._at_ns, self._latest_ns = now_ns, now_ns + LONGEST_AFTER_NS
        self.events.append(event)
        later_ns = min(now_ns + self._after_ns, self._latest_ns)
        self._at_ns = now_ns if event.kind == "saved" else max(self._at_ns, later_ns)

    def ready(self, now_ns: int) -> bool:
        return bool(self.events) and now_ns >= self._at_ns

    @property
    def main(self) -> Event:
        """The event that names the log: the first of those whose logs are kept longest."""
        return max(self.events, key=lambda event: KINDS.index(event.kind))

    def begin_ns(self, now_ns: int) -> int:
        """Where the log begins, unless the one before it ended later."""
        return now_ns - self._longest_ns

    def written(self, told: list[Event], now_ns: int) -> None:
        """A log that tells of these events and ends now is on the disk."""
        self.events = [event for event in self.events if event not in told]
        self._at_ns, self._latest_ns = now_ns + self._after_ns, now_ns + LONGEST_AFTER_NS

    def failed(self, told: list[Event], now_ns: int) -> None:
        """It could not be written: try again, except for what has left the ring meanwhile, and for a person's wish, who
        is told."""
        oldest_ns = now_ns - self._longest_ns
        gone = [event for event in told if event.kind == "saved" or event.stamp_ns < oldest_ns]
        self.events = [event for event in self.events if event not in gone]
        self._at_ns, self._latest_ns = now_ns + AGAIN_NS, now_ns + LONGEST_AFTER_NS
