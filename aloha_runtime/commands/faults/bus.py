"""Servos that die, say nothing of themselves, or answer late, in every mode and on every arm.

Tried in virtual time on the real loops (`power.Table`, `virtual_rig`), under both things that servos behind a missing
one may do; readings are judged by where the servos themselves say that they were looked at (`virtual_bus`).
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from aloha_runtime.commands.faults.power import ARMS, DRIVEN, SITUATIONS, Case, Table, no_rig
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.commands.faults.virtual_bus import EVERYBODY, Arms, Bus, virtual_time
from aloha_runtime.dynamixel import registers
from aloha_runtime.hardware.dynamixel_exchange import read_all
from aloha_runtime.messages import MS, Mode
from aloha_runtime.robot import SERVOS
from aloha_runtime.sim.faults import BehindMissing, Faults

NAMED_MS = 200.0
WATCHED_S = 0.5
BEHIND: tuple[BehindMissing, ...] = ("silent", "wait")
LATE_NS = (8 * MS, 40 * MS)
"""Delay of those who still answer, from the death on."""
MOMENTS = [name for name, mode in SITUATIONS.items() if mode in DRIVEN]
SWITCHING_S = 0.04
"""After the operator's order that switches torque; that takes 20 to 40 ms."""
BLIND_HOLD_MS = 10_500.0
OLDER_MS = 5.0
TURNS = 400
NO_SERVO = "no servo answers"


def named(said: str, arm: str) -> set[int]:
    """Ids of the servos of an arm that a cause names."""
    part = next((part for part in said.split("; ") if arm in part), "")
    if NO_SERVO in part:
        return set(EVERYBODY)
    labels = {s.id: s.joint + ("_shadow" if s.shadow_of is not None else "") for s in SERVOS["follower"]}
    return {servo for servo, label in labels.items() if re.search(rf"\b{label}\b", part)}


def die(situation: str, behind: BehindMissing, count: int, late: bool, chance: Random) -> Trial:
    """Servos of one arm die while it does something; the figure is how long until they alone are named (ms)."""
    arm, dead = chance.choice(ARMS), sorted(chance.sample(EVERYBODY, count))
    switching = situation == "torque"
    table = Table(Case("armed" if switching else situation, (arm,), 0.0, 0.0))
    with table.rig as rig:
        if trouble := table.enter():
            return Trial(f"nothing was tried: {trouble}")
        if switching:  # HOLD first, so that arming switches torque again
            rig.ask("park")
            table.until(lambda: rig.word.mode is Mode.IDLE, "the end of parking")
        wire = rig.wires[arm]
        died_ns = rig.now_ns + int(chance.uniform(0, SWITCHING_S) * 1e9)
        faults = Faults(silent=dead, behind_missing=behind, seed=chance.randrange(1 << 30))
        if late:
            faults.late, faults.late_ns = 1.0, chance.randint(*LATE_NS)
        wire.at(died_ns, lambda _: wire.chain.set_faults(faults))
        if switching:
            rig.ask("arm", "here")
        table.run(WATCHED_S)
        said = [(beat.stamp_ns, beat.mode, beat.cause) for beat in rig.beats if beat.stamp_ns > died_ns]
        right = [stamp_ns for stamp_ns, mode, cause in said if mode is Mode.HOLD and named(cause, arm) == set(dead)]
        wrong = [
            cause
            for stamp_ns, mode, cause in said
            if mode is Mode.HOLD and stamp_ns > died_ns + NAMED_MS * MS and named(cause, arm) != set(dead)
        ]
        held_ns = next((stamp_ns for stamp_ns, mode, _ in said if mode is Mode.HOLD), None)
        tripped = sorted({other for seen in table.seen for other in seen.tripped if other != arm})
        broken = [
            f"servos {dead} of {arm} died, and {said[-1][1]} says: {said[-1][2]}" if not right or wrong else "",
            f"the watchdog of {tripped} tripped" if tripped else "",
        ]
        hold_ms = None if held_ns is None else (held_ns - died_ns) / MS
        return Trial("; ".join(filter(None, broken)), (right[0] - died_ns) / MS if right else None, hold_ms=hold_ms)


def _dying(behind: BehindMissing, counts: Sequence[int], late: bool, moments: Sequence[str]) -> Callable[..., Trial]:
    def try_once(_rig: None, chance: Random) -> Trial:
        return die(chance.choice(moments), behind, chance.choice(counts), late, chance)

    return try_once


