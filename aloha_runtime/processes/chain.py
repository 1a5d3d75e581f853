"""chain@ARM: the emulated servos of one arm of the simulated rig, behind a pseudo-terminal in the run directory."""

import threading
from pathlib import Path

from aloha_runtime.control.limits import OVERRIDES, limits_from
from aloha_runtime.errors import SimulationError
from aloha_runtime.messages import MS
from aloha_runtime.robot import SIDES, Role, Side
from aloha_runtime.service import Service, run
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.chain_control import BackDoor
from aloha_runtime.sim.link import Link, LinkPlant
from aloha_runtime.sim.monitor import Monitor, envelope
from aloha_runtime.sim.pty import ChainServer, Terminal
from aloha_runtime.sim.servo import Plant, ServoPlant

WORLD_TIMEOUT_S = 30.0
"""The world compiles its model first; on a loaded machine that takes some seconds."""
JITTER_S = 0.02
"""How far wall-clock stamps of goals may be off on a machine that also renders: for the monitor's speed rules."""


def build(service: Service) -> tuple[ChainServer, Link]:
    """The chain of the arm that the process is named after, its plant and its terminal."""
    arm, rig = service.instance, service.rig
    role, side = _role_and_side(arm)
    link = Link.attach(service.run_dir, WORLD_TIMEOUT_S)
    plant: Plant
    if role == "follower":
        plant = LinkPlant(link, arm)
    else:
        plant = ServoPlant((*rig.start_pose, rig.gripper(role).angle_open), hand=lambda: link.read_hand(arm))
    overrides = {key: value for key, value in rig.limits.model_dump().items() if key in OVERRIDES and value is not None}
    bounds = envelope(role, limits_from(overrides, role), rig.gripper(role), side)
    virtual = rig.sim is not None and rig.sim.clock == "virtual"
    server = ChainServer(
        Chain(role, plant),
        Terminal(service.run_dir / Path(rig.arms[arm].port).name),
        Monitor(bounds, 0.0 if virtual else JITTER_S),
        link.read_clock if virtual else None,
    )
    return server, link


def _role_and_side(arm: str) -> tuple[Role, Side]:
    roles: dict[str, Role] = {"leader": "leader", "follower": "follower"}
    role, _, side = arm.partition("_")
    if role not in roles or side not in SIDES:
        raise SimulationError(f"no arm is named {arm!r}: name the process chain@follower_left, chain@leader_right, ...")
    return roles[role], "left" if side == "left" else "right"
