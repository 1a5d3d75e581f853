"""The weight of an arm, and the currents that carry a leader's, so that a person moves the arm and not its mass. Pure.

A WidowX-250 6DOF with the leader's handle and a ViperX-300 6DOF, as ALOHA uses them: joints, masses and centres of mass
are those of Trossen's `aloha_wx250s.urdf.xacro` and `aloha_vx300s.urdf.xacro` (interbotix_ros_manipulators), what is
fixed to each other put together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.robot import DOF, JOINTS, SIDE_SLICE, Vector

GRAVITY_M_S2 = 9.81
NM_PER_A = 0.897
"""Torque of one XM430-W350 by its current, as Trossen's gravity compensation takes it for this arm (its figure for the
two servos of shoulder or elbow is twice that)."""
SERVOS_OF_JOINT = {"shoulder": 2, "elbow": 2}
CARRIED_JOINTS = ("shoulder", "elbow", "forearm_roll", "wrist_angle")
"""Those that are given a current. The waist carries nothing on a level table, and wrist_rotate less than its friction
(0.02 of 0.1 Nm); both are free, and in most kits wrist_rotate has no current control anyway."""
MOST_MA = 2300.0
"""Stall current of an XM430-W350 at 12 V (e-manual): it cannot draw more."""


class Link(NamedTuple):
    """What one joint moves. `axis`: 0 x, 1 y, 2 z of its own frame; `origin` (m) in the frame of the link before;
    `mass` (kg) and its centre `com` (m) in its own frame."""

    axis: int
    origin: tuple[float, float, float]
    mass: float
    com: tuple[float, float, float]


WIDOWX_250 = (
    Link(2, (0.0, 0.0, 0.072), 0.480879, (0.0, 0.0, 0.006629)),
    Link(1, (0.0, 0.0, 0.03865), 0.489715, (0.015386, 0.0, 0.18511)),
    Link(1, (0.04975, 0.0, 0.25), 0.20729, (0.083597, 0.0, 0.0)),
    Link(0, (0.175, 0.0, 0.0), 0.252924, (0.033582, 0.004726, 0.0)),
    Link(1, (0.075, 0.0, 0.0), 0.156052, (0.0484, 0.000002, 0.008123)),
    Link(0, (0.065, 0.0, 0.0), 0.387684, (0.041042, 0.0, -0.005303)),
)
"""In the order of `robot.ARM_JOINTS`. The last is gripper, handle, bar and both fingers."""


VIPERX_300 = (
    Link(2, (0.0, 0.0, 0.079), 0.798614, (0.000259, 0.0, 0.011613)),
    Link(1, (0.0, 0.0, 0.04805), 0.792592, (0.020695, 0.0, 0.226459)),
    Link(1, (0.05955, 0.0, 0.3), 0.322228, (0.105723, 0.0, 0.0)),
    Link(0, (0.2, 0.0, 0.0), 0.414823, (0.051348, 0.006805, 0.0)),
    Link(1, (0.1, 0.0, 0.0), 0.115395, (0.046743, -0.000008, 0.010565)),
    Link(0, (0.069744, 0.0, 0.0), 0.329253, (0.049665, 0.0, 0.003062)),
)
"""As above; the last is gripper, bar and both fingers, whose opening does not move their common centre."""


def weight_torques(angles: NDArray[np.float64], links: Sequence[Link] = WIDOWX_250) -> NDArray[np.float64]:
    """Torques (6,) in Nm with which gravity turns the joints of an arm at `angles` (6,) rad, positive as the joint."""
    rotation, place = np.eye(3), np.zeros(3)
    axes, places, coms = [], [], []
    for link, angle in zip(links, angles.tolist(), strict=True):
        place = place + rotation @ link.origin
        rotation = rotation @ _turned(link.axis, angle)
        axes.append(rotation[:, link.axis])
        places.append(place)
        coms.append(place + rotation @ link.com)
    masses = np.array([link.mass for link in links])
    beyond = np.cumsum(masses[::-1])[::-1, None]  # mass that each joint moves, and its moment
    moments = np.cumsum((masses[:, None] * coms)[::-1], axis=0)[::-1]
    x, y, _ = np.transpose(moments - beyond * places)
    weight = GRAVITY_M_S2 * np.column_stack((-y, x, np.zeros_like(x)))  # lever x (0, 0, -g)
    torques: NDArray[np.float64] = (np.array(axes) * weight).sum(axis=1)
    return torques


def _turned(axis: int, angle: float) -> NDArray[np.float64]:
    """The rotation by `angle` (rad) about an axis of the frame."""
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn[first, first] = turn[second, second] = cosine
    turn[first, second], turn[second, first] = -sine, sine
    return turn


def carrying_currents_ma(position: Vector, share: float) -> Vector:
    """Currents (14,) in mA of each master servo (its shadow draws the same) that carry `share` of both arms' weight.

    `position` (14,) rad in contract order; joints that are not carried get 0.
    """
    currents = np.zeros(DOF)
    for side in SIDE_SLICE.values():
        torques = weight_torques(position[side][:-1])
        for index, joint in enumerate(JOINTS[:-1]):
            if joint in CARRIED_JOINTS:
                per_servo = -share * torques[index] / SERVOS_OF_JOINT.get(joint, 1)
                currents[side.start + index] = min(MOST_MA, max(-MOST_MA, 1000 * per_servo / NM_PER_A))
    return currents
