"""The fuzzer through the driver and a pseudo-terminal to an emulated arm with a bad line, in real time.

The monitor sits in the arm's own process and stamps goals when they arrive, so its bounds on speed are as wide as
`sim.standalone.JITTER_S` makes them; position, lead and mode are as strict as in one process.
"""

import random
import tempfile
import time
from pathlib import Path

from aloha_runtime.commands.bench_fuzz import RUN, Found
from aloha_runtime.commands.fuzz_actions import Fuzzer
from aloha_runtime.control.gate import GateTiming, Motion
from aloha_runtime.control.limits import default_limits
from aloha_runtime.control.pilot import Command, Pilot, Torque
from aloha_runtime.data.progress import progress
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.hardware.pair import ArmPair
from aloha_runtime.messages import MS
from aloha_runtime.robot import KITS, SIDES, START_POSE, pose_vector
from aloha_runtime.sim.chain_control import GetReport, SetFaults
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.standalone import EmulatedArm

CYCLE_NS = 3 * MS
"""Faster than the 5 ms of a rig, so that 10^5 actions take minutes; the gate is told."""
REPLY_NS = 20 * MS
STALL_SHARE = 0.001


def run(actions: int, seed: int) -> Found:
    """`actions` cycles on one emulated follower, the line with other faults every `RUN`. Raises HardwareError."""
    found = Found()
    with (
        tempfile.TemporaryDirectory(prefix="aloha-fuzz-") as folder,
        EmulatedArm(Path(folder)) as emulated,
        progress("actions over the terminal", actions, print) as advance,
    ):
        loop = _Loop(DynamixelArm("follower_left", "follower", str(emulated.port)), seed)
        try:
            while found.actions < actions:
                count = min(RUN, actions - found.actions)
                emulated.ask(SetFaults(_line(seed + found.actions)))
                found.followed += sum(loop.cycle() for _ in range(count))
                found.actions += count
                advance(count)
        finally:
            loop.pair.disconnect()
        report = emulated.ask(GetReport()).report
    if report is not None:
        found.goals, found.counts, found.worst = report.goals, report.counts, report.worst
        found.offences = [(seed, offence) for offence in report.offences[:20]]
    return found


def _line(seed: int) -> Faults:
    """A good line half of the time, else one that loses, damages and delays up to a twentieth of the replies."""
    chance = random.Random(seed)  # noqa: S311 — a test, no secret
    if chance.random() < 0.5:
        return Faults()
    drop, corrupt, late, duplicate, foreign = (chance.uniform(0, 0.05) for _ in range(5))
    return Faults(drop=drop, corrupt=corrupt, late=late, duplicate=duplicate, foreign=foreign, seed=seed)


class _Loop:
    """The arms process in small: pilot, torque, goals out, state in, with the fuzzer for everybody else."""

    def __init__(self, arm: DynamixelArm, seed: int) -> None:
        absent = pose_vector(START_POSE, 0.0)
        self.pair = ArmPair({"left": arm}, dict.fromkeys(SIDES, KITS["aloha"].follower_gripper), absent)
        self.pair.connect()
        self.fuzzer = Fuzzer(seed, default_limits())
        self.fuzzer.now_ns = time.monotonic_ns()
        reading = None
        while reading is None:
            reading = self.pair.cycle(None, time.monotonic_ns() + REPLY_NS)
        self.present, self.wants_out = reading.present, False
        self.torque: Torque | None = Torque.OFF
        timing = GateTiming(period_ns=CYCLE_NS)
        poses = (START_POSE, KITS["aloha"].follower_sleep)
        self.pilot = Pilot("follower", default_limits(), *poses, self.present, self.fuzzer.now_ns, Torque.OFF, timing)

    def cycle(self) -> bool:
        """One action; True when it drove the arm."""
        fuzzer = self.fuzzer
        self._wait()
        now_ns = fuzzer.now_ns = time.monotonic_ns()
        target = fuzzer.action(self.pilot.gate.goal)
        command = self.pilot.step(
            now_ns, fuzzer.heartbeats(self.wants_out), self.present, target, self.pair.rearm_cause()
        )
        self.wants_out = bool(command.hold_cause)
        goal = command.goal if self._switch(command) else None
        reading = self.pair.cycle(goal, time.monotonic_ns() + REPLY_NS)
        if reading is not None:
            self.present = reading.present
        return command.gate.motion is Motion.FOLLOW and command.gate.target is not None

    def _wait(self) -> None:
        """Until the next cycle, or through a stall in which watchdogs trip."""
        if self.fuzzer.chance.random() < STALL_SHARE:
            time.sleep(self.fuzzer.chance.choice((0.02, 0.06, 0.15)))
        time.sleep(max(0, self.fuzzer.now_ns + CYCLE_NS - time.monotonic_ns()) * 1e-9)

    def _switch(self, command: Command) -> bool:
        """Torque as the pilot wants it; False in a cycle that switches it. Where the line is bad, once more in the
        next one."""
        if not command.rearm and command.torque is self.torque:
            return True
        switched = self.pair.torque(command.torque is not Torque.OFF)
        self.torque = command.torque if switched.failure is None else None
        self.pilot.switched(self.fuzzer.now_ns, switched.goals, switched.failure is None)
        return False
