"""Grippers in overload: the operator brings them back with the command that the fault names."""

import re
from random import Random

from aloha_runtime.commands.faults.motion import Motion, scenario
from aloha_runtime.commands.faults.policies import moved_since
from aloha_runtime.commands.faults.rig import ARMS, FOLLOWER, FaultRig, Look
from aloha_runtime.commands.faults.scenario import Family
from aloha_runtime.commands.faults.servos import OVERLOAD
from aloha_runtime.messages import Mode
from aloha_runtime.sim.chain_control import Peek, RaiseError

GRIPPER = FOLLOWER[-1].id
BACK_WITHIN_S = 2.0
WATCHED_S = 0.4


def jammed(rig: FaultRig, chance: Random) -> tuple[int, str]:
    rig.faulty = chance.choice(ARMS)
    fault_ns = rig.ask(rig.faulty, RaiseError(GRIPPER, OVERLOAD)).now_ns
    side = rig.faulty.removeprefix("follower_")
    return fault_ns, f"{side}_gripper: .*overload.*`aloha reset-gripper {rig.faulty}`"


def brought_back(rig: FaultRig, look: Look) -> str:
    """The command of the message, as the console gives it; then the gripper has torque, and no joint has lost its."""
    named = re.search(r"`aloha reset-gripper (\w+)`", look.cause)
    if named is None:
        return "the fault names no command"
    rig.stack.ask("reset_gripper", named[1])
    limp: set[int] = set()

    def back() -> bool:
        with_torque = {servo.id for servo in FOLLOWER if rig.ask(rig.faulty, Peek(servo.id, "Torque_Enable")).value}
        limp.update({servo.id for servo in FOLLOWER} - with_torque - {GRIPPER})
        return GRIPPER in with_torque

    rig.until(back, BACK_WITHIN_S, f"torque of the gripper of {rig.faulty}")
    rig.pause(WATCHED_S)
    found = [moved_since(rig, int(WATCHED_S * 1e9)), f"servos {sorted(limp)} were without torque" if limp else ""]
    if rig.word().mode is not Mode.FAULT:
        found.append(f"FAULT was left for {rig.word().mode} without an order to arm")
    return "; ".join(filter(None, found))


GRIPPERS = Family(
    "grippers",
    FaultRig,
    (
        scenario(
            "gripper in overload, brought back",
            "FAULT names the command; it brings the gripper back within 2 s, and no other servo loses its torque",
            "ms to still goals",
            40.0,
            Motion(jammed, torque=False, figure=lambda look: look.still_ms, after=brought_back),
            count=3,
            soak=30,
        ),
    ),
)
