"""The 12 V of one arm, of a pair or of all arms are cut, and come back, at any moment of every mode.

Tried in virtual time on the real loops (`virtual_rig`), judged by what the servos and the wires say: HOLD that names
the arm, no torque and no motion until the operator has armed, healthy arms neither limp nor late, and `aloha arm` as
the way back.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from aloha_runtime import config, messages
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.commands.faults.virtual_parts import Bus
from aloha_runtime.commands.faults.virtual_rig import VirtualRig
from aloha_runtime.hardware.dynamixel_torque import LIMIT_SLACK_TICKS, WATCHDOG
from aloha_runtime.messages import MS, Action, Health, Mode
from aloha_runtime.robot import JOINTS_PER_ARM, RAD_PER_TICK, ROLES, START_POSE, TICK_NS, pose_vector
from aloha_runtime.sim.servo import ServoPlant

ARMS = tuple(f"{role}_{side}" for role in ROLES for side in ("left", "right"))
SETS = {**{arm: (arm,) for arm in ARMS}, "all arms": ARMS}
"""What loses its supply, by name."""
DRIVERS = ("teleop", "policy", "replay")
RAMP = "the ramp"
STARTED = {mode: mode.value for mode in (Mode.TELEOP, Mode.POLICY, Mode.REPLAY)}
SITUATIONS: dict[str, Mode] = {
    "idle": Mode.IDLE,
    RAMP: Mode.ARMED,
    **{mode.value: mode for mode in (Mode.ARMED, *STARTED, Mode.HOLD, Mode.PARK, Mode.FAULT)},
}
"""When the power is cut, and the mode that the rig is in then."""
DRIVEN = (Mode.ARMED, *STARTED, Mode.PARK)
CUT_AFTER_S = (0.0, 0.02, 0.11, 0.37)
"""After the mode was entered."""
GAP_S = (0.02, 0.13, 0.45)
"""Until the supply is back: a dip, about as long as it takes to notice, and longer."""
IN_VAIN = 0.46
"""As the longest, and meanwhile the operator arms, in vain."""
HOLD_WITHIN_NS = 250 * MS
STOPPED_AFTER_NS = 150 * MS
"""After HOLD the arms' own servos still arrive at their last goals."""
WATCHED_S = 0.9
"""After the return: the servos boot for 0.2 s; torque that could not be switched is tried again every 0.5 s."""
MOVED_RAD = 0.01
SWING_RAD, SWING_HZ = 0.15, 0.5
AWAY_RAD = 0.4
GRIPPER_RAD = 0.1
"""Within the range of leaders and followers."""
RECOVERY = re.compile(r"aloha arm|arm again")
READY_S = 6.0


@dataclass(frozen=True)
class Case:
    """One trial. `gravity`: arms without torque fall, else somebody holds them where they are."""

    situation: str
    arms: tuple[str, ...]
    cut_after_s: float
    gap_s: float
    gravity: bool = False


@dataclass
class Seen:
    """Joints and torque of every arm at one turn of the supervisor."""

    stamp_ns: int
    angles: dict[str, list[float]]
    torque: dict[str, bool]
    """Any servo of the arm has torque."""
    tripped: list[str]
    """Arms whose servos' watchdog has tripped."""


