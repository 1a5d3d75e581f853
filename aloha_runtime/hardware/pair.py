"""Two arms of one role as the contract's 14 numbers: grippers normalised, both buses used at the same time."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from aloha_runtime.dynamixel.registers import describe_hardware_error
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.base import Arm, ArmReading, ArmSilentError, ArmVector, Switched, Unread
from aloha_runtime.hardware.steps import Steps, together
from aloha_runtime.messages import MS, NOT_NAMED_YET
from aloha_runtime.robot import DOF, GRIPPER_INDEX, GRIPPER_TURN_RAD, JOINTS, SIDE_SLICE, Gripper, Side, Vector
from aloha_runtime.stillness import Stillness, is_stall

FEED_NS = 20 * MS
"""An arm that waits while the torque of the other one is switched hears something this often: a fifth of what its
servos' watchdog waits."""
NEVER_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class PairReading:
    """State of both arms in one cycle, vectors (14,) in contract order.

    `position`: rad, grippers in state convention (finger position). `present`: the same in action convention (motor
    angle), which goals are compared with. `errors`: `left_elbow` -> hardware error bits.
    """

    stamp_ns: int
    position: Vector
    present: Vector
    velocity: Vector
    effort_ma: Vector
    errors: dict[str, int]


class ArmPair:
    """The arms of one role by side.

    A side that the rig does not have reads as where its goal is, at first as `absent`, (14,) in action convention.
    """

    def __init__(self, arms: Mapping[Side, Arm], grippers: Mapping[Side, Gripper], absent: Vector) -> None:
        """`grippers`: of both sides, each with the range measured on its arm."""
        self.arms = dict(arms)
        self._grippers = dict(grippers)
        self._absent = absent.copy()
        self._newest: dict[Side, ArmReading] = {}

    def connect(self) -> None:
        """Connect every arm, left first, and let none wait past its watchdog for another; raises HardwareError."""
        for arm in self.arms.values():
            arm.connect(hold=False)
        held = self._together({side: arm.hold_steps() for side, arm in self.arms.items()})
        if held.failure is not None:
            raise held.failure

    def disconnect(self) -> None:
        """Give the ports back; torque stays as it is."""
        for arm in self.arms.values():
            arm.disconnect()

    def torque(self, on: bool, grippers: bool | None = None, again: bool = False) -> Switched:
        """Torque of all joints; `grippers` where they differ. Of both arms together: what fails for one does not keep
        the other from it, nor waiting past its servos' watchdog. `again`: as of `Arm.torque_steps`."""
        return self._together({side: arm.torque_steps(on, grippers, again) for side, arm in self.arms.items()})

    def carry(self, currents_ma: Vector) -> Switched:
        """Current control of both arms with these currents (14,)."""
        return self._together({side: arm.carry_steps(currents_ma[SIDE_SLICE[side]]) for side, arm in self.arms.items()})

    def reset_gripper(self, name: str) -> Switched:
        """Restart the gripper servo of the arm with this name; the other arm is fed meanwhile."""
        return self._together({side: arm.reset_gripper_steps() for side, arm in self.arms.items() if arm.name == name})

    def names(self) -> list[str]:
        """The arms of this pair, such as `follower_left`."""
        return [arm.name for arm in self.arms.values()]

    def _together(self, works: Mapping[Side, Steps[Switched]]) -> Switched:
        fed_ns = dict.fromkeys(set(self.arms) - set(works), 0)
        """Arms that wait for the other one, and when they were last fed."""

        def feed() -> int:
            for side, at_ns in fed_ns.items():
                if time.monotonic_ns() >= at_ns + FEED_NS:
                    self.arms[side].feed()
                    fed_ns[side] = time.monotonic_ns()
            return min(fed_ns.values(), default=NEVER_NS) + FEED_NS

        found = together(works, lambda side: fed_ns.update({side: 0}), feed)
        goals = np.full(DOF, np.nan)
        for side, index in zip(SIDE_SLICE, GRIPPER_INDEX, strict=True):
            if side in found:
                goals[SIDE_SLICE[side]] = found[side].goals
                goals[index] = self._grippers[side].action_from_angle(float(goals[index]))
                self._forget(side, found[side].goals)
        failures = [switched.failure for switched in found.values() if switched.failure is not None]
        if not failures:
            return Switched(goals)
        silent = any(isinstance(error, ArmSilentError) for error in failures)
        return Switched(goals, (ArmSilentError if silent else HardwareError)("; ".join(map(str, failures))))

    def _forget(self, side: Side, goals: ArmVector) -> None:
        """No reading of before counts: torque may have changed what the servos say of the same place."""
        if side in self._newest:
            angles = np.where(np.isfinite(goals), goals, self._newest[side].angles)
            self._newest[side] = replace(self._newest[side], angles=angles)

    def turned(self) -> str:
        """Which joints a hand has turned by whole turns, and what to do; empty when none."""
        remedy = "support the arm, switch its power off, turn the joint back, switch it on, then start again"
        return "; ".join(
            f"{arm.name}: {joint} was turned by {turns:+d} turn without torque, its cable with it; {remedy}"
            for arm in self.arms.values()
            for joint, turns in arm.turned.items()
        )

    def cycle(self, goal: Vector | None, deadline_ns: int, currents_ma: Vector | None = None) -> PairReading | None:
        """Send goals ((14,) in action convention, None: none) to both arms and read both by `deadline_ns` (monotonic).

        After `carry`, `currents_ma` (14,) in place of goals.

        None when an arm did not answer completely; the arms' own `counts` and `silent` say why.
        """
        if goal is not None:
            self._follow(goal)
        for side, arm in self.arms.items():
            arm.request(
                None if goal is None else self._motor_angles(side, goal[SIDE_SLICE[side]]),
                None if currents_ma is None else currents_ma[SIDE_SLICE[side]],
            )
        complete = True
        for side, arm in reversed(self.arms.items()):  # when the last one asked has answered, so has the other
            reading = arm.collect(deadline_ns)
            if reading is None:
                complete = False
            else:
                self._newest[side] = reading
        return self._combine() if complete else None

    def newest(self) -> PairReading | None:
        """What each arm said last, however long ago; None before one of them has said anything."""
        return self._combine() if len(self._newest) == len(self.arms) else None

    def _follow(self, goal: Vector) -> None:
        """Sides that are not there are where they are told to be, so that nobody waits for them."""
        for side in SIDE_SLICE:
            if side not in self.arms:
                self._absent[SIDE_SLICE[side]] = goal[SIDE_SLICE[side]]

    def holding(self) -> bool:
        """True when any servo of the pair has torque."""
        return any(arm.holding for arm in self.arms.values())

    def rearm_cause(self) -> str:
        """Why goals would not be obeyed by some servo now; empty when they would."""
        causes = {arm.name: arm.rearm_cause for arm in self.arms.values() if arm.rearm_cause}
        stalls = [cause for cause in causes.values() if is_stall(cause)]
        return "; ".join([*stalls[:1], *(f"{arm}: {cause}" for arm, cause in causes.items() if not is_stall(cause))])

    def unreadable(self) -> HardwareError:
        """The error of a pair that connects but cannot be read."""
        counts = "; ".join(f"{arm.name}: {dict(arm.counts)}" for arm in self.arms.values())
        return HardwareError(f"the arms answer singly but not in a cycle ({counts}); check the servo cables")

    def describe(self, errors: Mapping[str, int]) -> str:
        """Hardware errors for people: each joint with its error and what to do."""
        said = []
        for joint, bits in errors.items():
            side, _, name = joint.partition("_")
            arm = next(arm.name for key, arm in self.arms.items() if key == side)
            remedy = f"support {arm}, switch its power off and on, then `aloha arm`"
            if name == JOINTS[-1]:
                remedy = f"free its fingers, then `aloha reset-gripper {arm}`"
            said.append(f"{joint}: {describe_hardware_error(bits)}; {remedy}")
        return ", ".join(said)

    def silent(self, now_ns: int, longer_than_ns: int, stillness: Stillness) -> str:
        """Who is unplugged or has not answered for so long, and what to do; empty when all answer. Where the computer
        stood still meanwhile, it says that, and names nobody."""
        found, excuse = [], ""
        for arm in self.arms.values():
            if not arm.connected:
                found.append(f"{arm.name}: {arm.rearm_cause}, then `aloha arm`")
                continue
            unread = arm.unread(now_ns)
            if unread.ns <= longer_than_ns:
                continue
            if excused := stillness.excuse(unread.ns, now_ns, longer_than_ns):
                excuse = excused
            else:
                found.append(f"{arm.name}: {_who_is_silent(arm, unread, now_ns)}, then `aloha arm`")
        return "; ".join(found) or excuse

    def unknown(self) -> tuple[float, str]:
        """Of which servos temperature, voltage and watchdog are not known now: the age in seconds of the oldest, and
        what to do; 0 and empty when they are."""
        oldest_s, found = 0.0, []
        for arm in self.arms.values():
            if ages := arm.unknown():
                age_s = max(ages.values())
                whose = "every servo" if len(ages) == len(arm.joints) else ", ".join(ages)
                found.append(
                    f"{arm.name}: temperature, voltage and watchdog of {whose} have not been heard for {age_s:.1f} s; "
                    "check the servo cables, then `aloha arm`"
                )
                oldest_s = max(oldest_s, age_s)
        return oldest_s, "; ".join(found)

    def temperatures(self) -> dict[str, float]:
        """`left_elbow`, `left_elbow_shadow`, ... -> degrees Celsius, for those that are known."""
        return {f"{side}_{joint}": c for side, arm in self.arms.items() for joint, c in arm.temperatures().items()}

    def figures(self) -> dict[str, float]:
        """Temperatures, hardware errors and counted events of both arms, for the health report."""
        found = {f"temperature_{joint}_c": celsius for joint, celsius in self.temperatures().items()}
        for side, arm in self.arms.items():
            found |= {f"{side}_{event}": count for event, count in arm.counts.items()}
        for side, reading in self._newest.items():
            found |= {f"error_{side}_{joint}_bits": bits for joint, bits in reading.errors.items()}
        return found

    def _motor_angles(self, side: Side, goal: Vector) -> Vector:
        angles = goal.copy()
        angle = self._grippers[side].angle_from_action(float(goal[-1]))
        angles[-1] = min(max(angle, GRIPPER_TURN_RAD[0]), GRIPPER_TURN_RAD[1])
        return angles

    def _combine(self) -> PairReading:
        position, velocity, effort = self._absent.copy(), np.zeros(DOF), np.zeros(DOF)
        errors = {}
        for side, reading in self._newest.items():
            part = SIDE_SLICE[side]
            position[part], velocity[part], effort[part] = reading.angles, reading.velocities, reading.efforts_ma
            errors.update({f"{side}_{joint}": bits for joint, bits in reading.errors.items()})
        present = position.copy()
        for side, index in zip(SIDE_SLICE, GRIPPER_INDEX, strict=True):
            gripper = self._grippers[side]
            if side in self._newest:
                present[index] = gripper.action_from_angle(float(position[index]))
            angle = gripper.angle_from_action(float(present[index]))
            position[index] = gripper.state_from_angle(angle)
            velocity[index] *= gripper.slope(angle) / (gripper.position_open - gripper.position_close)
        stamp_ns = min(reading.stamp_ns for reading in self._newest.values())
        return PairReading(stamp_ns, position, present, velocity, effort, errors)


def _who_is_silent(arm: Arm, unread: Unread, now_ns: int) -> str:
    """Who of an arm that cannot be read is silent, and what to check."""
    if not unread.certain:
        return f"{NOT_NAMED_YET} ({unread.ns // MS} ms)"
    silent = arm.silent(now_ns)
    if not silent:
        why = f"every servo answers, but too late or damaged, for {unread.ns // MS} ms"
        return f"{why}; check its USB cable and hub, and the latency timer with `aloha doctor`"
    if len(silent) == len(arm.joints):
        return f"no servo answers for {unread.ns // MS} ms; check its power and USB"
    names = ", ".join(f"{joint} silent for {s * 1e3:.0f} ms" for joint, s in silent.items())
    return f"{names}; check the cable into the first of them"
