"""Limits of every goal that reaches a servo, as data: each with its unit and its reason.

The envelope, as an independent monitor may check it on consecutive goals g (dt between them, v = dg / dt):

    position      low <= g <= high                               always
    velocity      |v| <= velocity                                always
    acceleration  |v| grows by at most acceleration * dt; after a change of direction |v| <= acceleration * dt
    braking       |v| falls by at most braking * dt; a HOLD, a STOP and the lead limit may shed speed at once,
                  because a stop must never wait for a limit
    lead          no goal moves away from the present position while it is further than `lead` from it

A goal further than FULL_DRIVE_RAD from its joint drives no harder than one at that distance, so what it does there is
not felt; one that was there in the last 0.1 s (`trajectory.FREED_S`) may gain speed at the braking limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from aloha_runtime.config_joints import JointLimit
from aloha_runtime.config_parts import ARM_LEAD_RAD, DeployConfig, LimitsConfig
from aloha_runtime.errors import ConfigError
from aloha_runtime.robot import DOF, GRIPPER_BEYOND, IS_GRIPPER, NAMES, Role, Vector, joint_limits

POSITION_MARGIN_RAD = 0.02
"""Kept clear of the servos' own position limits, so that quantisation (0.0015 rad) and a recalibrated homing offset
never make a servo refuse a goal with a range error."""

ARM_VELOCITY_RAD_S = 2.5
"""The servos stop gaining at 3.14 rad/s (Velocity_Limit 131): a goal that runs faster only builds up lead."""

ARM_ACCELERATION_RAD_S2 = 30.0
"""Full speed from rest in 83 ms: quicker than a person teleoperates, slow enough not to shake the table."""

BRAKING_RATIO = 10.0
"""Braking over acceleration: at rest from full speed in 8 ms (grippers 5 ms), so that a stream which dies has come to
rest, one tick and the braking time later, before `hold_after` (60 ms) freezes the goal. A goal stays v^2 / 2b behind
its action, a delay that grows with speed: 4 ms at full speed (at a ratio of 3 it was 14 ms)."""

REACH_RATIO = 1.125
"""Of the lead: how far from the joint an action's target may lie when it arrives (0.27 rad). The joint moves on while
the target is followed, so a target cut at the lead itself would let the force fall within every tick (9 % of a fast
swing with 0.75 kg at 1.04)."""

OUTSIDE_RAD = 0.10
"""A joint may stand this far outside its limits when torque goes on: an arm that lost its power lies on its stops, up
to 0.06 rad outside. Torque moves it in to the servo's own limit, and by no more than 0.08 rad; the driver allows as
much (`dynamixel_stance`)."""
ROUNDING_RAD = 1e-6
"""A servo that stands at this very tick is not outside."""

GRIPPER_VELOCITY_S = 5.0
"""Openings per second: closes in 0.2 s, as fast as the servo can."""

GRIPPER_ACCELERATION_S2 = 100.0
"""Openings per second squared: full speed in 50 ms; the fingers weigh little."""

GRIPPER_LEAD = 0.5
"""Openings. Force is bounded by the servo's current limit (current-based position mode), not by the lead, and squeezing
needs a goal inside the object: 0.05 openings reach 538 mA at P gain 800, 0.39 at the low gain of 100."""


def _per_joint(arm: float, gripper: float) -> Vector:
    return np.where(IS_GRIPPER, gripper, arm)


@dataclass(frozen=True, eq=False)
class Limits:
    """Limits as (14,) vectors in contract order: rad for arm joints, openings for grippers (-0.2..1.2); per second.

    Raises ConfigError, naming the joint and the value, for limits that are not finite, not positive or empty.
    """

    low: Vector
    high: Vector
    velocity: Vector
    acceleration: Vector
    braking: Vector
    lead: Vector

    def __post_init__(self) -> None:
        for field in fields(self):
            value = np.array(getattr(self, field.name), dtype=np.float64)
            if value.shape != (DOF,):
                raise ConfigError(f"limits: {field.name} has shape {value.shape}; give {DOF} numbers in contract order")
            bound = field.name in ("low", "high")
            wrong = ~np.isfinite(value) | (False if bound else value <= 0)
            if wrong.any():
                index = int(np.argmax(wrong))
                wanted = "finite" if bound else "finite and above 0"
                raise ConfigError(f"limits: {field.name} of {NAMES[index]} is {value[index]}; it must be {wanted}")
            value.setflags(write=False)
            object.__setattr__(self, field.name, value)
        if (self.low >= self.high).any():
            index = int(np.argmax(self.low >= self.high))
            raise ConfigError(
                f"limits: {NAMES[index]} may move from {self.low[index]} to {self.high[index]}, which is empty; "
                "make `low` smaller than `high`"
            )
        if (self.braking < self.acceleration).any():
            index = int(np.argmax(self.braking < self.acceleration))
            raise ConfigError(
                f"limits: braking of {NAMES[index]} is {self.braking[index]}, below its acceleration "
                f"{self.acceleration[index]}; a stop may not be slower than a start"
            )

    def within(self, inner: "Limits") -> bool:
        """True when `inner` (a policy's own limits) is nowhere wider than these."""
        rates = all((getattr(inner, f) <= getattr(self, f)).all() for f in ("velocity", "acceleration", "lead"))
        return bool(rates and (inner.low >= self.low).all() and (inner.high <= self.high).all())

    def outside(self, position: Vector) -> str:
        """Which arm joint of a (14,) position stands further outside its range than OUTSIDE_RAD, and what to do.

        Empty when the arms may be powered where they are: torque would otherwise move the arm to its limit.
        """
        if position.shape != (DOF,):
            return f"the arms' position has shape {position.shape} instead of ({DOF},); check their servos"
        gap = np.where(IS_GRIPPER, 0.0, np.maximum(self.low - position, position - self.high)) - OUTSIDE_RAD
        index = int(np.argmax(gap))
        if not np.isfinite(gap).all():
            index = int(np.argmax(~np.isfinite(gap)))
            return f"{NAMES[index]} has no finite position ({position[index]}); check its servo"
        if gap[index] <= ROUNDING_RAD:
            return ""
        return (
            f"{NAMES[index]} stands at {position[index]:.3f} rad, outside its range "
            f"{self.low[index]:.3f}..{self.high[index]:.3f} rad; move the arm inside by hand, then arm again"
        )


OVERRIDES = (
    "position_margin_rad",
    "velocity_rad_s",
    "acceleration_rad_s2",
    "braking_rad_s2",
    "lead_rad",
    "gripper_openings_s",
    "gripper_openings_s2",
    "gripper_lead",
)
"""Keys of `limits_from`: one number for all arm joints, or for both grippers."""


def limits_from(overrides: Mapping[str, float], role: Role = "follower") -> Limits:
    """Default limits of a role's two arms with some replaced, by the keys in `OVERRIDES` (SI; openings for grippers).

    Raises ConfigError for an unknown key or a value that is not a usable limit.
    """
    unknown = sorted(set(overrides) - set(OVERRIDES))
    if unknown:
        raise ConfigError(f"limits: unknown key `{unknown[0]}`; known are {', '.join(OVERRIDES)}")
    margin = overrides.get("position_margin_rad", POSITION_MARGIN_RAD)
    if not margin >= 0:
        raise ConfigError(f"limits: position_margin_rad is {margin}; it must be 0 or more")
    low, high = joint_limits(role)
    acceleration = overrides.get("acceleration_rad_s2", ARM_ACCELERATION_RAD_S2)
    gripper_acceleration = overrides.get("gripper_openings_s2", GRIPPER_ACCELERATION_S2)
    return Limits(
        low=low + _per_joint(margin, -GRIPPER_BEYOND),
        high=high - _per_joint(margin, -GRIPPER_BEYOND),
        velocity=_per_joint(
            overrides.get("velocity_rad_s", ARM_VELOCITY_RAD_S), overrides.get("gripper_openings_s", GRIPPER_VELOCITY_S)
        ),
        acceleration=_per_joint(acceleration, gripper_acceleration),
        braking=_per_joint(
            overrides.get("braking_rad_s2", BRAKING_RATIO * acceleration), BRAKING_RATIO * gripper_acceleration
        ),
        lead=_per_joint(overrides.get("lead_rad", ARM_LEAD_RAD), overrides.get("gripper_lead", GRIPPER_LEAD)),
    )


TIGHTENED = {
    "velocity_rad_s": ("velocity", False),
    "acceleration_rad_s2": ("acceleration", False),
    "lead_rad": ("lead", False),
    "gripper_openings_s": ("velocity", True),
}
"""Keys of `tightened`: the limit, and whether it is that of the grippers."""


def tightened(limits: Limits, overrides: Mapping[str, float], speed: float = 1.0) -> Limits:
    """`limits` with some tighter (keys of `TIGHTENED`, SI; openings for grippers), and velocities times `speed`.

    Whatever is asked for, the result lies within `limits`. Raises ConfigError for a value above the rig's, an unknown
    key, or a `speed` outside 0..1: nobody shall believe to have loosened what stays as it was.
    """
    if not 0 < speed <= 1:
        raise ConfigError(f"deploy: speed is {speed}; it must be above 0 and at most 1")
    tight = {name: getattr(limits, name).copy() for name in ("velocity", "acceleration", "lead")}
    tight["velocity"] *= speed
    for key, value in overrides.items():
        if key not in TIGHTENED:
            raise ConfigError(f"deploy: no limit `{key}` can be tightened; known are {', '.join(TIGHTENED)}")
        name, of_grippers = TIGHTENED[key]
        joints = of_grippers == IS_GRIPPER
        rig = float(getattr(limits, name)[joints].max())
        if not value <= rig:
            raise ConfigError(
                f"deploy: {key} {value:g} is looser than the rig's {rig:g}, and a policy can only be given less: leave "
                "it out, or change `limits` in the rig file"
            )
        tight[name][joints] = np.minimum(tight[name][joints], value)
    return replace(limits, **tight)


def rig_limits(limits: LimitsConfig, deploy: DeployConfig, role: Role) -> Limits:
    """The limits that the gate beside a role's motors goes by: the rig's own, those of single joints of the followers,
    all tightened by its `deploy`."""
    rig = limits_from(limits.overrides(), role)
    rig = with_joints(rig, limits.joints) if role == "follower" else rig
    return tightened(rig, deploy.limits.overrides(), deploy.speed)


def with_joints(limits: Limits, joints: Mapping[str, JointLimit]) -> Limits:
    """`limits` with those of single joints, by name (`robot.NAMES`), where they are tighter."""
    low, high = limits.low.copy(), limits.high.copy()
    velocity, acceleration = limits.velocity.copy(), limits.acceleration.copy()
    for name, joint in joints.items():
        index = NAMES.index(name)
        low[index] = max(low[index], -np.inf if joint.low is None else joint.low)
        high[index] = min(high[index], np.inf if joint.high is None else joint.high)
        velocity[index] = min(velocity[index], joint.velocity_rad_s or np.inf)
        acceleration[index] = min(acceleration[index], joint.acceleration_rad_s2 or np.inf)
    return replace(limits, low=low, high=high, velocity=velocity, acceleration=acceleration)


def default_limits(role: Role = "follower") -> Limits:
    """The default limits of the gate for both arms of a role."""
    return limits_from({}, role)
