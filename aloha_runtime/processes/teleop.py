"""teleop: every leader state becomes a follower action; the squeeze of both leader grippers starts it."""

import numpy as np

from aloha_runtime import messages
from aloha_runtime.control.signs import SignDetector, hand_speed_rad_s
from aloha_runtime.control.take import Phase
from aloha_runtime.control.teleop import SqueezeDetector, action_convention, follower_action, misaligned
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import MS, Action, ArmsState, Mode, RecorderState, Request
from aloha_runtime.realtime import NS_PER_S, Histogram, Pacer
from aloha_runtime.robot import Vector, tick_of
from aloha_runtime.service import Service, run

PERIOD_NS = 2_500_000
"""Looks for a leader state twice per arms cycle, so that none waits longer than half of one."""


class TeleopLoop:
    """Leaders in, actions out."""

    def __init__(self, service: Service) -> None:
        rig = service.rig
        self.service = service
        self.sides = rig.led_sides
        self.takeover = rig.teleop.takeover
        self.leaders = service.bus.subscribe(messages.LEADERS)
        self.followers = service.bus.subscribe(messages.FOLLOWERS)
        self.mode = service.bus.subscribe(messages.MODE)
        self.supervisor = service.bus.client()
        self.actions = service.bus.publisher(messages.ACTION_TELEOP)
        self.squeeze = SqueezeDetector(self.sides)
        self.recorder = service.bus.subscribe(messages.RECORDER)
        self.signs = SignDetector(self.sides)
        self.latency = Histogram()
        self.sent, self.first_ns = 0, 0
        """Actions of this stretch of teleoperation, and when it began."""
        self.asked_ns = 0
        self.seen = 0
        self.message = ""

    def cycle(self, now_ns: int) -> None:
        """Map the newest leader state, if it is one not seen yet."""
        state: ArmsState | None = self.leaders.fresh(now_ns)
        heartbeat = self.mode.fresh(now_ns)
        if state is None or heartbeat is None or state.seq == self.seen:
            return
        self.seen = state.seq
        leaders = action_convention(state)
        follower: ArmsState | None = self.followers.fresh(now_ns)
        if heartbeat.mode is not Mode.TELEOP:
            self.sent = 0
        # What grippers do while servos move them, or while a person leads, is no sign: a person who has just handed
        # back may still hold them squeezed.
        mode, settled = Mode(heartbeat.mode), state.settled and follower is not None and follower.settled
        waits = (mode is Mode.ARMED and settled) or (mode is Mode.POLICY and self.takeover)
        if not waits:
            self.squeeze.forget()
        if waits and follower is not None:
            self._wait_for_squeeze(now_ns, mode, leaders, follower)
        elif heartbeat.mode is Mode.TELEOP and follower is not None:
            held = action_convention(follower) if follower.goal is None else np.asarray(follower.goal)
            action = follower_action(self._without_signs(now_ns, state, leaders), held, self.sides)
            self.sent, self.first_ns = self.sent + 1, self.first_ns if self.sent else now_ns
            self.actions.send(Action(stamp_ns=state.stamp_ns, tick=tick_of(state.stamp_ns), position=action.tolist()))
            if follower.action_stamp_ns:
                self.latency.add(follower.stamp_ns - follower.action_stamp_ns)

    def _without_signs(self, now_ns: int, state: ArmsState, leaders: Vector) -> Vector:
        """Leader angles as the followers are to take them: while a take is recorded, a sign that ends it moves no
        gripper of theirs."""
        recorder: RecorderState | None = self.recorder.fresh(now_ns)
        if recorder is None or recorder.phase != Phase.TAKING:
            self.signs.reset()
            return leaders
        self.signs.update(state.stamp_ns, leaders, hand_speed_rad_s(state, self.sides))
        return self.signs.keep(leaders)

    def _wait_for_squeeze(self, now_ns: int, mode: Mode, leaders: Vector, follower: ArmsState) -> None:
        """Ask for TELEOP once both grippers were opened and squeezed and all arms agree, in the start pose or, when a
        person takes over from a policy, wherever they are."""
        if not self.squeeze.update(now_ns, leaders):
            if self.squeeze.squeezed(leaders) and not self.squeeze.opened:
                self.message = "open both leader grippers wide, then squeeze them"
            return
        if now_ns - self.asked_ns < 500 * MS:
            return
        self.message = misaligned(leaders, np.asarray(follower.position), self.sides)
        if self.message:
            return
        self.asked_ns = now_ns
        try:
            verb = "takeover" if mode is Mode.POLICY else "teleop"
            reply = self.supervisor.request(Request(verb=verb, sender="squeeze of both leader grippers"))
            self.message = "" if reply.ok else reply.text
        except TransportError as error:
            self.message = str(error)

    def figures(self) -> dict[str, float]:
        """Latency: a leader's state to the follower goal that was written for it. Rate: of the actions, in Hz."""
        seconds = (self.service.clock.now_ns() - self.first_ns) / NS_PER_S
        return {
            "latency_p50_ms": self.latency.p50_ns / MS,
            "latency_p99_ms": self.latency.p99_ns / MS,
            "rate_hz": self.sent / seconds if self.sent > 1 else 0.0,
        }


def main(service: Service) -> None:
    loop = TeleopLoop(service)
    service.prepare_realtime(service.rig.realtime.policy_cores)
    pacer = Pacer(service.clock, PERIOD_NS)
    while not service.stopping:
        beat = pacer.wait()
        loop.cycle(beat.deadline_ns + beat.lateness_ns)
        service.report(loop.figures, message=loop.message)


if __name__ == "__main__":
    run(main)
