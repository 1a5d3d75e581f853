"""A way for both arms of a pair to a pose, clear of the table and of each other: in stages, or none, and why. Pure.

The arms ramp in joint space, all joints of a stage together. A straight way from any pose may sweep through the table:
an arm that lies low and to the side would turn before it is up. So the ways of `ORDERS` are tried, each arm alone with
the table first, then both together, at last one after the other; where none is clear, one joint is moved out of the way
beforehand. What is still not clear is refused, with the joint that a person should move.

A way is clear when every pair of parts stays `minimum_distance_m` and `BESIDE_M` apart all along it. A pair that is
nearer at the start may leave without coming nearer than it has been, and one that has to end nearer may arrive. Between
two looks, at which a pair is d and e apart, its distance changes by at most l (`Scene.reach`), so it is never less than
(d + e - l) / 2. Looks are added until that is enough everywhere, or l is below `FINEST_M`: so no pair comes nearer than
the margin less FINEST_M / 2 (4 mm) unseen.

A whole way takes longer to judge than an arms cycle has to spare. The functions here are generators that yield after
`LOOKS` poses, and the pilot takes one such turn in each cycle.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np

from aloha_runtime.config import RigConfig
from aloha_runtime.config_parts import GuardConfig
from aloha_runtime.control.limits import rig_limits
from aloha_runtime.control.shape import Array, Scene, scene_of
from aloha_runtime.robot import (
    ARM_JOINTS,
    IS_GRIPPER,
    JOINTS,
    JOINTS_PER_ARM,
    NAMES,
    SIDE_SLICE,
    Pose,
    Role,
    Side,
    Vector,
)

BESIDE_M = 0.03
"""An arm that sags or lags stands up to 0.03 rad beside its goal, 20 mm at its reach; and the guard, which holds at the
minimum, judges 60 ms ahead, where an arm at ramp speed would be 25 mm further."""
YIELD_M = 0.002
"""A pair that leaves a contact may come nearer by so much: parts that lie on each other yield."""
INSIDE_M = 0.02
"""A capsule is up to so much fatter than the link inside it: a pose of the rig file may rest on the table."""
FINEST_M = 0.008
"""Between two looks no distance changes by more, at the end of the search."""
COARSE_M = 0.12
"""... and at its beginning."""
LOOKS = 24
"""Poses that are judged in one turn: about 1 ms."""

MOVED_RAD = 0.05
"""More than that beside where a way was planned from is 35 mm at the arm's reach: more than `BESIDE_M`."""

TURNED = ("waist", "forearm_roll", "wrist_rotate")
ORDERS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (),
    (("shoulder", "elbow"), ("wrist_angle",), TURNED),
    (("shoulder", "wrist_angle"), ("elbow",), TURNED),
    (("shoulder",), ("elbow",), ("wrist_angle",), TURNED),
    (("shoulder",), ("waist",), ("elbow", "forearm_roll", "wrist_angle", "wrist_rotate")),
)
"""Joints of each stage on the way to the raised pose (`TURNED` ones: to those of the end), and from there straight to
the end; the first has no stages, it is straight all the way. They are tried in this order."""
SPARE = 2
"""Ways of one arm that are tried together with those of the other."""
ASIDE_RAD = (0.25, 0.5, 1.0)
"""How far one joint is moved out of the way beforehand, where no order is clear."""
ASIDE_JOINTS = ("shoulder", "elbow", "wrist_angle", "waist", "forearm_roll")
"""... and which one, in the order in which they are tried."""
PATIENCE = 1000
"""Turns after which no more joints are tried: 5 s, in which the arms stand and a person waits."""
TOWARDS = {"waist": ("to its left", "to its right"), "shoulder": ("forwards", "backwards"), "elbow": ("down", "up")}
"""How people say a joint's positive and negative direction; of the others the sign tells."""

T = TypeVar("T")
Turns = Generator[None, None, T]
"""Yields after every turn; returns at the end."""


Ways = Mapping[Side, list[list[Vector]]]
"""What is found for each arm."""


class Way(NamedTuple):
    """Poses (14,) to ramp to one after the other, the last one the end; none and `refusal` where no way is clear."""

    stages: tuple[Vector, ...]
    refusal: str = ""


class Blocked(NamedTuple):
    """What stops a way: two parts, and how near they would come (m)."""

    distance_m: float
    first: str
    second: str


