"""The state machine of the rig: IDLE -> ARMED -> (TELEOP | POLICY | REPLAY) -> HOLD -> ARMED; PARK; FAULT.

A person takes over from a policy (POLICY -> TELEOP) and hands back (TELEOP -> POLICY) without a stop in between.

Pure: the supervisor hands it everything that it has received, with the time, before it publishes the next heartbeat.
Rules that hold whatever arrives (each has a property test):

- only an operator arms, parks or shuts down; STOP is obeyed from anybody, in every mode, and never starts a motion;
- motion begins in ARMED only; HOLD and FAULT are left only by an operator;
- a fault ends every mode; FAULT is left only when all faults are gone *and* the operator says so;
- a clean shutdown parks first; from FAULT it ends without moving, and torque stays on;
- every change of mode is an order with an identity (`order_ns`), and arms are judged by the order that they took up;
- what was asked for before the last HOLD or FAULT, before this supervisor started, or too long ago, starts no motion;
- a supervisor that stood still itself holds before it speaks again: the arms have heard nothing meanwhile.
"""

from collections import deque
from collections.abc import Iterable

from aloha_runtime import messages
from aloha_runtime.control.events import (
    ArmsHeard,
    BlockerChanged,
    Change,
    Decision,
    Event,
    FaultChanged,
    HoldAsked,
    cause_of,
)
from aloha_runtime.control.hearing import Hearing
from aloha_runtime.control.verbs import (
    ADVICE,
    ALWAYS,
    DRIVER,
    EXCHANGES,
    ON_REQUEST,
    OPERATOR_ONLY,
    RESET_GRIPPER,
    STARTS,
)
from aloha_runtime.messages import MODE, MS, NOT_NAMED_YET, POWERED, ArmsState, Mode, ModeHeartbeat, Request
from aloha_runtime.stillness import is_stall, stood_still

SPEAKS_WITHIN_NS = int(MODE.max_age_ms * MS)
"""A supervisor that said nothing for longer was silent to the arms, which have stopped."""
TAKEN_UP_WITHIN_NS = 100 * MS
"""Five heartbeats: arms that still carry out an earlier order after this time have not heard of the new one."""
ASKED_WITHIN_NS = 1000 * MS
"""An older request has lain in a queue: the person who made it may have been told that nobody answered, and
stand by the arms now. Clients wait for 2 s."""
HISTORY = 64
TIME_IS_OVER = "the policy has moved the arms for its time"
"""How the cause of a HOLD after the longest duration begins."""

