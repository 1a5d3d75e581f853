"""A judge of distances that shares no arithmetic with `control/shape.py`: the same capsules in a MuJoCo model.

Kinematics and distances are MuJoCo's. The fingers are looked at as well, with the table and the other hand.
"""

from collections.abc import Mapping
from itertools import product

import numpy as np

from aloha_runtime.control.shape import FAR_M, SHAPES, Base, Capsule, Near, Shape
from aloha_runtime.robot import ARM_JOINTS, SIDE_SLICE, Gripper, Role, Side, Vector
from aloha_runtime.sim.gl import mujoco

FINGERS = ("left_finger", "right_finger")
ON_TABLE = ("base", "shoulder", "upper arm")
"""What stands on the table or cannot reach it."""
HANDS = ("fingers", "gripper")


class MujocoArms:
    """Both arms of a role above a table. `hands`: fingers count with the table and with the other hand."""

    def __init__(
        self,
        role: Role,
        bases: Mapping[Side, Base],
        gripper: Gripper,
        table_m: float | None = 0.0,
        hands: bool = False,
        together: bool = True,
    ) -> None:
        self._gripper = gripper
        shape = SHAPES[role]
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        top = -10.0 if table_m is None else table_m
        spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[3, 3, 0.5], pos=[0, 0, top - 0.5])
        for side, base in bases.items():
            _add_arm(spec, shape, side, base)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._qpos = {side: self._addresses(side) for side in bases}
        names = [self.model.geom(index).name for index in range(self.model.ngeom)]
        parts = [name for name in names if "/" in name]
        pairs = [(part, "table") for part in parts if _body(part) not in (*ON_TABLE, *(() if hands else ("fingers",)))]
        if together:
            pairs += [
                (first, second)
                for first, second in product(parts, parts)
                if first.startswith("left") and second.startswith("right") and _apart(first, second, hands)
            ]
        self._pairs = [(self.model.geom(one).id, self.model.geom(two).id, one, two) for one, two in pairs]

    def nearest(self, position: Vector) -> Near:
        """The nearest pair at joints (14,) rad, grippers as openings of the finger position."""
        self._place(position)
        nearest = Near(FAR_M, "", "")
        for first, second, one, two in self._pairs:
            distance = mujoco.mj_geomDistance(self.model, self.data, first, second, nearest.distance_m, None)
            if distance < nearest.distance_m:
                nearest = Near(distance, _said(one), _said(two))
        return nearest

    def distances(self, position: Vector, far_m: float = 0.06) -> Vector:
        """(pairs,) m, `far_m` where it is more."""
        self._place(position)
        return np.array(
            [
                mujoco.mj_geomDistance(self.model, self.data, first, second, far_m, None)
                for first, second, _, _ in self._pairs
            ]
        )

    def _place(self, position: Vector) -> None:
        gripper = self._gripper
        for side, (arm, fingers) in self._qpos.items():
            part = position[SIDE_SLICE[side]]
            self.data.qpos[arm] = part[:-1]
            finger = gripper.position_close + part[-1] * (gripper.position_open - gripper.position_close)
            self.data.qpos[fingers] = (finger, -finger)
        mujoco.mj_kinematics(self.model, self.data)

    def _addresses(self, side: Side) -> tuple[list[int], list[int]]:
        """Places in qpos: the six joints, the two fingers."""
        arm, fingers = (
            [self.model.joint(f"{side}/{joint}").qposadr[0] for joint in joints] for joints in (ARM_JOINTS, FINGERS)
        )
        return arm, fingers


def _add_arm(spec: mujoco.MjSpec, shape: Shape, side: Side, place: Base) -> None:
    x, y, heading = place
    quaternion = [np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2)]
    body = spec.worldbody.add_body(name=f"{side}/base", pos=[x, y, 0.0], quat=quaternion)
    middle, half = shape.base
    body.add_geom(name=f"{side}/base", type=mujoco.mjtGeom.mjGEOM_BOX, pos=middle, size=half)
    for link in shape.links:
        body = body.add_body(name=f"{side}/{link.joint}", pos=link.origin)
        body.add_joint(name=f"{side}/{link.joint}", type=mujoco.mjtJoint.mjJNT_HINGE, axis=link.axis)
        for capsule in link.capsules:
            _add_capsule(body, f"{side}/{capsule.body}", capsule)
        if not link.capsules:  # MuJoCo wants a mass behind every joint
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.001, 0, 0])
    for name, sign in zip(FINGERS, (1.0, -1.0), strict=True):
        finger = body.add_body(name=f"{side}/{name}", pos=shape.slide)
        finger.add_joint(name=f"{side}/{name}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0.0, 1.0, 0.0))
        start, end = ((x, sign * y, z) for x, y, z in (shape.finger.start, shape.finger.end))
        _add_capsule(finger, f"{side}/fingers/{name}", shape.finger._replace(start=start, end=end))


def _add_capsule(body: mujoco.MjsBody, name: str, capsule: Capsule) -> None:
    ends = [*capsule.start, *capsule.end]
    body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=ends, size=[capsule.radius, 0, 0])


def _apart(first: str, second: str, hands: bool) -> bool:
    """Whether two parts of two arms must keep apart."""
    one, two = _body(first), _body(second)
    if one in HANDS and two in HANDS and (one, two) != ("gripper", "gripper"):
        return hands
    return bool({one, two} - {"base", "shoulder"})


def _body(geom: str) -> str:
    return geom.split("/")[1]


def _said(geom: str) -> str:
    """`left/fingers/left_finger` as people say it."""
    return " ".join(geom.split("/")[:2])
