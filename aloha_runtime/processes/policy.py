"""policy: ACT chunks from a worker thread; at every 50 Hz tick the ensemble of all chunks that cover it goes out.

The tick waits for the chunk of its own observation up to a deadline inside its period. With a fast network the result
is the paper's temporal ensembling; with a slow one the tick goes out on time from the chunks that are there.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aloha_runtime import messages
from aloha_runtime.act import ACTPolicy, TemporalEnsemble
from aloha_runtime.act.card import remote_config
from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.engine_choice import AUTO, choose
from aloha_runtime.act.engines import EAGER, Engine
from aloha_runtime.act.ensemble import slowed
from aloha_runtime.act.observe import PolicyInputs, refuse_inputs, refuse_unfit
from aloha_runtime.act.worker import Chunk, InferenceWorker, MayPredict
from aloha_runtime.config import policy_path
from aloha_runtime.control.sync import Missing, Observation
from aloha_runtime.errors import CheckpointError, ConfigError
from aloha_runtime.messages import MS, Action, Mode, PolicyTick
from aloha_runtime.realtime import NS_PER_S, Beat, Pacer
from aloha_runtime.remote.address import Address, is_remote
from aloha_runtime.remote.keys import Keys, default_keys_dir
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.robot import CONTROL_HZ, TICK_NS
from aloha_runtime.service import Service, run

STUCK_AFTER_NS = 200 * MS
STUCK_FACTOR = 3
"""An inference that takes longer than 200 ms and three times its usual time is stuck: no action goes out any more, and
the gate beside the motors turns that into HOLD."""
LINK_PATIENCE_S = 15.0
"""A server that is not there within this ends the process, which is then started again."""
ENOUGH_SHARE = 0.5
"""Of the deadline for a tick's own chunk: what needs no more is fast enough even when the machine is busy."""
READY = (Mode.ARMED, Mode.POLICY)
"""Inference runs already while ARMED, so that the first tick of POLICY has its chunk."""
SHADOWED = (Mode.IDLE, Mode.ARMED, Mode.TELEOP, Mode.REPLAY)
"""Where a policy that only shadows says what it would do: arms at rest, or moved by somebody else."""


@dataclass
class Sources:
    """Newest chunk that was taken: what its observation and its inference were."""

    tick: int = -1
    observation_stamp_ns: int = 0
    inference_ns: int = 0


class PolicyLoop:
    """One tick after the other; the network runs elsewhere."""

    def __init__(
        self, service: Service, config: ACTConfig, predict: MayPredict, link: PolicyLink | None = None
    ) -> None:
        """`link`: where `predict` runs on another machine, whose answers are judged by the age of what they answer."""
        rig = service.rig
        self.service = service
        self.settings = rig.policy
        self.inputs = PolicyInputs(service.bus, rig, config)
        self.worker = InferenceWorker(predict)
        self.link = link
        self.oldest_ns = int(rig.policy.remote_max_age_ms * MS)
        self.ready_ns: int | None = None
        """Since when there has been inference without a break; None: there is none now."""
        self.speed = rig.deploy.speed
        # Weights and open-loop stretches are a matter of trained steps, of which a slower motion makes fewer in a tick.
        steps = math.ceil(config.n_action_steps / self.speed)
        self.ensemble = TemporalEnsemble(rig.policy.ensemble, rig.policy.ensemble_m * self.speed, steps)
        self.mode = service.bus.subscribe(messages.MODE)
        shadow = rig.deploy.shadow
        self.ready: tuple[Mode, ...] = SHADOWED if shadow else READY
        self.sends: tuple[Mode, ...] = SHADOWED if shadow else (Mode.POLICY,)
        # A shadow has no publisher of actions at all: what it says cannot be taken for one.
        self.actions = service.bus.publisher(messages.SHADOW_POLICY if shadow else messages.ACTION_POLICY)
        self.ticks = service.bus.publisher(messages.POLICY_TICK)
        self.newest = Sources()
        self.running = False

    def tick(self, beat: Beat) -> None:
        """Observe, hand over, wait a little, send."""
        heartbeat = self.mode.fresh(beat.deadline_ns)
        mode = Mode.HOLD if heartbeat is None else Mode(heartbeat.mode)
        if (mode in self.sends) != self.running:
            self.running = mode in self.sends
            self.ensemble.reset()  # what was predicted for another motion must not join this one
        if mode not in self.ready:
            self.ready_ns = None
        elif self.ready_ns is None:
            self.ready_ns = beat.deadline_ns
        found = self.inputs.at(beat.index) if mode in self.ready else Missing(f"mode is {mode}")
        if not isinstance(found, Missing):
            observation, tensors = found
            self.worker.offer(beat.index, observation.oldest_stamp_ns, tensors)
            self._take(beat)
        action = self._action(beat.index) if self.running else None
        if action is not None:
            self.actions.send(
                Action(
                    stamp_ns=self.service.clock.now_ns(),
                    tick=beat.index,
                    position=action.tolist(),
                    observation_stamp_ns=self.newest.observation_stamp_ns,
                )
            )
        if mode in self.ready:
            self._report(beat, found if isinstance(found, Missing) else found[0], action is not None)

    def _take(self, beat: Beat) -> None:
        """Wait for this tick's own chunk until the deadline; take every chunk that is done."""
        left_ns = beat.deadline_ns + int(self.settings.chunk_deadline_ms * MS) - self.service.clock.now_ns()
        timeout_s = None if self.service.clock.virtual else max(0, left_ns) / NS_PER_S
        for chunk in self.worker.take(beat.index, timeout_s):
            if self.link is not None and self._is_old(chunk):
                continue
            try:
                self.ensemble.add(chunk.tick, slowed(chunk.actions, self.speed))
            except ValueError as error:
                path = self.service.arguments.checkpoint
                raise CheckpointError(f"{path} predicts what no arm can follow: {error}; train it again") from error
            if chunk.tick > self.newest.tick:
                self.newest = Sources(chunk.tick, chunk.observation_stamp_ns, chunk.duration_ns)

    def _action(self, tick: int) -> np.ndarray | None:
        """The action of a tick, (14,) raw units; None when no chunk covers it or the network is stuck."""
        return None if self.stuck() else self.ensemble.action(tick)

    def _is_old(self, chunk: Chunk) -> bool:
        """Whether a remote answer comes too late to be used at all: its observation is from before this motion or older
        than anything that may be acted on."""
        age_ns = self.service.clock.now_ns() - chunk.observation_stamp_ns
        return age_ns > self.oldest_ns or self.ready_ns is None or chunk.tick * TICK_NS < self.ready_ns

    def stuck(self) -> str:
        """That the inference under way takes far too long, or that a remote one answers what is long gone; empty when
        neither is so."""
        if self.link is not None:
            return self._too_old(self.link)
        running_ns = self.worker.running_ns()
        if running_ns <= max(STUCK_AFTER_NS, STUCK_FACTOR * self.worker.usual_ns):
            return ""
        return f"inference is stuck for {running_ns // MS} ms (usual: {self.worker.usual_ns // MS} ms)"

    def _too_old(self, link: PolicyLink) -> str:
        """By the age of the observation behind the newest answer, never by when it arrived."""
        if self.ready_ns is None:
            return ""
        answered_ns = self.newest.observation_stamp_ns
        age_ns = self.service.clock.now_ns() - max(answered_ns, self.ready_ns)
        if age_ns <= self.oldest_ns:
            return ""
        found = f"its newest answer is for an observation {age_ns // MS} ms old"
        if answered_ns < self.ready_ns:
            found = f"no answer within {age_ns // MS} ms"
        why = f"; {link.name} {link.trouble}" if link.trouble else f"; round trips take {self.worker.usual_ns // MS} ms"
        return f"remote policy: {found}, allowed are {self.oldest_ns // MS} ms{why}"

    def _report(self, beat: Beat, found: Observation | Missing, sent: bool) -> None:
        now_ns = self.service.clock.now_ns()
        report = PolicyTick(
            stamp_ns=now_ns,
            tick=beat.index,
            lateness_ns=now_ns - beat.deadline_ns,
            on_time=now_ns - beat.deadline_ns < TICK_NS,
            skipped=beat.skipped,
            fresh=self.newest.tick == beat.index,
            chunks=self.ensemble.coverage(beat.index) if sent else 0,
            inference_ns=self.newest.inference_ns,
        )
        if isinstance(found, Missing):
            report.reason = found.reason
        else:
            report.frame_age_ns = found.frame_age_ns
            report.camera_skew_ns, report.joint_skew_ns = found.camera_skew_ns, found.joint_skew_ns
            report.reason = self.stuck()
            report.stuck = bool(report.reason)
        self.ticks.send(report)