class Planner:
    """Finds ways for one pair of arms. `minimum_m`: the guard's; `raised`: a pose up in the air, in which the waist may
    turn; `low`, `high` (14,): where joints may go."""

    def __init__(self, scene: Scene, minimum_m: float, raised: Pose, low: Vector, high: Vector) -> None:
        self._scene = scene
        self._alone = {side: scene.alone(side) for side in scene.sides}
        self._margin_m = minimum_m + BESIDE_M
        self._raised = dict(zip(ARM_JOINTS, raised, strict=True))
        self._low, self._high = low, high
        self._turns = 0
        """How many the search has taken."""

    def plan(self, start: Vector, end: Vector, name: str) -> Turns[Way]:
        """The way from `start` to `end` (14,), which people call `name`, grippers in either convention."""
        self._turns = 0
        if wrong := self._impossible(end, name):
            return Way((), wrong)
        blocked = yield from self._blocked(self._scene, [start, end])
        if blocked is None:
            return Way((end,))
        found: dict[Side, list[list[Vector]]] = {}
        for side in self._alone:
            found[side] = yield from self._ways_of(side, start, end)
        stages = yield from self._clear(start, found)
        if stages:
            return Way(stages)
        aside, stages = yield from self._aside(start, end, found, blocked)
        return Way((aside, *stages)) if stages else Way((), _refusal(blocked, start, aside, name))

    def _impossible(self, end: Vector, name: str) -> str:
        """Why nobody may ramp to a pose; empty when one may."""
        near = self._scene.nearest(end)
        if near.distance_m >= -INSIDE_M:
            return ""
        return (
            f"the {name} pose itself takes {near.first} {-near.distance_m * 1000:.0f} mm into {near.second}: correct "
            "the pose, or where the arms and the table are (`aloha setup --only table`)"
        )

    def _ways_of(self, side: Side, start: Vector, end: Vector) -> Turns[list[list[Vector]]]:
        """Ways of one arm that are clear of the table, at most `SPARE`; the other arm stands."""
        ways: list[list[Vector]] = []
        for order in ORDERS:
            way = self._ordered(side, start, end, order)
            if len(ways) < SPARE and (yield from self._blocked(self._alone[side], [start, *way])) is None:
                ways.append(way)
        return ways

    def _clear(self, start: Vector, found: Ways) -> Turns[tuple[Vector, ...]]:
        """Ways of the arms put together so that they are clear of each other as well; empty when there is none."""
        for stages in _together(start, found):
            if (yield from self._blocked(self._scene, [start, *stages])) is None:
                return tuple(stages)
        return ()

    def _aside(
        self, start: Vector, end: Vector, found: Ways, blocked: Blocked
    ) -> Turns[tuple[Vector, tuple[Vector, ...]]]:
        """`start` with one joint moved out of the way, and from there the stages of a clear way. Without stages a
        person has to move it: it is then a joint that helps, or that takes what stops the straight way farthest apart.
        """
        pair = self._scene.pairs.index((blocked.first, blocked.second))
        by_hand, farthest = None, start
        farthest_m = -np.inf
        for side in [side for side, ways in found.items() if not ways] or self._scene.sides:
            for aside in self._asides(side, start):
                distance_m = float(self._scene.distances(aside[None])[0, pair])
                if distance_m > farthest_m:
                    farthest, farthest_m = aside, distance_m
                if self._turns > PATIENCE:
                    continue
                ways = yield from self._ways_of(side, aside, end)
                stages = (yield from self._clear(aside, {**found, side: ways})) if ways else ()
                if stages and (yield from self._blocked(self._scene, [start, aside, *stages])) is None:
                    return aside, stages
                if by_hand is None and (stages or (ways and not all(found.values()))):
                    by_hand = aside
        return (farthest if by_hand is None else by_hand), ()

    def _ordered(self, side: Side, start: Vector, end: Vector, order: Sequence[Sequence[str]]) -> list[Vector]:
        """Poses of one arm's way to `end` in one of `ORDERS`."""
        part, pose, way = SIDE_SLICE[side], start.copy(), []
        for joints in order:
            pose = pose.copy()
            for joint in joints:
                index = part.start + JOINTS.index(joint)
                pose[index] = end[index] if joint in TURNED else self._raised[joint]
            way.append(pose)
        last = pose.copy()
        last[part] = end[part]
        return [*way, last]

    def _asides(self, side: Side, start: Vector) -> Iterator[Vector]:
        """`start` with one joint of an arm moved, by little first."""
        for size in ASIDE_RAD:
            for joint in ASIDE_JOINTS:
                index = SIDE_SLICE[side].start + JOINTS.index(joint)
                for change in (-size, size):
                    if self._low[index] <= start[index] + change <= self._high[index]:
                        aside = start.copy()
                        aside[index] += change
                        yield aside

    def _blocked(self, scene: Scene, poses: Sequence[Vector]) -> Turns[Blocked | None]:
        """What stops a ramp through `poses`, the first of them the start; None when it is clear. See the module."""
        corners = np.array(poses)
        travel_m = np.abs(np.diff(corners, axis=0)) @ scene.reach.T  # (stages, pairs)
        counts = np.maximum(1, np.ceil(travel_m.max(axis=1) / COARSE_M)).astype(int)
        self._turns += 1 + int(counts.sum()) // LOOKS
        at = np.append(np.concatenate([stage + np.arange(n) / n for stage, n in enumerate(counts)]), len(counts))
        distances = yield from _looked(scene, corners, at)
        while True:
            if (near := _first_too_near(distances, self._margin_m)) is not None:
                return Blocked(float(distances[near]), *scene.pairs[near[1]])
            apart_m = travel_m[at[:-1].astype(int)] * np.diff(at)[:, None]
            least_m = (distances[:-1] + distances[1:] - apart_m) / 2
            unsure = ((least_m < self._margin_m) & (apart_m > FINEST_M)).any(axis=1)
            if not unsure.any():
                return None
            between = (at[:-1] + at[1:])[unsure] / 2
            seen = yield from _looked(scene, corners, between)
            order = np.argsort(np.concatenate([at, between]), kind="stable")
            at = np.concatenate([at, between])[order]
            distances = np.concatenate([distances, seen])[order]


