"""The shape of a pair of arms above a table, as capsules, and how near its parts come to each other. Pure numpy.

Frames and joints are those of the published descriptions of the ViperX-300 6DOF (followers) and the WidowX-250 6DOF
(leaders); each capsule or box encloses the mesh of its link, to a millimetre. The followers' are compared with the
meshes of the simulated rig, and the distances with MuJoCo's, in `tests/sim/test_shape.py`.

All functions take many poses at once, because a whole sweep is looked at in one call (`control/ramp.py`).
"""

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.config import RigConfig
from aloha_runtime.config_parts import GuardConfig
from aloha_runtime.robot import DOF, JOINTS_PER_ARM, SIDE_SLICE, SIDES, Gripper, Role, Side, Vector

Array = NDArray[np.float64]
Point = tuple[float, float, float]
Base = tuple[float, float, float]
"""x, y (m) and heading (rad) of an arm's base."""

FAR_M = 0.5
"""Farther apart than this is said as this."""


class Capsule(NamedTuple):
    """Part of a link: all points within `radius` of the segment between two points (m, in the link's own frame)."""

    body: str
    start: Point
    end: Point
    radius: float


class Link(NamedTuple):
    """One link: the joint that moves it, its axis, where its frame lies in the one before (m), and what encloses it."""

    joint: str
    axis: Point
    origin: Point
    capsules: tuple[Capsule, ...] = ()


class Shape(NamedTuple):
    """One kind of arm. `links` in the order of `robot.ARM_JOINTS`; `finger`: the left one on its slide, at `slide` in
    the last link, the right one is its mirror image; `base`: centre and half sizes (m) of the box around the base."""

    links: tuple[Link, ...]
    finger: Capsule
    slide: Point
    base: tuple[Point, Point]


HAND = Capsule("gripper", (0.045, -0.045, 0.0), (0.045, 0.045, 0.0), 0.047)
GRIP = Capsule("gripper", (0.03, -0.04, 0.0), (0.03, 0.04, 0.0), 0.047)
HANDLE = Capsule("handle", (0.008, 0.0, 0.0), (0.008, 0.0, -0.095), 0.025)
"""The leaders' capsules are fitted to the meshes `wx250s_*.stl` of Interbotix's interbotix_xsarm_descriptions. Of the
handle of the ALOHA leaders no mesh is published; its length is that of the inertia of `handle_link` in their
`aloha_wx250s.urdf.xacro` (158 mm, its middle 36 mm below the axis)."""
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
SHAPES: dict[Role, Shape] = {
    "follower": Shape(
        links=(
            Link("waist", Z, (0.0, 0.0, 0.079), (Capsule("shoulder", (0.0, 0.0, 0.0), (0.0, 0.0, 0.03), 0.065),)),
            Link(
                "shoulder", Y, (0.0, 0.0, 0.04805), (Capsule("upper arm", (0.022, 0, 0.03), (0.035, 0, 0.29), 0.070),)
            ),
            Link("elbow", Y, (0.05955, 0.0, 0.3), (Capsule("forearm", (0.02, 0.0, 0.0), (0.29, 0.0, 0.0), 0.057),)),
            Link("forearm_roll", X, (0.2, 0.0, 0.0)),
            Link("wrist_angle", Y, (0.1, 0.0, 0.0), (Capsule("wrist", (0.0, 0.0, 0.0), (0.06, 0.0, 0.0), 0.041),)),
            Link(
                "wrist_rotate", X, (0.069744, 0, 0), (Capsule("gripper", (0.045, -0.045, 0), (0.045, 0.045, 0), 0.047),)
            ),
        ),
        finger=Capsule("fingers", (0.015, -0.010, 0.0), (0.06, -0.010, 0.0), 0.033),
        slide=(0.0687, 0.0, 0.0),
        base=((-0.047, 0.0, 0.04), (0.15, 0.10, 0.04)),
    ),
    "leader": Shape(
        links=(
            Link("waist", Z, (0.0, 0.0, 0.072), (Capsule("shoulder", (0.0, 0.0, 0.0), (0.0, 0.0, 0.025), 0.058),)),
            Link("shoulder", Y, (0.0, 0.0, 0.03865), (Capsule("upper arm", (0.018, 0, 0.02), (0.03, 0, 0.24), 0.064),)),
            Link("elbow", Y, (0.04975, 0.0, 0.25), (Capsule("forearm", (0.02, 0.0, 0.0), (0.24, 0.0, 0.0), 0.039),)),
            Link("forearm_roll", X, (0.175, 0.0, 0.0)),
            Link("wrist_angle", Y, (0.075, 0.0, 0.0), (Capsule("wrist", (0.0, 0.0, 0.0), (0.055, 0.0, 0.0), 0.039),)),
            Link("wrist_rotate", X, (0.065, 0.0, 0.0), (GRIP, HANDLE)),
        ),
        finger=Capsule("fingers", (0.0, -0.005, 0.0), (0.025, -0.005, 0.0), 0.022),
        slide=(0.066, 0.0, 0.0),
        base=((-0.04, 0.0, 0.036), (0.117, 0.077, 0.036)),
    ),
}
MEET = {("fingers", "fingers"), ("fingers", "gripper"), ("gripper", "fingers")}
"""Of two arms, what comes together when an object changes hands."""
ABOVE_TABLE = ("forearm", "wrist", "gripper", "handle")
"""What must not meet the table. The fingers pick things up from it; what is not named cannot reach it."""


