"""One supervisor, two pilots and their servos, and what may happen between them in each round of 100 ms.

The mode machine, the pilots and their gates are the real ones, called as their processes call them. The servos are
where their goal is as long as they obey. The judge (`Licence`) shares nothing with the code under search: it notes when
an operator last gave an order that was accepted, and when HOLD, silence or a restart last voided what was ordered.
"""

from dataclasses import dataclass

import numpy as np

from aloha_runtime.control.events import ArmsHeard, Event, Heard
from aloha_runtime.control.gate import GateTiming, Target
from aloha_runtime.control.limits import default_limits
from aloha_runtime.control.modes import ModeMachine
from aloha_runtime.control.pilot import GRIPPER_IN_POSE, Command, Pilot, Torque
from aloha_runtime.messages import MODE, MOVING, MS, ArmsState, Mode, ModeHeartbeat, Request
from aloha_runtime.robot import DOF, Role, pose_vector

ROUND_NS = 100 * MS
ASKED_BEFORE_NS = ROUND_NS // 2
"""An operator asks between two rounds."""
START = (0.0, -0.9, 1.2, 0.0, -0.3, 0.0)
SLEEP = (0.0, -1.4, 1.2, 0.0, -0.3, 0.0)
"""rad: nine rounds apart at the speed of a ramp, longer than it takes to notice a silence on the way."""
WATCHDOG_NS = 100 * MS
STILL_RAD = 1e-3
SILENT_NS = int(MODE.max_age_ms * MS)
ARMS: dict[str, Role] = {"arms@followers": "follower", "arms@leaders": "leader"}
ORDERS = ("arm", "stop", "park", "policy")
LICENSING = ("arm", "park")
"""Orders that let arms move; `policy` only chooses who drives arms that are armed."""
SUPERVISOR, OPERATOR = "supervisor", "operator"
PROCESSES = (SUPERVISOR, *ARMS)
CHANNELS = tuple(
    [(SUPERVISOR, name) for name in ARMS] + [(name, SUPERVISOR) for name in ARMS] + [(OPERATOR, SUPERVISOR)]
)
CONTINUE_DEAF = "continue before its mail has come in"
"""A paused process goes on, and the thread that receives for it a little later."""
Message = ModeHeartbeat | ArmsState | Request


@dataclass(frozen=True)
class Happening:
    """What is out of the ordinary in one round: an order, or a fault of a process or a channel."""

    kind: str
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {' > '.join(self.where)}".strip()


NOTHING = Happening("-")
HAPPENINGS = (
    NOTHING,
    *(Happening(order) for order in ORDERS),
    *(Happening(kind, (name,)) for kind in ("pause or continue", CONTINUE_DEAF, "restart") for name in PROCESSES),
    *(Happening(kind, channel) for kind in ("delay", "lose", "reorder") for channel in CHANNELS),
)


class Servos:
    """Both arms of a pair, and the pilot that leads them."""

    def __init__(self, role: Role, now_ns: int) -> None:
        self.role = role
        self.present = pose_vector(SLEEP, GRIPPER_IN_POSE[role])
        self.torque = Torque.OFF
        self.rearm_cause = ""
        self.ran_ns = self.held_ns = now_ns
        self.restart(now_ns)

    def restart(self, now_ns: int) -> None:
        """A new process finds the servos as the old one left them."""
        timing = GateTiming(period_ns=ROUND_NS)
        limits = default_limits(self.role)
        self.pilot = Pilot(self.role, limits, START, SLEEP, self.present, now_ns, self.torque, timing)
        self.rearm_cause = "torque has not been switched on since this program started"
        self.ran_ns, self.held_ns = now_ns, 0

    def obey(self, command: Command) -> float:
        """Carry out one cycle; returns how far the arms went (rad)."""
        before = self.present
        if command.rearm or command.torque is not self.torque:
            self.torque, self.rearm_cause = command.torque, ""
            self.pilot.switched(self.ran_ns, self.present, done=True)
        elif command.goal is not None and not self.rearm_cause:
            self.present = command.goal.copy()
        return float(np.abs(self.present - before).max())


class Licence:
    """The judge: when an operator asked for the newest order that was accepted, and since when each pair may not move
    without a newer one."""

    def __init__(self, now_ns: int) -> None:
        self.asked_ns = 0
        self.void_ns = dict.fromkeys(ARMS, now_ns)
        self.heard_ns = dict.fromkeys(ARMS, now_ns)
        self.holds_ns: list[int] = []
        """When the supervisor last held; a pair knows of it from the next heartbeat that reaches it."""

    def void(self, at_ns: int, *pairs: str) -> None:
        """What was asked for earlier lets these pairs (none: all) move no longer."""
        for pair in pairs or ARMS:
            self.void_ns[pair] = max(at_ns, self.void_ns[pair])

    def hear(self, pair: str, beat: ModeHeartbeat) -> None:
        """A heartbeat has reached a pair."""
        if beat.stamp_ns - self.heard_ns[pair] > SILENT_NS:
            self.void(self.heard_ns[pair] + SILENT_NS, pair)
        self.heard_ns[pair] = max(beat.stamp_ns, self.heard_ns[pair])
        self.void(max((held for held in self.holds_ns if held <= beat.stamp_ns), default=0), pair)

    def hold(self, now_ns: int) -> None:
        """The supervisor holds."""
        self.holds_ns = [*self.holds_ns[-3:], now_ns]

    def missing(self, pair: str) -> bool:
        """No operator has asked for anything since this pair's last HOLD, silence or restart."""
        return self.asked_ns < self.void_ns[pair]


