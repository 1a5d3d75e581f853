"""Scripted demonstrators: what a skilled operator would do with the two leader arms.

A demonstrator knows the object poses at the start and plans once: tool waypoints, inverse kinematics along the way
between them, timing slow enough for the followers under the default safety limits (2.5 rad/s, 30 rad/s^2, 0.24 rad
lead). Goals lie ahead of the wanted pose by the servos' sag, as an operator's hands learn to do.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.robot import GRIPPER_INDEX, KITS, START_POSE, Kit, Side, Vector
from aloha_runtime.sim.kinematics import ArmKinematics, ToolPose
from aloha_runtime.sim.model import Task, build_model

SPEED_RAD_S = np.array([1.2, 0.8, 0.8, 1.0, 1.1, 1.6])
"""Peak joint speeds of a plan. A follower lags by 0.069 s of speed (wrist_rotate 0.045 s), and with the sag of shoulder
and elbow (0.03 rad) that has to stay below the gate's lead of 0.24 rad."""

RAMP = 0.3
"""Share of a motion's time in which it gathers speed, and the same at its end."""

SHORTEST_MOVE_S = 0.4

GRIP_S = 0.35
"""Time to open or close a gripper fully: peak 4.1 openings/s, below the gate's 5."""

GRID = 25
"""Points on a straight line at which the inverse kinematics is solved."""

APART_M = 0.17
"""Distance of peg and socket centres before the insertion: each is 0.12 m long, so 5 cm lie between them."""

TOGETHER_M = 0.09
"""Distance to push to: the peg meets the pin in the socket at 0.10 m."""

Matrix = NDArray[np.float64]


def eased(fraction: float) -> float:
    """Share of the way at a share of the time: speed rises and falls as raised cosines, `RAMP` long."""
    time = min(max(fraction, 0.0), 1.0)
    if time > 0.5:
        return 1.0 - eased(1.0 - time)
    if time >= RAMP:
        return (time - RAMP / 2) / (1 - RAMP)
    return (time - RAMP / math.pi * math.sin(math.pi * time / RAMP)) / 2 / (1 - RAMP)


@dataclass(frozen=True)
class Move:
    """Joint goals (GRID, 6) along a path, passed between two times (s); `place` (GRID,) is how far along each lies."""

    start_s: float
    end_s: float
    goals: Matrix
    place: Matrix

    def at(self, time_s: float) -> Matrix:
        """Joint goals (6,) at a time."""
        along = eased((time_s - self.start_s) / (self.end_s - self.start_s))
        return np.array([np.interp(along, self.place, goals) for goals in self.goals.T])


@dataclass
class ArmPlan:
    """The planned motion of one arm: joint segments and gripper segments over time, appended in order."""

    kinematics: ArmKinematics
    servos_sag: bool = True
    angles: Matrix = field(default_factory=lambda: np.array(START_POSE))
    opening: float = 0.0
    end_s: float = 0.0
    _moves: list[Move] = field(default_factory=list)
    _grips: list[tuple[float, float, float, float]] = field(default_factory=list)

    def move(self, pose: ToolPose, via: ToolPose | None = None, arrive_s: float = 0.0, start_s: float = 0.0) -> float:
        """Go to a tool pose, no sooner than `arrive_s` and starting after `start_s` and the last move.

        The way is straight, or bends towards `via` (a quadratic Bezier curve), which sets the direction of arrival.
        Returns the time of arrival.
        """
        start = max(start_s, self.end_s)
        here = self.kinematics.pose(self.angles)
        middle = here.toward(pose, 0.5) if via is None else via
        path = [self.angles]
        for fraction in map(float, np.linspace(0, 1, GRID)[1:]):
            target = here.toward(middle, fraction).toward(middle.toward(pose, fraction), fraction)
            path.append(self.kinematics.solve(target, path[-1]))
        # Shares of the way are shares of the time that the slowest joint needs at its speed.
        times = np.cumsum([0.0, *(np.abs(np.diff(path, axis=0)) / SPEED_RAD_S).max(axis=1)])
        duration = max(arrive_s - start, times[-1] / (1 - RAMP), SHORTEST_MOVE_S)
        goals = np.array([angles + self.kinematics.sag(angles) * self.servos_sag for angles in path])
        if not self._moves:
            goals[0] = START_POSE  # arms wait there without leading their sag
        self._moves.append(Move(start, start + duration, goals, times / times[-1]))
        self.angles, self.end_s = path[-1], start + duration
        return self.end_s

    def square(self, position: Matrix, pitch: float) -> ToolPose:
        """Tool pose at `position` whose fingers close along the world's y, whatever the arm's heading there."""
        return ToolPose(position, pitch, self.kinematics.square_roll(position, pitch))

    def grip(self, opening: float, start_s: float) -> float:
        """Bring the gripper to `opening` (0..1) from `start_s`; returns the time when it is there."""
        end = start_s + GRIP_S * max(abs(opening - self.opening), 0.5)
        self._grips.append((start_s, end, self.opening, opening))
        self.opening = opening
        return end

    def sample(self, time_s: float) -> tuple[Matrix, float]:
        """Joint goals (6,) and gripper opening at a time."""
        goals = np.array(START_POSE)
        for move in self._moves:
            if time_s < move.start_s:
                break
            goals = move.at(time_s)
        opening = 0.0
        for start, end, before, after in self._grips:
            if time_s < start:
                break
            opening = before + eased((time_s - start) / (end - start)) * (after - before)
        return goals, opening


