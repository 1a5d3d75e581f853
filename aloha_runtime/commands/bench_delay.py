"""`aloha bench delay`: how long after a person's leaders, and how long after a policy's tick, the followers' goals are
there. The real loops of supervisor, arms, teleoperation and policy, on emulated arms in virtual time; both in one run.

Everything swings as a sine, whose phase tells the delay: of the leaders' angles as they were read, of the network's
actions as functions of time, and of the goals that were written to the servos.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aloha_runtime import messages
from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.worker import Chunk, InferenceWorker
from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.faults.drivers import Sees
from aloha_runtime.commands.faults.virtual_parts import Bus, Time
from aloha_runtime.commands.faults.virtual_rig import Loop, VirtualRig
from aloha_runtime.config import RigConfig, load
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import MS, ArmsState, Health, Mode
from aloha_runtime.processes import teleop
from aloha_runtime.processes.policy import PolicyLoop
from aloha_runtime.realtime import NS_PER_S, Beat
from aloha_runtime.robot import IS_GRIPPER, START_POSE, TICK_NS, Vector, pose_vector
from aloha_runtime.sim.servo import ServoPlant

SWING_RAD, SWING_HZ = 0.1, 0.5
"""At most 0.31 rad/s: no limit of the gate acts. Leaders and followers stay within 0.15 rad for the takeover."""
GRIPPER_RAD = 0.3
LENGTH = 50
INFERENCE_MS = (2, 8, 12, 70)
"""The last one takes longer than a tick."""
MEASURED_S = 4.0
"""Two whole swings; half a second before each is not looked at."""
SETTLES_S = 6.0
AGREES_MS = 2.5
"""Half a cycle of the arms."""
DRIVERS = ("teleop", "policy", "camera@cam_high", "world")


def swing(now_ns: Any) -> Any:
    """How far every arm joint is from the start pose at a time (ns, a number or an array), rad."""
    return SWING_RAD * np.sin(2 * np.pi * SWING_HZ * np.asarray(now_ns) / NS_PER_S)


def network(tick: int) -> NDArray[np.float32]:
    """(LENGTH, 14): the swing at a tick and at the next ones, as a network that has learned it says it."""
    ticks = (tick + np.arange(LENGTH)) * float(TICK_NS)
    return (pose_vector(START_POSE, 0.5) + np.where(IS_GRIPPER, 0.0, swing(ticks)[:, None])).astype(np.float32)


class VirtualWorker:
    """An inference that takes `duration_ns` of virtual time; the tick waits for it as it does for `InferenceWorker`."""

    def __init__(self, time: Time, duration_ns: int) -> None:
        self._time, self.usual_ns = time, duration_ns
        self._running: tuple[int, int, int] | None = None

    def offer(self, tick: int, stamp_ns: int, observation: Mapping[str, Any]) -> None:
        if self._running is None:
            self._running = (tick, stamp_ns, self._time.now)

    def take(self, tick: int, timeout_s: float | None) -> list[Chunk]:
        until_ns = self._time.now + int((timeout_s or 0.0) * NS_PER_S)
        if self._running is None or self._running[2] + self.usual_ns > until_ns:
            self._time.now = until_ns
            return []
        (asked, stamp_ns, began_ns), self._running = self._running, None
        self._time.now = max(self._time.now, began_ns + self.usual_ns)
        return [Chunk(asked, network(asked), stamp_ns, self.usual_ns)]

    def running_ns(self) -> int:
        return 0 if self._running is None else self._time.now - self._running[2]


@dataclass
class Delays:
    """ms: goals behind the leaders' angles, and behind the moments that the policy's actions are meant for."""

    teleop: float
    policy: float


def measure(inference_ms: float, lead_ms: float | None = None) -> Delays:
    """Both in one run. `lead_ms`: of `policy.lead_ms`."""
    rig = load("sim")
    rig = rig.model_copy(update={"policy": rig.policy.model_copy(update={"lead_ms": lead_ms})})
    return Table(rig, int(inference_ms * MS)).run()


class Table:
    """A virtual rig at which first a policy and then a person moves the arms."""

    def __init__(self, rig: RigConfig, inference_ns: int) -> None:
        self._inference_ns = inference_ns
        self.rig = VirtualRig(rig, self._plant, self._say_health)

    def _plant(self, arm: str) -> ServoPlant:
        if arm.startswith("leader"):
            return ServoPlant("leader", (*START_POSE, GRIPPER_RAD), self._hand)
        return ServoPlant("follower", (*START_POSE, GRIPPER_RAD))

    def _hand(self) -> Sequence[float] | None:
        if not self.rig.beats or self.rig.word.mode is not Mode.TELEOP:
            return None
        return [*(angle + float(swing(self.rig.time.now)) for angle in START_POSE), GRIPPER_RAD]

    def _say_health(self, bus: Bus, now_ns: int) -> None:
        for name in DRIVERS:
            bus.publisher(messages.health_topic(name)).send(Health(stamp_ns=now_ns, process=name, pid=1))

    def run(self) -> Delays:
        with self.rig:
            self._begin()
            self.rig.run(0.1)
            self.rig.ask("arm", "start")
            self._until(self._settled, "the start pose")
            policy = self._phase_ms("policy", lambda: (0.0, True))
            leaders = self.rig.bus.subscribe(messages.LEADERS, 1000)
            person = self._phase_ms("takeover", lambda: (_phase(_leaders(leaders.drain())), False))
        return Delays(person, policy)

    def _begin(self) -> None:
        """The two drivers, with a turn each as their processes have it."""
        led = teleop.TeleopLoop(self.rig.service("teleop"))
        config = cast(ACTConfig, Sees({}))
        driven = PolicyLoop(self.rig.service("policy"), config, lambda _: None)
        driven.worker.close()
        driven.worker = cast(InferenceWorker, VirtualWorker(self.rig.time, self._inference_ns))

        def tick(now_ns: int) -> None:
            index = now_ns // TICK_NS
            driven.tick(Beat(index, index * TICK_NS, now_ns - index * TICK_NS, 0))

        self.rig.add(Loop("teleop", teleop.PERIOD_NS, led.cycle))
        self.rig.add(Loop("policy", TICK_NS, tick))

    def _settled(self) -> bool:
        states = [self.rig.bus.subscribe(topic).latest() for topic in messages.ARMS]
        return all(state.settled and state.mode is Mode.ARMED for state in states)

    def _until(self, done: Callable[[], bool], what: str) -> None:
        end_ns = self.rig.now_ns + int(SETTLES_S * NS_PER_S)
        while not done():
            if self.rig.now_ns > end_ns:
                raise AlohaError(f"{what} was not reached: {self.rig.word.mode} ({self.rig.word.cause})")
            self.rig.run(0.04)

    def _phase_ms(self, verb: str, source: Callable[[], tuple[float, bool]]) -> float:
        """Delay of the goals behind what drives them from a request on, ms."""
        followers = self.rig.bus.subscribe(messages.FOLLOWERS, 1000)
        reply = self.rig.ask(verb)
        if not reply.ok:
            raise AlohaError(reply.text)
        self.rig.run(0.5)
        followers.drain()
        source()
        states: list[ArmsState] = []
        behind = []
        for _ in range(int(MEASURED_S)):
            self.rig.run(1.0)
            states += followers.drain()
            behind.append(source()[0])
        if self.rig.word.mode not in (Mode.POLICY, Mode.TELEOP):
            raise AlohaError(f"{self.rig.word.mode}: {self.rig.word.cause}")
        found = [(state.stamp_ns, np.asarray(state.goal)) for state in states if state.goal is not None]
        return _phase(found) - float(np.mean(behind))


def _leaders(states: Sequence[ArmsState]) -> list[tuple[int, Vector]]:
    return [(state.stamp_ns, np.asarray(state.position)) for state in states if state.valid]


def _phase(found: Sequence[tuple[int, Vector]]) -> float:
    """How far the arm joints' swing is behind `swing`, ms: the phase of the best fitting sine, mean of all joints."""
    if not found:
        return 0.0
    stamps = np.array([stamp for stamp, _ in found], dtype=np.float64)
    angles = np.stack([position for _, position in found])[:, ~IS_GRIPPER]
    phase = 2 * np.pi * SWING_HZ * stamps / NS_PER_S
    base = np.column_stack([np.sin(phase), np.cos(phase), np.ones_like(phase)])
    sine, cosine, _ = np.linalg.lstsq(base, angles, rcond=None)[0]
    behind = np.arctan2(-cosine, sine) / (2 * math.pi * SWING_HZ)
    return float(behind.mean() * 1000)


def run() -> list[Row]:
    """A row for the person, and one for each duration of the inference; peer: the same policy without a lead."""
    rows: list[Row] = []
    for inference_ms in INFERENCE_MS:
        with_lead, without = measure(inference_ms), measure(inference_ms, lead_ms=0.0)
        if not rows:
            rows.append(Row("leader's angle to the followers' goal", with_lead.teleop, "ms"))
        met = abs(with_lead.policy - with_lead.teleop) <= AGREES_MS
        name = f"policy's tick to the goal, inference {inference_ms} ms (peer: without lead)"
        rows.append(Row(name, with_lead.policy, "ms", without.policy, with_lead.teleop, met))
    return rows
