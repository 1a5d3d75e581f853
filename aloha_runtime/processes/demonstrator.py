"""demonstrator: plays the person at the leaders of the simulated rig: squeezes, and moves them to solve the task; or
(`--corrects`) takes over from a policy, leads a little, and hands back."""

import argparse
import contextlib

import numpy as np

from aloha_runtime import messages
from aloha_runtime.errors import SimulationError, TransportError
from aloha_runtime.messages import MS, ArmsState, Mode, Request, SimState
from aloha_runtime.realtime import NS_PER_S, Pacer
from aloha_runtime.robot import GRIPPER_INDEX, KITS, SIDE_SLICE, SIDES, Vector
from aloha_runtime.service import Service, run
from aloha_runtime.sim.correction import Correction, sign_of_start, with_grippers
from aloha_runtime.sim.demonstrator import Demonstrator
from aloha_runtime.sim.link import Link
from aloha_runtime.sim.tasks import OBJECTS

PERIOD_NS = 5_000_000
"""A hand position per arms cycle."""
SOLVED_WITHIN_NS = 500 * MS
"""Contacts flicker: the task counts as solved when it was at some instant of this time."""
ATTACH_TIMEOUT_S = 10.0


class DemonstratorLoop:
    """Squeezes the leader grippers while ARMED; plays one demonstration in TELEOP, then holds still. Where it
    corrects, the policy begins."""

    def __init__(self, service: Service) -> None:
        assert service.rig.sim is not None, "the table starts this process on simulated rigs only"
        self.service = service
        self.link = Link.attach(service.run_dir, ATTACH_TIMEOUT_S)
        self.mode = service.bus.subscribe(messages.MODE)
        self.leaders = service.bus.subscribe(messages.LEADERS)
        self.sim = service.bus.subscribe(messages.SIM_STATE)
        corrects = service.arguments.corrects
        self.grippers = service.rig.grippers("leader")
        self.correction = Correction(self.grippers) if corrects else None
        self.supervisor = service.bus.client()
        self.refused = ""
        """Why the arms were not handed back when it asked last."""
        self.plan: Demonstrator | None = None
        self.hopeless = ""
        """Why this task cannot be demonstrated from where its objects lie."""
        self.began_ns = 0
        self.solved_ns = -SOLVED_WITHIN_NS

    def cycle(self, now_ns: int) -> None:
        """Move the hands to where they belong now, or let go."""
        self._find_world()
        state: SimState | None = self.sim.latest()  # always: one that is never read does not find a restarted world
        if state is not None and state.success:
            self.solved_ns = state.stamp_ns
        heartbeat = self.mode.fresh(now_ns)
        leaders: ArmsState | None = self.leaders.fresh(now_ns)
        if self.correction is not None:
            self._correct(self.correction, now_ns, None if heartbeat is None else Mode(heartbeat.mode), leaders)
            return
        if heartbeat is not None and heartbeat.mode is Mode.TELEOP:
            self._hold(self._demonstrate(now_ns, state))
            return
        self.plan, self.hopeless = None, ""
        armed = heartbeat is not None and heartbeat.mode is Mode.ARMED
        self._hold(self._signs(now_ns, leaders) if armed and leaders is not None and leaders.settled else None)

    def _correct(self, correction: Correction, now_ns: int, mode: Mode | None, leaders: ArmsState | None) -> None:
        if leaders is None:
            return  # the hands stay as they are until the arms are seen again
        self._hold(correction.hands(now_ns, mode, np.asarray(leaders.position)))
        if correction.asks:
            try:
                reply = self.supervisor.request(Request(verb="handback", sender="the scripted person"))
                self.refused = "" if reply.ok else reply.text
            except TransportError as error:
                self.refused = str(error)

    def _find_world(self) -> None:
        """After a restart of the world its memory is another one."""
        if not self.link.is_current:
            with contextlib.suppress(TransportError):
                found = Link.attach(self.service.run_dir)
                self.link.close()
                self.link = found

    def _demonstrate(self, now_ns: int, state: SimState | None) -> Vector | None:
        """Leader angles (14,) of the demonstration at this moment; it begins with the objects as they are."""
        if self.plan is None:
            if state is None or self.hopeless:
                return None
            poses = np.reshape(state.environment_state, (-1, 7))
            names = [item.name for item in OBJECTS[state.task]]  # type: ignore[index]
            objects = dict(zip(names, poses, strict=True))
            try:
                kit = KITS[self.service.rig.kit]
                self.plan = Demonstrator(state.task, state.seed, objects, kit)  # type: ignore[arg-type]
            except SimulationError as error:  # an earlier attempt may have pushed them away
                self.hopeless = str(error)
                return None
            self.began_ns = self.service.clock.now_ns()
        angles = self.plan.targets((now_ns - self.began_ns) / NS_PER_S)
        for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
            angles[index] = self.grippers[side].angle_from_action(float(angles[index]))
        return angles

    def figures(self) -> dict[str, float]:
        """Whether the demonstration (or the correction) is over, and whether the task is solved."""
        now_ns = self.service.clock.now_ns()
        if self.correction is not None:
            solved = now_ns - self.solved_ns < SOLVED_WITHIN_NS
            return {"done": float(self.correction.is_over(now_ns, solved)), "solved": float(solved)}
        done = self.plan is not None and now_ns - self.began_ns > self.plan.duration_s * NS_PER_S
        return {
            "done": float(done or bool(self.hopeless)),
            "solved": float(done and now_ns - self.solved_ns < SOLVED_WITHIN_NS),
        }

    def _signs(self, now_ns: int, leaders: ArmsState) -> Vector:
        """Both grippers opened, then squeezed, and again until they are heard; arms where they stand."""
        return with_grippers(np.array(leaders.position), self.grippers, sign_of_start(now_ns))

    def _hold(self, angles: Vector | None) -> None:
        for side in SIDES:
            self.link.write_hand(f"leader_{side}", None if angles is None else angles[SIDE_SLICE[side]].tolist())


def main(service: Service) -> None:
    loop = DemonstratorLoop(service)
    pacer = Pacer(service.clock, PERIOD_NS)
    try:
        while not service.stopping:
            beat = pacer.wait()
            loop.cycle(beat.deadline_ns)
            service.report(loop.figures, message=loop.hopeless or loop.refused)
    finally:
        loop.link.close()


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corrects", action="store_true")


if __name__ == "__main__":
    run(main, extend)