def planner_for(rig: RigConfig, role: Role) -> Planner:
    """Plans the ramps of a role's arms."""
    minimum_m = (rig.guard or GuardConfig()).minimum_distance_m
    limits = rig_limits(rig.limits, rig.deploy, role)
    return Planner(scene_of(rig, role, hands=True), minimum_m, rig.start_pose, limits.low, limits.high)


def finished(turns: Turns[T]) -> T:
    """All turns at once, for a caller that may wait."""
    while True:
        try:
            next(turns)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def within_a_turn(position: Vector) -> Vector:
    """Angles (14,) as servos say them once torque is on: also of a joint that a hand has turned beyond half a turn."""
    return np.where(IS_GRIPPER, position, (position + np.pi) % (2 * np.pi) - np.pi)


def moved_meanwhile(before: Vector, now: Vector) -> str:
    """Which joint is no longer where a way was planned from; empty when all are."""
    gap = np.where(IS_GRIPPER, 0.0, np.abs(within_a_turn(now - before)))
    index = int(np.argmax(gap))
    if gap[index] <= MOVED_RAD:
        return ""
    return (
        f"{NAMES[index]} was moved from {before[index]:.2f} to {now[index]:.2f} rad while its way was planned; let the "
        "arms rest, then ask again"
    )


def _looked(scene: Scene, corners: Array, at: Array) -> Turns[Array]:
    """(N, pairs) m at places (N,) along a way: 1.5 is in the middle of its second stage."""
    stage = np.minimum(at.astype(int), len(corners) - 2)
    poses = corners[stage] + (at - stage)[:, None] * (corners[stage + 1] - corners[stage])
    parts = []
    for first in range(0, len(poses), LOOKS):
        parts.append(scene.distances(poses[first : first + LOOKS]))
        yield
    return np.concatenate(parts)


def _first_too_near(distances: Array, margin_m: float) -> tuple[int, int] | None:
    """Row and pair of the first of distances (N, pairs) that is below the margin, below what it was before, and below
    what it will be afterwards."""
    before = np.maximum.accumulate(distances, axis=0)
    after = np.maximum.accumulate(distances[::-1], axis=0)[::-1]
    allowed = np.minimum(margin_m, np.minimum(before, after)) - YIELD_M
    rows, pairs = np.nonzero(distances < allowed)
    return (int(rows[0]), int(pairs[0])) if len(rows) else None


def _together(start: Vector, found: Ways) -> Iterator[list[Vector]]:
    """Ways of both arms put together: at the same time, left first, right first. One arm's are as they are."""
    if len(found) == 1:
        yield from (list(way) for ways in found.values() for way in ways)
        return
    for one, other in product(found["left"], found["right"]):
        longest = max(len(one), len(other))
        one_, other_ = ([start] * (longest - len(way)) + list(way) for way in (one, other))
        yield [_joined(a, b) for a, b in zip(one_, other_, strict=True)]
    for one, other in product(found["left"], found["right"]):
        yield [*one, *(_joined(one[-1], pose) for pose in other)]
        yield [*other, *(_joined(pose, other[-1]) for pose in one)]


def _joined(left: Vector, right: Vector) -> Vector:
    """The left arm of one pose, the right arm of another."""
    pose = np.array(left)
    pose[SIDE_SLICE["right"]] = right[SIDE_SLICE["right"]]
    return pose


def _refusal(blocked: Blocked, start: Vector, aside: Vector, name: str) -> str:
    """What a person reads who has asked for the ramp."""
    index = int(np.argmax(np.abs(aside - start)))
    change = float(aside[index] - start[index])
    towards = TOWARDS.get(JOINTS[index % JOINTS_PER_ARM], ("", ""))[change < 0]
    near_mm = max(blocked.distance_m, 0.0) * 1000
    return (
        f"no way to the {name} pose is clear: {blocked.first} would come within {near_mm:.0f} mm of {blocked.second}; "
        f"first move {NAMES[index]}{' ' * bool(towards)}{towards} by about {abs(change):.2f} rad, from "
        f"{start[index]:.2f} to {aside[index]:.2f} rad, then ask again"
    )
