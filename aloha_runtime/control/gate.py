"""The last gate beside the motors: decides, in every cycle of the arms process, which goal the servos get.

Whoever commands, and whatever arrives:

- An action that is not 14 finite numbers is refused as a whole; three in a row end the motion.
- An action moves a joint at most `REACH_RATIO` times `lead` (0.27 rad) away from where the joint stands when the action
  arrives, however far it points; and no goal leads a joint by more than `lead` (0.24 rad) in any cycle.
- No fresh action for `hold_after` (60 ms): the goal stays where it is. By then it has come to rest at the last target
  by itself, or else it stops at once. Back within 500 ms the motion goes on under the same limits; later only the
  operator can go on.
- A goal at rest is not stubborn: when something keeps a joint further than `lead` away for half a second, the goal
  yields and stays there, so that nothing snaps back on release. No load sinks by that: within the lead the servo
  already gives all the force that it has (`config_parts.ARM_LEAD_RAD`), so a goal that yields takes none of it away.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.control.limits import REACH_RATIO, Limits
from aloha_runtime.control.stream import ActionStream, GateCounters, GateTiming, Target, numbers
from aloha_runtime.control.trajectory import Tracker
from aloha_runtime.messages import MS
from aloha_runtime.robot import DOF, IS_GRIPPER, NAMES, Vector

__all__ = ["Gate", "GateCounters", "GateOutput", "GateTiming", "Motion", "Target"]

RAMP_SPEED_RAD_S = 0.6
"""Ramps to the start and sleep poses: 1.4 s between them, slow enough to step back from."""
RAMP_GRIPPER_S = 1.0
"""Openings per second in a ramp."""
ARRIVED = np.where(IS_GRIPPER, np.inf, 1e-3)
"""rad: below the servos' resolution of 0.0015 rad. A gripper may be stopped by what it holds and need not arrive."""
SETTLED_RAD = 0.08
"""A joint this near has arrived: more than an arm sags under its weight, less than the lead."""


class Motion(StrEnum):
    """What the goal does: stays, ramps to a pose, follows actions, or waits for actions to come back."""

    FROZEN = "frozen"
    RAMP = "ramp"
    FOLLOW = "follow"
    PAUSED = "paused"


class GateOutput(NamedTuple):
    """One cycle's goal and why it is what it is."""

    goal: Vector
    """(14,) in action convention; a copy."""
    held_off: int
    """Bit i set: number i was kept off what was asked for in this cycle, by the lead or a position limit."""
    shaped: int
    """Bit i set: number i moved as fast, or gained speed as fast, as it may, and will be where it was asked to be."""
    motion: Motion
    settled: bool
    """The last ramp has arrived."""
    hold_cause: str
    """Why the motion ended by itself; empty when it did not. Kept until the next order."""
    target: Vector | None
    """The action that drives the goal, as commanded; None when none does."""
    action_tick: int
    action_stamp_ns: int


