"""replay: in mode REPLAY the recorded actions of one episode, at their own times, after a slow way to the first."""

import argparse
from pathlib import Path

import numpy as np

from aloha_runtime import messages
from aloha_runtime.control.limits import rig_limits
from aloha_runtime.control.replay import Phase, Replay
from aloha_runtime.data import recording
from aloha_runtime.messages import Action, ArmsState, Mode
from aloha_runtime.realtime import Beat, Pacer
from aloha_runtime.robot import TICK_NS
from aloha_runtime.service import Service, run


class ReplayLoop:
    """One action a tick while the mode is REPLAY."""

    def __init__(self, service: Service, replay: Replay) -> None:
        self.service = service
        self.replay = replay
        self.mode = service.bus.subscribe(messages.MODE)
        self.followers = service.bus.subscribe(messages.FOLLOWERS)
        self.actions = service.bus.publisher(messages.ACTION_REPLAY)
        self.phase: Phase | None = None
        """None while the mode is another."""
        self.order_ns = 0
        """The order that is being carried out; another one starts over."""

    def tick(self, beat: Beat) -> None:
        heartbeat = self.mode.fresh(beat.deadline_ns)
        follower: ArmsState | None = self.followers.fresh(beat.deadline_ns)
        if heartbeat is None or heartbeat.mode is not Mode.REPLAY:
            self.phase = None
            return
        if self.phase is None or heartbeat.order_ns != self.order_ns:
            if follower is None:
                return
            self.order_ns = heartbeat.order_ns
            self.replay.begin(beat.deadline_ns, np.asarray(follower.goal or follower.position))
        self.phase = self.replay.phase(beat.deadline_ns)
        action = self.replay.action(beat.deadline_ns)
        now_ns, order_ns = self.service.clock.now_ns(), self.order_ns
        self.actions.send(Action(stamp_ns=now_ns, tick=beat.index, position=action.tolist(), order_ns=order_ns))

    def figures(self) -> dict[str, float]:
        """When the first recorded action was due, and whether the last one is over."""
        if self.phase is None:
            return {}
        return {"play_ns": self.replay.play_ns, "done": float(self.phase is Phase.DONE)}


def main(service: Service) -> None:
    limits = rig_limits(service.rig.limits, service.rig.deploy, "follower")
    found = recording.load(service.arguments.dataset, service.arguments.episode, limits)
    loop = ReplayLoop(service, Replay(found.actions, found.fps))
    service.prepare_realtime(service.rig.realtime.policy_cores)
    pacer = Pacer(service.clock, TICK_NS)
    while not service.stopping:
        loop.tick(pacer.wait())
        service.report(loop.figures, message=loop.phase or "")


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, type=Path)
    parser.add_argument("--episode", required=True, type=int)


if __name__ == "__main__":
    run(main, extend)
