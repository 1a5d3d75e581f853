"""`aloha bench grip`: how hard a follower gripper holds objects of different thickness, beside the original's loop.

A leader gripper is squeezed in 0.35 s, to its closed end or past it, and held. The original publishes the follower's
angle at 50 Hz and bounds it by nothing (`one_side_teleop.py`, `dual_side_teleop.py`); ours goes through teleoperation
and the gate beside the motors. Both drive the same simulated servo, whose fingers stop at a rigid object.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.doc_section import write_section
from aloha_runtime.control.teleop import follower_action
from aloha_runtime.robot import GRIPPER_INDEX, KITS, SIDES, START_POSE, TICK_NS, Gripper, Kit, Vector, pose_vector
from aloha_runtime.sim.episode import DELAY_CYCLES, Followers
from aloha_runtime.sim.model import FINGERS, GRIPPER_MOTOR, finger_from_opening
from aloha_runtime.sim.world import World

OBJECTS_MM = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SQUEEZES = {"squeezed": -0.2, "just closed": 0.0}
"""Where a hand holds the leader, in openings: past its closed end, and at it."""
CLOSES_S, HOLDS_S = 0.35, 1.2
SHARE = 0.95
"""Of the kit's current: what a squeezed gripper reaches at least."""
SIDE = 0
"""The left arm is measured; the right one does the same."""
TITLE, HEADING = "Faithful: beside the original", "The force of the grippers"

Drive = Callable[[World, Vector], None]
"""Lets one tick pass under an action (14,)."""


def run(docs: Path | None = None) -> list[Row]:
    """Every kit, object and squeeze; `docs`: the page that gets the table as a section."""
    rows, lines = [], []
    for kit in KITS.values():
        world = World("transfer_cube", 0, kit)
        _let_fingers_pass(world)
        for thickness_mm in OBJECTS_MM:
            found = []
            for said, opening in SQUEEZES.items():
                original, ours = (_held_ma(world, kit, thickness_mm, opening, how) for how in (_original, _gate))
                found.append((original, ours))
                goal = SHARE * kit.gripper_current_ma if opening < 0 else None
                met = None if goal is None else ours >= goal
                rows.append(Row(f"{kit.name}, {thickness_mm:g} mm, {said}", ours, "mA", original, goal, met))
            force = [_newtons(kit.follower_gripper, thickness_mm, ma) for ma in found[0]]
            cells = [f"{ma:.0f}" for pair in found for ma in pair] + [f"{newtons:.0f}" for newtons in force]
            lines.append(f"| {kit.name} | {thickness_mm:g} | {' | '.join(cells)} |")
    if docs is not None:
        write_section(docs, TITLE, HEADING, _section(lines))
    return rows


def _section(lines: list[str]) -> str:
    limits = " and ".join(f"{kit.gripper_current_ma:.0f} mA ({kit.name})" for kit in KITS.values())
    head = "| kit | object (mm) | squeezed: original (mA) | ours | just closed: original (mA) | ours |"
    return "\n".join(
        [
            f"A leader gripper is squeezed in {CLOSES_S:.2f} s and held, {-SQUEEZES['squeezed']:.1f} openings past its "
            "closed end or just to it. Current of the follower's motor once it holds a rigid object; the current",
            f"limit is {limits}. Force of each finger in the squeeze, by the published crank. `aloha bench grip --docs "
            "docs/faithful.md` writes this section.",
            "",
            f"{head} force of a finger: original (N) | ours |",
            "|---|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _let_fingers_pass(world: World) -> None:
    """The meshes of the fingers meet before the closed end; here the object alone stops them."""
    model = world.model
    for geom in range(model.ngeom):
        if "finger" in model.body(model.geom_bodyid[geom]).name:
            model.geom_contype[geom] = model.geom_conaffinity[geom] = 0


def _stop_opening(gripper: Gripper, thickness_mm: float) -> float:
    """The motor's opening at which both fingers touch an object of this thickness, by the kit's crank."""
    closed_m = gripper.position_from_angle(gripper.angle_close)
    return gripper.action_from_angle(gripper.angle_from_position(closed_m + thickness_mm / 2000))


def _held_ma(world: World, kit: Kit, thickness_mm: float, opening: float, drive: Callable[[World], Drive]) -> float:
    """Current (mA) with which the left gripper presses on an object at the end of a squeeze."""
    stop_m = finger_from_opening(_stop_opening(kit.follower_gripper, thickness_mm))
    most_m = FINGERS.position_from_angle(FINGERS.angle_open)
    for side in SIDES:
        for finger, ends in (("left", (stop_m, most_m)), ("right", (-most_m, -stop_m))):
            world.model.joint(f"vx300s_{side}/{finger}_finger").range[:] = ends
    opened = pose_vector(START_POSE, 1.0)
    start = opened.copy()
    start[list(GRIPPER_INDEX)] = kit.follower_gripper.angle_open
    world.reset(0, start)
    tick = drive(world)
    for number in range(round((CLOSES_S + HOLDS_S) * 1e9) // TICK_NS):
        share = min(1.0, number * TICK_NS / 1e9 / CLOSES_S)
        leaders = opened.copy()
        leaders[list(GRIPPER_INDEX)] = 1.0 + (opening - 1.0) * share * share * (3 - 2 * share)
        tick(world, leaders)
    return float(-world.efforts_ma()[GRIPPER_INDEX[SIDE]])


def _original(world: World) -> Drive:
    """The published loop: leader angle, normalised and unnormalised, to the servo, once every 20 ms."""

    def tick(world: World, leaders: Vector) -> None:
        goal = leaders.copy()
        for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
            goal[index] = world.grippers[side].angle_from_action(float(leaders[index]))
        world.command(goal, np.ones(len(goal), dtype=bool))
        world.step(TICK_NS)

    return tick


def _gate(world: World) -> Drive:
    """Ours: teleoperation's mapping, and the gate at 200 Hz."""
    followers = Followers(world)
    return lambda world, leaders: followers.tick(follower_action(leaders, leaders), DELAY_CYCLES)


def _newtons(gripper: Gripper, thickness_mm: float, current_ma: float) -> float:
    """Force of each finger, from the work of the motor: torque d(angle) = 2 force d(position)."""
    angle = gripper.angle_from_action(_stop_opening(gripper, thickness_mm))
    return current_ma * GRIPPER_MOTOR.torque_per_ma / gripper.slope(angle) / 2