class Demonstrator:
    """The leader motion that solves a task from given object poses.

    `seed` varies what an operator varies: heights, meeting point, tilt and pace. `object_poses` are those of
    `World.object_poses`. `servos_sag` False is for arms that stand where their goals are. Planning takes about 0.1 s.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        object_poses: dict[str, Matrix],
        kit: Kit = KITS["aloha"],
        *,
        servos_sag: bool = True,
    ) -> None:
        model = build_model(task, kit.follower_gripper, kit.gripper_current_ma)
        self._gripper = kit.leader_gripper
        self._plans: dict[Side, ArmPlan] = {
            "left": ArmPlan(ArmKinematics(model, "left"), servos_sag),
            "right": ArmPlan(ArmKinematics(model, "right"), servos_sag),
        }
        random = np.random.default_rng([seed, 1])
        if task == "transfer_cube":
            self.duration_s = _plan_transfer(self._plans["left"], self._plans["right"], object_poses["cube"], random)
        else:
            self.duration_s = _plan_insertion(self._plans["left"], self._plans["right"], object_poses, random)

    def leader_angles(self, time_s: float) -> Vector:
        """Leader arms at a time since the start: (14,) rad, grippers as the angle of the leader's gripper motor."""
        angles = self.targets(time_s)
        for index in GRIPPER_INDEX:
            angles[index] = self._gripper.angle_from_action(float(angles[index]))
        return angles

    def targets(self, time_s: float) -> Vector:
        """Where both arms are to go at a time since the start: (14,) rad, grippers as openings 0..1."""
        sampled = [plan.sample(time_s) for plan in self._plans.values()]
        return np.concatenate([[*goals, opening] for goals, opening in sampled])


def _plan_transfer(left: ArmPlan, right: ArmPlan, cube: Matrix, random: np.random.Generator) -> float:
    """Right hand picks the cube up and holds it out, left hand takes it. Returns the duration in s."""
    up = np.array([0.0, 0.0, 1.0])
    pitch = random.uniform(1.02, 1.08)
    place = right.square(cube[:3] + random.uniform(-0.004, 0.0) * up, pitch)
    above = right.square(cube[:3] + random.uniform([0.0, -0.004, 0.11], [0.01, 0.004, 0.13]), pitch)
    centre = random.uniform([0.035, 0.495, 0.165], [0.045, 0.505, 0.175])
    meet = right.square(centre, pitch)
    lift = right.square(0.5 * (place.position + centre) + 0.08 * up, pitch)

    right.grip(0.95, 0.0)
    there = right.move(place, via=above)
    held = right.grip(0.0, there)
    met = right.move(meet, via=lift, start_s=held)

    # The cube hangs a little below the right tool; the left one goes where the cube is.
    take = ToolPose(centre + random.uniform([0.005, -0.002, -0.009], [0.009, 0.002, -0.007]), 0.0, np.pi / 2)
    wait = ToolPose(take.position - np.array([0.10, 0.0, 0.0]), 0.0, np.pi / 2)
    left.grip(0.95, 0.3)
    left.move(wait, arrive_s=met - 0.1, start_s=0.3)
    taken = left.move(take, start_s=met - 0.1)
    closed = left.grip(0.0, taken)
    opened = right.grip(1.0, closed)
    back = right.square(centre + 0.10 * np.array([np.cos(pitch), 0.0, np.sin(pitch)]), pitch)
    gone = right.move(back, start_s=opened - 0.1)
    away = left.move(ToolPose(take.position - np.array([0.05, 0.0, 0.0]), 0.0, np.pi / 2), start_s=opened + 0.1)
    return max(gone, away) + 0.3


def _plan_insertion(left: ArmPlan, right: ArmPlan, objects: dict[str, Matrix], random: np.random.Generator) -> float:
    """Right hand lifts the peg, left hand the socket, and they push them together. Returns the duration in s."""
    pitch = random.uniform(1.02, 1.08)
    centre = random.uniform([-0.005, 0.495, 0.195], [0.005, 0.505, 0.205])
    hands = ((right, objects["peg"][:3], 1.0), (left, objects["socket"][:3], -1.0))
    # Held above its middle, so that fingertips clear the table; the offset stays while the object is in the hand.
    offset = np.array([0.0, 0.0, 0.010])
    held = 0.0
    for arm, place, _ in hands:
        arm.grip(0.95, 0.0)
        above = place + random.uniform([-0.004, -0.004, 0.11], [0.004, 0.004, 0.13])
        there = arm.move(arm.square(place + offset, pitch), via=arm.square(above, pitch))
        held = max(held, arm.grip(0.0, there))
    faced = 0.0
    for arm, place, sign in hands:
        apart = centre + offset + np.array([sign * APART_M / 2, 0.0, 0.0])
        lift = 0.5 * (place + apart) + np.array([0.0, 0.0, 0.08])
        faced = max(faced, arm.move(arm.square(apart, pitch), via=arm.square(lift, pitch), start_s=held))
    pushed = 0.0
    for arm, _, sign in hands:
        together = centre + offset + np.array([sign * TOGETHER_M / 2, 0.0, 0.0])
        pushed = max(pushed, arm.move(arm.square(together, pitch), arrive_s=faced + 1.0, start_s=faced + 0.1))
    return pushed + 0.5
