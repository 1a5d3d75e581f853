"""Faults of servos, of the wire to them, and of the adapter."""

import os
import time
from collections.abc import Callable
from random import Random

import msgspec
import numpy as np

from aloha_runtime.commands.faults.motion import Motion, scenario
from aloha_runtime.commands.faults.policies import moved_since
from aloha_runtime.commands.faults.rig import ARMS, FOLLOWER, JOINT_IDS, FaultRig, Look
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.messages import MS, ArmsState, Mode
from aloha_runtime.robot import MA_PER_UNIT, RAD_PER_TICK, SIDE_SLICE, SIDES
from aloha_runtime.sim.chain_control import (
    BrownOut,
    CutPower,
    GetReport,
    GetWire,
    Peek,
    Plug,
    Poke,
    RaiseError,
    ReturnPower,
    SetFaults,
    Unplug,
)
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.monitor import Wire

OVERLOAD = 0x20
HOT_C = 77
"""Within the 5 degrees below the servos' Temperature_Limit of 80, at which they switch themselves off."""
LOADED_MA = 3000.0
"""Above the sustained current of every follower's servo (`control.margins`), below the stall of the large ones."""
BAD_LINE_S = 3.0
"""So long the line is bad; a thousand and two hundred replies of both arms."""
WIRE_S = 0.6
NEAR_NS = 40 * MS
"""Readings are compared with all that the servo said this long before and after: a true one is among it to the tick."""
UNPLUGGED_S = 1.0
RETURN_WATCHED_S = 0.9
"""Servos boot for 0.2 s; what could not be switched is tried again every 0.5 s."""
BACK_WITHIN_S = 4.0
CENTRE_TICK = 2048
MOST_TERMINALS = 200


def _pick(chance: Random) -> tuple[str, int, str]:
    """An arm, and a servo of it with its joint."""
    servo = chance.choice(FOLLOWER)
    return chance.choice(ARMS), servo.id, servo.joint


def one_silent(rig: FaultRig, chance: Random) -> tuple[int, str]:
    arm, servo, joint = _pick(chance)
    fault_ns = rig.ask(arm, SetFaults(Faults(silent=[servo]))).now_ns
    return fault_ns, f"{arm}: .*{joint}.* silent"


def all_silent(rig: FaultRig, chance: Random) -> tuple[int, str]:
    """Its power supply has been switched off, or the cable to its first servo is broken."""
    arm = chance.choice(ARMS)
    fault_ns = rig.ask(arm, SetFaults(Faults(silent=[servo.id for servo in FOLLOWER]))).now_ns
    return fault_ns, f"{arm}: no servo answers"


def line_mended(rig: FaultRig, _look: Look | None = None) -> str:
    for arm in ARMS:
        rig.ask(arm, SetFaults(Faults()))
    return ""


def browned_out(rig: FaultRig, chance: Random) -> tuple[int, str]:
    arm = chance.choice(ARMS)
    return rig.ask(arm, BrownOut()).now_ns, f"{arm}: (servo .* has lost its torque|no servo answers)"


def no_torque_by_itself(rig: FaultRig, look: Look) -> str:
    """Torque comes back by the operator only."""
    return "" if not look.torque else "the servos got their torque back although nobody has armed them"


def power_cut(rig: FaultRig, chance: Random) -> tuple[int, str]:
    """An emergency stop in the 12 V of one arm; its adapter stays."""
    rig.faulty = chance.choice(ARMS)
    return rig.ask(rig.faulty, CutPower()).now_ns, f"{rig.faulty}: no servo answers for .*`aloha arm`"


def power_back(rig: FaultRig, _look: Look) -> str:
    """Longer than booting and every retry takes, nothing moves and no servo gets torque."""
    returned_ns = rig.ask(rig.faulty, ReturnPower()).now_ns
    rig.pause(RETURN_WATCHED_S)
    with_torque = [servo.id for servo in FOLLOWER if rig.ask(rig.faulty, Peek(servo.id, "Torque_Enable")).value]
    found = moved_since(rig, time.monotonic_ns() - returned_ns)
    return found or (f"servos {with_torque} got torque although nobody has armed them" if with_torque else "")


def overloaded(rig: FaultRig, chance: Random) -> tuple[int, str]:
    arm, servo, joint = _pick(chance)
    fault_ns = rig.ask(arm, RaiseError(servo, OVERLOAD)).now_ns
    rig.faulty = arm
    return fault_ns, f"{arm.removeprefix('follower_')}_{joint}.*overload"


