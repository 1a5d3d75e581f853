"""What the wire of an arm tells: when goals last changed, how far joints went, how regularly the arms process wrote."""

import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from aloha_runtime.messages import MS, ArmsState
from aloha_runtime.robot import RAD_PER_TICK
from aloha_runtime.sim.monitor import Wire

ANSWERED_NS = 5 * MS
"""A cycle of the arms: an answer that comes later was asked for without goals."""


def changes(wire: Wire) -> list[int]:
    """Stamps of the writes in which a goal changed."""
    last: dict[int, int] = {}
    stamps: list[int] = []
    for stamp_ns, servo, tick in wire.goals:
        if last.get(servo, tick) != tick and (not stamps or stamps[-1] != stamp_ns):
            stamps.append(stamp_ns)
        last[servo] = tick
    return stamps


def travel(wire: Wire, ends: Mapping[int, int], since_ns: int) -> float:
    """Farthest way of a servo from where it was at an instant, between two sightings on the wire, to where it is now
    (rad). A servo looks when it is asked, which is when the goals come; its answer takes 1 to 2 ms."""
    asked = sorted({stamp for stamp, _, _ in wire.goals})
    seen: dict[int, dict[int, int]] = {}
    for stamp_ns, servo, tick in wire.presents:
        at = bisect_right(asked, stamp_ns)
        answers = at > 0 and stamp_ns - asked[at - 1] <= ANSWERED_NS
        seen.setdefault(servo, {})[asked[at - 1] if answers else stamp_ns] = tick
    starts = {}
    for servo, track in seen.items():
        when, where = zip(*sorted(track.items()), strict=True)
        starts[servo] = float(np.interp(since_ns, np.array(when), np.array(where)))
    return max((abs(ends[servo] - starts[servo]) for servo in ends if servo in starts), default=0.0) * RAD_PER_TICK


def longest_pause(states: Sequence[ArmsState], start_ns: int, end_ns: int) -> int:
    """ns between two cycles of the arms process in a span of time."""
    stamps = [start_ns, *(state.stamp_ns for state in states if start_ns < state.stamp_ns < end_ns), end_ns]
    return max(later - earlier for earlier, later in itertools.pairwise(stamps))