class Near(NamedTuple):
    """The two bodies that are nearest to each other, such as `left wrist` and `table`, and the way between them (m,
    below zero: they overlap). FAR_M when all are farther apart."""

    distance_m: float
    first: str
    second: str


class Scene:
    """A pair of arms above a table; with one base only that arm, without a table only the arms.

    `bases`: where each arm stands, on a plane; `table_m`: height of the table's top above that plane; `hands`: fingers
    count as well, with each other and with the table, which they touch on purpose only and never in a ramp; `together`:
    False where nobody knows how far apart the arms stand, and each has to do with the table only.
    """

    def __init__(
        self,
        role: Role,
        bases: Mapping[Side, Base],
        grippers: Mapping[Side, Gripper],
        table_m: float | None = 0.0,
        hands: bool = False,
        together: bool = True,
    ) -> None:
        self.sides: list[Side] = [side for side in SIDES if side in bases]
        self._shape = shape = SHAPES[role]
        self.table_m, self._arguments = table_m, (role, bases, grippers, table_m, hands)
        self._closed_m = np.array([[grippers[side].position_close] for side in self.sides])
        self._opening_m = np.array([[grippers[side].position_open] for side in self.sides]) - self._closed_m
        self._places = np.array([bases[side] for side in self.sides])
        self.capsules = [capsule for link in shape.links for capsule in link.capsules] + [shape.finger] * 2
        self.bodies = [capsule.body for capsule in self.capsules]
        self._radius = np.array([capsule.radius for capsule in self.capsules])
        low = [*ABOVE_TABLE, *(["fingers"] if hands else [])]
        self._low = [] if table_m is None else [index for index, body in enumerate(self.bodies) if body in low]
        self.pairs = [(f"{side} {self.bodies[index]}", "table") for side in self.sides for index in self._low]
        self._first: list[int] = []
        self._second: list[int] = []
        self._boxed: list[int] = []
        self._together = together and len(self.sides) == 2
        if self._together:
            self._pair_up(set() if hands else MEET)
        self.reach = self._reach()

    def alone(self, side: Side) -> "Scene":
        """One of the arms, above the same table."""
        role, bases, grippers, table_m, hands = self._arguments
        return Scene(role, {side: bases[side]}, grippers, table_m, hands)

    def _pair_up(self, meet: set[tuple[str, str]]) -> None:
        """Every pair of parts of two arms that must keep apart: capsules with each other, and with the other base."""
        everything = range(len(self.bodies))
        for first, second in product(everything, everything):
            names = self.bodies[first], self.bodies[second]
            if names not in meet and set(names) - {"base", "shoulder"}:
                self._first.append(first)
                self._second.append(second)
                self.pairs.append((f"left {names[0]}", f"right {names[1]}"))
        self._boxed = [index for index, body in enumerate(self.bodies) if body != "shoulder"]
        self.pairs += [(f"left {self.bodies[index]}", "right base") for index in self._boxed]
        self.pairs += [(f"right {self.bodies[index]}", "left base") for index in self._boxed]

    def _reach(self) -> Array:
        """(pairs, 14): metres that the distance of a pair changes by at most, per radian of each joint."""
        links = self._shape.links
        length = [float(np.linalg.norm(link.origin)) for link in links]
        of_capsule = []
        for number, link in enumerate(links):
            for capsule in link.capsules:
                of_capsule.append((number, max(np.linalg.norm(capsule.start), np.linalg.norm(capsule.end))))
        farthest = float(np.maximum(self._closed_m, self._closed_m + self._opening_m).max())
        tip = np.linalg.norm(self._shape.slide) + np.linalg.norm(self._shape.finger.end) + farthest
        of_capsule += [(len(links) - 1, tip)] * 2
        arm = np.zeros((len(self.capsules), JOINTS_PER_ARM))
        for index, (number, far) in enumerate(of_capsule):
            for joint in range(number + 1):
                arm[index, joint] = sum(length[joint + 1 : number + 1]) + far
        arm[-2:, -1] = np.abs(self._opening_m).max()
        none = np.zeros(JOINTS_PER_ARM)
        by_name: dict[str, Array] = {}
        for index, body in enumerate(self.bodies):
            by_name[body] = np.maximum(arm[index], by_name.get(body, none))
        table = []
        for first, second in self.pairs:
            row: dict[str, Array] = dict.fromkeys(SIDES, none)
            for name in (first, second):
                side, _, body = name.partition(" ")
                if body in by_name:
                    row[side] = by_name[body]
            table.append(np.concatenate([row[side] for side in SIDES]))
        return np.array(table).reshape(len(self.pairs), DOF)

    def segments(self, poses: Array) -> tuple[Array, Array]:
        """Both ends of every capsule's segment: (N, arms, capsules, 3) m for joints (N, 14), grippers as openings of
        the finger position."""
        part = np.stack([poses[:, SIDE_SLICE[side]] for side in self.sides], axis=1)
        count, arms = part.shape[:2]
        heading = self._places[:, 2]
        turn = np.broadcast_to(_about(Z, heading), (count, arms, 3, 3))
        place = np.zeros((count, arms, 3))
        place[..., :2] = self._places[:, :2]
        starts, ends = [], []
        for joint, link in enumerate(self._shape.links):
            place = place + turn @ np.array(link.origin)
            turn = turn @ _about(link.axis, part[..., joint])
            for capsule in link.capsules:
                starts.append(place + turn @ np.array(capsule.start))
                ends.append(place + turn @ np.array(capsule.end))
        finger = self._closed_m + part[..., -1:] * self._opening_m
        for sign in (1.0, -1.0):
            middle = place + turn @ np.array(self._shape.slide) + sign * finger * turn[..., 1]
            mirror = np.array((1.0, sign, 1.0))
            starts.append(middle + turn @ (mirror * self._shape.finger.start))
            ends.append(middle + turn @ (mirror * self._shape.finger.end))
        return np.stack(starts, axis=2), np.stack(ends, axis=2)

    def parts(self, position: Vector) -> list[tuple[Side, Capsule]]:
        """Every capsule where it is at joints (14,), in the world's frame."""
        starts, ends = self.segments(position[None])
        return [
            (side, Capsule(capsule.body, tuple(starts[0, arm, index]), tuple(ends[0, arm, index]), capsule.radius))
            for arm, side in enumerate(self.sides)
            for index, capsule in enumerate(self.capsules)
        ]

    def base_corners(self, side: Side) -> Array:
        """(8, 3) m: corners of the box around an arm's base, the lower four first, in order around it."""
        middle, half = (np.array(size) for size in self._shape.base)
        signs = [(x, y, z) for z in (-1, 1) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        x, y, heading = self._places[self.sides.index(side)]
        return (middle + half * signs) @ _about(Z, np.array(heading)).T + (x, y, 0.0)

    def distances(self, poses: Array) -> Array:
        """(N, pairs) m, in the order of `pairs`, for joints (N, 14)."""
        starts, ends = self.segments(poses)
        count = len(poses)
        found = []
        if self.table_m is not None:
            lowest = np.minimum(starts[:, :, self._low, 2], ends[:, :, self._low, 2])
            found.append((lowest - self._radius[self._low] - self.table_m).reshape(count, -1))
        if self._together:
            apart = _between_segments(
                starts[:, 0, self._first], ends[:, 0, self._first], starts[:, 1, self._second], ends[:, 1, self._second]
            )
            found.append(apart - self._radius[self._first] - self._radius[self._second])
            for arm, other in ((0, 1), (1, 0)):
                a, b = (self._seen_from(other, points[:, arm, self._boxed]) for points in (starts, ends))
                found.append(_to_box(a, b, self._shape.base[1]) - self._radius[self._boxed])
        return np.concatenate(found, axis=1) if found else np.zeros((count, 0))

    def nearest(self, position: Vector) -> Near:
        """The nearest pair at joints (14,) rad."""
        return self.nearest_of(position[None])[0]

    def nearest_of(self, poses: Array) -> list[Near]:
        """The nearest pair at each of joints (N, 14)."""
        found = []
        for row in self.distances(poses):
            index = int(row.argmin()) if len(row) else -1
            far = index < 0 or row[index] >= FAR_M
            found.append(Near(FAR_M, "", "") if far else Near(float(row[index]), *self.pairs[index]))
        return found

    def _seen_from(self, arm: int, points: Array) -> Array:
        """World points in the frame of the middle of an arm's base box."""
        x, y, heading = self._places[arm]
        return (points - (x, y, 0.0)) @ _about(Z, np.array(heading)) - self._shape.base[0]


def scene_of(rig: RigConfig, role: Role, hands: bool = False) -> Scene:
    """A role's arms as the rig file says where they stand, or as the kits are published."""
    geometry = rig.guard or GuardConfig()
    known = geometry.bases(role)
    bases: dict[Side, Base] = {side: known.get(side, (0.0, 0.0, 0.0)) for side in rig.arms_of(role)}
    return Scene(role, bases, rig.grippers(role), geometry.table(role), hands, together=bool(known))


def _about(axis: Point, angle: Array) -> Array:
    """(..., 3, 3) rotations about x, y or z."""
    first, second = {X: (1, 2), Y: (2, 0), Z: (0, 1)}[axis]
    matrix = np.zeros((*np.shape(angle), 3, 3))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix[..., axis.index(1.0), axis.index(1.0)] = 1.0
    matrix[..., first, first] = matrix[..., second, second] = cosine
    matrix[..., first, second], matrix[..., second, first] = -sine, sine
    return matrix


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("...i,...i->...", a, b))


