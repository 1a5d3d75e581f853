"""What deserves a log: STOP, HOLD, FAULT, a process that died, arms left moving. Pure: time is an argument.

What a command ends that went well deserves none: its own stop between two episodes and at its end, a policy whose time
is over, parking.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from aloha_runtime.control.events import ROUTINE
from aloha_runtime.control.modes import TIME_IS_OVER
from aloha_runtime.flight_log.channels import Level
from aloha_runtime.messages import MOVING, MS, Health, Mode, ModeHeartbeat, health_topic
from aloha_runtime.stillness import is_stall, stood_still

Kind = Literal["stop", "ended", "saved", "recovered", "hold", "stalled", "died", "fault"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which their logs go when the folder is full, those of a FAULT last."""
Life = Literal["lives", "died", "ended"]
"""Of a process that is not heard: it holds its place on the bus, left it without a word, or gave it back."""
EXPECTED: tuple[Kind, ...] = ("stop", "saved")
"""A person wanted these."""
SAYS_AGAIN_NS = 1000 * MS
"""The account of a process may change with every report (ages, counts): one line a second is enough."""
JUST_NS = 10_000 * MS
"""A recorder that begins so soon after the arms were stopped was away when it happened: killed, started again."""


@dataclass(frozen=True)
class Event:
    """Something for which a log is written. `mode`: what the arms were doing before it."""

    kind: Kind
    cause: str
    stamp_ns: int
    mode: str


@dataclass(frozen=True)
class Line:
    """Something worth a line in the log."""

    stamp_ns: int
    level: Level
    process: str
    text: str


class Triggers:
    """Give it every heartbeat and health report; `lines` and `events` collect what came of it."""

    def __init__(self, began_ns: int) -> None:
        self._began_ns = began_ns
        self.mode = ""
        self.lines: list[Line] = []
        self.events: list[Event] = []
        self._cause = ""
        self._before = ""
        self._heard_ns: dict[str, int] = {}
        self._said: dict[str, tuple[bool, str, int]] = {}
        self._gone: set[str] = set()

    def heartbeat(self, beat: ModeHeartbeat) -> None:
        """The supervisor's word: HOLD and FAULT are events, every change of mode or cause is a line."""
        mode = str(beat.mode)
        if (mode, beat.cause) == (self.mode, self._cause):
            return
        stopped = mode in (Mode.HOLD, Mode.FAULT)
        self.lines.append(Line(beat.stamp_ns, "error" if stopped else "info", "mode", f"{mode}: {beat.cause}"))
        if mode != self.mode:
            self._before = self.mode
            recent = bool(self.mode) or beat.order_ns > self._began_ns - JUST_NS
            if stopped and recent and not _ended_well(mode, beat.cause):
                self.events.append(Event(_kind(mode, beat.cause), beat.cause, beat.stamp_ns, self.mode))
        self.mode, self._cause = mode, beat.cause

    def health(self, report: Health) -> None:
        """A process's account of itself: a line when it begins or ends to be in trouble, or is back."""
        name, now_ns = report.process, report.stamp_ns
        if name in self._gone:
            self._gone.discard(name)
            self.lines.append(Line(now_ns, "info", name, "is back"))
        self._heard_ns[name] = now_ns
        ok, text, said_ns = self._said.get(name, (True, "", 0))
        if (report.ok, report.message) == (ok, text) or (report.ok == ok and now_ns - said_ns < SAYS_AGAIN_NS):
            return
        if not report.ok or not ok:
            what = report.message or "in trouble"
            self.lines.append(Line(now_ns, "info" if report.ok else "warning", name, "well" if report.ok else what))
        self._said[name] = (report.ok, report.message, now_ns)

    def look(self, now_ns: int, life: Callable[[str], Life]) -> None:
        """Who has not been heard for longer than a report may be old, and what has become of him."""
        nobody_ns = now_ns - max(self._heard_ns.values(), default=now_ns)
        for name, heard_ns in self._heard_ns.items():
            silent_ns = now_ns - heard_ns
            if name in self._gone or silent_ns <= health_topic(name).max_age_ms * MS:
                continue
            self._gone.add(name)
            found = life(name)
            if found == "ended":
                self.lines.append(Line(now_ns, "info", name, "ended"))
                continue
            text = "died" if found == "died" else f"has been silent for {silent_ns // MS} ms, though it lives"
            self.lines.append(Line(now_ns, "error", name, text))
            cause = f"{name} {text}"
            if found == "lives" and len(self._heard_ns) > 1 and 2 * nobody_ns > silent_ns:
                cause = stood_still(nobody_ns)
            if cause not in (event.cause for event in self.events):
                self.events.append(Event("died" if found == "died" else "stalled", cause, now_ns, self.mode))

    def ending(self, now_ns: int) -> None:
        """The recorder is told to end: an event when the arms have not been parked."""
        if self.mode in (Mode.ARMED, Mode.PARK, *MOVING):
            self.events.append(Event("ended", f"the system was ended in {self.mode}", now_ns, self.mode))


def _kind(mode: str, cause: str) -> Kind:
    if is_stall(cause):
        return "stalled"
    if mode == Mode.FAULT:
        return "fault"
    return "stop" if cause.startswith("stop by ") else "hold"


def _ended_well(mode: str, cause: str) -> bool:
    """A HOLD that nobody was alarmed by: a command's own stop, or the end of a policy's time."""
    return mode == Mode.HOLD and cause.startswith((f"{ROUTINE} stop by ", TIME_IS_OVER))
