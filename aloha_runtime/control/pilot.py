"""What a pair of arms does in each mode: torque, ramps, following. Pure; the arms process carries it out.

The pilot alone decides about torque, and by these rules an arm never falls because a program ended:

- torque goes on when ARMED begins; off at the end of PARK, and for leaders in TELEOP, where their servos may carry the
  arm's weight and nothing else;
- the servos say which goals they hold once they have it (`switched`), and only from there motion begins: where an arm
  stands is a sag below its goal, and not even that when torque has changed what its position says;
- IDLE, HOLD and FAULT change nothing for followers; leaders that a person may have let go of get their torque back;
- no ramp begins before a way is found that is clear of the table and of the other arm (`control/ramp.py`): until then
  the arms stay as they are, and where there is none they hold and say which joint a person should move;
- an order is carried out once. One that was given before this pilot started, before it was without the supervisor's
  word, or before it last held is void, whatever the supervisor repeats; so is everything that builds on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from aloha_runtime.control.gate import Gate, GateOutput, GateTiming, Motion, Target
from aloha_runtime.control.limits import Limits
from aloha_runtime.control.ramp import Planner, Turns, Way, moved_meanwhile, within_a_turn
from aloha_runtime.messages import MODE, MOVING, MS, POWERED, Mode, ModeHeartbeat
from aloha_runtime.robot import IS_GRIPPER, Pose, Role, Vector, pose_vector

GRIPPER_IN_POSE: dict[Role, float] = {"follower": 0.0, "leader": 0.5}
"""Openings in the start and sleep poses: followers closed, leaders half open so that a person can squeeze them."""


class Torque(StrEnum):
    """Which servos of the pair have torque."""

    OFF = "off"
    ON = "on"
    GRIPPERS_FREE = "grippers_free"
    CARRYING = "carrying"
    """The arm's weight is carried; a hand moves it."""


HEARD_WITHIN_NS = int(MODE.max_age_ms * MS)
"""The supervisor's word counts for so long."""
Begin = Callable[[int], None]
"""A motion that is given the time at which it begins."""
LIMP = (Torque.OFF, Torque.CARRYING)
"""No goal is sent: a person moves these arms, or nobody does."""


@dataclass(frozen=True, slots=True)
class Command:
    """One cycle's orders to the pair. `goal` (14,) in action convention, None while no goal may be sent."""

    goal: Vector | None
    torque: Torque
    mode: Mode
    settled: bool
    hold_cause: str
    gate: GateOutput
    rearm: bool = False
    """Switch torque on once more: the servos stopped obeying (watchdog, power cut) while they were held."""
    gripper: str = ""
    """Arm whose gripper servo is to be restarted now."""