def _between_segments(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Distance of segment a-b and segment c-d (Ericson, Real-Time Collision Detection, 5.1.9), none of them a point."""
    u, v, w = b - a, d - c, a - c
    uu, vv, uv, uw, vw = _dot(u, u), _dot(v, v), _dot(u, v), _dot(u, w), _dot(v, w)
    lean = uu * vv - uv * uv
    s = np.clip(np.where(lean > 1e-12, (uv * vw - uw * vv) / np.maximum(lean, 1e-12), 0.0), 0.0, 1.0)
    t = np.clip((uv * s + vw) / vv, 0.0, 1.0)
    s = np.clip((uv * t - uw) / uu, 0.0, 1.0)
    gap = w + s[..., None] * u - t[..., None] * v
    return np.sqrt(_dot(gap, gap))


def _to_box(a: Array, b: Array, half: Point) -> Array:
    """Distance of segments a-b (..., 3) and a box around the origin; 0 where they meet.

    Along the segment the squared distance is convex, and its slope is linear between the places where it passes a face.
    """
    u = b - a
    size = np.array(half)
    steps = np.where(np.abs(u) > 1e-9, u, 1e-9)
    knots = np.concatenate([(size - a) / steps, (-size - a) / steps], axis=-1)
    ends = np.zeros((*knots.shape[:-1], 1))
    knots = np.sort(np.clip(np.concatenate([ends, knots, ends + 1.0], axis=-1), 0.0, 1.0), axis=-1)
    points = a[..., None, :] + knots[..., None] * u[..., None, :]
    slope = _dot(points - np.clip(points, -size, size), u[..., None, :])
    last = np.clip((slope <= 0.0).sum(axis=-1) - 1, 0, knots.shape[-1] - 2)[..., None]
    k0, k1 = np.take_along_axis(knots, last, -1)[..., 0], np.take_along_axis(knots, last + 1, -1)[..., 0]
    s0, s1 = np.take_along_axis(slope, last, -1)[..., 0], np.take_along_axis(slope, last + 1, -1)[..., 0]
    share = np.clip(np.where(s1 > s0, -s0 / np.where(s1 > s0, s1 - s0, 1.0), 0.0), 0.0, 1.0)
    nearest = a + (k0 + share * (k1 - k0))[..., None] * u
    gap = nearest - np.clip(nearest, -size, size)
    return np.sqrt(_dot(gap, gap))
