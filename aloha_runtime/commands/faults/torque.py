"""Torque goes on, off and on again, beside arms that are dead or at fault: no joint leaps, creeps, or goes limp.

The driver on emulated chains in virtual time (`virtual_arms`), judged by registers and joints. Where no source settles
how a servo behaves, it is one way or the other.
"""

from collections.abc import Callable
from random import Random

import numpy as np

from aloha_runtime.commands.faults.power import no_rig
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.commands.faults.virtual_arms import Pair, SingleArm, virtual_time
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.hardware.dynamixel_stance import LIMIT_SLACK_TICKS, SAG_TICKS
from aloha_runtime.hardware.steps import finish
from aloha_runtime.messages import MS
from aloha_runtime.robot import JOINTS, RAD_PER_TICK, ROLES, SERVOS, SIDES, Side, Vector
from aloha_runtime.sim.faults import Faults, Reply

MOST_TICKS = 8192
"""A hand has turned a joint by two turns at most."""
MOST_OFFSET = 1100
"""Homing_Offset: up to 1024 in force in position control, beyond it ignored."""
GOAL_RAD = 0.01
SAG_RAD = SAG_TICKS * RAD_PER_TICK
RETRY_NS = 500 * MS
TEN_MINUTES_NS = 600_000 * MS
FED_NS = 50 * MS
"""While nothing happens an arm hears something this often: half of what its watchdog waits."""
WAITED_MS = 30.0
"""Longest pause on the wire of a healthy arm while a dead one is reached for: well within the watchdog's 100 ms."""
OVERLOAD = 0x20


def _faults(chance: Random, silent: list[int] | None = None) -> Faults:
    """Servos of either kind."""
    return Faults(
        silent=silent or [],
        goal_at_torque=chance.choice(("keep", "present")),
        goal_at_trip=chance.choice(("keep", "present")),
        behind_missing=chance.choice(("silent", "wait")),
    )


def turned_by_hand(_rig: None, chance: Random) -> Trial:
    """Any joint, turned anywhere, under any offset: torque moves its goal by nothing, or is refused."""
    role, joint = chance.choice(ROLES), chance.choice(JOINTS)
    arm, index = SingleArm(role, _faults(chance)), JOINTS.index(joint)
    servos = [servo for servo in SERVOS[role] if servo.joint == joint]
    offset = chance.choice((0, chance.randint(-MOST_OFFSET, MOST_OFFSET)))
    with virtual_time(arm.time):
        for servo in servos:
            arm.chain.poke(servo.id, reg.HOMING_OFFSET, offset)
        arm.get(servos[0].id, reg.PRESENT_POSITION)  # powered since before the hand came
        arm.turn(index, chance.randint(-MOST_TICKS, MOST_TICKS))
        before = arm.plant.angles[index]
        outcome = finish(arm.switch.switch(True, True))
        held = [bool(arm.get(servo.id, reg.TORQUE_ENABLE)) for servo in servos]
        if outcome.troubles:
            return Trial("a refused joint got torque" if any(held) else "", 0.0)
        gaps = [arm.get(s.id, reg.GOAL_POSITION) - arm.get(s.id, reg.PRESENT_POSITION) for s in servos]
        here = arm.get(servos[0].id, reg.PRESENT_POSITION)
        outside = not servos[0].min_tick <= here <= servos[0].max_tick
        allowed = LIMIT_SLACK_TICKS if outside else 0
        gap = max(0, max(map(abs, gaps)) - allowed) * RAD_PER_TICK
        arm.pass_ms(300)
        way = abs(arm.plant.read(arm.time.now).angles[index] - before)
    broken = "" if all(held) else f"{joint} has no torque, and nothing says so"
    if way > SAG_RAD + (LIMIT_SLACK_TICKS * RAD_PER_TICK if outside else 0):
        broken = f"{joint} went {way:.3f} rad"
    return Trial(broken, gap, way)


def _raise(pair: Pair) -> Vector:
    """Both arms hold; the goals that they hold."""
    goals = pair.pair.torque(True).goals
    pair.cycle(goals, 100)
    return goals


def _wait(pair: Pair, duration_ns: int) -> None:
    """Time passes; the arms hear just enough."""
    end_ns = pair.time.now + duration_ns
    while pair.time.now < end_ns:
        pair.time.now += FED_NS
        pair.cycle(None)