def main(service: Service) -> None:
    name = service.arguments.checkpoint
    start = start_link if is_remote(name) else start_local
    config, engine = start(service, name)
    link = engine if isinstance(engine, PolicyLink) else None
    loop = PolicyLoop(service, config, engine.predict, link)
    service.prepare_realtime(service.rig.realtime.policy_cores, workers=("inference",))
    pacer = Pacer(service.clock, TICK_NS)
    try:
        while not service.stopping:
            loop.tick(pacer.wait())
            service.report(
                lambda: {
                    **pacer.figures(),
                    "inference_ms": loop.worker.usual_ns / MS,
                    **(link.figures() if link else {}),
                },
                message=loop.stuck() or summary(engine, loop),
            )
    finally:
        if link is not None:
            link.stop()
        loop.worker.close()
        engine.close()


def summary(engine: Engine | PolicyLink, loop: PolicyLoop) -> str:
    """One line for `aloha status`."""
    if isinstance(engine, PolicyLink):
        return engine.summary()
    return f"engine {engine.name}, {loop.worker.usual_ns / MS:.1f} ms"


def start_link(service: Service, name: str) -> tuple[ACTConfig, PolicyLink]:
    """The connection to a policy server, whose checkpoint fits this rig and is the one that the address says."""
    if service.clock.virtual:
        raise ConfigError(f"{name} answers in real time: set `sim: {{clock: wall}}`")
    link = PolicyLink(Address.parse(name), Keys(default_keys_dir()), CONTROL_HZ)
    config, path = remote_config(link.open(LINK_PATIENCE_S))
    refuse_inputs(config, path, service.rig)
    service.log.info("policy of %s, checkpoint %s", link.name, path.name[:12])
    return config, link


def start_local(service: Service, name: str) -> tuple[ACTConfig, Engine]:
    """A checkpoint on this machine, which fits this rig."""
    path = policy_path(name)
    refuse_unfit(path, service.rig)
    return start_engine(service, path)


def start_engine(service: Service, path: Path) -> tuple[ACTConfig, Engine]:
    """The rig's choice of engine, warmed up. In virtual time `auto` is eager: the same actions on any machine."""
    policy = ACTPolicy.from_pretrained(path)
    settings = service.rig.policy
    wanted = EAGER if settings.engine == AUTO and service.clock.virtual else settings.engine
    enough_ms = settings.chunk_deadline_ms * ENOUGH_SHARE
    choice = choose(wanted, policy, path, settings.threads, enough_ms, report=service.log.warning)
    service.log.info("%s", choice)
    return policy.config, choice.engine


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, help="LeRobot policy directory, or `demo`")


if __name__ == "__main__":
    run(main, extend)
