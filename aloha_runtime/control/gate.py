"""The last gate beside the motors: decides, in every cycle of the arms process, which goal the servos get.

Whoever commands, and whatever arrives:

- An action that is not 14 finite numbers is refused as a whole; three in a row end the motion.
- An action moves a joint at most `lead` away from where the joint stands when the action arrives. So whatever dies
  after it, no joint travels further than `lead` (0.10 rad).
- No fresh action for `hold_after` (60 ms): the goal stays where it is. By then it has come to rest at the last target
  by itself, or else it stops at once. Back within 500 ms the motion goes on under the same limits; later only the
  operator can go on.
- A goal at rest is not stubborn: when something pushes a joint further than `lead` away, the goal yields and stays
  there, so that the force stays bounded and nothing snaps back on release. An arm's own weight cannot do that, because
  every pose was reached under the same lead.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from aloha_runtime.control.limits import Limits
from aloha_runtime.control.trajectory import Tracker
from aloha_runtime.messages import MS
from aloha_runtime.robot import DOF, IS_GRIPPER, NAMES, TICK_NS, Vector

RAMP_SPEED_RAD_S = 0.6
"""Ramps to the start and sleep poses: 1.4 s between them, slow enough to step back from."""
RAMP_GRIPPER_S = 1.0
"""Openings per second in a ramp."""
ARRIVED = 1e-3
"""rad (openings): below the servos' resolution of 0.0015 rad."""
SETTLED_RAD = 0.08
"""A joint this near has arrived: more than an arm sags under its weight, less than the lead."""

_WHO = "see in `aloha status` which process should send it, then arm again"


@dataclass(frozen=True)
class GateTiming:
    """When the gate gives up. All in ns except the count."""

    period_ns: int = 5 * MS
    """Cycle of the arms process."""
    hold_after_ns: int = 60 * MS
    """Three ticks without a fresh action."""
    resume_within_ns: int = 500 * MS
    """A longer silence needs the operator."""
    first_action_within_ns: int = 3000 * MS
    """After `follow`, before anything moves: a policy's first inference is slow."""
    future_ns: int = TICK_NS
    """A stamp further ahead is no stamp of this clock."""
    present_within_ns: int = 100 * MS
    """Longest time without a finite joint position."""
    invalid_in_row: int = 3


@dataclass(frozen=True, slots=True)
class Target:
    """An action as it arrived: `position` should be 14 numbers in action convention; the gate checks.

    `stamp_ns`: when it was computed. `period_ns`: how far apart such actions are (50 Hz policy, 200 Hz teleoperation).
    """

    position: Any
    stamp_ns: int
    tick: int = -1
    period_ns: int = TICK_NS


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
    limited: int
    """Bit i set: a limit changed number i in this cycle."""
    motion: Motion
    settled: bool
    """The last ramp has arrived."""
    hold_cause: str
    """Why the motion ended by itself; empty when it did not. Kept until the next `follow`, `ramp` or `freeze`."""
    target: Vector | None
    """The action that drives the goal, as commanded; None when none does."""
    action_tick: int
    action_stamp_ns: int


@dataclass
class GateCounters:
    """What happened since the process started, in cycles or actions."""

    cycles: int = 0
    late_cycles: int = 0
    limited_cycles: int = 0
    bad_present: int = 0
    accepted: int = 0
    invalid: int = 0
    stale: int = 0
    repeated: int = 0
    disordered: int = 0
    from_future: int = 0
    ignored: int = 0
    pauses: int = 0
    resumes: int = 0
    holds: int = 0


@dataclass
class _Stream:
    """The stream of actions since `follow`."""

    began_ns: int = 0
    fresh_ns: int = -1
    """Stamp of the newest accepted action; -1: none yet."""
    tick: int = -1
    seen: tuple[int, int] = (-1, -1)
    """Stamp and tick of the newest action looked at."""
    invalid_in_row: int = 0
    target: Vector | None = None
    clipped: Vector = field(default_factory=lambda: np.zeros(DOF, dtype=bool))


