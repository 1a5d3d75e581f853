"""Whether this computer stood still, judged from turns that come every few milliseconds and did not. Pure.

A *witness* is whatever must have a turn that often: the own loop, an echo through the kernel's terminal worker, the
loop of an emulated chain, the messages of all other processes together. A gap between two turns of a witness is time in
which the computer, and not who is silent, kept everybody waiting. docs/decisions.md says what cannot be told apart.
"""

from collections import deque

MS = 1_000_000
STOOD_STILL = "this computer stood still for"
"""Every cause that accuses the computer, and no other, has these words."""
REMEMBERED = 512
"""Gaps that are remembered: at 12 ms each, the shortest that counts as one, six seconds."""

ENDED_NS = 1000 * MS
"""A witness without a turn for so long, while the asking loop has turns, has ended or was stopped: it says nothing."""


def stood_still(lost_ns: int) -> str:
    """The cause, and what to do."""
    return f"{STOOD_STILL} {lost_ns // MS} ms; close other programs, see `aloha bench jitter`"


def is_stall(cause: str) -> bool:
    """Whether a cause accuses the computer."""
    return STOOD_STILL in cause


class Stillness:
    """Give it every turn of every witness; ask it about a silence. All times are of one monotonic clock, in ns."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, int]] = {}
        self._gaps: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)

    def turn(self, witness: str, at_ns: int, late_ns: int) -> None:
        """The witness had a turn; a gap of more than `late_ns` since its newest is one in which the computer stood
        still. A turn that is said again, or that is older than the newest, changes nothing."""
        newest_ns, _ = self._newest.get(witness, (at_ns, 0))
        self._newest[witness] = max(newest_ns, at_ns), late_ns
        if at_ns - newest_ns > late_ns:
            self._gaps.append((newest_ns, at_ns))

    def went_on(self, witness: str, at_ns: int) -> None:
        """The computer went on until an instant although the witness had no turn: that gap is its own."""
        newest_ns, late_ns = self._newest.get(witness, (at_ns, 0))
        self._newest[witness] = max(newest_ns, at_ns), late_ns

    def lost_ns(self, since_ns: int, now_ns: int) -> int:
        """How much of the time from `since_ns` to `now_ns` some witness had no turn, gaps that still last included."""
        newest = self._newest.values()
        open_gaps = [(at_ns, now_ns) for at_ns, late_ns in newest if late_ns < now_ns - at_ns <= ENDED_NS]
        lost_ns, counted_ns = 0, since_ns
        for gap_start_ns, gap_end_ns in sorted([*self._gaps, *open_gaps]):
            start_ns, end_ns = max(gap_start_ns, counted_ns), min(gap_end_ns, now_ns)
            if end_ns > start_ns:
                lost_ns += end_ns - start_ns
                counted_ns = end_ns
        return lost_ns

    def excuse(self, silent_ns: int, now_ns: int, allowed_ns: int) -> str:
        """The cause of a silence of `silent_ns` up to now where the computer is to blame; empty where who is silent is.

        The computer is to blame when it stood still for at least half of the silence, and what is left is no longer
        than a silence may be: who stays silent on a computer that moves on is named after that time.
        """
        lost_ns = self.lost_ns(now_ns - silent_ns, now_ns)
        if 2 * lost_ns < silent_ns or silent_ns - lost_ns > allowed_ns:
            return ""
        return stood_still(lost_ns)
