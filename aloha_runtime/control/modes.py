"""The state machine of the rig: IDLE -> ARMED -> (TELEOP | POLICY | REPLAY) -> HOLD -> ARMED; PARK; FAULT.

A person takes over from a policy (POLICY -> TELEOP) and hands back (TELEOP -> POLICY) without a stop in between.

Pure: the supervisor hands it every request and event with the time, and publishes what it decides. Rules that hold
whatever arrives (each has a property test):

- only an operator arms, parks or shuts down; STOP is obeyed from anybody, in every mode, and never starts a motion;
- motion begins in ARMED only; HOLD and FAULT are left only by an operator;
- a fault ends every mode; FAULT is left only when all faults are gone *and* the operator says so;
- a clean shutdown parks first; from FAULT it ends without moving, and torque stays on.
"""

from collections import deque

from aloha_runtime.control.events import (
    ArmsHeard,
    BlockerChanged,
    Change,
    Decision,
    Event,
    FaultChanged,
    Heard,
    HoldAsked,
    TimePassed,
    cause_of,
)
from aloha_runtime.messages import MOVING, MS, ArmsState, Mode, ModeHeartbeat, Request
from aloha_runtime.stillness import Stillness, is_stall

SILENT_NS = 500 * MS
"""A process unheard for this long is taken for dead. The arms need no such word to be safe: the gate freezes the goal
after 60 ms and the servos' own watchdog acts after 100 ms."""
UNHEARD_NS = 250 * MS
"""A process reports every 200 ms."""
OBEYED_WITHIN_NS = 100 * MS
"""Five heartbeats: what arms say of an earlier mode in this time after a change is not held against the new one."""
LATE_NS = 45 * MS
"""Two turns of the supervisor and what comes on top; with arms that report 200 times a second, somebody always has."""
NO_OBSERVATION_NS = 200 * MS
"""A policy asks for HOLD, or looks stuck, after so long without an observation or an inference."""
HISTORY = 64
TIME_IS_OVER = "the policy has moved the arms for its time"
"""How the cause of a HOLD after the longest duration begins."""

ARMS = ("arms@followers", "arms@leaders")
DRIVER = {Mode.TELEOP: "teleop", Mode.POLICY: "policy", Mode.REPLAY: "replay"}
"""The process whose actions drive the followers in each moving mode."""
STARTS = {"teleop": Mode.TELEOP, "policy": Mode.POLICY, "replay": Mode.REPLAY}
EXCHANGES = {"takeover": Mode.TELEOP, "handback": Mode.POLICY}
"""From the one to the other without ARMED; the supervisor sees to it that leaders and followers agree."""
OPERATOR_ONLY = ("arm", "park", "shutdown")

ON_REQUEST: dict[str, dict[Mode, Mode]] = {
    "arm": dict.fromkeys((Mode.IDLE, Mode.ARMED, Mode.HOLD, Mode.FAULT), Mode.ARMED),
    **{verb: {Mode.ARMED: mode, mode: mode} for verb, mode in STARTS.items()},
    **{verb: {Mode.POLICY: mode, Mode.TELEOP: mode} for verb, mode in EXCHANGES.items()},
    "stop": {
        **dict.fromkeys((Mode.ARMED, *MOVING, Mode.PARK, Mode.HOLD), Mode.HOLD),
        Mode.IDLE: Mode.IDLE,
        Mode.FAULT: Mode.FAULT,
    },
    "park": {**dict.fromkeys((Mode.ARMED, Mode.HOLD, Mode.FAULT, Mode.PARK), Mode.PARK), Mode.IDLE: Mode.IDLE},
    "shutdown": {
        **dict.fromkeys((Mode.ARMED, *MOVING, Mode.HOLD, Mode.PARK), Mode.PARK),
        Mode.IDLE: Mode.IDLE,
        Mode.FAULT: Mode.FAULT,
    },
    "status": {mode: mode for mode in Mode},
}
"""Where each verb leads from each mode; what is not listed is refused."""

ADVICE = {
    Mode.IDLE: "arm first",
    Mode.HOLD: "arm first",
    Mode.FAULT: "clear the fault, then arm",
    Mode.PARK: "wait until the arms are parked, or stop them, then arm",
    **dict.fromkeys((Mode.ARMED, *MOVING), "stop first"),
}
"""What to do when a verb is refused in a mode."""


