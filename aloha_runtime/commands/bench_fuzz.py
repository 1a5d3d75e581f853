"""`aloha bench fuzz`: random actions through pilot, gate, packets and the independent goal monitor, in one process.

What counts is what the monitor reads in the bytes of the packets; the gate is not asked. Every run of `RUN` actions has
a seed of its own, so whatever is found can be had again: `aloha bench fuzz --seed N --actions 1`.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numpy as np

from aloha_runtime.commands.bench import Row, write_json
from aloha_runtime.commands.fuzz_actions import Fuzzer, Joints
from aloha_runtime.commands.fuzz_wire import Wire
from aloha_runtime.control.gate import GateTiming, Motion
from aloha_runtime.control.limits import Limits, default_limits
from aloha_runtime.control.pilot import Pilot, Torque
from aloha_runtime.data.progress import progress
from aloha_runtime.robot import DOF, KITS, START_POSE, Vector
from aloha_runtime.sim.monitor import Offence

RUN = 1000
"""Actions from one seed: five seconds of an arm's life."""
RULES = ("position", "velocity", "acceleration", "lead")
NICENESS = 10
SAVED_EVERY = 50
"""Runs between two writings of the figures so far."""


class Found(msgspec.Struct):
    """What the monitor saw of one run, or of many."""

    actions: int = 0
    followed: int = 0
    """Cycles in which an action drove the arms."""
    goals: int = 0
    refused: int = 0
    """Goals that the driver would not encode."""
    counts: dict[str, int] = {}
    worst: dict[str, float] = {}
    offences: list[tuple[int, Offence]] = []
    """The first of each offending seed."""

    def add(self, other: "Found") -> None:
        self.actions += other.actions
        self.followed += other.followed
        self.goals += other.goals
        self.refused += other.refused
        self.counts = dict(Counter(self.counts) + Counter(other.counts))
        self.worst = {kind: max(self.worst.get(kind, -1.0), other.worst[kind]) for kind in other.worst} | {
            kind: value for kind, value in self.worst.items() if kind not in other.worst
        }
        self.offences += other.offences[: max(0, 20 - len(self.offences))]


def one(seed: int, actions: int = RUN, limits: Limits | None = None) -> Found:
    """One run. `limits`: what the gate is given, where it is not what the monitor judges by (to see it judge)."""
    fuzzer = Fuzzer(seed, default_limits())
    chance = fuzzer.chance
    joints = Joints(chance, default_limits())
    wire = Wire()
    seen = wire.see(joints.position, fuzzer.now_ns)
    sleep = KITS["aloha"].follower_sleep
    pilot = Pilot(
        "follower",
        limits or default_limits(),
        START_POSE,
        sleep,
        seen,
        fuzzer.now_ns,
        Torque.OFF,
        GateTiming(),
    )
    torque, present, wants_out, found = Torque.OFF, seen, False, Found(actions=actions)
    for _ in range(actions):
        before_ns = fuzzer.now_ns
        now_ns = fuzzer.tick()
        target = fuzzer.action(pilot.gate.goal)
        trouble = "the watchdog tripped" if chance.random() < 0.0005 else ""
        command = pilot.step(now_ns, fuzzer.heartbeats(wants_out), present, target, trouble)
        wants_out = bool(command.hold_cause)
        found.followed += command.gate.motion is Motion.FOLLOW and command.gate.target is not None
        goal = command.goal
        if command.torque is not torque or command.rearm:
            torque, goal = command.torque, None
            wire.torque(torque is not Torque.OFF, now_ns)
            pilot.switched(now_ns, seen, done=True)
        if goal is not None and not wire.goals(goal, now_ns):
            found.refused += 1
        present = _look(fuzzer, joints, wire, goal, (now_ns - before_ns) * 1e-9, seen)
        seen = present if present.shape == (DOF,) and np.isfinite(present).all() else seen
    for report in wire.reports():
        found.goals += report.goals
        found.counts = dict(Counter(found.counts) + Counter(report.counts))
        for kind, value in report.worst.items():
            found.worst[kind] = max(value, found.worst.get(kind, -1.0))
        found.offences += [(seed, offence) for offence in report.offences[:1]]
    return found


def _look(fuzzer: Fuzzer, joints: Joints, wire: Wire, goal: Vector | None, dt_s: float, seen: Vector) -> Vector:
    """What the gate hears of the joints next: mostly what the wire carried, at times nothing new or no number."""
    position = joints.move(goal, dt_s)
    luck = fuzzer.chance.random()
    if luck < 0.01:
        return seen
    if luck < 0.015:
        spoilt = seen.copy()
        spoilt[fuzzer.chance.randrange(DOF)] = fuzzer.chance.choice((math.nan, math.inf, -math.inf))
        return spoilt if luck < 0.014 else seen[:7]
    return wire.see(position, fuzzer.now_ns)


def run(actions: int, seed: int, workers: int, so_far: Path | None = None) -> Found:
    """`actions` (in whole runs) from the seeds `seed`, `seed` + 1, ... in so many worker processes.

    The figures are written to `so_far` as runs end, so that a run which is cut off still says what it did.
    """
    seeds = range(seed, seed + math.ceil(actions / RUN))
    total = Found()
    with progress("actions", len(seeds) * RUN, print) as advance:
        for done, found in enumerate(_each(seeds, workers), start=1):
            total.add(found)
            advance(found.actions)
            if so_far is not None and done % SAVED_EVERY == 0:
                write_json(rows(total, "one process"), so_far)
    return total


def _each(seeds: range, workers: int) -> Iterable[Found]:
    if workers == 1:
        yield from map(one, seeds)
        return
    with get_context("spawn").Pool(workers, initializer=os.nice, initargs=(NICENESS,)) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=4)


def both(actions: int, terminal: int, seed: int, workers: int, so_far: Path | None = None) -> list[Row]:
    """`actions` in one process (see `run`), then `terminal` of them through the driver."""
    from aloha_runtime.commands import fuzz_terminal

    made = []
    for where, found in (
        ("one process", run(actions, seed, workers, so_far) if actions else Found()),
        ("terminal", fuzz_terminal.run(terminal, seed) if terminal else Found()),
    ):
        if found.actions:
            made += rows(found, where)
            print_offences(found)
    return made


def rows(found: Found, where: str) -> list[Row]:
    """The figures, the worst of each rule as the share of its bound that was used."""
    outside = sum(found.counts.values())
    made = [
        Row(f"{where}: actions tried", found.actions, ""),
        Row(f"{where}: cycles in which an action drove the arms", found.followed, ""),
        Row(f"{where}: goals read on the wire", found.goals, ""),
        Row(f"{where}: goals outside the envelope", outside, "", None, 0, outside == 0 and found.goals > 0),
    ]
    for rule in RULES:
        if rule in found.worst:
            unit = "tick beyond the range, 1 is rounding" if rule == "position" else "of the bound"
            worst = max(found.worst[rule], 0.0) if rule == "position" else found.worst[rule]
            made.append(Row(f"{where}: worst {rule}", worst, unit, None, 1, worst <= 1))
    return made


def print_offences(found: Found) -> None:
    """Where to look: seed, servo, rule, values."""
    for seed, offence in found.offences:
        print(f"seed {seed}: {offence}")  # noqa: T201 — the command's own output
