"""What the goal monitor holds against a servo's goal while its torque is switched on.

Judged as for a servo that keeps its goal when torque goes on and whose position falls back into one turn with it: the
goal in force is the last one written or reported, however long ago, and its distance is taken from the first position
that the servo reports after the switch. A servo of which neither was heard since it was rebooted, or since its watchdog
may have tripped, has no known goal.
"""

from collections import deque

STOOD_NS = 100_000_000
"""A goal that has not changed for so long stood still, and a switch is no reason for another one."""
_RECENT = 64


class TorqueWatch:
    """The goal register of one servo as written, and the switch of its torque that is being judged."""

    def __init__(self) -> None:
        self._written: deque[tuple[int, int]] = deque(maxlen=_RECENT)
        self._held: int | None = None
        """The goal from which it may not move; None: the first that is written."""
        self._judging = False
        self.unseen = False
        """Torque went on, and the servo has not yet been heard to say where it is."""

    @property
    def goal(self) -> int | None:
        """The goal in force; None where nobody can know it."""
        return self._written[-1][1] if self._written else None

    def forget(self) -> None:
        """The servo has restarted, or has put its own goal there."""
        self._written.clear()
        self._held, self.unseen, self._judging = None, False, False

    def write(self, stamp_ns: int, tick: int) -> int:
        """Take down a goal, with or without torque; how many ticks it is from the one at the switch.

        0 when no switch is being judged. That ends with the first goal behind the first position that is seen: from
        there on the servo moves.
        """
        self.learn(stamp_ns, tick)
        if not self._judging:
            return 0
        if self._held is None:
            self._held = tick
        self._judging = self.unseen
        return abs(tick - self._held)

    def learn(self, stamp_ns: int, tick: int) -> None:
        """The goal in force: as written, or as the servo itself says, which may have put another one there."""
        if not self._written or self._written[-1][1] != tick:
            self._written.append((stamp_ns, tick))

    def on(self, stamp_ns: int, fresh: bool) -> None:
        """Torque is written on; `fresh`: it was off. One that had it must hold the goal at which it stood."""
        self._judging, self.unseen = True, fresh
        self._held = self.goal if fresh else self._stood_at(stamp_ns)

    def off(self) -> None:
        """Torque is written off: goals move nothing, and stay in the register."""
        self._judging = self.unseen = False

    def _stood_at(self, stamp_ns: int) -> int | None:
        """The goal at which the servo stood until the switch, None where it was moving: the newest one that was in
        force for `STOOD_NS`, if nothing but the switch has ended that."""
        for (begin_ns, tick), (end_ns, _) in zip(
            reversed(self._written), [(stamp_ns, 0), *reversed(self._written)], strict=False
        ):
            if end_ns - begin_ns >= STOOD_NS:
                return tick
            if stamp_ns - begin_ns > STOOD_NS:
                return None
        return None