def hot(rig: FaultRig, chance: Random) -> tuple[int, str]:
    arm, servo, joint = _pick(chance)
    rig.faulty = arm
    fault_ns = rig.ask(arm, Poke(servo, "Present_Temperature", HOT_C)).now_ns
    return fault_ns, f"{arm.removeprefix('follower_')}_{joint}.* has {HOT_C} degrees C"


def cooled(rig: FaultRig, _look: Look) -> str:
    for servo in FOLLOWER:
        rig.ask(rig.faulty, Poke(servo.id, "Present_Temperature", 30))
    rig.pause(0.5)
    return moved_since(rig, int(0.4e9))


def loaded(rig: FaultRig, chance: Random) -> tuple[int, str]:
    """Something holds or loads a joint: its servo draws nearly as much as it can."""
    arm, _, joint = _pick(chance)
    rig.faulty = arm
    units = round(chance.choice((-1, 1)) * LOADED_MA / MA_PER_UNIT)
    for each in FOLLOWER:  # a shadow shares the load, and its master is the one that is read
        if each.joint == joint:
            answer = rig.ask(arm, Poke(each.id, "Present_Current", units))
    return answer.now_ns, f"{arm.removeprefix('follower_')}_{joint} has drawn [0-9]+ mA"


def unloaded(rig: FaultRig, _look: Look) -> str:
    for servo in FOLLOWER:
        rig.ask(rig.faulty, Poke(servo.id, "Present_Current", 0))
    rig.pause(0.5)
    return moved_since(rig, int(0.4e9))


def power_cycled(rig: FaultRig, _look: Look) -> str:
    """What a person does about a servo in overload: the arm's power off and on."""
    rig.ask(rig.faulty, BrownOut())
    rig.pause(0.5)
    return moved_since(rig, int(0.4e9))


def unplugged(rig: FaultRig, chance: Random) -> Trial:
    """HOLD names the arm; the adapter comes back under another device name and is open again in time."""
    rig.move(chance)
    arm = chance.choice(ARMS)
    port = rig.arms[arm].port
    before = os.readlink(port)
    fault_ns = rig.ask(arm, Unplug()).now_ns
    mode, cause, hold_ms = rig.await_stop(fault_ns, 2.0)
    rig.pause(UNPLUGGED_S)
    taken = _take(before)
    plugged_ns = rig.ask(arm, Plug()).now_ns

    def read_again() -> bool:
        return any(state.valid and state.stamp_ns > plugged_ns for state in rig.heard)

    rig.until(read_again, BACK_WITHIN_S, f"a reading of {arm} after it was plugged in")
    back_ms = (next(s.stamp_ns for s in rig.heard if s.valid and s.stamp_ns > plugged_ns) - plugged_ns) / MS
    rig.pause(0.5)
    broken = [
        "" if hold_ms is not None and arm in cause else f"the mode is {mode} ({cause})",
        "" if os.readlink(port) != before else "the adapter came back under its old name, so nothing was tried",
        moved_since(rig, int(0.4e9)),
    ]
    for end in taken:
        os.close(end)
    return Trial("; ".join(filter(None, broken)), back_ms, hold_ms=hold_ms)


def _take(device: str) -> list[int]:
    """Terminals opened until one of them has this name, so that the next one gets another."""
    taken: list[int] = []
    while not taken or (os.ttyname(taken[-1]) != device and len(taken) < MOST_TERMINALS):
        taken += os.openpty()
    return taken


def _bad_line(faults: Faults) -> Callable[[FaultRig, Random], Trial]:
    def try_once(rig: FaultRig, chance: Random) -> Trial:
        """Every reading that the arms publish is one that a servo gave at about that time; nothing changes."""
        rig.move(chance)
        for arm in ARMS:
            rig.ask(arm, SetFaults(msgspec.structs.replace(faults, seed=chance.randrange(1 << 30))))
        gaps: list[float] = []
        end = time.monotonic() + BAD_LINE_S
        while time.monotonic() < end:
            rig.pause(WIRE_S)
            gaps += [gap for arm in ARMS for gap in _gaps(rig, arm)]
        tried = sum(sum(rig.ask(arm, GetReport()).line.values()) for arm in ARMS)
        line_mended(rig)
        heartbeat = rig.word()
        outside = sum(sum(report.counts.values()) for arm in ARMS if (report := rig.ask(arm, GetReport()).report))
        broken = [
            "" if heartbeat.mode is Mode.POLICY else f"the mode is {heartbeat.mode} ({heartbeat.cause})",
            f"{outside} goals outside the envelope" if outside else "",
            "" if tried and gaps else "the line damaged nothing, or nothing was read: nothing was tried",
        ]
        return Trial("; ".join(filter(None, broken)), max(gaps, default=None))

    return try_once


