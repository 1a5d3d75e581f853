"""supervisor: the mode of the rig. Takes requests, listens to every process, and says the mode 50 times a second."""

import re

import numpy as np

from aloha_runtime import messages
from aloha_runtime.control.events import ArmsHeard, BlockerChanged, Event, Heard, HoldAsked
from aloha_runtime.control.health import WINDOW, TickHealth, TickRecord
from aloha_runtime.control.modes import ARMS, ModeMachine
from aloha_runtime.control.stop_input import StopOrders
from aloha_runtime.control.teleop import misaligned
from aloha_runtime.control.verbs import DRIVER, EXCHANGES, RESET_GRIPPER
from aloha_runtime.hardware.echo import Echo
from aloha_runtime.hardware.stop_input import StopWatch
from aloha_runtime.messages import MOVING, MS, GuardState, Health, Mode, PolicyTick, Reply, Request, SimReset
from aloha_runtime.processes.table import every_process
from aloha_runtime.realtime import NS_PER_S, Pacer
from aloha_runtime.robot import TICK_NS
from aloha_runtime.service import Service, run

OPERATOR = "operator"
"""Sender of a request by a person. The control socket lies in a directory that only the rig's user can enter."""
NO_ACTION_TICKS = 10
"""A policy without an observation for 200 ms: HOLD, with the policy's own reason (which camera, how old)."""
SILENT_AFTER_NS = 1000 * MS
"""Health comes every 200 ms; five missed reports are a dead or hung process."""
ARMS_DEPTH, DEPTH = 256, 64
"""Messages that wait for a turn: of the arms 1.3 s, of the others more. After a longer pause the supervisor holds, so
nothing that it has missed lets the arms move on."""
SEED = re.compile(r"[0-9]{1,18}")
"""What fits into a message's integer."""
REQUESTS_A_TURN = 20
"""Whoever floods the socket does not keep the mode from being said."""


