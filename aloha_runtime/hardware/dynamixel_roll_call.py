"""Which servos of a chain are silent, found by asking each of them alone. Pure.

A group read says little about who is missing: on some firmware all behind a missing servo stay silent too, and an
adapter may hold every answer back. So each servo is asked by itself, in turn, until it has answered or has been silent
often and long enough.
"""

from collections.abc import Iterable

TURNS = 3
"""Questions in a row to one servo that stay without an answer. With one answer of twenty lost, a servo that lives looks
silent once in eight thousand roll calls."""
LATEST_NS = 45_000_000
"""An answer comes at most 40 ms after its question: who was asked for the first time since then may still answer."""
NAMED_NS = 200_000_000
"""After this, those who have not been heard are silent, however often they were asked (promise: named in 200 ms)."""


class RollCall:
    """A roll call since the last whole reading, at `since_ns`."""

    def __init__(self, ids: Iterable[int], since_ns: int) -> None:
        self.since_ns = since_ns
        self._unanswered = dict.fromkeys(ids, 0)
        self._first_ns: dict[int, int] = {}
        """When a servo was asked first, of the questions that it has not answered."""
        self._asked_ns: dict[int, int] = {}
        self._heard_ns: dict[int, int] = {}

    def asked(self, servo_id: int, now_ns: int) -> None:
        """This servo is asked now, alone."""
        self._unanswered[servo_id] += 1
        self._first_ns.setdefault(servo_id, now_ns)
        self._asked_ns[servo_id] = now_ns

    def heard(self, servo_id: int, now_ns: int, late: bool = False) -> None:
        """This servo said something. `late`: in answer to an earlier question, which may be older than this roll call:
        then it counts once the servo has been asked alone."""
        if servo_id not in self._unanswered or (late and not self._unanswered[servo_id]):
            return
        self._unanswered[servo_id] = 0
        self._first_ns.pop(servo_id, None)
        self._heard_ns[servo_id] = now_ns

    def next(self, among: Iterable[int]) -> int:
        """Whom of these to ask: first who has not been heard, then who was asked longest ago."""
        return min(among, key=lambda servo_id: (servo_id in self._heard_ns, self._asked_ns.get(servo_id, 0)))

    def silent(self, now_ns: int) -> dict[int, int]:
        """Servo id -> ns since it was last heard, for those that are silent."""
        turns = TURNS if self._heard_ns else 1  # where nobody at all answers, once is enough for each
        overdue = now_ns - self.since_ns >= NAMED_NS
        return {
            servo_id: now_ns - self._heard_ns.get(servo_id, self.since_ns)
            for servo_id, unanswered in self._unanswered.items()
            if (unanswered >= turns and now_ns - self._first_ns[servo_id] >= LATEST_NS)
            or (overdue and servo_id not in self._heard_ns)
        }

    def complete(self, now_ns: int) -> bool:
        """Whether each servo has been heard or is silent."""
        return self._unanswered.keys() == self._heard_ns.keys() | self.silent(now_ns).keys()