class Pilot:
    """One pair of arms. Call `step` once per cycle; time is the caller's."""

    def __init__(
        self,
        role: Role,
        limits: Limits,
        start: Pose,
        sleep: Pose,
        present: Vector,
        now_ns: int,
        torque: Torque,
        timing: GateTiming,
        follows: bool = False,
        carries: bool = False,
        planner: Planner | None = None,
    ) -> None:
        """`torque` is how the servos were found; an arm that was found holding goes on holding. `follows`: leaders go
        where the followers go while a policy moves them. `carries`: leaders bear their own weight in TELEOP.
        `planner`: finds the way of every ramp; without one ramps are straight."""
        self.role = role
        self._follows = follows
        self._led = Torque.CARRYING if carries else Torque.OFF
        self.torque = torque
        self.gate = Gate(limits, present, now_ns, timing)
        self._poses = {
            "start": pose_vector(start, GRIPPER_IN_POSE[role]),
            "sleep": pose_vector(sleep, GRIPPER_IN_POSE[role]),
        }
        self.mode = Mode.IDLE
        self.order_ns = 0
        """The order taken up last (`ModeHeartbeat.order_ns`), carried out or refused; 0: none yet."""
        self._pose = ""
        self._heard_ns = now_ns
        self._void_ns, self._voided_by = now_ns, "these arms were started"
        self._cause = ""
        """Why this pair holds by itself; kept until the next order."""
        self._may_move = False
        self._rearm = False
        self._before = torque, False
        """The torque that the servos have been asked for, and `_may_move`, before the orders of this cycle."""
        self._gripper = ""
        self._begin: Begin | None = None
        """What begins once the servos have the torque that it needs."""
        self._planner = planner
        self._planning: Turns[Way] | None = None
        """The way to the pose of the last order is being sought; a turn of it in each cycle."""
        self._planned_from = self.gate.goal

    def step(
        self,
        now_ns: int,
        heartbeats: Sequence[ModeHeartbeat],
        present: Vector,
        target: Target | None,
        rearm_cause: str = "",
        trouble: str = "",
    ) -> Command:
        """Orders for this cycle. `heartbeats`: what has come from the supervisor since the last cycle, oldest first.
        `rearm_cause`: why the servos would not obey goals now; empty when they would. `trouble`: what else is wrong
        with the arms themselves (an error, a silent servo), on which both stop at once, before the supervisor has heard
        of it."""
        self._rearm, self._gripper, self._before = False, "", (self.torque, self._may_move)
        order_ns = self.order_ns
        for heartbeat in heartbeats:
            self._hear(now_ns, heartbeat, present, rearm_cause, trouble)
        if self.order_ns != order_ns:
            target = None  # of the order before, whatever its stamp says
        self._notice_silence(now_ns, present)
        self._plan_on(now_ns, present, rearm_cause)
        if self.mode in POWERED and (cause := trouble or self._disobedience(rearm_cause)):
            self._hold(now_ns, present, cause)
        if self.torque in LIMP:
            self.gate.freeze(present)
        output = self.gate.step(now_ns, present, target if self.mode in MOVING else None)
        if output.hold_cause and self.mode in POWERED:
            self._hold(now_ns, present, output.hold_cause)
            output = self.gate.step(now_ns, present)
        armed = self.mode is Mode.ARMED and output.motion is Motion.FROZEN and self._begin is None
        settled = (output.settled or armed) and self._planning is None
        if self.mode is Mode.ARMED and settled and self.role == "leader" and self._pose == "start":
            self.torque = Torque.GRIPPERS_FREE
        if self.mode is Mode.PARK and self._planning is None and (output.settled or self.torque is Torque.OFF):
            self.torque, settled = Torque.OFF, True
            self._may_move = False  # a parked arm stays without torque, whatever becomes of the supervisor
        return Command(
            goal=None if self.torque in LIMP else output.goal,
            torque=self.torque,
            mode=self.mode,
            settled=settled and not self._cause,
            hold_cause=self._cause,
            gate=output,
            rearm=self._rearm,
            gripper=self._gripper,
        )

    @property
    def planning(self) -> bool:
        """The way of the last order is still being sought; nothing has been switched for it."""
        return self._planning is not None

    def switched(self, now_ns: int, held: Vector, done: bool) -> None:
        """The servos have been switched: `held` (14,) are the goals that they hold now, NaN where nobody knows. `done`:
        every servo has what `step` asked for, so that what waited for it begins."""
        self._rearm = False
        self.gate.freeze(np.where(np.isfinite(held), held, self.gate.goal))
        begin, self._begin = self._begin, None
        if begin is not None and done:
            begin(now_ns)

    def _disobedience(self, rearm_cause: str) -> str:
        """Servos that do not obey while they should."""
        if self._planning is not None:
            return ""
        return "" if self.torque is Torque.OFF or self._rearm else rearm_cause

    def _hear(self, now_ns: int, heartbeat: ModeHeartbeat, present: Vector, rearm_cause: str, trouble: str) -> None:
        """Note that the supervisor speaks, and take up an order that is newer than the last."""
        self._notice_silence(heartbeat.stamp_ns, present)
        self._heard_ns = max(self._heard_ns, heartbeat.stamp_ns)
        if heartbeat.order_ns <= self.order_ns:
            return
        self.order_ns, self._pose, self._cause = heartbeat.order_ns, heartbeat.pose, ""
        self._planning, self._gripper = None, ""
        mode = Mode(heartbeat.mode)
        if mode not in POWERED:
            self._stand(present)
            self.mode = mode
            if heartbeat.asked_ns >= self._void_ns:
                self._gripper = heartbeat.gripper
            self._void_ns, self._voided_by = max(self._void_ns, heartbeat.asked_ns), mode.upper()
        elif heartbeat.asked_ns < self._void_ns:
            self._hold(now_ns, present, f"{mode.upper()} was asked for before {self._voided_by}; arm again")
        elif mode in MOVING:
            self._enter_moving(now_ns, mode, present)
        else:
            self.mode = mode
            if mode is Mode.ARMED or self._may_fall:
                self._enter_armed(now_ns, heartbeat.pose, present, rearm_cause, trouble)

    def _notice_silence(self, now_ns: int, present: Vector) -> None:
        """Without the supervisor's word nothing moves, and what was asked for before is void."""
        silence_ns = self._heard_ns + HEARD_WITHIN_NS
        if now_ns <= silence_ns:
            return
        if silence_ns > self._void_ns:
            self._void_ns, self._voided_by = silence_ns, "the supervisor was silent"
        if self.mode in POWERED:
            self._hold(now_ns, present, "the supervisor is silent; see whether it runs, then arm again")

    def _hold(self, now_ns: int, present: Vector, cause: str) -> None:
        """Hold by itself: the order that was being carried out, and every earlier one, is void."""
        self._planning = None
        self._stand(present)
        self.mode, self._cause = Mode.HOLD, cause
        self._void_ns, self._voided_by = max(self._void_ns, now_ns), "these arms held"

    @property
    def _may_fall(self) -> bool:
        """These arms have torque, or are leaders in the hands of a person, who may let go of them."""
        return self.torque is not Torque.OFF or self._may_move

    def _enter_armed(self, now_ns: int, pose: str, present: Vector, rearm_cause: str, trouble: str) -> None:
        switches = self.torque is not Torque.ON or bool(rearm_cause)
        refusal = trouble or (self._outside(present) if switches else "")
        if refusal:
            self._hold(now_ns, present, refusal)
        elif pose and self._planner is not None:
            self._stand(present)
            self._planned_from = self._standing(present, rearm_cause)
            self._planning = self._planner.plan(self._planned_from, self._goal_of(pose, self._planned_from), pose)
        else:
            self._planned_from = self._standing(present, rearm_cause)
            ways = (self._goal_of(pose, self.gate.goal),) if pose else ()
            self._set_out(now_ns, ways, present, switches)

    def _outside(self, present: Vector) -> str:
        """Which joint stands outside its range, and what a person does about it; empty when none."""
        refusal = self.gate.limits.outside(present)
        if refusal and self.torque is Torque.ON:
            refusal += "; where it has torque: support the arm, `aloha down`, then `aloha servo release` with its port"
        return refusal

    def _goal_of(self, pose: str, held: Vector) -> Vector:
        """Where a ramp to `pose` ends; what a gripper holds it goes on holding on the way to sleep."""
        goal = self._poses[pose].copy()
        if pose == "sleep":
            goal[IS_GRIPPER] = held[IS_GRIPPER]
        return goal

    def _plan_on(self, now_ns: int, present: Vector, rearm_cause: str) -> None:
        """Another turn of the search for a way; at its end set out, or hold and say why."""
        if self._planning is None:
            return
        try:
            next(self._planning)
        except StopIteration as stop:
            way: Way = stop.value
            self._planning = None
            moved = moved_meanwhile(self._planned_from, self._standing(present, rearm_cause))
            if refusal := way.refusal or moved:
                self._hold(now_ns, present, refusal)
            else:
                self._set_out(now_ns, way.stages, present, self.torque is not Torque.ON or bool(rearm_cause))

    def _standing(self, present: Vector, rearm_cause: str) -> Vector:
        """Where a ramp begins: at the goal that is held, or where the arms are when they do not hold one."""
        held = self.torque is Torque.ON and not rearm_cause
        if held:
            return self.gate.goal
        limits = self.gate.limits  # where an arm lies on its stop, torque moves it in
        return np.clip(within_a_turn(present), limits.low, limits.high)

    def _set_out(self, now_ns: int, stages: Sequence[Vector], present: Vector, switches: bool) -> None:
        """Torque on where it is not, then ramp through poses, or stay where there is none."""
        self._may_move = True
        self._after_switch(now_ns, present, lambda at_ns: self._ramp(at_ns, stages), switches)
        self.torque = Torque.ON

    def _after_switch(self, now_ns: int, present: Vector, begin: Begin, switches: bool) -> None:
        """Begin at once, or, where torque has to be switched, when it has been. Until then the goals are where the
        servos hold them, or where the arms are."""
        if not switches:
            begin(now_ns)
            return
        self._rest(present)
        self._rearm, self._begin = True, begin

    def _ramp(self, now_ns: int, stages: Sequence[Vector]) -> None:
        """Go through poses, from where the servos hold the arms; none: stay. A way was found from where they were."""
        if not stages:
            self.gate.hold()
        elif moved := moved_meanwhile(self._planned_from, self.gate.goal):
            self._hold(now_ns, self.gate.goal, moved)
        else:
            self.gate.ramp(now_ns, stages[-1], via=stages[:-1])

    def _rest(self, present: Vector) -> None:
        """Goals at rest: where the servos hold them already, else where the arms are."""
        if self.torque in LIMP:
            self.gate.freeze(present)
        else:
            self.gate.hold()

    def _enter_moving(self, now_ns: int, mode: Mode, present: Vector) -> None:
        self.mode, self._begin = mode, None
        if not self._may_move:
            self._hold(now_ns, present, f"these arms have not been armed since {self._voided_by}; arm again")
        elif self.role == "follower":
            self._after_switch(now_ns, present, self.gate.follow, self._rearm)
        elif mode is Mode.TELEOP:
            self.torque = self._led
        elif self._follows and mode is Mode.POLICY:
            handed_back = self.torque in LIMP  # from where the person lets go
            if handed_back and (refusal := self.gate.limits.outside(present)):
                self._hold(now_ns, present, refusal)
                return
            self._after_switch(now_ns, present, self.gate.follow, handed_back)
            self.torque = Torque.GRIPPERS_FREE
        else:
            self.gate.hold()

    def _stand(self, present: Vector) -> None:
        """Stay where the arms are. Leaders in a person's hands get torque, so that they can be let go. Torque that an
        order of this cycle asked for is not switched on: the order is void before it was carried out."""
        if self._rearm:
            self._rearm = False
            self.torque, self._may_move = self._before
        self._rest(present)
        if self._may_move and self.torque is not Torque.ON:
            self.torque = Torque.ON
        self._may_move, self._begin = False, None
