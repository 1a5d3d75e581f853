"""Motion between targets: which goal each cycle sends, under the limits, without ever passing what was commanded.

Two steps per cycle and joint, no look-ahead:

1. The *reference* runs in a straight line from where it is to the newest target and stays there. It takes one cycle
   longer than targets are apart, so that a target which is noticed one cycle late does not make the motion stutter.
2. The *goal* follows the reference at the highest speed v from which it can still stop there,

       v dt + v^2 / (2 b) <= |reference - goal|      =>      v = sqrt((b dt)^2 + 2 b |reference - goal|) - b dt

   (b: braking limit, dt: this cycle), capped by the velocity limit, gaining speed within the acceleration limit. The
   inequality leaves room for a next cycle of any length, so it holds under jitter.

Along a stream of constant velocity v the goal runs smoothly and reaches each target one tick after it came, plus
v / (2 b): 5.6 ms per rad/s by default. When the stream ends, it comes to rest on the last target without passing it.
"""

import numpy as np

from aloha_runtime.config_parts import ARM_LEAD_RAD, FULL_DRIVE_RAD
from aloha_runtime.control.limits import POSITION_MARGIN_RAD, Limits
from aloha_runtime.robot import DOF, IS_GRIPPER, Vector

FULL_DRIVE = np.where(IS_GRIPPER, np.inf, FULL_DRIVE_RAD)
FREED_S = 0.1
"""A goal whose servo gave all it has so lately may gain speed at the braking limit: longer than full speed takes within
the acceleration limit (83 ms). The servo then drives as it would with the action itself for its goal."""

YIELD_AFTER_S = 0.5
"""A goal at rest yields to what has kept its joint further than the lead away for so long. An arm that swings on under
its load when its goal stops is back sooner: its goal must not follow it down."""


