"""arms@followers, arms@leaders: a pair of arms, 200 times a second: newest action, gate, goals out, state in, publish.

It alone decides what reaches a motor. In every cycle goals and the state request go to both buses at once; the goals
come from the action heard last and the state read one cycle ago. In a cycle that switches torque no goal goes out:
where the arms are to be is what the servos then say that they hold.
"""

import time
from collections import Counter
from dataclasses import replace

from aloha_runtime import messages
from aloha_runtime.bus import Subscriber
from aloha_runtime.config import ArmConfig
from aloha_runtime.control import gravity
from aloha_runtime.control.gate import GateTiming, Target
from aloha_runtime.control.limits import rig_limits
from aloha_runtime.control.margins import margins_for
from aloha_runtime.control.pilot import Command, Pilot, Torque
from aloha_runtime.control.ramp import planner_for
from aloha_runtime.control.zeros import ZeroWatch
from aloha_runtime.hardware.base import ArmSilentError
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.hardware.dynamixel_torque import PATIENCE_NS
from aloha_runtime.hardware.pair import ArmPair, PairReading
from aloha_runtime.messages import MOVING, MS, ArmsState, Mode
from aloha_runtime.realtime import NS_PER_S, Pacer, RealtimeReport
from aloha_runtime.robot import GRIPPER_INDEX, IS_GRIPPER, SERVOS, Role, Servo, Vector, pose_vector, tick_of
from aloha_runtime.service import Service, run
from aloha_runtime.witnesses import Witnesses

SILENT_HOLD_NS = 100 * MS
"""A pair that cannot be read for this long is in HOLD, whatever the mode."""
FIRST_READING_S = 2.0
TORQUE_RETRY_NS = 500 * MS
"""An unplugged adapter is opened again within this time when it is back."""
NEVER_NS = 1 << 62
TEMPERATURE_PERIOD_NS = 100 * MS
"""As often as one servo says its temperature."""
BLIND_HOLD_S = 10.0
"""Motion ends when a servo has not said for so long how hot it is; a motor gains 1 to 2 degrees a second at most."""
HEARTBEATS = 32
"""Words of the supervisor that wait for a cycle: 0.6 s of them, so that none is lost while this process is paused."""
REPLY_SHARE = 0.8
"""Share of the cycle in which both arms must have answered; the rest is for the gate and the bus."""