def _beside(what: str) -> Callable[[None, Random], Trial]:
    def try_once(_rig: None, chance: Random) -> Trial:
        """Ten minutes in which the torque of the arm at fault is tried again every half second."""
        role, sick = chance.choice(ROLES), chance.choice(SIDES)
        healthy: Side = "right" if sick == "left" else "left"
        servo = chance.randint(1, 9)
        with Pair(role, _faults(chance)) as pair:
            goals = _raise(pair)
            begin = pair.angles(healthy)
            chain = pair.wires[sick].chain
            if what == "power":
                chain.cut_power(pair.time.now)
            elif what == "overload":
                chain.raise_error(servo, OVERLOAD)
            else:
                chain.set_faults(_faults(chance, [servo]))
            end_ns, quiet = pair.time.now + TEN_MINUTES_NS, True
            while pair.time.now < end_ns:
                switched = pair.pair.torque(True)
                quiet &= switched.failure is not None
                goals = np.where(np.isfinite(switched.goals), switched.goals, goals)
                pair.cycle(goals, 2)
                _wait(pair, RETRY_NS)
            moved = float(np.abs(pair.angles(healthy) - begin).max())
            limp = [i for i, on in enumerate(pair.registers(healthy, reg.TORQUE_ENABLE), 1) if not on]
            rest = [i for i, on in enumerate(pair.registers(sick, reg.TORQUE_ENABLE), 1) if not on and i != servo]
        broken = [
            "" if quiet else "nobody said that an arm is at fault",
            f"servos {limp} of the healthy arm are limp" if limp else "",
            f"servos {rest} beside the faulty one are limp" if rest and what != "power" else "",
        ]
        return Trial("; ".join(filter(None, broken)), moved)

    return try_once


def again_and_again(_rig: None, chance: Random) -> Trial:
    """A hundred times each: torque again, grippers free and back, a tripped watchdog, and a program restarted."""
    role = chance.choice(ROLES)
    with Pair(role, _faults(chance)) as pair:
        goals = _raise(pair)
        begin = {side: pair.angles(side) for side in SIDES}
        trouble = ""
        for _ in range(100):
            for grippers in (True, False, True):
                switched = pair.pair.torque(True, grippers)
                trouble = trouble or str(switched.failure or "")
                pair.cycle(switched.goals, 5)
            pair.leave(150)
            pair.cycle(switched.goals, 40)
            goals = pair.pair.torque(True).goals
            pair.cycle(goals, 60)
            pair.pair.disconnect()
            pair.leave(chance.choice((0, 300)))
            pair.connect()
            goals = pair.pair.torque(True).goals
            pair.cycle(goals, 60)
        moved = max(float(np.abs(pair.angles(side) - begin[side])[:-1].max()) for side in SIDES)
    return Trial(trouble, moved)


def reached_for(_rig: None, chance: Random) -> Trial:
    """One arm without power, or one servo of it silent: what its neighbour hears meanwhile."""
    role, dead = chance.choice(ROLES), chance.choice(SIDES)
    healthy: Side = "right" if dead == "left" else "left"
    with Pair(role, _faults(chance)) as pair:
        goals = _raise(pair)
        chain = pair.wires[dead].chain
        if chance.random() < 0.5:
            chain.cut_power(pair.time.now)
        else:
            chain.set_faults(_faults(chance, [chance.randint(1, 9)]))
        pair.cycle(goals, chance.choice((0, 1, 5, 30)))
        heard: list[int] = []
        chain, began_ns = pair.wires[healthy].chain, pair.time.now
        receive = chain.receive

        def listen(data: bytes, now_ns: int, baud: int = 1_000_000) -> list[Reply]:
            heard.append(now_ns)
            return receive(data, now_ns, baud)

        chain.receive = listen  # type: ignore[method-assign]
        failure = pair.pair.torque(True).failure
        tripped = -1 in pair.registers(healthy, reg.BUS_WATCHDOG)
        gaps = np.diff([began_ns, *heard, pair.time.now])
    named = failure is not None and f"{role}_{dead}" in str(failure) and f"{role}_{healthy}" not in str(failure)
    broken = ["" if named else f"the dead arm is not named: {failure}", "a watchdog tripped" if tripped else ""]
    return Trial("; ".join(filter(None, broken)), float(gaps.max()) / MS)


TORQUE = Family(
    "torque",
    no_rig,
    (
        Scenario(
            "a joint turned by hand gets torque",
            "its goal moves by at most 0.01 rad and the joint by one sag, or torque is refused with what to do",
            "rad of the goal",
            GOAL_RAD,
            turned_by_hand,
            count=50,
            soak=2000,
        ),
        *(
            Scenario(
                f"ten minutes beside {name}",
                "the healthy arm stays, with torque; the rest of the faulty one keeps its torque",
                "rad moved",
                GOAL_RAD,
                _beside(what),
                count=1,
                soak=10,
            )
            for what, name in (
                ("power", "an arm without power"),
                ("overload", "a servo in overload"),
                ("silent", "a silent servo"),
            )
        ),
        Scenario(
            "torque a hundred times",
            "torque again, other grippers, watchdogs that trip, programs that restart: no arm creeps",
            "rad moved",
            GOAL_RAD,
            again_and_again,
            count=1,
            soak=10,
        ),
        Scenario(
            "torque beside a dead arm",
            "the healthy arm is not kept waiting past its watchdog",
            "ms of silence on its wire",
            WAITED_MS,
            reached_for,
            count=20,
            soak=200,
        ),
    ),
)
