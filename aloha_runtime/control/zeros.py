"""Whether the currents of a still arm fit the pose that its servos report: else the zero of a joint is doubtful.

A joint whose zero is wrong reports a pose in which the arm does not stand, and then the joints that bear weight draw
currents that belong to another one. Friction takes part of the weight in a still joint, in either direction, so only
what friction cannot explain counts. What gravity does not see stays unseen: the waist, and wrist_rotate. Pure.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.control import gravity
from aloha_runtime.dynamixel.registers import MODEL_BY_NAME
from aloha_runtime.messages import MS
from aloha_runtime.robot import ARM_JOINTS, RAD_PER_TICK, SIDE_SLICE, Role, Servo, Side, Vector

LINKS = {"leader": gravity.WIDOWX_250, "follower": gravity.VIPERX_300}
BEARING = ("shoulder", "elbow", "wrist_angle")
"""Joints that bear weight in nearly every pose."""
NM_PER_A: Mapping[Role, Mapping[str, float]] = {
    "leader": {"XM430-W350": gravity.NM_PER_A},
    "follower": {"XM540-W270": 10.6 / 4.4, "XM430-W350": 4.1 / 2.3},
}
"""Torque of one servo by its current: stall torque over stall current at 12 V (e-manual); leaders as they are carried.
"""
FRICTION_NM: Mapping[str, float] = {"XM540-W270": 0.21, "XM430-W350": 0.08}
"""Of one servo's gears: 2 % of its stall torque."""
FRICTION_SHARE = 1.5
"""Friction may be half as much again: cold grease, a new arm."""
TORQUE_SHARE = 0.15
"""Of the weight: how far torque constant and masses may be from the published ones."""
SLACK_NM = 0.05
"""Cables, and the noise of a current (2 units of 2.69 mA)."""
STILL_RAD_S = 0.03
SETTLES_NS = 300 * MS
"""Currents are averaged so long, while nothing moves."""
NOTHING_MA = 15.0
"""Where no joint that should bear weight draws more, the arm lies on something, and says nothing about its zero."""
DOUBT = "fit the pose that its servos report"
"""Every doubt says this."""
SUSPECTED_TICKS = (-1024, -512, -256, 256, 512, 1024)
"""Zeros that a horn mounted a bolt hole off, or a left-over Homing_Offset, gives: it is tried which explains what is
seen."""
SUSPECTS = ("shoulder", "elbow", "forearm_roll", "wrist_angle")


class ArmZeros:
    """What is known of one arm. `name`: for messages; `servos`: by which the torque of each joint is known."""

    def __init__(self, name: str, role: Role, servos: Sequence[Servo]) -> None:
        self._name, self._links = name, LINKS[role]
        masters = {servo.joint: servo for servo in servos if servo.shadow_of is None}
        known = [
            joint
            for joint in BEARING
            if MODEL_BY_NAME[masters[joint].model].has_current and masters[joint].model in NM_PER_A[role]
        ]
        self._index = [ARM_JOINTS.index(joint) for joint in known]
        count = [1 + sum(servo.shadow_of == masters[joint].id for servo in servos) for joint in known]
        models = [masters[joint].model for joint in known]
        self._nm_per_ma = np.array([n * NM_PER_A[role][model] / 1000 for n, model in zip(count, models, strict=True)])
        self._friction = np.array([n * FRICTION_NM[model] for n, model in zip(count, models, strict=True)])

    def doubt(self, angles: NDArray[np.float64], currents_ma: NDArray[np.float64]) -> str:
        """Which joint's zero is doubtful of a still arm at `angles` (6,) rad whose masters draw `currents_ma` (6,), and
        what to do; empty when all fits."""
        drawn = currents_ma[self._index]
        if not self._index or (np.abs(drawn) < NOTHING_MA).all() or not np.isfinite(drawn).all():
            return ""
        torques = drawn * self._nm_per_ma
        if self._misfit(angles, torques) <= 0:
            return ""
        misfits = {}
        for joint in SUSPECTS:
            for ticks in SUSPECTED_TICKS:
                other = angles.copy()
                other[ARM_JOINTS.index(joint)] -= ticks * RAD_PER_TICK
                misfits[joint, ticks] = self._misfit(other, torques)
        least = min(misfits.values())
        likely = list(dict.fromkeys(joint for (joint, _), misfit in misfits.items() if misfit <= max(0.0, least)))
        worst = int(np.argmax(self._excess(angles, torques)))
        expected = self._borne(angles)[worst]
        return (
            f"{self._name}: {ARM_JOINTS[self._index[worst]]} bears {torques[worst]:+.1f} Nm, and {expected:+.1f} Nm"
            f" {DOUBT}: look whether it really stands so; if not, the zero of {' or '.join(likely)} is wrong:"
            " park the arms, then `aloha setup --only zero`; if it does, see what holds or loads the arm"
        )

    def _borne(self, angles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Torques that the motors of the joints that bear weight give in a pose, without friction."""
        borne: NDArray[np.float64] = -gravity.weight_torques(angles, self._links)[self._index]
        return borne

    def _excess(self, angles: NDArray[np.float64], torques: NDArray[np.float64]) -> NDArray[np.float64]:
        """What friction and the model's own error do not explain (Nm), below 0 where they do."""
        borne = self._borne(angles)
        allowed = FRICTION_SHARE * self._friction + TORQUE_SHARE * np.abs(borne) + SLACK_NM
        excess: NDArray[np.float64] = np.abs(torques - borne) - allowed
        return excess

    def _misfit(self, angles: NDArray[np.float64], torques: NDArray[np.float64]) -> float:
        return float(self._excess(angles, torques).max())


class ZeroWatch:
    """Looks at a pair of arms after each ramp. Once they have stood still, `doubt` says what does not fit."""

    def __init__(self, role: Role, servos: Mapping[Side, Sequence[Servo]]) -> None:
        self._arms = {side: ArmZeros(f"{role}_{side}", role, chain) for side, chain in servos.items()}
        self.doubt = ""
        """Of the last look; empty when all fitted."""
        self._forget()

    def _forget(self) -> None:
        self._since_ns: int | None = None
        self._sum: Vector | None = None
        self._count, self._looked = 0, False

    def update(self, now_ns: int, waits: bool, position: Vector, velocity: Vector, effort_ma: Vector) -> bool:
        """See one cycle: (14,) vectors of the pair. `waits`: the arms have arrived and nothing moves them. True when
        this cycle brought a new doubt."""
        arms = np.concatenate([np.arange(part.start, part.stop - 1) for part in SIDE_SLICE.values()])
        if not waits or (np.abs(velocity[arms]) > STILL_RAD_S).any():
            if not waits:
                self.doubt = ""
            self._forget()
            return False
        if self._looked:
            return False
        self._since_ns = now_ns if self._since_ns is None else self._since_ns
        self._sum = effort_ma.copy() if self._sum is None else self._sum + effort_ma
        self._count += 1
        if now_ns - self._since_ns < SETTLES_NS:
            return False
        self._looked, mean = True, self._sum / self._count
        said = [
            arm.doubt(position[SIDE_SLICE[side]][:-1], mean[SIDE_SLICE[side]][:-1]) for side, arm in self._arms.items()
        ]
        self.doubt = "; ".join(filter(None, said))
        return bool(self.doubt)