class Gate:
    """See the module. Time is the caller's; `step` once per cycle, everything else when the mode changes."""

    def __init__(self, limits: Limits, present: Vector, now_ns: int, timing: GateTiming | None = None) -> None:
        """At rest at `present` (14,), action convention. Check `limits.outside(present)` before torque goes on."""
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
        self._stream = _Stream()
        self._ramp_deadline_ns = 0
        self._pose = self._tracker.goal.copy()

    @property
    def goal(self) -> Vector:
        """The last goal (14,); a copy."""
        return self._tracker.goal.copy()

    def freeze(self, present: Vector) -> None:
        """Goal to the present position (14,), at rest: while torque is off, and at the moment it goes on."""
        self._tracker.place(present)
        self._enter(Motion.FROZEN)

    def hold(self) -> None:
        """Goal stays where it is, from this cycle on: STOP, HOLD, FAULT. Keeps `hold_cause`."""
        cause = self.hold_cause
        self._tracker.rest()
        self._enter(Motion.FROZEN)
        self.hold_cause = cause

    def follow(self, now_ns: int) -> None:
        """Follow actions computed from now on."""
        self._tracker.rest()
        self._enter(Motion.FOLLOW)
        self._stream = _Stream(began_ns=now_ns)

    def ramp(self, now_ns: int, pose: Vector, speed_rad_s: float = RAMP_SPEED_RAD_S) -> None:
        """Move to a pose (14,) at bounded speed, all joints arriving together; `settled` says when.

        Raises ValueError for a pose that is not 14 finite numbers.
        """
        end = _numbers(pose)
        if isinstance(end, str):
            raise ValueError(f"ramp: {end}")
        self._pose = np.minimum(np.maximum(end, self.limits.low), self.limits.high)
        self._tracker.rest()
        self._enter(Motion.RAMP)
        scale = speed_rad_s / RAMP_SPEED_RAD_S
        speed = np.where(IS_GRIPPER, RAMP_GRIPPER_S * scale, speed_rad_s)
        duration_ns = int(1e9 * float((np.abs(self._pose - self._tracker.goal) / speed).max()))
        self._tracker.aim(now_ns, duration_ns, self._pose, speed)
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
            elif self.motion is not Motion.FOLLOW or self._stream.target is None:
                self._tracker.stay()
        return self._output()

    def _enter(self, motion: Motion) -> None:
        self.motion = motion
        self.settled = False
        self.hold_cause = ""
        self._stream.target = None
        self._stream.clipped[:] = False

    def _end(self, cause: str) -> None:
        self.counters.holds += 1
        self._tracker.rest()
        self._enter(Motion.FROZEN)
        self.hold_cause = cause

    def _look_at(self, present: Vector, now_ns: int) -> None:
        """Take a present position, or keep the last finite one."""
        # One number tells: a sum of squares is finite only when all of them are.
        if present.shape == (DOF,) and math.isfinite(float(present @ present)):
            self._present[:] = present
            self._present_ns = now_ns
            return
        self.counters.bad_present += 1

    def _consider(self, now_ns: int, allowed_ns: int, target: Target) -> None:
        """Aim at an action, or count why not."""
        stream, counters = self._stream, self.counters
        if self.motion not in (Motion.FOLLOW, Motion.PAUSED):
            counters.ignored += 1
            return
        if (target.stamp_ns, target.tick) == stream.seen:
            counters.repeated += 1
            return
        stream.seen = (target.stamp_ns, target.tick)
        position = _numbers(target.position)
        if isinstance(position, str):
            counters.invalid += 1
            stream.invalid_in_row += 1
            if stream.invalid_in_row >= self.timing.invalid_in_row:
                self._end(f"{stream.invalid_in_row} actions in a row were refused, the last because {position}")
            return
        if target.stamp_ns > now_ns + self.timing.future_ns:
            counters.from_future += 1
        elif target.stamp_ns <= max(stream.fresh_ns, stream.began_ns - 1):
            counters.disordered += 1
        elif now_ns - target.stamp_ns >= self.timing.hold_after_ns:
            counters.stale += 1
        else:
            self._accept(now_ns, allowed_ns, target, position)

    def _accept(self, now_ns: int, allowed_ns: int, target: Target, position: Vector) -> None:
        stream, limits = self._stream, self.limits
        self.counters.accepted += 1
        stream.fresh_ns, stream.tick, stream.target = target.stamp_ns, target.tick, position
        stream.invalid_in_row = 0
        if self.motion is Motion.PAUSED:
            self.counters.resumes += 1
            self.motion = Motion.FOLLOW
        reach = np.minimum(np.maximum(position, self._present - limits.lead), self._present + limits.lead)
        reach = np.minimum(np.maximum(reach, limits.low), limits.high)
        stream.clipped = reach != position
        # The reference starts with the cycle that this action arrived in, so this cycle already moves.
        self._tracker.aim(now_ns - allowed_ns, target.period_ns + self.timing.period_ns, reach)

    def _watch(self, now_ns: int) -> None:
        """Freshness of positions and actions."""
        stream, timing = self._stream, self.timing
        if self.motion is Motion.FROZEN:
            return
        if now_ns - self._present_ns > timing.present_within_ns:
            blind_ms = (now_ns - self._present_ns) // MS
            self._end(f"no finite joint position for {blind_ms} ms; check power and cables of the arms")
        if self.motion not in (Motion.FOLLOW, Motion.PAUSED):
            return
        if stream.fresh_ns < 0:
            if now_ns - stream.began_ns > timing.first_action_within_ns:
                self._end(f"no action within {timing.first_action_within_ns // MS} ms; {_WHO}")
            return
        age_ns = now_ns - stream.fresh_ns
        if age_ns > timing.resume_within_ns:
            self._end(
                f"no action for {age_ns // MS} ms; see `aloha status` for the process that sends it, then arm again"
            )
        elif age_ns >= timing.hold_after_ns and self.motion is Motion.FOLLOW:
            self.counters.pauses += 1
            self._tracker.rest()
            self.motion = Motion.PAUSED

    def _watch_ramp(self, now_ns: int) -> None:
        """Settled, or too late."""
        gap = np.where(IS_GRIPPER, 0.0, np.abs(self._pose - self._present))
        if self._tracker.arrived(now_ns, ARRIVED) and gap.max() <= SETTLED_RAD:
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
        stream = self._stream
        joints = self._tracker.limited | stream.clipped
        limited = int.from_bytes(np.packbits(joints, bitorder="little").tobytes(), "little")
        self.counters.limited_cycles += limited != 0
        following = stream.target is not None
        return GateOutput(
            goal=self._tracker.goal.copy(),
            limited=limited,
            motion=self.motion,
            settled=self.settled,
            hold_cause=self.hold_cause,
            target=stream.target,
            action_tick=stream.tick if following else -1,
            action_stamp_ns=stream.fresh_ns if following else 0,
        )


def _numbers(position: Any) -> Vector | str:
    """A (14,) float64 copy, or why it is not 14 finite numbers."""
    try:
        array = np.array(position)
    except (TypeError, ValueError, OverflowError):
        return "it is no list of numbers"
    if array.dtype.kind not in "fiu":
        return f"it holds {array.dtype} instead of numbers"
    if array.shape != (DOF,):
        return f"its shape is {array.shape} instead of ({DOF},)"
    finite = np.isfinite(array)
    if not finite.all():
        index = int(np.argmin(finite))
        return f"{NAMES[index]} is {array[index]}"
    return array.astype(np.float64)
