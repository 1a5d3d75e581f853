"""Rigs of both kits, with the kit's ranges and with one of its own on every arm, and what their arms say of hands."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from aloha_runtime.commands.faults.gripper_ranges import rig_of
from aloha_runtime.config import RigConfig
from aloha_runtime.hardware.base import ArmReading
from aloha_runtime.hardware.pair import ArmPair
from aloha_runtime.messages import ArmsState
from aloha_runtime.robot import GRIPPER_INDEX, KITS, SIDE_SLICE, SIDES, START_POSE, Role, pose_vector

MOUNTED_RAD = {"leader_left": -0.25, "leader_right": 0.39, "follower_left": 0.39, "follower_right": -0.25}
"""How far the range of each gripper lies from its kit's."""
RIGS = {f"{kit}{word}": (kit, shifts) for kit in KITS for word, shifts in (("", {}), (", mounted", MOUNTED_RAD))}


def rig(name: str) -> RigConfig:
    """One of `RIGS`."""
    return rig_of(*RIGS[name])


def arms_state(rig: RigConfig, role: Role, angles: Sequence[float] | np.ndarray, **more: Any) -> ArmsState:
    """What the arms process publishes of a pair whose grippers a hand holds at openings: from the motor's angle, as a
    driver reads it, through the reading of the pair."""
    arms: Any = {}
    for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
        motors = np.array(angles, dtype=float)[SIDE_SLICE[side]]
        gripper = rig.gripper(role, side)
        motors[-1] = gripper.angle_close + angles[index] * (gripper.angle_open - gripper.angle_close)
        reading = ArmReading(1, motors, np.zeros(7), np.zeros(7), {})
        arms[side] = SimpleNamespace(
            request=lambda goal, currents: None, collect=lambda deadline_ns, reading=reading: reading
        )
    found = ArmPair(arms, rig.grippers(role), pose_vector(START_POSE, 0.0)).cycle(None, 0)
    assert found is not None
    return ArmsState(
        **{
            "stamp_ns": 1,
            "position": found.position.tolist(),
            "velocity": found.velocity.tolist(),
            "effort_ma": found.effort_ma.tolist(),
            "gripper_openings": found.present[list(GRIPPER_INDEX)].tolist(),
        }
        | more
    )
