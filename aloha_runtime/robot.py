"""The robot contract: the one place that knows the 14-vector, the servo table, the limits, the poses and the grippers.

Every state, velocity, effort and action is a vector of 14 numbers, left arm then right arm:

    index   0..5, 7..12   waist, shoulder, elbow, forearm_roll, wrist_angle, wrist_rotate   rad (rad/s, mA)
    index   6, 13         gripper                                                            0 closed .. 1 open

Figures come from the published drivers and configuration of the ALOHA kits (original ALOHA, Interbotix ALOHA 2) and the
ROBOTIS e-manual for the X series (https://emanual.robotis.com/docs/en/dxl/x/).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
"""A (14,) float64 vector in contract order."""

Side = Literal["left", "right"]
Role = Literal["leader", "follower"]

SIDES: tuple[Side, ...] = ("left", "right")
ROLES: tuple[Role, ...] = ("leader", "follower")
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
JOINTS = (*ARM_JOINTS, "gripper")
JOINTS_PER_ARM = len(JOINTS)
DOF = 2 * JOINTS_PER_ARM
NAMES = tuple(f"{side}_{joint}" for side in SIDES for joint in JOINTS)
"""Names of the 14 numbers, as LeRobot datasets spell them (`left_waist` .. `right_gripper`)."""

SIDE_SLICE: dict[Side, slice] = {"left": slice(0, JOINTS_PER_ARM), "right": slice(JOINTS_PER_ARM, DOF)}
GRIPPER_INDEX = (JOINTS_PER_ARM - 1, DOF - 1)
IS_GRIPPER = np.array([joint == "gripper" for _ in SIDES for joint in JOINTS])
"""(14,) bool mask of the two grippers."""

CONTROL_HZ = 50
"""Rate of observations, actions and recorded frames (the ALOHA rigs' `DT` = 0.02 s)."""
TICK_NS = 1_000_000_000 // CONTROL_HZ

TICKS_PER_TURN = 4096
CENTRE_TICK = 2048
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
RAD_S_PER_UNIT = 0.229 * 2 * math.pi / 60
"""Present_Velocity unit of the X series: 0.229 rev/min."""
MA_PER_UNIT = 2.69
"""Present_Current unit of XM430 and XM540: 2.69 mA."""


def tick_of(stamp_ns: int) -> int:
    """Absolute number of the 50 Hz tick that contains `stamp_ns`; all processes share these numbers."""
    return stamp_ns // TICK_NS


def ticks_to_rad(ticks: float) -> float:
    """Servo position in radians; tick 2048 is zero."""
    return (ticks - CENTRE_TICK) * RAD_PER_TICK


def rad_to_ticks(angle_rad: float) -> int:
    """Nearest servo position to an angle in radians."""
    return round(angle_rad / RAD_PER_TICK) + CENTRE_TICK


@dataclass(frozen=True)
class Servo:
    """One servo of an arm.

    `shadow_of` is the id of the master whose commands a shadow obeys through `Secondary_ID`. `min_tick` and `max_tick`
    are the position limits, `reversed` is bit 0 of `Drive_Mode`.
    """

    id: int
    joint: str
    model: str
    min_tick: int = 0
    max_tick: int = 4095
    reversed: bool = False
    shadow_of: int | None = None


def _arm(big: str, wrist: str, gripper: str, limits: dict[str, tuple[int, int, bool]]) -> tuple[Servo, ...]:
    def pair(first_id: int, joint: str) -> tuple[Servo, Servo]:
        low, high, is_reversed = limits[joint]
        return (
            Servo(first_id, joint, big, low, high, is_reversed),
            Servo(first_id + 1, joint, big, low, high, not is_reversed, shadow_of=first_id),
        )

    low, high, is_reversed = limits["wrist_angle"]
    return (
        Servo(1, "waist", big),
        *pair(2, "shoulder"),
        *pair(4, "elbow"),
        Servo(6, "forearm_roll", big),
        Servo(7, "wrist_angle", big, low, high, is_reversed),
        Servo(8, "wrist_rotate", wrist),
        Servo(9, "gripper", gripper),
    )


SERVOS: dict[Role, tuple[Servo, ...]] = {
    "follower": _arm(
        "XM540-W270",
        "XM430-W350",
        "XM430-W350",
        {"shoulder": (841, 2867, True), "elbow": (898, 3094, True), "wrist_angle": (830, 3504, True)},
    ),
    "leader": _arm(
        "XM430-W350",
        "XL430-W250",
        "XC430-W150",
        {"shoulder": (819, 3345, False), "elbow": (648, 3094, False), "wrist_angle": (910, 3447, True)},
    ),
}
"""ViperX-300 6DOF followers and WidowX-250 6DOF leaders, servos by id."""


def joint_limits(role: Role) -> tuple[Vector, Vector]:
    """Hard position limits of both arms of a role: two (14,) vectors in rad, grippers 0 and 1."""
    low, high = np.zeros(DOF), np.ones(DOF)
    masters = [servo for servo in SERVOS[role] if servo.shadow_of is None and servo.joint != "gripper"]
    for side in SIDES:
        start = SIDE_SLICE[side].start
        for index, servo in enumerate(masters):
            low[start + index] = ticks_to_rad(servo.min_tick)
            high[start + index] = ticks_to_rad(servo.max_tick)
    return low, high


@dataclass(frozen=True)
class Gripper:
    """One gripper: range of its motor angle (rad) and finger position (m), and its horn-and-rod geometry (m).

    Two conventions live side by side in recorded ALOHA data, both 0 closed and 1 open: an *action* is normalised from
    the motor angle, a *state* from the finger position.

    `crank_open`, `crank_close`: the crank's angles at both ends, where the motor reads other ones: a horn may be
    mounted anywhere on its servo, and the geometry holds for the kit's angles only.
    """

    angle_open: float
    angle_close: float
    position_open: float
    position_close: float
    horn_radius: float
    rod_length: float
    crank_open: float | None = None
    crank_close: float | None = None

    def _crank(self) -> tuple[float, float]:
        """The crank's angle at the closed end, and its turn per radian of the motor."""
        if self.crank_open is None or self.crank_close is None:
            return self.angle_close, 1.0
        return self.crank_close, (self.crank_open - self.crank_close) / (self.angle_open - self.angle_close)

    def _crank_angle(self, angle_rad: float) -> float:
        start, ratio = self._crank()
        return start + ratio * (angle_rad - self.angle_close)

    def action_from_angle(self, angle_rad: float) -> float:
        """Normalised opening as actions carry it."""
        return (angle_rad - self.angle_close) / (self.angle_open - self.angle_close)

    def angle_from_action(self, opening: float) -> float:
        """Motor angle (rad) of an action's normalised opening."""
        return self.angle_close + opening * (self.angle_open - self.angle_close)

    def position_from_angle(self, angle_rad: float) -> float:
        """Linear finger position (m): p = h sin q + sqrt(a^2 - h^2 cos^2 q) (slider-crank)."""
        h, a, q = self.horn_radius, self.rod_length, self._crank_angle(angle_rad)
        return h * math.sin(q) + math.sqrt(a * a - (h * math.cos(q)) ** 2)

    def angle_from_position(self, position_m: float) -> float:
        """Motor angle (rad) of a finger position (m), by the cosine rule; clipped to what the crank can reach."""
        h, a = self.horn_radius, self.rod_length
        sine = (position_m * position_m + h * h - a * a) / (2 * h * max(position_m, 1e-6))
        start, ratio = self._crank()
        return self.angle_close + (math.asin(min(1.0, max(-1.0, sine))) - start) / ratio

    def slope(self, angle_rad: float) -> float:
        """Metres of finger travel per radian of the motor: the derivative of `position_from_angle`, up to `angle_open`
        (the crank's dead centre lies just beyond)."""
        crank_rad = min(self._crank_angle(angle_rad), self._crank_angle(self.angle_open))
        h, a = self.horn_radius, self.rod_length
        sine, cosine = math.sin(crank_rad), math.cos(crank_rad)
        rod = math.sqrt(max(a * a - h * h * cosine * cosine, 1e-12))
        return self._crank()[1] * (h * cosine + h * h * cosine * sine / rod)

    def state_from_angle(self, angle_rad: float) -> float:
        """Normalised opening as states carry it (from the finger position)."""
        return (self.position_from_angle(angle_rad) - self.position_close) / (self.position_open - self.position_close)


def with_range(gripper: Gripper, **measured: float) -> Gripper:
    """The same gripper with its measured range (`angle_open`, `position_close`, ...) in place of the published one. The
    crank stands where the kit's stands at the same share of the range."""
    if not {"angle_open", "angle_close"} & measured.keys():
        return replace(gripper, **measured)
    return replace(gripper, crank_open=gripper.angle_open, crank_close=gripper.angle_close, **measured)


GRIPPER_BEYOND = 0.2
"""Openings that a target may lie beyond either end of the measured range: a hand that squeezes a leader harder closes
its follower harder, as on the published kits, whose targets have no bound at all. Beyond the end the fingers stand
still and the current limit alone says how hard they press: it is reached 0.08 openings inside, in any kit."""

GRIPPER_TURN_RAD = tuple(ticks_to_rad(tick) for tick in (0, TICKS_PER_TURN - 1))
"""What a gripper's servo can be told: one turn. A goal beyond it would be refused, and with it those of the joints."""

LEAST_GRIPPER_TURN_RAD = 0.3
"""Grippers of the kits turn by 0.9 to 2.1 rad; less than a third of that was no opening and closing."""

Pose = tuple[float, float, float, float, float, float]
START_POSE: Pose = (0.0, -0.96, 1.16, 0.0, -0.3, 0.0)
"""Pose in which every episode starts, both roles, rad in the order of ARM_JOINTS."""


@dataclass(frozen=True)
class Kit:
    """What differs between the published ALOHA kits; currents are in mA."""

    name: str
    leader_gripper: Gripper
    follower_gripper: Gripper
    leader_sleep: Pose
    follower_sleep: Pose
    gripper_current_ma: float

    def gripper(self, role: Role) -> Gripper:
        return self.leader_gripper if role == "leader" else self.follower_gripper

    def sleep_pose(self, role: Role) -> Pose:
        return self.leader_sleep if role == "leader" else self.follower_sleep


KITS = {
    "aloha": Kit(
        name="aloha",
        leader_gripper=Gripper(0.3083, -0.6842, 0.02417, 0.01244, 0.014, 0.024),
        follower_gripper=Gripper(1.4910, -0.6213, 0.05800, 0.01844, 0.022, 0.036),
        leader_sleep=(0.0, -1.1, 1.24, 0.0, -0.24, 0.0),
        follower_sleep=(0.0, -1.7, 1.55, 0.12, 0.65, 0.0),
        gripper_current_ma=538.0,
    ),
    "aloha2": Kit(
        name="aloha2",
        leader_gripper=Gripper(0.8298, -0.0552, 0.0323, 0.0185, 0.020, 0.020),
        follower_gripper=Gripper(1.6214, 0.6197, 0.0579, 0.0440, 0.0275, 0.035),
        leader_sleep=(0.0, -1.80, 1.55, 0.0, -1.57, 0.0),
        follower_sleep=(0.0, -1.80, 1.55, 0.0, -1.57, 0.0),
        gripper_current_ma=807.0,
    ),
}
"""The original ALOHA (2023) and Interbotix ALOHA 2. The ALOHA 2 finger positions are the published ones, which belong
to the older geometry: states then run from -0.08 to 1.33, so a rig's file states its own measured range."""


def pose_vector(pose: Pose, gripper: float) -> Vector:
    """Both arms in one pose, both grippers at one normalised opening: (14,)."""
    return np.array([*pose, gripper, *pose, gripper], dtype=np.float64)