class System:
    """The whole of it; `advance` by one round."""

    def __init__(self, now_ns: int = 10**12) -> None:
        self.now_ns = now_ns
        self.machine = ModeMachine(now_ns)
        self.servos = {name: Servos(role, now_ns) for name, role in ARMS.items()}
        self.channels: dict[tuple[str, str], list[Message]] = {channel: [] for channel in CHANNELS}
        self.paused: set[str] = set()
        self.licence = Licence(now_ns)
        self.moving = False
        """Whether any arm moved in the last round."""

    def advance(self, happening: Happening) -> str:
        """One round; returns which pair moved without a licence, empty when none did."""
        self.now_ns += ROUND_NS
        kind, where = happening.kind, happening.where
        if kind in ORDERS:
            request = Request(verb=kind, sender=OPERATOR, stamp_ns=self.now_ns - ASKED_BEFORE_NS)
            self.channels[OPERATOR, SUPERVISOR].append(request)
        elif kind in ("pause or continue", CONTINUE_DEAF):
            self.paused ^= set(where)
        elif kind == "restart":
            self._restart(where[0])
        self.moving = False
        if SUPERVISOR not in self.paused:
            self._supervise({c: self._take(c, happening) for c in CHANNELS if c[1] == SUPERVISOR})
        moved = [name for name in ARMS if name not in self.paused and self._lead(name, happening)]
        return ", ".join(moved)

    def _take(self, channel: tuple[str, str], happening: Happening) -> list[Message]:
        """What a reader gets of a channel in this round."""
        fault = happening.kind if happening.where in (channel, channel[1:]) else ""
        if fault in ("delay", CONTINUE_DEAF):
            return []
        taken, self.channels[channel] = self.channels[channel], []
        return [] if fault == "lose" else taken[::-1] if fault == "reorder" else taken

    def _restart(self, name: str) -> None:
        self.paused.discard(name)
        for channel in CHANNELS:
            if name in channel and OPERATOR not in channel:
                self.channels[channel].clear()
        if name == SUPERVISOR:
            self.machine = ModeMachine(self.now_ns)
            self.licence.void(self.now_ns)
        else:
            self.servos[name].restart(self.now_ns)
            self.licence.void(self.now_ns, name)

    def _supervise(self, inbox: dict[tuple[str, str], list[Message]]) -> None:
        """A turn of the supervisor's loop."""
        now_ns, machine, licence = self.now_ns, self.machine, self.licence
        events: list[Event] = [Heard("policy", now_ns)]
        for name in ARMS:
            events += [ArmsHeard(name, m) for m in inbox[name, SUPERVISOR] if isinstance(m, ArmsState)]
        known = machine.history[-1].order_ns if machine.history else 0
        machine.hear(events, now_ns)
        for request in inbox[OPERATOR, SUPERVISOR]:
            assert isinstance(request, Request)
            if machine.ask(request, now_ns, operator=True).ok and request.verb in LICENSING:
                licence.asked_ns = request.stamp_ns
        beat = machine.heartbeat(now_ns, 0)
        if any(change.after in (Mode.HOLD, Mode.FAULT) for change in machine.history if change.order_ns > known):
            licence.hold(now_ns)
        for name in ARMS:
            self.channels[SUPERVISOR, name].append(beat)

    def _lead(self, name: str, happening: Happening) -> bool:
        """A cycle of one pair; True when it moved without a licence."""
        servos, licence, now_ns = self.servos[name], self.licence, self.now_ns
        beats = [m for m in self._take((SUPERVISOR, name), happening) if isinstance(m, ModeHeartbeat)]
        for beat in beats:
            licence.hear(name, beat)
        if now_ns - licence.heard_ns[name] > SILENT_NS:
            licence.void(licence.heard_ns[name] + SILENT_NS, name)
        if now_ns - servos.ran_ns > WATCHDOG_NS and servos.torque is not Torque.OFF:
            servos.rearm_cause = "the servos' watchdog has tripped"
            licence.void(servos.ran_ns + WATCHDOG_NS, name)
        servos.ran_ns, unlicensed = now_ns, licence.missing(name)
        command = servos.pilot.step(now_ns, beats, servos.present, self._target(servos), servos.rearm_cause)
        moved = servos.obey(command) > STILL_RAD
        self.moving |= moved
        if command.mode in (Mode.HOLD, Mode.FAULT) and servos.held_ns == 0:
            licence.void(now_ns, name)
        servos.held_ns = now_ns if command.mode in (Mode.HOLD, Mode.FAULT) else 0
        self.channels[name, SUPERVISOR].append(self._state(servos, command))
        return moved and unlicensed

    def _target(self, servos: Servos) -> Target | None:
        """What a policy wants: always a little further."""
        if servos.role == "leader" or servos.pilot.mode not in MOVING:
            return None
        further = servos.present + np.where(np.arange(DOF) == 0, 0.05, 0.0)
        return Target(further, self.now_ns, self.now_ns // (20 * MS), ROUND_NS)

    def _state(self, servos: Servos, command: Command) -> ArmsState:
        return ArmsState(
            stamp_ns=self.now_ns,
            position=[],
            velocity=[],
            effort_ma=[],
            mode=command.mode,
            order_ns=servos.pilot.order_ns,
            settled=command.settled,
            hold_cause=command.hold_cause,
        )
