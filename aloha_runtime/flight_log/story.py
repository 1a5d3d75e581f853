"""What a log tells: a timeline of modes, causes, processes and gaps, and the joints at the moment that matters."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aloha_runtime import messages
from aloha_runtime.flight_log.channels import LEVELS, LOG, LogLine, name_of
from aloha_runtime.flight_log.reader import FlightLog
from aloha_runtime.messages import ACTION_TOPIC, MS, Action, ArmsState, ModeHeartbeat
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import DOF
from aloha_runtime.stillness import stood_still

PERIODS = 5
"""A topic that has missed so many of its messages, and is stale by its own table, has a gap."""
LONGEST_GAP_NS = 30 * NS_PER_S
"""What is silent for longer has been switched off rather than lost."""

STILL_NS = 40 * MS
"""The topics of a rig come more than a thousand times a second: nothing of any of them for so long is no chance."""
LEAST_HZ = 25.0
"""Slower topics may be silent for so long anyway."""
CAUSES_NS, SHOWS_NS = 2 * NS_PER_S, NS_PER_S // 2
"""A computer that stood still makes the arms stop at once, or when half a second of silence has been noticed; messages
that were on their way when it did come after the event."""


@dataclass(frozen=True, order=True)
class Moment:
    """One line of the timeline. `stamp_ns`: wall time; `level` as in `foxglove.Log`."""

    stamp_ns: int
    level: int
    who: str
    text: str


def timeline(log: FlightLog, start_ns: int | None = None, end_ns: int | None = None) -> list[Moment]:
    """Everything worth a line between two instants, in order."""
    told = [
        Moment(stamp_ns, line.level, line.name, line.message)
        for stamp_ns, line in log.messages(LOG, LogLine, start_ns, end_ns)
    ]
    return sorted([*told, *gaps(log, start_ns, end_ns)])


def gaps(log: FlightLog, start_ns: int | None = None, end_ns: int | None = None) -> Iterator[Moment]:
    """Where a topic fell silent and came back, and where messages were lost on the way to the recorder."""
    moving = _moving(log)
    tables = {name: channel.metadata for name, channel in log.channels.items() if "rate_hz" in channel.metadata}
    last: dict[str, tuple[int, int]] = {}
    for name, stamp_ns, sequence, _ in log.raw(*tables, start_ns=start_ns, end_ns=end_ns):
        before_ns, number = last.get(name, (stamp_ns, sequence - 1))
        last[name] = (stamp_ns, sequence)
        silent_ns, lost = stamp_ns - before_ns, sequence - number - 1
        rate_hz, max_age_ms = float(tables[name]["rate_hz"]), float(tables[name]["max_age_ms"])
        usual_ns = max(PERIODS * NS_PER_S / rate_hz, max_age_ms * MS)
        if not usual_ns < silent_ns < LONGEST_GAP_NS or not _expected(name, before_ns, stamp_ns, moving):
            continue
        why = f", {lost} messages never reached the recorder" if lost > 0 else ""
        text = f"nothing for {silent_ns / MS:.0f} ms (stale after {max_age_ms:g}){why}"
        yield Moment(before_ns, LEVELS["warning"], name, text)


def likely_cause(log: FlightLog, event_ns: int) -> Moment | None:
    """That this computer stood still just before the event, where every topic has its gap at the same time: the longest
    such time. None where some topic went on, and where there is but one sender."""
    tables = {name: channel.metadata for name, channel in log.channels.items() if "rate_hz" in channel.metadata}
    quick = [name for name, table in tables.items() if float(table["rate_hz"]) >= LEAST_HZ]
    longest, before_ns, senders = (0, 0), 0, set()
    for name, stamp_ns, _, _ in log.raw(*quick, start_ns=event_ns - CAUSES_NS, end_ns=event_ns + SHOWS_NS):
        senders.add(tables[name].get("from", name))
        if before_ns and before_ns <= event_ns:
            longest = max(longest, (stamp_ns - before_ns, before_ns))
        before_ns = stamp_ns
    if longest[0] < STILL_NS or len(senders) < 2:
        return None
    return Moment(longest[1], LEVELS["warning"], "computer", stood_still(longest[0]))


def _moving(log: FlightLog) -> list[tuple[int, str]]:
    """When which mode began."""
    found: list[tuple[int, str]] = []
    for stamp_ns, beat in log.messages(name_of(messages.MODE), ModeHeartbeat):
        if not found or found[-1][1] != beat.mode:
            found.append((stamp_ns, str(beat.mode)))
    return found


DRIVERS = {name_of(topic): str(mode) for mode, topic in ACTION_TOPIC.items()}


def _expected(name: str, before_ns: int, after_ns: int, moving: list[tuple[int, str]]) -> bool:
    """Whether a topic ought to have spoken all the time: actions come only while their mode lasts."""
    if name not in DRIVERS:
        return True
    during = [mode for stamp_ns, mode in moving if stamp_ns <= before_ns][-1:]
    during += [mode for stamp_ns, mode in moving if before_ns < stamp_ns < after_ns]
    return bool(during) and all(mode == DRIVERS[name] for mode in during)


class Track:
    """A pair of arms over a span. `time_ns`: (T,) wall time; `position`, `goal`, `target`: (T, 14), NaN where there is
    none; `held_off`: (T, 14) where a limit kept a joint off its target; `states`: the messages themselves."""

    def __init__(self, log: FlightLog, topic: messages.Topic, start_ns: int | None, end_ns: int | None) -> None:
        found = list(log.messages(name_of(topic), ArmsState, start_ns, end_ns))
        self.states = [state for _, state in found]
        self.time_ns = np.array([stamp_ns for stamp_ns, _ in found], dtype=np.int64)
        self.position = _rows([state.position for state in self.states])
        self.goal = _rows([state.goal for state in self.states])
        self.target = _rows([state.target for state in self.states])
        bits = np.array([state.held_off for state in self.states], dtype=np.int64)
        self.held_off: NDArray[np.bool_] = (bits[:, None] >> np.arange(DOF) & 1).astype(bool)

    def at(self, stamp_ns: int) -> ArmsState | None:
        """The newest state not after an instant; None when there is none."""
        index = int(np.searchsorted(self.time_ns, stamp_ns, side="right")) - 1
        return self.states[index] if index >= 0 else None


def last_action(log: FlightLog, mode: str, stamp_ns: int) -> tuple[int, Action] | None:
    """The newest action of a mode's topic not after an instant, with its wall time."""
    names = [name for name, of in DRIVERS.items() if of == mode]
    found = [item for name in names for item in log.messages(name, Action, stamp_ns - 5 * NS_PER_S, stamp_ns + 1)]
    return found[-1] if found else None


def _rows(rows: list[list[float] | None]) -> NDArray[np.float64]:
    plain = [[np.nan] * DOF if row is None or len(row) != DOF else row for row in rows]
    return np.array(plain, dtype=np.float64).reshape(-1, DOF)