ARMS = tuple(topic.publisher for topic in messages.ARMS)
"""The processes of the arms, a pair each."""


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
        self.pose = self.gripper = ""
        self.order_ns = self._asked_ns = now_ns
        self.cause = "started"
        self.history: deque[Change] = deque(maxlen=HISTORY)
        self.faults: dict[str, str] = {}
        """Causes by source, as long as they last."""
        self.blockers: dict[str, str] = {}
        self._arms, self._watchers = arms, watchers
        self._taken_ns: dict[str, int] = {}
        self._unready: dict[str, str] = {}
        self._holding: set[str] = set()
        """Pairs that have torque: a supervisor that was restarted finds them up in the air."""
        self._settled: set[str] = set()
        self._void_ns, self._voided_by = now_ns, "the supervisor started"
        self._spoke_ns: int | None = None
        self._ending = False
        self._fault_source = ""
        self._policy_for_ns = policy_for_ns
        self._policy_since_ns: int | None = None
        self._shadow = shadow
        self.hearing = Hearing()

    def heartbeat(self, now_ns: int, seq: int) -> ModeHeartbeat:
        """The message that tells everyone."""
        self._notice_own_pause(now_ns)
        self._spoke_ns = now_ns
        return ModeHeartbeat(
            stamp_ns=now_ns,
            seq=seq,
            mode=self.mode,
            pose=self.pose,
            order_ns=self.order_ns,
            asked_ns=self._asked_ns,
            cause=self.cause,
            gripper=self.gripper,
        )

    def hear(self, events: Iterable[Event], now_ns: int) -> Decision:
        """Take everything that was received since the last heartbeat, in the order in which it was said. Requests
        (`ask`) come after it."""
        before, ordered = (self.mode, self.order_ns), sorted(events, key=lambda event: event.stamp_ns)
        self.hearing.turn(ordered, now_ns)
        self._notice_own_pause(now_ns)
        for event in ordered:
            self._event(event, now_ns)
        self._look_for_silence(now_ns)
        self._look_at_duration(now_ns)
        return self._decision(before)

    def ask(self, request: Request, now_ns: int, operator: bool = False) -> Decision:
        """Carry out or refuse a request. `operator`: it came from a person in charge, as the supervisor judged."""
        before = (self.mode, self.order_ns)
        self._notice_own_pause(now_ns)
        ok, text, shutdown = self._request(request, now_ns, operator)
        return self._decision(before, ok, text, shutdown)

    def _decision(self, before: tuple[Mode, int], ok: bool = True, text: str = "", shutdown: bool = False) -> Decision:
        shutdown |= self.mode is Mode.IDLE and before[0] is Mode.PARK and self._ending
        return Decision(self.mode, before != (self.mode, self.order_ns), ok, text or self.cause, shutdown)

    def _notice_own_pause(self, now_ns: int) -> None:
        """HOLD where this supervisor was silent for so long that the arms have stopped."""
        if self._spoke_ns is None or now_ns - self._spoke_ns <= SPEAKS_WITHIN_NS:
            return
        silent_ns, self._spoke_ns = now_ns - self._spoke_ns, now_ns
        self._hold(f"{stood_still(silent_ns)}; then arm again", now_ns)

    def _request(self, request: Request, now_ns: int, operator: bool) -> tuple[bool, str, bool]:
        """Answer (ok, text, shut down now)."""
        verb = request.verb
        refusal = self._refusal(request, now_ns, operator)
        if refusal:
            return False, refusal, False
        wanted = ON_REQUEST[verb][self.mode]
        asked_ns = min(request.stamp_ns or now_ns, now_ns)  # a STOP counts, whatever the clock of the program that asks
        cause = cause_of(request)
        if wanted is Mode.IDLE and verb in ("park", "shutdown") and self._holding:
            wanted = Mode.PARK
        if verb == "shutdown":
            self._ending = True
            if self.mode is Mode.FAULT:
                return True, "shutting down; torque stays on, so hold the arms before you cut their power", True
            if wanted is Mode.IDLE:
                return True, "shutting down", True
        elif verb != "status":
            self._ending = False
        if verb == "arm":
            default = "start" if self.mode in (Mode.IDLE, Mode.ARMED) else "here"
            pose = "start" if (request.argument or default) == "start" else ""
            self._enter(Mode.ARMED, cause, now_ns, asked_ns, pose)
        elif verb == RESET_GRIPPER:
            cause = f"{request.argument}: its gripper restarts ({cause}); look at its fingers, then `aloha arm`"
            self._enter(Mode.FAULT, cause, now_ns, asked_ns, gripper=request.argument)
        elif wanted is not self.mode:
            self._enter(wanted, cause, now_ns, asked_ns, "sleep" if wanted is Mode.PARK else "")
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
        elif late := self._asked_too_early(request, now_ns):
            why = late
        elif verb == "arm":
            why = self._refusal_to_arm(request.argument, now_ns)
        elif verb == "park" and self.mode is Mode.FAULT:
            why = _listed(self.faults)
        elif verb == "handback" and self.mode is Mode.TELEOP and self._policy_since_ns is None:
            why = "no policy has been taken over from; stop, arm, then `aloha start`, which looks whether it fits"
        elif verb in EXCHANGES and self.mode is not EXCHANGES[verb]:
            why = self.hearing.silent((DRIVER[EXCHANGES[verb]],), now_ns)
        elif verb in STARTS and self.mode is Mode.ARMED:
            why = self._refusal_to_start(DRIVER[STARTS[verb]], now_ns)
        return why

    def _asked_too_early(self, request: Request, now_ns: int) -> str:
        """Why a request was void before it was received; empty when it still counts."""
        if request.verb in ALWAYS or not request.stamp_ns:
            return ""
        if request.stamp_ns < self._void_ns:
            return f"{request.verb} was asked for before {self._voided_by}; look at the arms, then ask again"
        age_ns = now_ns - request.stamp_ns
        if age_ns < 0:
            return f"{request.verb} comes from a clock that is {-age_ns // MS} ms ahead; ask on the rig's own computer"
        if age_ns > ASKED_WITHIN_NS:
            return f"{request.verb} was asked for {age_ns // MS} ms ago; look at the arms, then ask again"
        return ""

    def _refusal_to_start(self, driver: str, now_ns: int) -> str:
        waiting = [source for source in self._arms if source not in self._settled]
        if waiting:
            return f"{' and '.join(waiting)} still on the way; wait until settled, see `aloha status`"
        return self.hearing.silent((driver,), now_ns)

    def _refusal_to_arm(self, argument: str, now_ns: int) -> str:
        if argument not in ("", "start", "here"):
            return f"arm {argument!r}: give `start` (ramp to the start pose) or `here` (stay)"
        silent = self.hearing.silent((*self._arms, *self._watchers), now_ns)
        deaf = [source for source in self._arms if not self._taken_ns.get(source)]
        unheard = f"no word of the supervisor has reached {' and '.join(deaf)} yet; ask again" if deaf else ""
        return _listed(self.blockers) or _listed(self.faults) or silent or unheard or _listed(self._unready)

    def _event(self, event: Event, now_ns: int) -> None:
        if isinstance(event, ArmsHeard):
            self._arms_heard(event.source, event.state, now_ns)
        elif isinstance(event, FaultChanged):
            self._fault(event.source, event.cause, now_ns)
        elif isinstance(event, BlockerChanged):
            self.blockers.pop(event.source, None)
            if event.reason:
                self.blockers[event.source] = event.reason
        elif (
            isinstance(event, HoldAsked) and event.stamp_ns >= self.order_ns
        ):  # HOLD is asked for what moves now, not for what moved before
            self._hold(event.cause, now_ns)

    def _arms_heard(self, source: str, state: ArmsState, now_ns: int) -> None:
        self._taken_ns[source] = state.order_ns
        self._unready[source] = state.unready
        (self._holding.discard if state.goal is None else self._holding.add)(source)
        self._fault(source, (state.hold_cause or "fault without a cause") if state.fault else "", now_ns)
        if state.order_ns == self.order_ns:
            if state.hold_cause:
                self._hold(self._arms_cause(source, state.hold_cause, now_ns), now_ns)
            elif state.settled:
                self._settled.add(source)
            if self.mode is Mode.HOLD and state.hold_cause and self._said_first(source):
                self.cause = self._arms_cause(source, state.hold_cause, now_ns)
        elif state.stamp_ns - self.order_ns > TAKEN_UP_WITHIN_NS:
            self._hold(f"{source} {_untaken(self.mode, state)}", now_ns)
        if self.mode is Mode.PARK and self._settled.issuperset(self._arms):
            self._enter(Mode.IDLE, "parked", now_ns)

    def _said_first(self, source: str) -> bool:
        """Whether the cause of this HOLD gives way to a later one: a servo is dead besides, or has got its name."""
        return is_stall(self.cause) or (self.cause.startswith(source) and NOT_NAMED_YET in self.cause)

    def _hold(self, cause: str, now_ns: int) -> None:
        """HOLD from every mode with power, except where the arms stand still for a reason already."""
        if self.mode in POWERED:
            self._ending = False
            self._enter(Mode.HOLD, cause, now_ns)

    def _fault(self, source: str, cause: str, now_ns: int) -> None:
        before = self.faults.pop(source, "")
        if before and not cause and self.gripper and not self.faults:
            self.cause = f"{self.gripper}: its gripper was restarted; look at its fingers, then `aloha arm`"
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
            silent = self.hearing.silent((source,), now_ns)
            if is_stall(silent):
                self._hold(silent, now_ns)
            elif silent:
                self._fault(source, silent, now_ns)
                return
        if self.mode in DRIVER:
            silent = self.hearing.silent((DRIVER[self.mode], *self._watchers), now_ns)
            if silent:
                self._hold(silent, now_ns)

    def _look_at_duration(self, now_ns: int) -> None:
        """A policy that has moved the arms for as long as it may. A person who has taken over is not interrupted."""
        longest_ns, since_ns = self._policy_for_ns, self._policy_since_ns
        if self.mode is not Mode.POLICY or longest_ns is None or since_ns is None:
            return
        if now_ns - since_ns >= longest_ns:
            self._hold(f"{TIME_IS_OVER} of {longest_ns / 1e9:g} s (--max-duration)", now_ns)

    def _arms_cause(self, source: str, cause: str, now_ns: int) -> str:
        """A pair's own cause with its name, or the computer's."""
        return (
            cause if is_stall(cause) else f"{source}: {cause}{self.hearing.unheard(DRIVER.get(self.mode, ''), now_ns)}"
        )

    def _enter(self, mode: Mode, cause: str, now_ns: int, asked_ns: int = 0, pose: str = "", gripper: str = "") -> None:
        self.order_ns = max(now_ns, self.order_ns + 1)
        self.history.append(Change(self.order_ns, self.mode, mode, cause))
        self.mode, self.cause, self.pose, self.gripper = mode, cause, pose, gripper
        self._asked_ns = asked_ns or now_ns
        self._settled.clear()
        if mode in (Mode.HOLD, Mode.FAULT):
            self._void_ns, self._voided_by = now_ns, f"{mode.upper()} ({cause})"
        if mode is Mode.POLICY and self._policy_since_ns is None:
            self._policy_since_ns = now_ns
        elif mode not in (Mode.POLICY, Mode.TELEOP):
            self._policy_since_ns = None


def _untaken(mode: Mode, state: ArmsState) -> str:
    """Why arms do not carry out the order of a mode, and what to do."""
    if not state.order_ns:
        return "was restarted and holds the arms where they are; arm again"
    within_ms = TAKEN_UP_WITHIN_NS // MS
    return f"has not taken up {mode.upper()} within {within_ms} ms; {state.hold_cause or 'see its log, then arm again'}"


def _listed(causes: dict[str, str]) -> str:
    """Causes with their sources, where they do not begin with them anyway."""
    said = [cause if cause.startswith(source) else f"{source}: {cause}" for source, cause in causes.items() if cause]
    return "; ".join(said)