class ArmsLoop:
    """Set up, then `cycle` at every beat."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.role: Role = "follower" if service.instance == "followers" else "leader"
        rig = service.rig
        self.period_ns = NS_PER_S // rig.arms_hz
        self.carried_share = rig.teleop.gravity_compensation if self.role == "leader" else 0.0
        self.limits = rig_limits(rig.limits, rig.deploy, self.role)
        absent = pose_vector(rig.start_pose, 0.0)
        self.pair = ArmPair(
            {side: self._arm(f"{self.role}_{side}", arm) for side, arm in rig.arms_of(self.role).items()},
            rig.grippers(self.role),
            absent,
        )
        topic = messages.FOLLOWERS if self.role == "follower" else messages.LEADERS
        self.state = service.bus.publisher(topic)
        self.mode = service.bus.subscribe(messages.MODE, HEARTBEATS)
        self.actions: dict[Mode, Subscriber] = {}
        if self.role == "follower":
            obeyed = [mode for mode in MOVING if mode is not Mode.POLICY or not rig.deploy.shadow]
            self.actions = {mode: service.bus.subscribe(messages.ACTION_TOPIC[mode]) for mode in obeyed}
        self.followers: Subscriber | None = None
        if self.role == "leader" and rig.teleop.takeover:
            self.followers = service.bus.subscribe(messages.FOLLOWERS)
        self.counts: Counter[str] = Counter()
        chains = {side: self._servos(arm) for side, arm in rig.arms_of(self.role).items()}
        self.margins = margins_for(self.role, chains)
        self.heat, self.heat_due_ns = "", 0
        self.blind_s, self.unknown = 0.0, ""
        """For how long temperature, voltage and watchdog of which servos have not been known."""
        self.zeros = ZeroWatch(self.role, chains)
        self.witnesses = Witnesses(rig, service.run_dir, self.role, service.clock.virtual)

    def _servos(self, arm: ArmConfig) -> list[Servo]:
        return [replace(servo, model=arm.models.get(servo.id, servo.model)) for servo in SERVOS[self.role]]

    def _arm(self, name: str, arm: ArmConfig) -> DynamixelArm:
        rig = self.service.rig
        servos = self._servos(arm)
        return DynamixelArm(
            name,
            self.role,
            str(self.service.run_dir / arm.port) if rig.sim else arm.port,
            baud=arm.baud,
            gripper_current_ma=rig.current_ma(),
            servos=servos,
            carried=gravity.CARRIED_JOINTS if self.carried_share else (),
            lead_rad=float(self.limits.lead[~IS_GRIPPER].max()),
            patience_ns=NS_PER_S if self.service.clock.virtual else PATIENCE_NS,
            homing_offsets=arm.homing_offsets,
            memory=self.service.run_dir / f"{name}.goals",
            now=self.service.clock.now_ns,
        )

    def connect(self) -> None:
        """Arms connected and read once; the pilot starts where they are. Raises HardwareError."""
        self.pair.connect()
        self.reading = self._first_reading()
        self.pilot = Pilot(
            self.role,
            self.limits,
            self.service.rig.start_pose,
            self.service.rig.sleep_pose(self.role),
            self.reading.present,
            self.service.clock.now_ns(),
            Torque.ON if self.pair.holding() else Torque.OFF,
            GateTiming(period_ns=self.period_ns, hold_after_ns=int(self.service.rig.limits.hold_after_ms * MS)),
            follows=self.followers is not None,
            carries=self.carried_share > 0,
            planner=planner_for(self.service.rig, self.role),
        )
        self.torque: Torque | None = self.pilot.torque
        """What the servos were told last; None while that is not certain."""
        self.torque_trouble = ""
        self.retry_ns = 0
        self.fault = self.trouble = ""
        """What is wrong with the arms themselves: what only a person can mend, and what may pass by itself."""
        self.tried = self.torque
        """The torque that was tried last."""

    def cycle(self, now_ns: int) -> None:
        """One turn: orders of the pilot, goals out, state in, state published."""
        self.witnesses.look(time.monotonic_ns())
        present, trouble = self.reading.present, self.fault or self.trouble
        command = self.pilot.step(now_ns, self.mode.drain(), present, self._target(), self._rearm_cause(), trouble)
        goal = command.goal
        due = now_ns >= self.retry_ns or command.torque is Torque.OFF is not self.tried
        if command.gripper in self.pair.names():
            self._reset_gripper(now_ns, command.gripper)
            goal = None
        elif command.rearm or (command.torque is not self.torque and due):
            again = not command.rearm and command.torque is self.tried
            self.tried = command.torque
            self._switch(now_ns, command.torque, again)
            goal = None
        currents = self._carrying_currents() if command.torque is Torque.CARRYING else None
        reading = self.pair.cycle(goal, self._reply_deadline_ns(), currents)
        if reading is None:
            self.counts["incomplete_cycles"] += 1
            # The arm that did answer is led from where it is, not from where it was when the other one fell silent.
            self.reading = self.pair.newest() or self.reading
        else:
            self.reading = reading
            waits = command.mode is Mode.ARMED and command.settled
            if self.zeros.update(now_ns, waits, reading.position, reading.velocity, reading.effort_ma):
                self.service.log.warning("%s", self.zeros.doubt)
        self._publish(now_ns, replace(command, goal=goal), reading)

    def _target(self) -> Target | None:
        """The newest action of the mode's topic, for leaders the newest goal of the followers; the gate judges its
        age."""
        if self.followers is not None and self.pilot.mode is Mode.POLICY:
            state: ArmsState | None = self.followers.latest()
            if state is None or state.goal is None:
                return None
            return Target(state.goal, state.stamp_ns, tick_of(state.stamp_ns), self.period_ns)
        actions = self.actions.get(self.pilot.mode)
        action = actions.latest() if actions else None
        if action is None or not action.valid or action.order_ns not in (0, self.pilot.order_ns):
            return None  # of another order: what was computed before a takeover, a HOLD or any other change
        period_ns = int(NS_PER_S / actions.topic.rate_hz) if actions else 0
        return Target(action.position, action.stamp_ns, action.tick, period_ns)

    def _switch(self, now_ns: int, torque: Torque, again: bool) -> None:
        """Torque as the pilot wants it; where an arm cannot be reached now, once more a little later."""
        if torque is Torque.CARRYING:
            switched = self.pair.carry(self._carrying_currents())
        else:
            switched = self.pair.torque(torque is not Torque.OFF, grippers=torque is Torque.ON, again=again)
        error = switched.failure
        if error is None:
            self.service.log.info("torque %s", torque)
            self.torque, self.torque_trouble, self.retry_ns = torque, "", 0
        else:
            if str(error) != self.torque_trouble:
                self.service.log.warning("%s", error)
            self.torque, self.torque_trouble, self.retry_ns = None, str(error), now_ns + TORQUE_RETRY_NS
            if isinstance(error, ArmSilentError) and torque is not Torque.OFF:
                self.retry_ns = NEVER_NS  # its power may be gone; when it is back, torque is the operator's order
        self.reading = self.pair.newest() or self.reading
        self.pilot.switched(now_ns, switched.goals, error is None and not self.pair.turned())

    def _reset_gripper(self, now_ns: int, arm: str) -> None:
        """Restart the gripper servo of one arm, by an operator's order. Everything else keeps its torque and goal."""
        switched = self.pair.reset_gripper(arm)
        if switched.failure is None:
            self.service.log.info("%s: its gripper was restarted", arm)
        else:
            self.service.log.warning("%s", switched.failure)
        self.reading = self.pair.newest() or self.reading
        self.pilot.switched(now_ns, switched.goals, done=False)

    def _carrying_currents(self) -> Vector:
        return gravity.carrying_currents_ma(self.reading.position, self.carried_share)

    def _reply_deadline_ns(self) -> int:
        """When the arms must have answered (monotonic). In virtual time nobody is late: a second, as in `_arm`."""
        return time.monotonic_ns() + (NS_PER_S if self.service.clock.virtual else int(REPLY_SHARE * self.period_ns))

    def _first_reading(self) -> PairReading:
        """Each servo has also said how hot it is, unless it does not want to."""
        deadline, reading = time.monotonic() + FIRST_READING_S, None
        while time.monotonic() < deadline:
            reading = self.pair.cycle(None, time.monotonic_ns() + 50 * MS) or reading
            if reading is not None and not self.pair.unknown()[1]:
                break
        if reading is None:
            raise self.pair.unreadable()
        return reading

    def _publish(self, now_ns: int, command: Command, reading: PairReading | None) -> None:
        newest = self.reading
        self.fault, self.trouble = self._trouble(now_ns)
        self.state.send(
            ArmsState(
                stamp_ns=now_ns if reading is None else reading.stamp_ns,
                valid=reading is not None,
                position=newest.position.tolist(),
                velocity=newest.velocity.tolist(),
                effort_ma=newest.effort_ma.tolist(),
                gripper_openings=newest.present[list(GRIPPER_INDEX)].tolist(),
                goal=None if command.goal is None else command.goal.tolist(),
                target=None if command.gate.target is None else command.gate.target.tolist(),
                action_tick=command.gate.action_tick,
                action_stamp_ns=command.gate.action_stamp_ns,
                mode=command.mode,
                held_off=command.gate.held_off,
                shaped=command.gate.shaped,
                order_ns=self.pilot.order_ns,
                settled=command.settled,
                hold_cause=self.fault or self.trouble or self._switch_trouble() or self._held_for(command),
                fault=bool(self.fault),
                unready="" if self.fault or self.trouble else self.unknown,
            )
        )

    def _switch_trouble(self) -> str:
        """Why torque could not be switched; of an order whose way is still being sought, nobody knows yet."""
        return "" if self.pilot.planning else self.torque_trouble

    def _held_for(self, command: Command) -> str:
        """The pilot's own cause; a silence that the computer is to blame for says so."""
        return self.witnesses.reworded(command.hold_cause, time.monotonic_ns())

    def _trouble(self, now_ns: int) -> tuple[str, str]:
        """What is wrong with the arms themselves: what only a person can mend, and what may pass by itself."""
        errors = self.reading.errors
        silent = self.pair.silent(time.monotonic_ns(), SILENT_HOLD_NS, self.witnesses.stillness)
        trouble = silent or self.pair.turned() or self._strain(now_ns) or self._blindness()
        return self.pair.describe(errors) if errors else "", trouble

    def _rearm_cause(self) -> str:
        """Why the servos would not obey goals now; empty when they would."""
        return self.torque_trouble or self.pair.rearm_cause()

    def _strain(self, now_ns: int) -> str:
        """Too much current or heat, while an action drives the arms: what is hot may be parked."""
        current = self.margins.current(now_ns, self.reading.effort_ma)
        if now_ns >= self.heat_due_ns:
            self.heat = self.margins.temperature(self.pair.temperatures())
            self.blind_s, self.unknown = self.pair.unknown()
            self.heat_due_ns = now_ns + TEMPERATURE_PERIOD_NS
        return (current or self.heat) if self.pilot.mode in MOVING else ""

    def _blindness(self) -> str:
        """Servos of which nobody has known for long, in motion, how hot they are and whether their watchdog lives."""
        moves = self.pilot.mode in (*MOVING, Mode.ARMED)
        return self.unknown if moves and self.blind_s > BLIND_HOLD_S else ""

    def figures(self, pacer: Pacer, realtime: RealtimeReport) -> dict[str, float]:
        """Named numbers for the health report."""
        return {
            "realtime_priority": realtime.priority or 0,
            **pacer.figures(),
            **self.counts,
            **{f"gate_{name}": value for name, value in vars(self.pilot.gate.counters).items()},
            **self.pair.figures(),
        }


def main(service: Service) -> None:
    loop = ArmsLoop(service)
    try:
        loop.connect()
        realtime = service.prepare_realtime(service.rig.realtime.arms_cores)
        pacer = Pacer(service.clock, loop.period_ns)
        while not service.stopping:
            beat = pacer.wait()
            loop.cycle(beat.deadline_ns + beat.lateness_ns)
            said = "; ".join(filter(None, [*realtime.problems, loop.zeros.doubt]))
            service.report(lambda: loop.figures(pacer, realtime), message=said)
    finally:
        loop.pair.disconnect()
        loop.witnesses.close()


if __name__ == "__main__":
    run(main)