@dataclass
class Table:
    """A case as it is carried out."""

    case: Case
    seen: list[Seen] = field(default_factory=list)
    held: bool = False
    """A person's hands move the leaders."""

    def __post_init__(self) -> None:
        self.rig = VirtualRig(config.load("sim"), self._plant, self._drive)

    def _plant(self, arm: str) -> ServoPlant:
        away = AWAY_RAD if self.case.situation == RAMP else 0.0
        angles = [angle + away for angle in START_POSE]
        hand = (lambda: self._swung() if self.held else None) if arm.startswith("leader") else (lambda: None)
        return ServoPlant(
            "leader" if arm.startswith("leader") else "follower", (*angles, GRIPPER_RAD), hand, self.case.gravity
        )

    def _swung(self) -> list[float]:
        swing = SWING_RAD * math.sin(2 * math.pi * SWING_HZ * self.rig.time.now / 1e9)
        return [*(angle + swing for angle in START_POSE), GRIPPER_RAD]

    def _drive(self, bus: Bus, now_ns: int) -> None:
        """Actions for every moving mode all the time, as from drivers that do not care for the mode."""
        self.held = bool(self.rig.beats) and self.rig.word.mode is Mode.TELEOP
        position = pose_vector(START_POSE, 0.5)
        swing = SWING_RAD * math.sin(2 * math.pi * SWING_HZ * now_ns / 1e9)
        for start in (0, JOINTS_PER_ARM):
            position[start : start + JOINTS_PER_ARM - 1] += swing
        for mode in STARTED:
            action = Action(stamp_ns=now_ns, tick=now_ns // TICK_NS, position=position.tolist())
            bus.publisher(messages.ACTION_TOPIC[mode]).send(action)
        for name in DRIVERS:
            bus.publisher(messages.health_topic(name)).send(Health(stamp_ns=now_ns, process=name, pid=1))

    def look(self) -> None:
        """Take down what the servos do now."""
        wires = self.rig.wires
        torque = {arm: any(servo.torque for servo in wire.chain.servos) for arm, wire in wires.items()}
        tripped = [arm for arm, wire in wires.items() if any(servo.watchdog < 0 for servo in wire.chain.servos)]
        angles = {arm: list(wire.plant.angles) for arm, wire in wires.items()}
        self.seen.append(Seen(self.rig.time.now, angles, torque, tripped))

    def run(self, seconds: float) -> None:
        self.rig.run(seconds, self.look)

    def until(self, done: Callable[[], bool], what: str) -> str:
        """Why it did not happen; empty when it did."""
        give_up_ns = self.rig.now_ns + int(READY_S * 1e9)
        while not done():
            if self.rig.now_ns > give_up_ns:
                return f"{what} did not happen: {self.rig.word.mode} ({self.rig.word.cause})"
            self.run(0.04)
        return ""

    def settled(self) -> bool:
        """Every pair of arms is where ARMED brings it."""
        states = [self.rig.bus.subscribe(topic).latest() for topic in (messages.FOLLOWERS, messages.LEADERS)]
        return all(state.settled and state.mode is Mode.ARMED for state in states) and self._mode is Mode.ARMED

    @property
    def _mode(self) -> Mode:
        return Mode(self.rig.word.mode)

    def enter(self) -> str:
        """Bring the rig into the situation. Why not; empty when it is there."""
        situation = self.case.situation
        mode = SITUATIONS[situation]
        self.run(0.1)
        if mode is Mode.IDLE:
            return ""
        self.rig.ask("arm", "start")
        if situation == RAMP:
            return self.until(lambda: self._mode is Mode.ARMED, "the ramp")
        trouble = self.until(self.settled, "ARMED")
        if mode in (Mode.ARMED, Mode.PARK) or trouble:
            return trouble or ("" if mode is Mode.ARMED or self.rig.ask("park").ok else "PARK was refused")
        self.rig.ask(STARTED.get(mode, "teleop"))
        self.run(0.3)
        if mode is Mode.HOLD:
            self.rig.ask("stop")
        elif mode is Mode.FAULT:
            self.rig.stop_process("arms@leaders", 0.7)
            self.run(1.0)
        return self.until(lambda: self._mode is mode, str(mode))


def carry_out(case: Case) -> Trial:
    """One case from its beginning to the recovery."""
    table = Table(case)
    with table.rig as rig:
        trouble = table.enter()
        if trouble:
            return Trial(f"nothing was tried: {trouble}")
        table.run(case.cut_after_s)
        cut_ns, mode = rig.now_ns, SITUATIONS[case.situation]
        for wire in (rig.wires[arm] for arm in case.arms):
            wire.at(cut_ns, wire.cut)
            wire.at(cut_ns + int(case.gap_s * 1e9), wire.chain.return_power)
        found = []
        if case.gap_s == IN_VAIN:
            table.run(0.2)
            found.append(_arm_in_vain(table))
            table.run(case.gap_s - (rig.now_ns - cut_ns) / 1e9)
        else:
            table.run(case.gap_s)
        back_ns = cut_ns + int(case.gap_s * 1e9)
        table.run(WATCHED_S)
        hold_ns = next(
            (beat.stamp_ns for beat in rig.beats if beat.stamp_ns > cut_ns and beat.mode in (Mode.HOLD, Mode.FAULT)),
            None,
        )
        if mode in DRIVEN:
            found.append(_complaint_about_hold(table, cut_ns, hold_ns))
        found += _complaints_about_servos(table, cut_ns, back_ns)
        begin_ns = max(back_ns, (hold_ns or cut_ns) + STOPPED_AFTER_NS)
        moved = _moved(table, begin_ns)
        if moved > MOVED_RAD:
            found.append(f"a joint moved by {moved:.3f} rad after the return")
        found.append(_complaint_about_recovery(table))
        counts = {arm: wire.monitor.report().counts for arm, wire in rig.wires.items()}
        found += [f"{arm}: goals outside the envelope {kinds}" for arm, kinds in counts.items() if kinds]
        hold_ms = None if hold_ns is None or mode not in DRIVEN else (hold_ns - cut_ns) / MS
        return Trial("; ".join(filter(None, found)), moved, hold_ms=hold_ms)


def _arm_in_vain(table: Table) -> str:
    """The operator arms while the power is away: refused, or HOLD at once, and the arm is named."""
    reply = table.rig.ask("arm")
    table.run(0.2)
    said = table.rig.word.cause if reply.ok else reply.text
    named = any(arm in said for arm in table.case.arms)
    if named and (not reply.ok or table.rig.word.mode is Mode.HOLD):
        return ""
    return f"armed without power: {table.rig.word.mode} ({said})"


def _complaint_about_hold(table: Table, cut_ns: int, hold_ns: int | None) -> str:
    beats = [beat for beat in table.rig.beats if hold_ns is not None and beat.stamp_ns >= hold_ns]
    if hold_ns is None or hold_ns - cut_ns > HOLD_WITHIN_NS:
        late = "no HOLD" if hold_ns is None else f"HOLD after {(hold_ns - cut_ns) / MS:.0f} ms"
        return f"{late} ({table.rig.word.cause})"
    cause = beats[0].cause
    if not any(arm in cause for arm in table.case.arms):
        return f"HOLD does not name the arm: {cause}"
    if {beat.mode for beat in beats} - {Mode.HOLD, Mode.FAULT, Mode.ARMED}:
        return f"HOLD was left for {beats[-1].mode}"
    return "" if RECOVERY.search(cause) else f"the cause names no way back: {cause}"


def _complaints_about_servos(table: Table, cut_ns: int, back_ns: int) -> list[str]:
    """Torque of the arms that were cut, and the health of the others, until now."""
    looks = [seen for seen in table.seen if seen.stamp_ns > cut_ns + TICK_NS]
    healthy = [arm for arm in ARMS if arm not in table.case.arms]
    before = [seen for seen in table.seen if seen.stamp_ns <= cut_ns][-1]
    fallen = sorted({arm for seen in looks for arm in healthy if before.torque[arm] and not seen.torque[arm]})
    found = []
    for arm in table.case.arms:
        when = next((seen.stamp_ns for seen in looks if seen.stamp_ns > back_ns and seen.torque[arm]), None)
        if when is not None:
            found.append(f"{arm} got torque by itself {(when - back_ns) / MS:.0f} ms after the return")
    tripped = sorted({arm for seen in looks for arm in seen.tripped} & set(healthy))
    if tripped and table.case.situation != Mode.FAULT:
        found.append(f"the watchdog of a healthy arm tripped: {', '.join(tripped)}")
    return [*found, *([f"a healthy arm lost its torque: {', '.join(fallen)}"] if fallen else [])]


def _moved(table: Table, begin_ns: int) -> float:
    """Farthest way of a joint from where it was at an instant, until now. An arm without torque may fall: one that was
    cut, or one that was parked before; a healthy one that lost its torque is a complaint of its own."""
    looks = [seen for seen in table.seen if seen.stamp_ns >= begin_ns]
    ways = [
        abs(angle - before)
        for arm in ARMS
        if not (table.case.gravity and not any(seen.torque[arm] for seen in looks))
        for seen in looks
        for angle, before in zip(seen.angles[arm], looks[0].angles[arm], strict=True)
    ]
    return max(ways, default=0.0)


def _complaint_about_recovery(table: Table) -> str:
    """`aloha arm`, and the arms can be moved again."""
    rig = table.rig
    begin = {arm: list(wire.plant.angles) for arm, wire in rig.wires.items()}
    held = {arm: all(servo.torque for servo in wire.chain.servos) for arm, wire in rig.wires.items()}
    where = "start" if rig.word.mode is Mode.IDLE else "here"
    reply = rig.ask("arm")
    if not reply.ok:
        return f"`aloha arm` was refused: {reply.text}"
    trouble = table.until(table.settled, "ARMED by `aloha arm`")
    if trouble:
        return trouble
    table.run(2 * TICK_NS / 1e9)  # the supervisor hears of it
    for arm, wire in rig.wires.items():
        gripper = wire.chain.servos[-1] if arm.startswith("leader") and where == "start" else None
        dead = [s.servo.id for s in wire.chain.servos if s is not gripper and not (s.torque and s.watchdog == WATCHDOG)]
        if dead:
            return f"after `aloha arm` servos {dead} of {arm} have no torque or no watchdog"
        ways = [abs(now - then) for now, then in zip(wire.plant.angles, begin[arm], strict=True)]
        # What gets torque sags once; a limp arm with weight may lie on its stop besides.
        slack = LIMIT_SLACK_TICKS * RAD_PER_TICK if table.case.gravity else MOVED_RAD
        sags = [0.0] * len(ways) if held[arm] else [abs(sag) for sag in wire.plant.sags()]
        if where == "here" and any(way > slack + sag for way, sag in zip(ways, sags, strict=True)):
            return f"`aloha arm` moved {arm} by {max(ways):.3f} rad"
    reply = rig.ask("policy")
    if not reply.ok:
        return f"armed, but not started: {reply.text}"
    table.run(0.2)
    return "" if rig.word.mode is Mode.POLICY else f"armed and started, then {rig.word.mode}: {rig.word.cause}"


def cases(situation: str, arms: tuple[str, ...]) -> Iterator[Case]:
    """Every moment of the cut and of the return, and once each with arms that fall."""
    for cut_after_s in CUT_AFTER_S:
        for gap_s in (*GAP_S, IN_VAIN):
            yield Case(situation, arms, cut_after_s, gap_s)
    yield Case(situation, arms, CUT_AFTER_S[-1], GAP_S[-1], gravity=True)


def _try(situation: str, arms: tuple[str, ...]) -> Callable[[None, Random], Trial]:
    """Trials in an order of their own for each row, each of the cases once before one comes again."""
    waiting: list[Case] = []

    def try_once(_rig: None, chance: Random) -> Trial:
        if not waiting:
            waiting.extend(cases(situation, arms))
            chance.shuffle(waiting)
        return carry_out(waiting.pop())

    return try_once


@contextmanager
def no_rig() -> Iterator[None]:
    """Each trial has a rig of its own."""
    yield


EVERY = len(CUT_AFTER_S) * (len(GAP_S) + 1) + 1

POWER = Family(
    "power",
    no_rig,
    tuple(
        Scenario(
            f"power of {name} cut and back: {situation}",
            "HOLD that names the arm; no torque and no motion by itself; `aloha arm` brings it back",
            "rad after the return",
            MOVED_RAD,
            _try(situation, arms),
            count=1,
            soak=EVERY,
        )
        for situation in SITUATIONS
        for name, arms in SETS.items()
    ),
)
