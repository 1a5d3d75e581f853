"""supervisor: the mode of the rig. Takes requests, listens to every process, and says the mode 50 times a second."""

import numpy as np

from aloha_runtime import messages
from aloha_runtime.control.events import ArmsHeard, BlockerChanged, Decision, Heard, HoldAsked, TimePassed
from aloha_runtime.control.health import WINDOW, TickHealth, TickRecord
from aloha_runtime.control.modes import ARMS, DRIVER, EXCHANGES, LATE_NS, ModeMachine
from aloha_runtime.control.teleop import misaligned
from aloha_runtime.hardware.echo import Echo
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


class SupervisorLoop:
    """Requests and reports in, mode out."""

    def __init__(self, service: Service) -> None:
        rig, bus = service.rig, service.bus
        self.service = service
        self.server = bus.server()
        self.mode = bus.publisher(messages.MODE)
        self.reset = bus.publisher(messages.SIM_RESET)
        topics = {"arms@followers": messages.FOLLOWERS, "arms@leaders": messages.LEADERS}
        here = tuple(name for name in ARMS if name in every_process(rig))
        self.arms = {name: bus.subscribe(topics[name]) for name in here}
        self.health = {name: bus.subscribe(messages.health_topic(name)) for name in every_process(rig)}
        self.ticks = bus.subscribe(messages.POLICY_TICK, depth=64)
        self.guard = bus.subscribe(messages.GUARD)
        watchers = ("guard",) if rig.guard is not None else ()
        longest_s = rig.deploy.max_duration_s
        longest_ns = None if longest_s is None else int(longest_s * NS_PER_S)
        self.machine = ModeMachine(service.clock.now_ns(), here, longest_ns, rig.deploy.shadow, watchers)
        self.echo = None if service.clock.virtual else Echo()
        self.record = TickRecord()
        self.without_action = 0
        self.heard_ns: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.complaints: dict[str, str] = {}
        """What processes said last of what is wrong with them; empty where nothing is."""
        self.resets = SimReset(stamp_ns=0, episode=0, task_seed=0)

    def cycle(self, now_ns: int) -> None:
        """Everything that arrived, then the heartbeat. The server is last, so that a reply tells the newest mode."""
        if self.echo is not None and self.echo.came_back():
            self.machine.stillness.turn("echo", now_ns, LATE_NS)
        self._hear_arms(now_ns)
        self._hear_health(now_ns)
        self._judge_ticks(now_ns)
        self._hear_guard(now_ns)
        self._tell(self.machine.handle(TimePassed(), now_ns))
        while (request := self.server.receive()) is not None:
            self.server.reply(self._answer(request, now_ns))
        self.mode.send(self.machine.heartbeat(now_ns, 0))
        if self.service.rig.sim is not None:
            self.resets.stamp_ns = now_ns
            self.reset.send(self.resets)

    def _answer(self, request: Request, now_ns: int) -> Reply:
        if request.verb == "reset":
            return self._reset(request, now_ns)
        if request.verb in EXCHANGES and (gap := self._gap()):
            return Reply(ok=False, text=f"{self.machine.mode}: {gap}", mode=self.machine.mode)
        decision = self.machine.handle(request, now_ns, operator=request.sender == OPERATOR)
        self._tell(decision)
        return Reply(ok=decision.ok, text=f"{decision.mode}: {decision.text}", mode=decision.mode)

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
        if self.service.rig.sim is None or mode in MOVING or not request.argument.isdigit():
            return Reply(
                ok=False, text="reset takes a seed, on a simulated rig, while nothing moves the arms", mode=mode
            )
        self.resets = SimReset(stamp_ns=0, episode=now_ns // MS, task_seed=int(request.argument))
        return Reply(ok=True, text=f"objects of seed {request.argument}", mode=mode)

    def _hear_arms(self, now_ns: int) -> None:
        for name, subscriber in self.arms.items():
            state = subscriber.latest()
            if state is not None and self.seen.get(name) != state.stamp_ns:
                self.seen[name] = state.stamp_ns
                self._tell(self.machine.handle(ArmsHeard(name, state), now_ns))

    def _hear_health(self, now_ns: int) -> None:
        for name, subscriber in self.health.items():
            report: Health | None = subscriber.latest()
            if report is None or self.seen.get(f"health.{name}") == report.stamp_ns:
                continue
            self.seen[f"health.{name}"] = report.stamp_ns
            self.heard_ns[name] = now_ns
            self.complaints[name] = "" if report.ok else report.message
            if name not in self.arms:
                self._tell(self.machine.handle(Heard(name), now_ns))
            elif self.service.rig.realtime.require:
                granted = report.figures.get("realtime_priority", 0) > 0
                reason = "" if granted else f"no real-time priority ({report.message})"
                self.machine.handle(BlockerChanged(name, reason), now_ns)

    def _hear_guard(self, now_ns: int) -> None:
        """The guard's word, said while this mode lasted, is HOLD."""
        state: GuardState | None = self.guard.fresh(now_ns)
        if state is not None and state.cause and state.stamp_ns > self.machine.since_ns:
            self._tell(self.machine.handle(HoldAsked(f"guard: {state.cause}"), now_ns))

    def _judge_ticks(self, now_ns: int) -> None:
        """The policy's own account of its ticks: late ones and missing observations end in HOLD, with the reason."""
        moving = self.machine.mode is Mode.POLICY
        if not moving:
            self.record, self.without_action = TickRecord(), 0
        tick: PolicyTick
        for tick in self.ticks.drain():
            self.machine.handle(Heard(DRIVER[Mode.POLICY]), now_ns)
            if not moving:
                continue
            self.without_action = self.without_action + 1 if tick.reason else 0
            verdict = self.record.add(tick.on_time, tick.skipped)
            if self.without_action >= NO_ACTION_TICKS or tick.stuck:
                cause = self.machine.excused(f"policy: {tick.reason}", now_ns)
                self._tell(self.machine.handle(HoldAsked(cause), now_ns))
            elif verdict is TickHealth.HOLD:
                self._tell(self.machine.handle(HoldAsked(f"policy: {self._late()}"), now_ns))

    def _late(self) -> str:
        """How many ticks were late, and why or what to do."""
        why = self.complaints.get(DRIVER[Mode.POLICY]) or "see what else runs on this machine"
        return f"only {self.record.success:.0%} of the last {WINDOW} ticks were on time; {why}"

    def _tell(self, decision: Decision) -> None:
        """Log a change of mode; end when a shutdown has come to its end (parked, or nothing to park)."""
        if decision.changed:
            self.service.log.info("%s: %s", decision.mode, decision.text)
        if decision.shutdown:
            self.service.stop()

    def trouble(self, now_ns: int) -> str:
        """Processes that were heard once and are silent now, and a policy whose ticks come late."""
        gone = [name for name, heard in self.heard_ns.items() if now_ns - heard > SILENT_AFTER_NS]
        found = [f"silent: {', '.join(gone)}"] if gone else []
        if self.record.verdict is not TickHealth.GOOD:
            found.append(f"degraded: policy: {self._late()}")
        return "; ".join(found)


def main(service: Service) -> None:
    loop = SupervisorLoop(service)
    service.prepare_realtime([])
    pacer = Pacer(service.clock, TICK_NS)
    while not service.stopping:
        beat = pacer.wait()
        now_ns = beat.deadline_ns + beat.lateness_ns
        loop.cycle(now_ns)
        trouble = loop.trouble(now_ns)
        service.report(lambda: {"ticks_success": loop.record.success}, ok=not trouble, message=trouble)


if __name__ == "__main__":
    run(main)