class Tracker:
    """Goal, velocity and reference of all 14 joints. Arrays are reused: copy what is kept."""

    def __init__(self, limits: Limits, position: Vector) -> None:
        self.limits = limits
        self.goal = np.zeros(DOF)
        self.velocity = np.zeros(DOF)
        self.held_off = np.zeros(DOF, dtype=bool)
        """Joints whose goal the lead or a position limit kept off the reference in the last cycle."""
        self.shaped = np.zeros(DOF, dtype=bool)
        """Joints whose goal gained speed, or ran, as fast as the limits allow and would have gone faster."""
        self._free_s = np.full(DOF, np.inf)
        """How long ago each joint's servo gave all it has."""
        self._pushed_s = np.zeros(DOF)
        """For how long each joint has been further than its lead from its goal, at rest."""
        self._at_rest = True
        """The goal has nowhere to go: it stays, unless it yields."""
        self._rest_lead = np.where(IS_GRIPPER, limits.lead, np.maximum(limits.lead, ARM_LEAD_RAD))
        """A goal at rest yields beyond this alone, however short a lead the limits state: no load sinks by it."""
        slack = np.where(IS_GRIPPER, 0.0, POSITION_MARGIN_RAD)
        self._outermost = limits.low - slack, limits.high + slack
        """Where a joint may be held that got its torque there."""
        self._low, self._high = limits.low.copy(), limits.high.copy()
        """Of this cycle: the limits, and where a goal was found outside them that goal."""
        self._reference = np.zeros(DOF)
        self._start = np.zeros(DOF)
        self._end = np.zeros(DOF)
        self._start_ns = 0
        self._duration_ns = 1
        self._speed = limits.velocity
        self._twice_braking = 2.0 * limits.braking
        self._zero = np.zeros(DOF)
        self._scratch = tuple(np.zeros(DOF) for _ in range(9))
        self.place(position)

    def place(self, position: Vector) -> None:
        """At rest at a (14,) position, at most POSITION_MARGIN_RAD outside the limits: a jump, for arms without torque
        and for goals that the servos hold already. From outside a goal only comes in, with the next motion."""
        lowest, highest = self._outermost
        np.minimum(np.maximum(position, lowest), highest, out=self.goal)
        self.rest()

    def rest(self) -> None:
        """Stop the goal where it is, at once."""
        self.velocity[:] = 0.0
        self._reference[:] = self.goal
        self._end[:] = self.goal
        self._start[:] = self.goal
        self._speed = self.limits.velocity
        self._free_s[:] = np.inf
        self._at_rest = True

    def aim(self, start_ns: int, duration_ns: int, target: Vector, speed: Vector | None = None) -> None:
        """Let the reference run from where it is at `start_ns` to a (14,) target inside the position limits.

        `speed` (14,) caps the goal's velocity below the limits' own.
        """
        self._start[:] = self._reference
        self._end[:] = target
        self._start_ns, self._duration_ns = start_ns, max(duration_ns, 1)
        self._at_rest = False
        self._speed = self.limits.velocity if speed is None else np.minimum(speed, self.limits.velocity)

    def arrived(self, now_ns: int, tolerance: Vector) -> bool:
        """True when the reference has run out and every goal is within `tolerance` (rad, openings) of its end."""
        done = now_ns - self._start_ns >= self._duration_ns
        return done and bool((np.abs(self._end - self.goal) <= tolerance).all())

    def advance(self, now_ns: int, elapsed_s: float, allowed_s: float, present: Vector) -> None:
        """Move `goal` to its value for this cycle.

        `elapsed_s` > 0: time since the last cycle; `allowed_s`: the part of it in which the goal may move (less after a
        stall, which must not be made up in one jump). `present` (14,): where the joints are, in action convention.
        """
        limits, goal, reference = self.limits, self.goal, self._reference
        upper, lower, aim, wanted, braking, a, b, c, moved = self._scratch
        share = (now_ns - self._start_ns) / self._duration_ns
        if share >= 1.0:
            reference[:] = self._end
        else:
            np.subtract(self._end, self._start, out=reference)
            reference *= share
            reference += self._start

        # The lead: a band around the present position, of which the goal follows only the part inside the limits.
        lead = self._rest_lead if self._at_rest else limits.lead
        np.add(present, lead, out=upper)
        np.subtract(present, lead, out=lower)
        self._wait_to_yield(elapsed_s, lower, upper)
        np.minimum(np.maximum(reference, lower, out=aim), upper, out=aim)
        low, high = np.minimum(limits.low, goal, out=self._low), np.maximum(limits.high, goal, out=self._high)
        np.minimum(np.maximum(aim, low, out=aim), high, out=aim)

        # Highest speed from which the goal can still stop at `aim`.
        np.multiply(limits.braking, allowed_s, out=braking)
        np.subtract(aim, goal, out=a)
        np.multiply(np.abs(a, out=b), self._twice_braking, out=b)
        b += np.multiply(braking, braking, out=c)
        np.subtract(np.sqrt(b, out=b), braking, out=b)
        np.copysign(b, a, out=wanted)
        np.copysign(np.minimum(b, self._speed, out=b), a, out=moved)

        self._bound_change_of_speed(allowed_s, braking, moved)
        moved *= allowed_s
        moved += goal
        wanted *= allowed_s
        wanted += goal

        # Goals beyond the lead (the joint was pushed) may come back but not go further; stopping there is at once.
        np.minimum(moved, np.maximum(upper, goal, out=a), out=moved)
        np.maximum(moved, np.minimum(lower, goal, out=a), out=moved)
        # `aim` is inside the position limits already; this is for rounding, and for whatever is wrong above.
        np.minimum(np.maximum(moved, low, out=moved), high, out=moved)

        np.not_equal(aim, reference, out=self.held_off)
        np.not_equal(moved, wanted, out=self.shaped)
        self.shaped &= ~self.held_off
        self._free_s += elapsed_s
        np.abs(np.subtract(moved, present, out=a), out=a)
        self._free_s[a >= FULL_DRIVE] = 0.0
        np.subtract(moved, goal, out=a)
        np.multiply(a, 1.0 / elapsed_s, out=self.velocity)
        goal[:] = moved

    def _bound_change_of_speed(self, allowed_s: float, braking: Vector, speed: Vector) -> None:
        """Clip `speed` to what one cycle dt can reach from the velocity v, with `braking` = b dt.

        At most min(v + b dt, max(v, 0) + a dt): gaining speed at a, shedding it at b, and never both beyond a dt in one
        cycle. Downwards the mirror image. A goal whose servo gave all it has a moment ago gains speed at b as well:
        it has to be where the reference is when the drive depends on it again.
        """
        _, _, _, _, _, a, b, c, _ = self._scratch
        np.multiply(self.limits.acceleration, allowed_s, out=c)
        np.copyto(c, braking, where=self._free_s < FREED_S)
        np.add(np.maximum(self.velocity, self._zero, out=a), c, out=a)
        np.minimum(speed, np.minimum(a, np.add(self.velocity, braking, out=b), out=a), out=speed)
        np.subtract(np.minimum(self.velocity, self._zero, out=a), c, out=a)
        np.maximum(speed, np.maximum(a, np.subtract(self.velocity, braking, out=b), out=a), out=speed)

    def _wait_to_yield(self, elapsed_s: float, lower: Vector, upper: Vector) -> None:
        """Widen the band around the joints to a goal at rest that has not been out of it for long."""
        outside = (self.goal > upper) | (self.goal < lower)
        self._pushed_s += elapsed_s
        self._pushed_s[~outside] = 0.0
        if not self._at_rest:
            self._pushed_s[:] = 0.0
        elif outside.any():
            patient = outside & (self._pushed_s <= YIELD_AFTER_S)
            np.maximum(upper, self.goal, out=upper, where=patient)
            np.minimum(lower, self.goal, out=lower, where=patient)

    def stay(self) -> None:
        """Let the motion end where the goal is now, within the limits (unlike `rest`)."""
        self._at_rest = True
        self._reference[:] = self.goal
        self._end[:] = self.goal
        self._start[:] = self.goal