def _gaps(rig: FaultRig, arm: str) -> list[float]:
    """How far each published angle of the last `WIRE_S` is from all that its servo said at about that time (rad)."""
    since_ns = time.monotonic_ns() - int(WIRE_S * 1e9)
    wire = rig.ask(arm, GetWire(since_ns)).wire or Wire()
    side = next(side for side in SIDES if arm.endswith(side))
    said: dict[int, list[tuple[int, int]]] = {}
    for stamp_ns, servo, tick in wire.presents:
        said.setdefault(servo, []).append((stamp_ns, tick))
    masters = [servo.id for servo in FOLLOWER if servo.shadow_of is None and servo.id in JOINT_IDS]
    gaps = []
    for state in _states(rig, since_ns + NEAR_NS):
        angles = np.array(state.position[SIDE_SLICE[side]])
        for angle, servo in zip(angles, masters, strict=False):
            near = [tick for stamp, tick in said.get(servo, []) if abs(stamp - state.stamp_ns) <= NEAR_NS]
            if near:
                gaps.append(min(abs(angle - (tick - CENTRE_TICK) * RAD_PER_TICK) for tick in near))
    return gaps


def _states(rig: FaultRig, since_ns: int) -> list[ArmsState]:
    return [state for state in rig.heard if state.valid and state.stamp_ns > since_ns]


def _line(name: str, faults: Faults) -> Scenario:
    promise = "no bad sample, no change of state"
    return Scenario(name, promise, "rad from what the servo said", 0.002, _bad_line(faults), 1, 10)


SERVOS = Family(
    "servos",
    FaultRig,
    (
        scenario(
            "one servo silent",
            "silent for 100 ms: HOLD that names arm and joint",
            "ms to HOLD",
            200.0,
            Motion(one_silent, figure=lambda look: look.hold_ms, after=line_mended, travel=False),
            count=3,
            soak=50,
        ),
        scenario(
            "arm without power or cable",
            "silent for 100 ms: HOLD that names the arm",
            "ms to HOLD",
            200.0,
            Motion(all_silent, figure=lambda look: look.hold_ms, after=line_mended, travel=False),
            count=2,
            soak=20,
        ),
        _line("5 % of replies lost", Faults(drop=0.05)),
        _line("5 % of replies corrupt", Faults(corrupt=0.05)),
        _line("5 % of replies late", Faults(late=0.05, late_ns=12 * MS)),
        _line("duplicate and foreign replies", Faults(duplicate=0.2, foreign=0.2)),
        scenario(
            "brown-out",
            "torque and watchdog gone: HOLD that names it; torque only by the operator",
            "ms to HOLD",
            None,
            Motion(
                browned_out,
                torque=False,
                figure=lambda look: look.hold_ms,
                after=no_torque_by_itself,
                timeout_s=4.0,
            ),
            count=2,
            soak=20,
        ),
        scenario(
            "power of an arm cut and back",
            "HOLD that names the arm and `aloha arm`; no torque and no motion before the operator has armed",
            "ms to HOLD",
            250.0,
            Motion(power_cut, torque=False, figure=lambda look: look.hold_ms, after=power_back, travel=False),
            count=2,
            soak=20,
        ),
        scenario(
            "servo in overload",
            "goals of both arms frozen within 40 ms; FAULT names arm, joint, error",
            "ms to still goals",
            40.0,
            Motion(overloaded, torque=False, figure=lambda look: look.still_ms, after=power_cycled),
            count=5,
            soak=100,
        ),
        scenario(
            "servo nearly too hot",
            "HOLD before it switches itself off, with joint and temperature; nothing moves when it has cooled down",
            "ms to HOLD",
            1500.0,
            Motion(hot, figure=lambda look: look.hold_ms, after=cooled, timeout_s=4.0),
            count=3,
            soak=30,
        ),
        scenario(
            "servo loaded for a second",
            "HOLD before it shuts down for overload, with joint and current; nothing moves when it is let go",
            "ms to HOLD",
            1500.0,
            Motion(loaded, figure=lambda look: look.hold_ms, after=unloaded, timeout_s=4.0),
            count=3,
            soak=30,
        ),
        Scenario(
            "adapter unplugged, back under a new name",
            "HOLD that names the arm; open again within 2 s; the operator goes on",
            "ms to be back",
            2000.0,
            unplugged,
            count=2,
            soak=20,
        ),
    ),
)