class SupervisorLoop:
    """Requests and reports in, mode out."""

    def __init__(self, service: Service) -> None:
        rig, bus = service.rig, service.bus
        self.service = service
        self.server = bus.server()
        self.mode = bus.publisher(messages.MODE)
        self.reset = bus.publisher(messages.SIM_RESET)
        topics = {topic.publisher: topic for topic in messages.ARMS}
        here = tuple(name for name in ARMS if name in every_process(rig))
        self.arms = {name: bus.subscribe(topics[name], ARMS_DEPTH) for name in here}
        self.health = {name: bus.subscribe(messages.health_topic(name), DEPTH) for name in every_process(rig)}
        self.ticks = bus.subscribe(messages.POLICY_TICK, DEPTH)
        self.guard = bus.subscribe(messages.GUARD, DEPTH)
        watchers = ("guard",) if rig.guard is not None else ()
        longest_s = rig.deploy.max_duration_s
        longest_ns = None if longest_s is None else int(longest_s * NS_PER_S)
        self.machine = ModeMachine(service.clock.now_ns(), here, longest_ns, rig.deploy.shadow, watchers)
        self.echo = None if service.clock.virtual else Echo()
        self.record = TickRecord()
        self.without_action = 0
        self.heard_ns: dict[str, int] = {}
        self.logged_ns = 0
        self.complaints: dict[str, str] = {}
        """What processes said last of what is wrong with them; empty where nothing is."""
        self.resets = SimReset(stamp_ns=0, episode=0, task_seed=0)
        self.stop_input: StopWatch | None = None
        if rig.stop_input is not None:
            virtual = service.clock.virtual
            self.stop_input = StopWatch(rig.stop_input, not virtual, None if virtual else rig.realtime.priority)
            self.stop_orders = StopOrders(rig.stop_input.name)

    def cycle(self) -> None:
        """Everything that has arrived, then requests, then the heartbeat: nobody hears a mode that ignores what was
        received before. The clock is read again for each, because this process may be paused between any two lines."""
        clock = self.service.clock
        if self.echo is not None and self.echo.came_back():
            self.machine.hearing.echo(clock.now_ns())
        events = [*self._arms_said(), *self._health_said(), *self._ticks_said(), *self._guard_said()]
        ended = self.machine.hear(events, clock.now_ns()).shutdown
        for _ in range(REQUESTS_A_TURN):
            if (request := self.server.receive()) is None:
                break
            reply, shutdown = self._answer(request, clock.now_ns())
            ended |= shutdown
            self.server.reply(reply)
        ended |= self._obey_stop_input()  # behind the requests: of a stop and an order in one turn the stop counts
        heartbeat = self.machine.heartbeat(clock.now_ns(), 0)
        self.mode.send(heartbeat)
        self._log_changes()
        if ended:
            self.service.stop()
        if self.service.rig.sim is not None:
            self.resets.stamp_ns = heartbeat.stamp_ns
            self.reset.send(self.resets)

    def _answer(self, request: Request, now_ns: int) -> tuple[Reply, bool]:
        """The reply, and whether the system ends with it."""
        if request.verb == "reset":
            return self._reset(request, now_ns), False
        if request.verb in EXCHANGES and (gap := self._gap()):
            return Reply(ok=False, text=f"{self.machine.mode}: {gap}", mode=self.machine.mode), False
        arms = self.service.rig.arms
        if request.verb == RESET_GRIPPER and request.argument not in arms:
            text = f"{RESET_GRIPPER} takes one of {', '.join(arms)}"
            return Reply(ok=False, text=text, mode=self.machine.mode), False
        decision = self.machine.ask(request, now_ns, operator=request.sender == OPERATOR)
        return Reply(ok=decision.ok, text=f"{decision.mode}: {decision.text}", mode=decision.mode), decision.shutdown

    def _gap(self) -> str:
        """Why nobody may take over now: leaders and followers apart, or one of them unheard; empty when they agree."""
        states = [subscriber.latest() for subscriber in self.arms.values()]
        if not self.service.rig.led_sides or len(states) < len(ARMS) or None in states:
            return "there is no leader to take over with"
        follower, leader = (np.asarray(state.position) for state in states if state is not None)
        return misaligned(leader, follower, self.service.rig.led_sides)

    def _reset(self, request: Request, now_ns: int) -> Reply:
        """Objects of the simulated task to where a seed puts them."""
        mode = self.machine.mode
        if self.service.rig.sim is None or mode in MOVING or not SEED.fullmatch(request.argument):
            text = "reset takes a seed of up to 18 digits, on a simulated rig, while nothing moves the arms"
            return Reply(ok=False, text=text, mode=mode)
        self.resets = SimReset(stamp_ns=0, episode=now_ns // MS, task_seed=int(request.argument))
        return Reply(ok=True, text=f"objects of seed {request.argument}", mode=mode)

    def _arms_said(self) -> list[Event]:
        return [ArmsHeard(name, state) for name, subscriber in self.arms.items() for state in subscriber.drain()]

    def _health_said(self) -> list[Event]:
        events: list[Event] = []
        for name, subscriber in self.health.items():
            report: Health
            for report in subscriber.drain():
                self.heard_ns[name] = report.stamp_ns
                self.complaints[name] = "" if report.ok else report.message
                if name not in self.arms:
                    events.append(Heard(name, report.stamp_ns))
                elif self.service.rig.realtime.require:
                    granted = report.figures.get("realtime_priority", 0) > 0
                    reason = "" if granted else f"no real-time priority ({report.message})"
                    events.append(BlockerChanged(name, reason, report.stamp_ns))
        return events

    def _guard_said(self) -> list[Event]:
        said: list[GuardState] = self.guard.drain()
        return [HoldAsked(f"guard: {state.cause}", state.stamp_ns) for state in said if state.cause]

    def _obey_stop_input(self) -> bool:
        """The physical stop, where the rig has one; returns whether the system ends with it."""
        if self.stop_input is None:
            return False
        now_ns, ended = self.service.clock.now_ns(), False
        for item in self.stop_orders.take(self.stop_input.look(), self.machine.mode, now_ns):
            decision = (
                self.machine.ask(item, now_ns) if isinstance(item, Request) else self.machine.hear([item], now_ns)
            )
            ended |= decision.shutdown
        return ended

    def _ticks_said(self) -> list[Event]:
        """The policy's own account of its ticks: late ones and missing observations end in HOLD, with the reason."""
        events: list[Event] = []
        moving = self.machine.mode is Mode.POLICY
        if not moving:
            self.record, self.without_action = TickRecord(), 0
        tick: PolicyTick
        for tick in self.ticks.drain():
            events.append(Heard(DRIVER[Mode.POLICY], tick.stamp_ns))
            if not moving or tick.stamp_ns <= self.machine.order_ns:
                continue
            self.without_action = self.without_action + 1 if tick.reason else 0
            verdict = self.record.add(tick.on_time, tick.skipped)
            if self.without_action >= NO_ACTION_TICKS or tick.stuck:
                cause = self.machine.hearing.excused(f"policy: {tick.reason}", self.service.clock.now_ns())
                events.append(HoldAsked(cause, tick.stamp_ns))
            elif verdict is TickHealth.HOLD:
                events.append(HoldAsked(f"policy: {self._late()}", tick.stamp_ns))
        return events

    def _late(self) -> str:
        """How many ticks were late, and why or what to do."""
        why = self.complaints.get(DRIVER[Mode.POLICY]) or "see what else runs on this machine"
        return f"only {self.record.success:.0%} of the last {WINDOW} ticks were on time; {why}"

    def _log_changes(self) -> None:
        """A line in the log for each change of mode since the last turn."""
        for change in self.machine.history:
            if change.order_ns > self.logged_ns:
                self.service.log.info("%s: %s", change.after, change.cause)
                self.logged_ns = change.order_ns

    def trouble(self, now_ns: int) -> str:
        """Processes that were heard once and are silent now, and a policy whose ticks come late."""
        gone = [name for name, heard in self.heard_ns.items() if now_ns - heard > SILENT_AFTER_NS]
        found = [f"silent: {', '.join(gone)}"] if gone else []
        if self.record.verdict is not TickHealth.GOOD:
            found.append(f"degraded: policy: {self._late()}")
        if self.stop_input is not None and self.stop_orders.trouble:
            found.append(self.stop_orders.trouble)
        return "; ".join(found)

    def figures(self) -> dict[str, float]:
        """Named numbers for the health report."""
        ready = {} if self.stop_input is None else {"stop_input_ready": float(not self.stop_orders.trouble)}
        return {"ticks_success": self.record.success, **ready}


def main(service: Service) -> None:
    loop = SupervisorLoop(service)
    service.prepare_realtime([])
    pacer = Pacer(service.clock, TICK_NS)
    try:
        while not service.stopping:
            pacer.wait()
            loop.cycle()
            trouble = loop.trouble(service.clock.now_ns())
            service.report(loop.figures, ok=not trouble, message=trouble)
    finally:
        if loop.stop_input is not None:
            loop.stop_input.close()


if __name__ == "__main__":
    run(main)
