"""How near two followers come to each other and to the table: both arms as capsules, in MuJoCo.

Frames and joints are those of the ViperX-300 6DOF's description; each capsule or box encloses the mesh of its link,
to a millimetre (the test compares them). The fingers may touch the table and the other hand, since that is their
work, so these pairs are left out: see `MEET`.
"""

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np

from aloha_runtime.robot import ARM_JOINTS, SIDE_SLICE, Gripper, Side, Vector
from aloha_runtime.sim.gl import mujoco

FAR_M = 0.5
"""Farther apart than this is not looked at more closely."""


class Link(NamedTuple):
    """One link: the joint that moves it, its axis, where its frame lies in the one before (m), and the capsule around
    it (from, to, radius; m, in its own frame)."""

    joint: str
    axis: tuple[float, float, float]
    origin: tuple[float, float, float]
    body: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float


X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
LINKS = (
    Link("waist", Z, (0.0, 0.0, 0.079), "shoulder", (0.0, 0.0, 0.0), (0.0, 0.0, 0.03), 0.065),
    Link("shoulder", Y, (0.0, 0.0, 0.04805), "upper arm", (0.022, 0.0, 0.03), (0.035, 0.0, 0.29), 0.070),
    Link("elbow", Y, (0.05955, 0.0, 0.3), "forearm", (0.02, 0.0, 0.0), (0.29, 0.0, 0.0), 0.057),
    Link("forearm_roll", X, (0.2, 0.0, 0.0), "", X, X, 0.0),
    Link("wrist_angle", Y, (0.1, 0.0, 0.0), "wrist", (0.0, 0.0, 0.0), (0.06, 0.0, 0.0), 0.041),
    Link("wrist_rotate", X, (0.069744, 0.0, 0.0), "gripper", (0.045, -0.045, 0.0), (0.045, 0.045, 0.0), 0.047),
)
"""In the order of `robot.ARM_JOINTS`. The roll turns the second half of the forearm about its own axis."""
FINGER = Link("finger", Y, (0.0687, 0.0, 0.0), "fingers", (0.015, -0.010, 0.0), (0.06, -0.010, 0.0), 0.033)
"""The left finger on its slide; the right one is its mirror image."""
BASE = ((-0.047, 0.0, 0.04), (0.15, 0.10, 0.04))
"""Centre and half sizes (m) of the box around the base."""
BODIES = ("base", "shoulder", "upper arm", "forearm", "wrist", "gripper", "fingers")
MEET = {("fingers", "fingers"), ("fingers", "gripper"), ("gripper", "fingers")}
"""Of two arms, what comes together when an object changes hands."""
ABOVE_TABLE = ("forearm", "wrist", "gripper")
"""What must not meet the table. The fingers pick things up from it; what is not named cannot reach it."""


class Near(NamedTuple):
    """The two bodies that are nearest to each other, such as `left wrist` and `table`, and the way between them (m,
    below zero: they overlap). FAR_M when all are farther apart."""

    distance_m: float
    first: str
    second: str


class ArmsModel:
    """Both followers above a table. `bases`: x, y (m) and heading (rad) of each arm's base on it."""

    def __init__(self, bases: Mapping[Side, tuple[float, float, float]], gripper: Gripper) -> None:
        self._gripper = gripper
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[3, 3, 0.5], pos=[0, 0, -0.5])
        for side, (x, y, heading) in bases.items():
            _add_arm(spec, side, x, y, heading)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._qpos = {side: _addresses(self._model, side) for side in bases}
        self._pairs = [
            (self._model.geom(first).id, self._model.geom(second).id, first, second)
            for first, second in _pairs(list(bases))
        ]

    def nearest(self, position: Vector) -> Near:
        """The nearest pair at joints (14,) rad, grippers as openings of the finger position."""
        gripper = self._gripper
        for side, (arm, fingers) in self._qpos.items():
            part = position[SIDE_SLICE[side]]
            self._data.qpos[arm] = part[:-1]
            finger = gripper.position_close + part[-1] * (gripper.position_open - gripper.position_close)
            self._data.qpos[fingers] = (finger, -finger)
        mujoco.mj_kinematics(self._model, self._data)
        nearest = Near(FAR_M, "", "")
        for first, second, name, other in self._pairs:
            distance = mujoco.mj_geomDistance(self._model, self._data, first, second, nearest.distance_m, None)
            if distance < nearest.distance_m:
                nearest = Near(distance, _said(name), _said(other))
        return nearest


def _add_arm(spec: mujoco.MjSpec, side: Side, x: float, y: float, heading: float) -> None:
    quaternion = [np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2)]
    body = spec.worldbody.add_body(name=f"{side}/base", pos=[x, y, 0.0], quat=quaternion)
    body.add_geom(name=f"{side}/base", type=mujoco.mjtGeom.mjGEOM_BOX, pos=BASE[0], size=BASE[1])
    for link in LINKS:
        body = _add_link(body, side, link.joint, link)
    for name, sign in (("left_finger", 1.0), ("right_finger", -1.0)):
        mirrored = FINGER._replace(start=_mirrored(FINGER.start, sign), end=_mirrored(FINGER.end, sign))
        _add_link(body, side, name, mirrored, f"{side}/fingers/{name}", mujoco.mjtJoint.mjJNT_SLIDE)


def _add_link(
    parent: mujoco.MjsBody,
    side: Side,
    joint: str,
    link: Link,
    geom: str = "",
    kind: mujoco.mjtJoint = mujoco.mjtJoint.mjJNT_HINGE,
) -> mujoco.MjsBody:
    body = parent.add_body(name=f"{side}/{joint}", pos=link.origin)
    body.add_joint(name=f"{side}/{joint}", type=kind, axis=link.axis)
    if link.body:
        ends = [*link.start, *link.end]
        name = geom or f"{side}/{link.body}"
        body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=ends, size=[link.radius, 0, 0])
    else:  # MuJoCo wants a mass behind every joint
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.001, 0, 0])
    return body


def _mirrored(point: tuple[float, float, float], sign: float) -> tuple[float, float, float]:
    return point[0], sign * point[1], point[2]


def _addresses(model: mujoco.MjModel, side: Side) -> tuple[list[int], list[int]]:
    """Places in qpos: the six joints, the two fingers."""
    arm, fingers = (
        [model.joint(f"{side}/{joint}").qposadr[0] for joint in joints]
        for joints in (ARM_JOINTS, ("left_finger", "right_finger"))
    )
    return arm, fingers


def _geoms(side: Side, body: str) -> list[str]:
    if body == "fingers":
        return [f"{side}/fingers/left_finger", f"{side}/fingers/right_finger"]
    return [f"{side}/{body}"]


def _pairs(sides: list[Side]) -> list[tuple[str, str]]:
    """Every pair of geoms that must keep apart."""
    found = [(f"{side}/{body}", "table") for side in sides for body in ABOVE_TABLE]
    if len(sides) == 2:
        left, right = sides
        for first, second in product(BODIES, BODIES):
            if (first, second) not in MEET and {first, second} - {"base", "shoulder"}:
                found += product(_geoms(left, first), _geoms(right, second))
    return found


def _said(geom: str) -> str:
    """`left/fingers/left_finger` as people say it."""
    return " ".join(geom.split("/")[:2])
