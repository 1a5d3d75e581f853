"""policy: ACT chunks from a worker thread; at every 50 Hz tick the ensemble of all chunks that cover it goes out.

The tick waits for the chunk of its own observation up to a deadline inside its period. With a fast network the result
is the paper's temporal ensembling; with a slow one the tick goes out on time from the chunks that are there.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aloha_runtime import messages
from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.ensemble import slowed
from aloha_runtime.act.execution import execution_of
from aloha_runtime.act.observe import PolicyInputs
from aloha_runtime.act.opening import Opened, absolute, open_policy
from aloha_runtime.act.worker import Chunk, InferenceWorker, MayPredict
from aloha_runtime.control.delay import lead_ns
from aloha_runtime.control.sync import Missing, Observation
from aloha_runtime.errors import AlohaError, CheckpointError
from aloha_runtime.messages import MS, Action, Mode, PolicyTick
from aloha_runtime.realtime import NS_PER_S, Beat, Pacer
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.robot import TICK_NS
from aloha_runtime.service import Service, run

STUCK_AFTER_NS = 200 * MS
STUCK_FACTOR = 3
"""An inference that takes longer than 200 ms and three times its usual time is stuck: no action goes out any more, and
the gate beside the motors turns that into HOLD."""
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
        self,
        service: Service,
        config: ACTConfig,
        predict: MayPredict,
        link: PolicyLink | None = None,
        told: Callable[[Exception], str] = "inference failed: {}; see the policy's log".format,
    ) -> None:
        """`link`: where `predict` runs on another machine, whose answers are judged by the age of what they answer.
        `told`: what to tell the operator when `predict` fails."""
        rig = service.rig
        self.service = service
        self.settings = rig.policy
        self.inputs = PolicyInputs(service.bus, rig, config)
        self.worker = InferenceWorker(predict)
        self.link = link
        self.oldest_ns = int(rig.policy.remote_max_age_ms * MS)
        self.ready_ns: int | None = None
        """Since when there has been inference without a break; None: there is none now."""
        self.answered_ns = 0
        """Stamp of the newest observation that was answered, used or not."""
        self._told, self.failed = told, ""
        """Why there will be no inference any more; empty while it works."""
        self.speed = rig.deploy.speed
        wanted = rig.policy
        self.execution = execution_of(config, wanted.ensemble, wanted.ensemble_m, wanted.n_action_steps)
        self.ensemble = self.execution.ensemble(self.speed)
        self.cycle_ns = NS_PER_S // rig.arms_hz
        self.order: tuple[Mode, int] = (Mode.HOLD, 0)
        """The order (`ModeHeartbeat.order_ns`) under which this runs."""
        self.began_tick = 0
        """Since which tick it does: no chunk for an earlier one is used."""
        self.mode = service.bus.subscribe(messages.MODE)
        shadow = rig.deploy.shadow
        self.lead_ms = 0.0 if shadow else rig.policy.lead_ms  # a shadow is compared tick by tick
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
        mode, order_ns = (Mode.HOLD, 0) if heartbeat is None else (Mode(heartbeat.mode), heartbeat.order_ns)
        if (mode, order_ns) != self.order:
            self.order, self.began_tick = (mode, order_ns), beat.index
            self.running = mode in self.sends
            self.ensemble.reset()  # what was predicted under another order must not join this motion
        if mode not in self.ready:
            self.ready_ns = None
        elif self.ready_ns is None:
            self.ready_ns = beat.deadline_ns
        found = self.inputs.at(beat.index) if mode in self.ready else Missing(f"mode is {mode}")
        if not isinstance(found, Missing) and not self.failed:
            observation, tensors = found
            self.worker.offer(beat.index, observation.oldest_stamp_ns, tensors)
            self._take(beat)
        action = self._action(beat) if self.running else None
        if action is not None:
            self.actions.send(
                Action(
                    stamp_ns=self.service.clock.now_ns(),
                    tick=beat.index,
                    position=action.tolist(),
                    observation_stamp_ns=self.newest.observation_stamp_ns,
                    order_ns=order_ns,
                )
            )
        if mode in self.ready:
            self._report(beat, found if isinstance(found, Missing) else found[0], action is not None)

    def _take(self, beat: Beat) -> None:
        """Wait for this tick's own chunk until the deadline; take every chunk that is done."""
        left_ns = beat.deadline_ns + int(self.settings.chunk_deadline_ms * MS) - self.service.clock.now_ns()
        timeout_s = None if self.service.clock.virtual else max(0, left_ns) / NS_PER_S
        try:
            chunks = self.worker.take(beat.index, timeout_s)
        except AlohaError:
            raise
        except Exception as error:  # a GPU that is lost says so in many ways
            self.failed = self._told(error)
            self.service.log.error("%s", self.failed, exc_info=error)
            return
        for chunk in chunks:
            if self.link is not None and self._is_old(chunk):
                continue
            self.answered_ns = max(self.answered_ns, chunk.observation_stamp_ns)
            if chunk.tick < self.began_tick:
                continue  # asked for under another order
            try:
                self.ensemble.add(chunk.tick, slowed(chunk.actions, self.speed))
            except ValueError as error:
                path = self.service.arguments.checkpoint
                raise CheckpointError(f"{path} predicts what no arm can follow: {error}; train it again") from error
            if chunk.tick > self.newest.tick:
                self.newest = Sources(chunk.tick, chunk.observation_stamp_ns, chunk.duration_ns)

    def _action(self, beat: Beat) -> np.ndarray | None:
        """The action to send now, (14,) raw units; None when no chunk covers this tick or the network is stuck."""
        ahead_ns = lead_ns(beat.deadline_ns, self.service.clock.now_ns(), self.cycle_ns)
        if self.lead_ms is not None:
            ahead_ns = int(self.lead_ms * MS)
        return None if self.stuck() else self.ensemble.action(beat.index, ahead_ns / TICK_NS)

    def _is_old(self, chunk: Chunk) -> bool:
        """Whether a remote answer comes too late to be used at all: its observation is older than anything that may be
        acted on."""
        return self.service.clock.now_ns() - chunk.observation_stamp_ns > self.oldest_ns

    def stuck(self) -> str:
        """That inference has failed or takes far too long, or that a remote one answers what is long gone; empty when
        none is so."""
        if self.failed:
            return self.failed
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
        answered_ns = self.answered_ns
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
            report.reason, report.stuck = self.failed or found.reason, bool(self.failed)
        else:
            report.frame_age_ns = found.frame_age_ns
            report.camera_skew_ns, report.joint_skew_ns = found.camera_skew_ns, found.joint_skew_ns
            report.reason = self.stuck()
            report.stuck = bool(report.reason)
        self.ticks.send(report)


def main(service: Service) -> None:
    opened = open_policy(service.arguments.checkpoint, service.rig, service.clock.virtual, service.log)
    link = opened.link
    loop = PolicyLoop(service, opened.config, opened.engine.predict, link, opened.failed)
    service.log.info("%s", loop.execution)
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
                ok=not loop.failed,
                message=loop.stuck() or summary(opened, loop),
                subject=absolute(service.arguments.checkpoint),
            )
    finally:
        if link is not None:
            link.stop()
        loop.worker.close()
        opened.engine.close()


def summary(opened: Opened, loop: PolicyLoop) -> str:
    """One line for `aloha status` and the flight log: what runs where, and how its chunks are carried out."""
    ran = opened.link.summary() if opened.link else f"{opened.where}, {loop.worker.usual_ns / MS:.1f} ms"
    return f"{ran}; {loop.execution}"


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, help="LeRobot policy directory, or `demo`")


if __name__ == "__main__":
    run(main, extend)