class Gate:
    """See the module. Time is the caller's; `step` once per cycle, everything else when the mode changes."""

    def __init__(self, limits: Limits, present: Vector, now_ns: int, timing: GateTiming | None = None) -> None:
        """At rest at `present` (14,), action convention. Check `limits.outside(present)` before torque goes on.

        Raises ValueError for a position that is not 14 finite numbers.
        """
        if not _is_finite(present):
            raise ValueError(f"the arms' position is {present}; check their servos")
        self.limits = limits
        self.timing = timing or GateTiming()
        self.counters = GateCounters()
        self.motion = Motion.FROZEN
        self.settled = False
        self.hold_cause = ""
        self._tracker = Tracker(limits, present)
        self._present = np.array(present, dtype=np.float64)
        self._present_ns = now_ns
        self._now_ns = now_ns
        self._stream: ActionStream | None = None
        self._reach = REACH_RATIO * limits.lead
        self._clipped = np.zeros(DOF, dtype=bool)
        self._ramp_deadline_ns = 0
        self._pose = self._tracker.goal.copy()
        self._later: list[Vector] = []
        """Poses of the ramp under way that come after `_pose`."""
        self._ramp_speed = self._tracker.goal.copy()

    @property
    def goal(self) -> Vector:
        """The last goal (14,); a copy."""
        return self._tracker.goal.copy()

    def freeze(self, present: Vector) -> None:
        """Goal to the present position (14,), at rest: while torque is off, and at the moment it goes on. A joint that
        stands outside its limits, by no more than `limits.POSITION_MARGIN_RAD`, is held there; its goal only comes in.

        Where the position is not finite, the last one that was is taken.
        """
        self._tracker.place(present if _is_finite(present) else self._present)
        self._enter(Motion.FROZEN)

    def hold(self) -> None:
        """Goal stays where it is, from this cycle on: STOP, HOLD, FAULT."""
        self._tracker.rest()
        self._enter(Motion.FROZEN)

    def follow(self, now_ns: int) -> None:
        """Follow actions computed from now on."""
        self._tracker.rest()
        self._enter(Motion.FOLLOW)
        self._stream = ActionStream(self.timing, self.counters, now_ns)

    def ramp(
        self, now_ns: int, pose: Vector, speed_rad_s: float = RAMP_SPEED_RAD_S, via: Sequence[Vector] = ()
    ) -> None:
        """Move to a pose (14,) at bounded speed, all joints arriving together; `settled` says when. `via`: poses to go
        to before, each settled before the next.

        Raises ValueError for a pose that is not 14 finite numbers, or a speed that is not above 0.
        """
        stages = []
        for stage in (*via, pose):
            end = numbers(stage)
            if isinstance(end, str):
                raise ValueError(f"ramp: the pose cannot be used, because {end}")
            stages.append(np.minimum(np.maximum(end, self.limits.low), self.limits.high))
        if not speed_rad_s > 0:
            raise ValueError(f"ramp: the speed is {speed_rad_s} rad/s; it must be above 0")
        scale = speed_rad_s / RAMP_SPEED_RAD_S
        speed = np.minimum(np.where(IS_GRIPPER, RAMP_GRIPPER_S * scale, speed_rad_s), self.limits.velocity)
        self._ramp_speed = speed
        self._enter(Motion.RAMP)
        self._later = stages
        self._next_stage(now_ns)

    def _next_stage(self, now_ns: int) -> None:
        """Set out for the next pose of the ramp, from where the goal is."""
        self._pose = self._later.pop(0)
        self._tracker.rest()
        duration_ns = int(1e9 * float((np.abs(self._pose - self._tracker.goal) / self._ramp_speed).max()))
        self._tracker.aim(now_ns, duration_ns, self._pose, self._ramp_speed)
        self._ramp_deadline_ns = now_ns + 2 * duration_ns + 2000 * MS

    def step(self, now_ns: int, present: Vector, target: Target | None = None) -> GateOutput:
        """One cycle: the goal to send now.

        `present` (14,) in action convention; `target` the action that arrived since the last cycle, or the newest one
        again: a repeated action is recognised by stamp and tick.
        """
        elapsed_ns = now_ns - self._now_ns
        self._look_at(present, now_ns)
        if elapsed_ns > 0:
            self._now_ns = now_ns
            self.counters.cycles += 1
            # After a stall the goal has stood still: it goes on at the limits of one or two cycles, never in one jump.
            allowed_ns = min(elapsed_ns, 2 * self.timing.period_ns)
            self.counters.late_cycles += elapsed_ns > allowed_ns
            if target is not None:
                self._consider(now_ns, allowed_ns, target)
            self._watch(now_ns)
            self._tracker.advance(now_ns, elapsed_ns * 1e-9, allowed_ns * 1e-9, self._present)
            if self.motion is Motion.RAMP:
                self._watch_ramp(now_ns)
            elif self.motion is not Motion.FOLLOW or self._stream is None or self._stream.newest is None:
                self._tracker.stay()
        return self._output()

    def _enter(self, motion: Motion) -> None:
        self.motion = motion
        self.settled = False
        self.hold_cause = ""
        self._stream = None
        self._clipped[:] = False

    def _end(self, cause: str) -> None:
        self.counters.holds += 1
        self._tracker.rest()
        self._enter(Motion.FROZEN)
        self.hold_cause = cause

    def _look_at(self, present: Vector, now_ns: int) -> None:
        """Take a present position, or keep the last finite one."""
        if _is_finite(present):
            self._present[:] = present
            self._present_ns = now_ns
        else:
            self.counters.bad_present += 1

    def _consider(self, now_ns: int, allowed_ns: int, target: Target) -> None:
        """Aim at an action, when actions are followed and this one is fit."""
        if self._stream is None:
            self.counters.ignored += 1
            return
        position = self._stream.take(now_ns, target)
        if isinstance(position, str):
            if position:
                self._end(position)
            return
        if self.motion is Motion.PAUSED:
            self.counters.resumes += 1
            self.motion = Motion.FOLLOW
        limits = self.limits
        reach = np.minimum(np.maximum(position, self._present - self._reach), self._present + self._reach)
        reach = np.minimum(np.maximum(reach, limits.low), limits.high)
        np.not_equal(reach, position, out=self._clipped)
        # The reference starts with the cycle that this action arrived in, so this cycle already moves.
        self._tracker.aim(now_ns - allowed_ns, target.period_ns + self.timing.period_ns, reach)

    def _watch(self, now_ns: int) -> None:
        """Freshness of positions and actions."""
        blind_ns = now_ns - self._present_ns
        if self.motion is not Motion.FROZEN and blind_ns > self.timing.present_within_ns:
            self._end(f"no finite joint position for {blind_ns // MS} ms; check power and cables of the arms")
        if self._stream is None:
            return
        cause = self._stream.silence(now_ns)
        if cause:
            self._end(cause)
        elif self.motion is Motion.FOLLOW and self._stream.pauses(now_ns):
            self.counters.pauses += 1
            self._tracker.rest()
            self.motion = Motion.PAUSED

    def _watch_ramp(self, now_ns: int) -> None:
        """Settled, on with the next stage, or too late."""
        gap = np.where(IS_GRIPPER, 0.0, np.abs(self._pose - self._present))
        if self._tracker.arrived(now_ns, ARRIVED) and gap.max() <= SETTLED_RAD:
            if self._later:
                self._next_stage(now_ns)
                return
            self._tracker.rest()
            self._enter(Motion.FROZEN)
            self.settled = True
        elif now_ns > self._ramp_deadline_ns:
            index = int(np.argmax(gap))
            self._end(
                f"{NAMES[index]} did not arrive: it stands at {self._present[index]:.3f} rad, the pose wants "
                f"{self._pose[index]:.3f} rad; look for what is in its way"
            )

    def _output(self) -> GateOutput:
        held_off, shaped = _bits(self._tracker.held_off | self._clipped), _bits(self._tracker.shaped & ~self._clipped)
        self.counters.held_off_cycles += held_off != 0
        self.counters.shaped_cycles += shaped != 0
        action = self._stream.newest if self._stream is not None else None
        return GateOutput(
            goal=self._tracker.goal.copy(),
            held_off=held_off,
            shaped=shaped,
            motion=self.motion,
            settled=self.settled,
            hold_cause=self.hold_cause,
            target=self._stream.position if self._stream is not None else None,
            action_tick=action.tick if action is not None else -1,
            action_stamp_ns=action.stamp_ns if action is not None else 0,
        )


def _bits(joints: NDArray[np.bool_]) -> int:
    """(14,) as a number, the first as its lowest bit."""
    return int.from_bytes(np.packbits(joints, bitorder="little").tobytes(), "little")


def _is_finite(position: Vector) -> bool:
    """True for 14 finite numbers. One number tells: a sum of squares is finite only when all of them are."""
    return position.shape == (DOF,) and math.isfinite(float(position @ position))