def unheard_at_rest(_rig: None, chance: Random) -> Trial:
    """A servo answers what it is asked with all, and says nothing of its temperature: 2 s later nobody arms."""
    arm, dumb = chance.choice(ARMS), chance.choice(SERVOS["follower"])
    with Table(Case("idle", (arm,), 0.0, 0.0)).rig as rig:
        rig.run(0.5)
        rig.wires[arm].chain.set_faults(Faults(no_read=[dumb.id]))
        rig.run(2.3)
        reply = rig.ask("arm", "start")
        refused = not reply.ok and named(reply.text, arm) == {dumb.id} and "aloha arm" in reply.text
        rig.wires[arm].chain.set_faults(Faults())
        rig.run(0.3)
        again = rig.ask("arm", "start")
        broken = [
            "" if refused else f"servo {dumb.id} of {arm} said nothing, and `aloha arm` says: {reply.text}",
            "" if again.ok else f"0.3 s after it said something again: {again.text}",
        ]
        return Trial("; ".join(filter(None, broken)))


def unheard_in_motion(_rig: None, chance: Random) -> Trial:
    """The same while a policy moves the arms: HOLD after 10 s, and nothing before."""
    arm, dumb = chance.choice(ARMS), chance.choice(SERVOS["follower"])
    table = Table(Case("policy", (arm,), 0.0, 0.0))
    with table.rig as rig:
        if trouble := table.enter():
            return Trial(f"nothing was tried: {trouble}")
        since_ns = rig.now_ns
        rig.wires[arm].chain.set_faults(Faults(no_read=[dumb.id]))
        rig.run(8.0)
        early = "" if rig.word.mode is Mode.POLICY else f"after 8 s {rig.word.mode}: {rig.word.cause}"
        rig.run(3.0)
        held = [beat for beat in rig.beats if beat.stamp_ns > since_ns and beat.mode is Mode.HOLD]
        right = bool(held) and named(held[0].cause, arm) == {dumb.id}
        broken = [early, "" if right else f"servo {dumb.id} of {arm}: {rig.word.mode} ({rig.word.cause})"]
        hold_ms = (held[0].stamp_ns - since_ns) / MS if held else None
        return Trial("; ".join(filter(None, broken)), hold_ms, hold_ms=hold_ms)


def replies_late(_rig: None, chance: Random) -> Trial:
    """Delays of 0 to 40 ms, constant or not: how much older than its stamp the oldest reading is (ms)."""
    least, most = sorted((chance.randint(0, 40 * MS), chance.randint(0, 40 * MS)))
    constant = chance.random() < 0.5
    with virtual_time() as time:
        buses: list[Any] = [Bus(time, overtaking=chance.random() < 0.5) for _ in range(2)]
        arms = Arms(time, buses, fast=chance.random() < 0.8)
        for bus in buses:
            bus.line.delay_ns = lambda: most if constant else chance.randint(least, most)
        ages_ms = [(reading.stamp_ns - reading.sampled_ns) / MS for reading in arms.turns(TURNS)]
        arms.cycles[0].give_up()
        asked_ns = time.now
        found = read_all(buses[0], EVERYBODY, *registers.STATE_BLOCK)
        if 1 in found:
            tick = registers.PRESENT_POSITION.decode(found[1].data[-4:])
            ages_ms.append((asked_ns - buses[0].plant.sampled_ns(tick)) / MS)
        return Trial("", max(ages_ms, default=0.0))


def _named(name: str, behind: BehindMissing, counts: Sequence[int], late: bool, moments: Sequence[str]) -> Scenario:
    others = "those behind it stay silent" if behind == "silent" else "those behind it answer after a wait"
    promise = "HOLD that names all and only the dead servos"
    row = f"{name}; {others}"
    return Scenario(row, promise, "ms to their names", NAMED_MS, _dying(behind, counts, late, moments), 6, 120)


def _rows() -> list[Scenario]:
    found = []
    for behind in BEHIND:
        found += [
            _named("one servo dies", behind, (1,), late=False, moments=MOMENTS),
            _named("several servos die", behind, (2, 3, 4, 8), late=False, moments=MOMENTS),
            _named("one dies and the others answer late", behind, (1,), late=True, moments=MOMENTS),
            _named("a servo dies while torque is switched", behind, (1,), late=False, moments=("torque",)),
            _named("a servo dies on the way to a pose", behind, (1,), late=False, moments=("the ramp", "park")),
        ]
    known = "2 s later `aloha arm` is refused, with the servo and the age; back, it arms within 0.3 s"
    return [
        *found,
        Scenario("a servo says no temperature, at rest", known, "", None, unheard_at_rest, 3, 30),
        Scenario(
            "a servo says no temperature, in motion",
            "HOLD after 10 s that names the servo",
            "ms to HOLD",
            BLIND_HOLD_MS,
            unheard_in_motion,
            2,
            10,
        ),
        Scenario(
            "replies 0 to 40 ms late",
            "no reading is older than its stamp says by more than a cycle, nor what torque switching reads",
            "ms older than its stamp",
            OLDER_MS,
            replies_late,
            20,
            400,
        ),
    ]


BUS = Family("servo bus", no_rig, _rows())
