"""What a pair of arms does in each mode: torque, ramps, following. Pure; the arms process carries it out.

The pilot alone decides about torque, and by these rules an arm never falls because a program ended:

- torque goes on when ARMED begins, the goal where the arm is; off at the end of PARK, and for leaders in TELEOP, where
  their servos may carry the arm's weight and nothing else;
- IDLE, HOLD and FAULT change nothing for followers; leaders that a person may have let go of get their torque back;
- a pilot that starts anew (its process died) moves nothing until it has been through ARMED itself.
"""

from dataclasses import dataclass
from enum import StrEnum

from aloha_runtime.control.gate import Gate, GateOutput, GateTiming, Motion, Target
from aloha_runtime.control.limits import Limits
from aloha_runtime.messages import MOVING, Mode, ModeHeartbeat
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
    ) -> None:
        """`torque` is how the servos were found; an arm that was found holding goes on holding. `follows`: leaders go
        where the followers go while a policy moves them. `carries`: leaders bear their own weight in TELEOP."""
        self.role = role
        self._follows = follows
        self._led = Torque.CARRYING if carries else Torque.OFF
        self.torque = torque
        self.gate = Gate(limits, present, now_ns, timing)
        self._poses = {
            "start": pose_vector(start, GRIPPER_IN_POSE[role]),
            "sleep": pose_vector(sleep, GRIPPER_IN_POSE[role]),
        }
        self._obeyed = (Mode.IDLE, "", 0)
        self.mode = Mode.IDLE
        self._may_move = False
        self._refusal = ""
        self._rearm = False

    def step(
        self,
        now_ns: int,
        heartbeat: ModeHeartbeat | None,
        present: Vector,
        target: Target | None,
        rearm_cause: str = "",
        servo_error: str = "",
    ) -> Command:
        """Orders for this cycle. `heartbeat`: the supervisor's newest, None when it is stale or there was none yet.
        `rearm_cause`: why the servos would not obey goals now; empty when they would. `servo_error`: what servos
        report, on which both arms stop at once, before the supervisor has heard of it."""
        self._rearm = False
        self._obey(now_ns, heartbeat, present, rearm_cause)
        if servo_error and self.mode in (*MOVING, Mode.ARMED, Mode.PARK):
            self._enter_hold(present)
            self.mode, self._refusal = Mode.HOLD, servo_error
        if self.torque in LIMP:
            self.gate.freeze(present)
        output = self.gate.step(now_ns, present, target if self.mode in MOVING else None)
        still = output.motion is Motion.FROZEN and not output.hold_cause and not self._refusal
        settled = output.settled or (self.mode is Mode.ARMED and still)
        if self.mode is Mode.ARMED and settled and self.role == "leader" and self._obeyed[1] == "start":
            self.torque = Torque.GRIPPERS_FREE
        if self.mode is Mode.PARK and (output.settled or self.torque is Torque.OFF):
            self.torque, settled = Torque.OFF, True
            self._may_move = False  # a parked arm stays without torque, whatever becomes of the supervisor
        return Command(
            goal=None if self.torque in LIMP else output.goal,
            torque=self.torque,
            mode=self.mode,
            settled=settled,
            hold_cause=self._refusal or self._disobedience(rearm_cause) or output.hold_cause,
            gate=output,
            rearm=self._rearm,
        )

    def _disobedience(self, rearm_cause: str) -> str:
        """Servos that do not obey while they should move."""
        return "" if self.torque is Torque.OFF or self._rearm or not self._may_move else rearm_cause

    def _obey(self, now_ns: int, heartbeat: ModeHeartbeat | None, present: Vector, rearm_cause: str) -> None:
        """Carry out a change of mode once, when it is heard first."""
        if heartbeat is None:
            if self.mode in (*MOVING, Mode.PARK, Mode.ARMED):
                self._enter_hold(present)
                self.mode = Mode.HOLD
                self._obeyed = (Mode.HOLD, "", 0)
                self._refusal = "the supervisor is silent; see whether it runs, then arm again"
            return
        wanted = (Mode(heartbeat.mode), heartbeat.pose, heartbeat.since_ns)
        if wanted == self._obeyed:
            return
        self._obeyed = wanted
        self.mode, self._refusal = wanted[0], ""
        if self.mode is Mode.ARMED:
            self._enter_armed(now_ns, heartbeat.pose, present, rearm_cause)
        elif self.mode in MOVING:
            self._enter_moving(now_ns, present)
        elif self.mode is Mode.PARK:
            if self.torque is not Torque.OFF:
                self._enter_armed(now_ns, "sleep", present, rearm_cause)
        else:
            self._enter_hold(present)

    def _enter_armed(self, now_ns: int, pose: str, present: Vector, rearm_cause: str) -> None:
        anew = self.torque is not Torque.ON or bool(rearm_cause)
        self._refusal = self.gate.limits.outside(present) if anew else ""
        if self._refusal:
            self.gate.hold()
            return
        if anew:
            self.gate.freeze(present)
            self._rearm = True
        self.torque = Torque.ON
        self._may_move = True
        if pose:
            goal = self._poses[pose].copy()
            if pose == "sleep":  # what a gripper holds it goes on holding
                goal[IS_GRIPPER] = self.gate.goal[IS_GRIPPER]
            self.gate.ramp(now_ns, goal)
        else:
            self.gate.hold()

    def _enter_moving(self, now_ns: int, present: Vector) -> None:
        if not self._may_move:
            self._refusal = "these arms were started anew and have not been armed since; arm again"
            self.gate.hold()
        elif self.role == "follower":
            self.gate.follow(now_ns)
        elif self.mode is Mode.TELEOP:
            self.torque = self._led
        elif self._follows and self.mode is Mode.POLICY:
            if self.torque in LIMP:  # handed back: from where the person lets go
                self._refusal = self.gate.limits.outside(present)
                if self._refusal:
                    return
                self.gate.freeze(present)
                self._rearm = True
            self.torque = Torque.GRIPPERS_FREE
            self.gate.follow(now_ns)
        else:
            self.gate.hold()

    def _enter_hold(self, present: Vector) -> None:
        """IDLE, HOLD, FAULT: stay. Leaders in a person's hands get torque, so that they can be let go."""
        if self._may_move and self.torque is not Torque.ON and self.mode is not Mode.IDLE:
            self.gate.freeze(present)
            self.torque = Torque.ON
        else:
            self.gate.hold()
        self._may_move = False
