"""Orders that must stay void: the supervisor stops in the middle of a ramp and goes on, alone or with new arms."""

import os
import signal
import time
from random import Random

from aloha_runtime.commands.faults.controllers import ARMS_PROCESS, STOOD_RAD, process_id
from aloha_runtime.commands.faults.policies import moved_since
from aloha_runtime.commands.faults.rig import ARMS, FOLLOWER, READY_S, FaultRig
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.messages import Mode
from aloha_runtime.robot import RAD_PER_TICK
from aloha_runtime.sim.chain_control import Peek

STOPPED_S = (0.21, 0.45)
"""The supervisor's word counts for 0.2 s: each of these stops is long enough to void what it had ordered."""
ON_THE_WAY_S = (0.2, 0.9)
"""Into a ramp of 1.2 s."""
MOVES_RAD = 0.05
"""A ramp that has gone so far is on its way."""
SETTLED_S = 0.15
"""So long after the stop has ended the arms' own HOLD, its braking and the servos' lag are over."""
LOOK_S = 1.2
"""A ramp that is taken up again is seen in this time."""
RAMP_S = 20.0


def _to(rig: FaultRig, mode: Mode) -> None:
    """Arms asleep (IDLE) or in the start pose (ARMED), from whatever the last trial left. Raises AlohaError."""
    rig.until(lambda: rig.word().mode in (Mode.IDLE, Mode.HOLD, Mode.FAULT, Mode.ARMED), READY_S, "arms at rest")
    if rig.word().cause == "started":  # wherever the emulated arms begin, they must have a way to go
        _arm(rig)
    if rig.word().mode is not Mode.IDLE:
        rig.stack.ask("stop")
        rig.stack.ask("park")
        rig.until(lambda: rig.word().mode is Mode.IDLE, RAMP_S, "the parking of the arms")
    if mode is Mode.ARMED:
        _arm(rig)


def _arm(rig: FaultRig) -> None:
    """Arms in the start pose. Raises AlohaError."""
    rig.stack.ask("arm", "start")
    asked_ns = time.monotonic_ns()

    def settled() -> bool:
        state = rig.heard[-1] if rig.heard else None
        return state is not None and state.settled and state.mode is Mode.ARMED and state.stamp_ns > asked_ns

    rig.until(settled, RAMP_S, "the start pose")


def _on_the_way(rig: FaultRig, mode: Mode, chance: Random) -> None:
    """Arms in the middle of the ramp of a mode. Raises AlohaError."""
    _to(rig, Mode.IDLE if mode is Mode.ARMED else Mode.ARMED)
    before = _ticks(rig)
    rig.stack.ask("arm", "start") if mode is Mode.ARMED else rig.stack.ask("park")
    rig.until(lambda: _farthest(rig, before) > MOVES_RAD, RAMP_S, "the beginning of a ramp")
    rig.pause(chance.uniform(*ON_THE_WAY_S) - ON_THE_WAY_S[0])


def _ticks(rig: FaultRig) -> dict[tuple[str, int], int]:
    return {(arm, servo): tick for arm in ARMS for servo, tick in rig.positions(arm).items()}


def _farthest(rig: FaultRig, since: dict[tuple[str, int], int]) -> float:
    """Farthest way of a joint since it stood there (rad)."""
    now = _ticks(rig)
    return max(abs(now[servo] - tick) for servo, tick in since.items()) * RAD_PER_TICK


def _stopped(mode: Mode, restarts: bool) -> Scenario:
    def try_once(rig: FaultRig, chance: Random) -> Trial:
        """Stop the supervisor in a ramp, restart the arms meanwhile where `restarts`, and let it go on."""
        _on_the_way(rig, mode, chance)
        fault_ns = rig.kill("supervisor", signal.SIGSTOP)
        rig.pause(chance.uniform(*STOPPED_S))
        if restarts:
            before = process_id(rig)
            rig.kill(ARMS_PROCESS)
            rig.until(lambda: process_id(rig) != before, READY_S, f"the return of {ARMS_PROCESS}")
        os.kill(rig.pid("supervisor"), signal.SIGCONT)
        rig.pause(SETTLED_S)
        stood, since_ns = _ticks(rig), time.monotonic_ns()
        rig.pause(LOOK_S)
        moved = _farthest(rig, stood)
        word, hold_ms = rig.word(), rig.await_stop(fault_ns, 0.0)[2]
        limp = [arm for arm in ARMS for servo in FOLLOWER if not rig.ask(arm, Peek(servo.id, "Torque_Enable")).value]
        broken = [
            "" if word.mode in (Mode.HOLD, Mode.FAULT) else f"the mode is {word.mode} ({word.cause})",
            f"a joint moved {moved:.3f} rad after the supervisor went on" if moved > STOOD_RAD else "",
            moved_since(rig, time.monotonic_ns() - since_ns),
            f"{limp[0]} has lost its torque" if limp else "",
        ]
        return Trial("; ".join(filter(None, broken)), moved, hold_ms=hold_ms)

    what = "on the way to the start pose" if mode is Mode.ARMED else "while parking"
    name = f"supervisor stopped {what}" + (", arms restarted" if restarts else "")
    promise = "what it had ordered is void: HOLD, torque on, and nothing moves when it goes on"
    return Scenario(name, promise, "rad after it went on", STOOD_RAD, try_once, 2, 50 if restarts else 100)


VOID_ORDERS = Family(
    "void orders",
    FaultRig,
    tuple(_stopped(mode, restarts) for restarts in (False, True) for mode in (Mode.ARMED, Mode.PARK)),
)