class ModeMachine:
    """See the module. `arms`: the pairs of arms that this rig has; `watchers`: processes without whose eyes nothing
    moves. Both by process name."""

    def __init__(
        self,
        now_ns: int,
        arms: tuple[str, ...] = ARMS,
        policy_for_ns: int | None = None,
        shadow: bool = False,
        watchers: tuple[str, ...] = (),
    ) -> None:
        """`policy_for_ns`: longest motion of a policy, from its start in ARMED on; `shadow`: none may move the arms."""
        self.mode = Mode.IDLE
        self.pose = ""
        self.since_ns = now_ns
        self.cause = "started"
        self.history: deque[Change] = deque(maxlen=HISTORY)
        self.faults: dict[str, str] = {}
        """Causes by source, as long as they last."""
        self.blockers: dict[str, str] = {}
        self._arms, self._watchers = arms, watchers
        self._heard_ns: dict[str, int] = {}
        self._settled: set[str] = set()
        self._ending = False
        self._fault_source = ""
        self._policy_for_ns = policy_for_ns
        self._policy_since_ns: int | None = None
        self._shadow = shadow
        self.stillness = Stillness()

    def heartbeat(self, now_ns: int, seq: int) -> ModeHeartbeat:
        """The message that tells everyone."""
        return ModeHeartbeat(
            stamp_ns=now_ns, seq=seq, mode=self.mode, pose=self.pose, since_ns=self.since_ns, cause=self.cause
        )

    def handle(self, item: Request | Event, now_ns: int, operator: bool = False) -> Decision:
        """Take one request or event. `operator`: the request came from a person in charge, as the supervisor judged."""
        before = (self.mode, self.since_ns)
        self._witness(item, now_ns)
        shutdown = False
        ok, text = True, ""
        if isinstance(item, Request):
            ok, text, shutdown = self._request(item, now_ns, operator)
        else:
            self._event(item, now_ns)
        if self.mode is Mode.IDLE and before[0] is Mode.PARK and self._ending:
            shutdown = True
        return Decision(self.mode, before != (self.mode, self.since_ns), ok, text or self.cause, shutdown)

    def _request(self, request: Request, now_ns: int, operator: bool) -> tuple[bool, str, bool]:
        """Answer (ok, text, shut down now)."""
        verb = request.verb
        refusal = self._refusal(request, now_ns, operator)
        if refusal:
            return False, refusal, False
        wanted = ON_REQUEST[verb][self.mode]
        cause = cause_of(request)
        if verb == "shutdown":
            self._ending = True
            if self.mode is Mode.FAULT:
                return True, "shutting down; torque stays on, so hold the arms before you cut their power", True
            if self.mode is Mode.IDLE:
                return True, "shutting down", True
        elif verb != "status":
            self._ending = False
        if verb == "arm":
            default = "start" if self.mode in (Mode.IDLE, Mode.ARMED) else "here"
            self._enter(Mode.ARMED, cause, now_ns, "start" if (request.argument or default) == "start" else "")
        elif wanted is not self.mode:
            self._enter(wanted, cause, now_ns, "sleep" if wanted is Mode.PARK else "")
        return True, "", False

    def _refusal(self, request: Request, now_ns: int, operator: bool) -> str:
        """Why a request is not carried out; empty when it is."""
        verb, why = request.verb, ""
        if verb not in ON_REQUEST:
            why = f"unknown request {verb!r}; known are {', '.join(ON_REQUEST)}"
        elif verb in OPERATOR_ONLY and not operator:
            why = f"only the operator may {verb}"
        elif self._shadow and verb in ("policy", "handback"):
            why = (
                f"{verb} is refused, because the policy only shadows here; `aloha deploy` without --shadow lets it move"
            )
        elif self.mode not in ON_REQUEST[verb]:
            why = f"{verb} is not possible in {self.mode}; {ADVICE[self.mode]}"
        elif verb == "arm":
            why = self._refusal_to_arm(request.argument, now_ns)
        elif verb == "park" and self.mode is Mode.FAULT:
            why = _listed(self.faults)
        elif verb in EXCHANGES and self.mode is not EXCHANGES[verb]:
            why = self._silent((DRIVER[EXCHANGES[verb]],), now_ns)
        elif verb in STARTS and self.mode is Mode.ARMED:
            why = self._refusal_to_start(DRIVER[STARTS[verb]], now_ns)
        return why

    def _refusal_to_start(self, driver: str, now_ns: int) -> str:
        waiting = [source for source in self._arms if source not in self._settled]
        if waiting:
            return f"{' and '.join(waiting)} still on the way; wait until settled, see `aloha status`"
        return self._silent((driver,), now_ns)

    def _refusal_to_arm(self, argument: str, now_ns: int) -> str:
        if argument not in ("", "start", "here"):
            return f"arm {argument!r}: give `start` (ramp to the start pose) or `here` (stay)"
        silent = self._silent((*self._arms, *self._watchers), now_ns)
        return _listed(self.blockers) or _listed(self.faults) or silent

    def _event(self, event: Event, now_ns: int) -> None:
        if isinstance(event, Heard):
            self._heard_ns[event.source] = now_ns
        elif isinstance(event, ArmsHeard):
            self._arms_heard(event.source, event.state, now_ns)
        elif isinstance(event, HoldAsked):
            self._hold(event.cause, now_ns)
        elif isinstance(event, FaultChanged):
            self._fault(event.source, event.cause, now_ns)
        elif isinstance(event, BlockerChanged):
            self.blockers.pop(event.source, None)
            if event.reason:
                self.blockers[event.source] = event.reason
        self._look_for_silence(now_ns)
        self._look_at_duration(now_ns)

    def _arms_heard(self, source: str, state: ArmsState, now_ns: int) -> None:
        self._heard_ns[source] = now_ns
        self._fault(source, (state.hold_cause or "fault without a cause") if state.fault else "", now_ns)
        if state.hold_cause and (state.mode is self.mode or now_ns - self.since_ns > OBEYED_WITHIN_NS):
            self._hold(self._arms_cause(source, state.hold_cause, now_ns), now_ns)
        if self.mode is Mode.HOLD is state.mode and is_stall(self.cause) and state.hold_cause:
            self.cause = self._arms_cause(source, state.hold_cause, now_ns)  # a servo is dead besides
        if state.settled and state.mode is self.mode and state.stamp_ns > self.since_ns:
            self._settled.add(source)
        if self.mode is Mode.PARK and self._settled.issuperset(self._arms):
            self._enter(Mode.IDLE, "parked", now_ns)

    def _hold(self, cause: str, now_ns: int) -> None:
        """HOLD from every mode with power, except where the arms stand still for a reason already."""
        if self.mode in (Mode.ARMED, *MOVING, Mode.PARK):
            self._ending = False
            self._enter(Mode.HOLD, cause, now_ns)

    def _fault(self, source: str, cause: str, now_ns: int) -> None:
        self.faults.pop(source, None)
        if cause:
            self.faults[source] = cause
            if self.mode is not Mode.FAULT:
                self._ending = False
                self._fault_source = source
                self._enter(Mode.FAULT, _listed({source: cause}), now_ns)
            elif source == self._fault_source:  # its name is known only after the servo has been asked
                self.cause = _listed({source: cause})

    def _look_for_silence(self, now_ns: int) -> None:
        """Silent arms are a fault, because nobody knows what they do; a silent driver is a HOLD."""
        if self.mode in (Mode.IDLE, Mode.FAULT):
            return
        for source in self._arms:
            silent = self._silent((source,), now_ns)
            if is_stall(silent):
                self._hold(silent, now_ns)
            elif silent:
                self._fault(source, silent, now_ns)
                return
        if self.mode in DRIVER:
            silent = self._silent((DRIVER[self.mode], *self._watchers), now_ns)
            if silent:
                self._hold(silent, now_ns)

    def _look_at_duration(self, now_ns: int) -> None:
        """A policy that has moved the arms for as long as it may. A person who has taken over is not interrupted."""
        longest_ns, since_ns = self._policy_for_ns, self._policy_since_ns
        if self.mode is not Mode.POLICY or longest_ns is None or since_ns is None:
            return
        if now_ns - since_ns >= longest_ns:
            self._hold(f"{TIME_IS_OVER} of {longest_ns / 1e9:g} s (--max-duration)", now_ns)

    def _witness(self, item: Request | Event, now_ns: int) -> None:
        """Who had a turn: this loop, and all other processes together, of which somebody is always to be heard."""
        if isinstance(item, TimePassed):
            self.stillness.turn("supervisor", now_ns, LATE_NS)
        elif isinstance(item, Heard | ArmsHeard):
            self.stillness.turn("everybody else", now_ns, LATE_NS)

    def excused(self, cause: str, now_ns: int) -> str:
        """A cause of a process that had nothing to go on, as the operator is to read it: where this computer stood
        still meanwhile, that."""
        return self.stillness.excuse(NO_OBSERVATION_NS, now_ns, NO_OBSERVATION_NS) or cause

    def _arms_cause(self, source: str, cause: str, now_ns: int) -> str:
        """A pair's own cause with its name, or the computer's."""
        return cause if is_stall(cause) else f"{source}: {cause}{self._unheard_driver(now_ns)}"

    def _unheard_driver(self, now_ns: int) -> str:
        """That the driver of this mode has missed a report, for a cause that arms have found on their own."""
        driver = DRIVER.get(self.mode, "")
        unheard_ns = now_ns - self._heard_ns.get(driver, now_ns)
        return f" ({driver} was last heard {unheard_ns // MS} ms ago)" if unheard_ns > UNHEARD_NS else ""

    def _silent(self, sources: tuple[str, ...], now_ns: int) -> str:
        """Which of the sources is not heard, and what to do; empty when all are."""
        for source in sources:
            heard_ns = self._heard_ns.get(source)
            if heard_ns is None:
                return f"{source} has not been heard yet; see whether it runs (`aloha status`)"
            if now_ns - heard_ns > SILENT_NS:
                if excuse := self.stillness.excuse(now_ns - heard_ns, now_ns, SILENT_NS):
                    return excuse
                return f"{source} has been silent for {(now_ns - heard_ns) // MS} ms; see its log, then arm again"
        return ""

    def _enter(self, mode: Mode, cause: str, now_ns: int, pose: str = "") -> None:
        self.history.append(Change(now_ns, self.mode, mode, cause))
        self.mode, self.cause, self.since_ns, self.pose = mode, cause, now_ns, pose
        self._settled.clear()
        if mode is Mode.POLICY and self._policy_since_ns is None:
            self._policy_since_ns = now_ns
        elif mode not in (Mode.POLICY, Mode.TELEOP):
            self._policy_since_ns = None


def _listed(causes: dict[str, str]) -> str:
    """Causes with their sources, where they do not begin with them anyway."""
    return "; ".join(cause if cause.startswith(source) else f"{source}: {cause}" for source, cause in causes.items())
