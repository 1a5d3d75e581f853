"""Who was heard when, and who or what is to blame for a silence: a process, or the computer that stood still. Pure."""

from collections.abc import Iterable

from aloha_runtime.control.events import ArmsHeard, Event, Heard
from aloha_runtime.messages import MS
from aloha_runtime.stillness import Stillness

SILENT_NS = 500 * MS
"""A process unheard for this long is taken for dead. The arms need no such word to be safe: the gate freezes the goal
after 60 ms and the servos' own watchdog acts after 100 ms."""
UNHEARD_NS = 250 * MS
"""A process reports every 200 ms."""
LATE_NS = 45 * MS
"""Two turns of the supervisor and what comes on top; arms report 200 times a second."""
NO_OBSERVATION_NS = 200 * MS
"""A policy asks for HOLD, or looks stuck, after so long without an observation or an inference."""


class Hearing:
    """The supervisor's ears: the newest sign of life of each process, by the stamp that it bears."""

    def __init__(self) -> None:
        self.stillness = Stillness()
        self._heard_ns: dict[str, int] = {}
        self._arms_ns = self._others_ns = 0
        """When arms were heard last, and who else first in a gap of theirs (0: nobody)."""

    def turn(self, events: Iterable[Event], now_ns: int) -> None:
        """A turn of the supervisor with what it has received, in the order of its stamps. A stamp of the future is one
        of now: it must not keep who falls silent from being noticed."""
        self.stillness.turn("supervisor", now_ns, LATE_NS)
        for event in events:
            stamp_ns = min(event.stamp_ns, now_ns)
            if isinstance(event, ArmsHeard):
                self._look_at_gap(stamp_ns)
                self.stillness.turn("arms", stamp_ns, LATE_NS)
                self._arms_ns = max(stamp_ns, self._arms_ns)
            elif isinstance(event, Heard) and stamp_ns - self._arms_ns > LATE_NS:
                self._others_ns = self._others_ns or stamp_ns
            if isinstance(event, Heard | ArmsHeard):
                self._heard_ns[event.source] = max(stamp_ns, self._heard_ns.get(event.source, 0))
        self._look_at_gap(now_ns)

    def _look_at_gap(self, until_ns: int) -> None:
        """Arms report 200 times a second, so that a gap in which they did not is the computer's; but not where somebody
        else was heard in the middle of it. Right before its end everybody wakes up, in any order."""
        if self._others_ns and until_ns - self._others_ns > LATE_NS:
            self.stillness.went_on("arms", self._others_ns)
            self._arms_ns = max(self._others_ns, self._arms_ns)
        if until_ns - self._others_ns > LATE_NS:
            self._others_ns = 0

    def echo(self, now_ns: int) -> None:
        """A byte has come back through the kernel's terminal worker, which real servos need, too."""
        self.stillness.turn("echo", now_ns, LATE_NS)

    def silent(self, sources: Iterable[str], now_ns: int) -> str:
        """Which of the sources is not heard, and what to do, or that the computer stood still; empty when all are."""
        for source in sources:
            heard_ns = self._heard_ns.get(source)
            if heard_ns is None:
                return f"{source} has not been heard yet; see whether it runs (`aloha status`)"
            silent_ns = now_ns - heard_ns
            if silent_ns > SILENT_NS:
                excuse = self.stillness.excuse(silent_ns, now_ns, SILENT_NS)
                return excuse or f"{source} has been silent for {silent_ns // MS} ms; see its log, then arm again"
        return ""

    def unheard(self, source: str, now_ns: int) -> str:
        """That a process has missed a report, for a cause that others have found; empty when it has not."""
        unheard_ns = now_ns - self._heard_ns.get(source, now_ns)
        return f" ({source} was last heard {unheard_ns // MS} ms ago)" if unheard_ns > UNHEARD_NS else ""

    def excused(self, cause: str, now_ns: int) -> str:
        """A cause of a process that had nothing to go on, as the operator is to read it: where this computer stood
        still meanwhile, that."""
        return self.stillness.excuse(NO_OBSERVATION_NS, now_ns, NO_OBSERVATION_NS) or cause
