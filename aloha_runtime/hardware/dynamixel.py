"""One ALOHA arm on a chain of Dynamixel X servos: the `Arm` protocol over set-up, torque and the periodic cycle.

The parts: `serial_port` (bytes), `dynamixel_setup` (through the SDK), `dynamixel_torque`, `dynamixel_cycle` (the
periodic exchange) and `dynamixel_units`; here they meet, and what was lost or reset behind our back is noticed.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from aloha_runtime.dynamixel import packets, registers
from aloha_runtime.dynamixel.packets import ALERT
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.base import ArmReading, ArmSilentError, ArmVector, Switched, Unread
from aloha_runtime.hardware.dynamixel_cycle import BusCycle
from aloha_runtime.hardware.dynamixel_frames import ERROR, ID, STRIDE, GoalWrite
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.hardware.dynamixel_setup import refuse_without_current, set_up
from aloha_runtime.hardware.dynamixel_torque import NO_ERROR, PATIENCE_NS, WATCHDOG_NS, Outcome, TorqueSwitch
from aloha_runtime.hardware.dynamixel_units import ArmUnits
from aloha_runtime.hardware.goal_memory import GoalMemory
from aloha_runtime.hardware.serial_port import PortLostError, SerialPort, check_latency_timer
from aloha_runtime.hardware.steps import Steps, finish
from aloha_runtime.messages import NOT_NAMED_YET
from aloha_runtime.robot import JOINTS, SERVOS, Role, Servo, ticks_to_rad
from aloha_runtime.stillness import stood_still

REOPEN_NS = 100_000_000
"""Pause between attempts to open a lost port again (promise: back within 2 s)."""
OFF = "torque is off"
STARTED = "torque has not been switched on since this program started"
FEED = packets.ping(packets.MAX_ID)
"""An instruction that no servo of an arm answers, and that feeds the Bus Watchdog of all of them."""
STALL_NS = WATCHDOG_NS - registers.WATCHDOG_UNIT_MS * 1_000_000
"""After a longer pause between requests some servo's watchdog may have tripped (it counts in 20 ms)."""


class DynamixelArm:
    """`hardware.base.Arm` on a serial port. `now` gives the stamps (virtual in lock-step); the port runs on wall time.

    `servos`: masters in the order of `robot.JOINTS` with their shadows between, as in `robot.SERVOS`. `carried`: the
    joints that `carry` puts into current control. `lead_rad`: the most that a goal leads a joint that holds.
    `patience_ns`: how long an exchange that switches torque may wait for answers (monotonic). `homing_offsets`: servo
    id -> zero that the rig file records. `memory`: the file of the goals that were sent last.
    """

    def __init__(
        self,
        name: str,
        role: Role,
        port: str,
        *,
        baud: int = 1_000_000,
        gripper_current_ma: float = 538.0,
        servos: Sequence[Servo] | None = None,
        carried: Sequence[str] = (),
        lead_rad: float = 0.24,
        patience_ns: int = PATIENCE_NS,
        homing_offsets: Mapping[int, int] | None = None,
        memory: Path | None = None,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.role = role
        self._path, self._baud = port, baud
        self._unplugged = f"{port} was unplugged; plug it in again"
        self._gripper_current_ma = gripper_current_ma
        self._lead_rad, self._patience_ns = lead_rad, patience_ns
        self._servos = tuple(servos or SERVOS[role])
        self._homing_offsets = dict(homing_offsets or {})
        self._now = now
        masters = [servo for servo in self._servos if servo.shadow_of is None]
        shadows = [servo for servo in self._servos if servo.shadow_of is not None]
        self._ids = [servo.id for servo in masters]
        self._told = GoalMemory(self._ids, memory)
        self._carried = [servo.id for servo in masters if servo.joint in carried]
        self._carrying = False
        self._goals = GoalWrite(self._ids)
        self._currents = GoalWrite(self._carried, registers.GOAL_CURRENT)
        self._labels = {servo.id: servo.joint for servo in masters} | {s.id: f"{s.joint}_shadow" for s in shadows}
        self.joints = tuple(self._labels.values())
        self._units = ArmUnits(role, masters, carried)
        self._counts: Counter[str] = Counter()
        self._cycle = BusCycle(self._ids, [servo.id for servo in shadows], self._counts, now)
        self._port: SerialPort | None = None
        self._fast = self._holding = False
        self._rearm_cause = "not connected"

    def connect(self, hold: bool = True) -> None:
        """See `Arm.connect`."""
        if self._port is not None:
            return
        refuse_without_current(self.name, self._servos, self._carried)
        try:
            check_latency_timer(self._path)
            port = SerialPort(self._path, self._baud)
        except HardwareError as error:
            raise HardwareError(f"{self.name}: {error}") from None
        try:
            access = ServoAccess(self.name, port, self._labels)
            found = set_up(access, self.role, self._servos, self._gripper_current_ma, self._homing_offsets)
            self._switch = TorqueSwitch(
                port,
                self.role,
                self._servos,
                self._gripper_current_ma,
                self._lead_rad,
                self._patience_ns,
                self._told,
            )
        except PortLostError as error:
            port.close()
            raise HardwareError(f"{self.name}: {self._path} was lost during set-up ({error}); replug it") from error
        except BaseException:
            port.close()
            raise
        self._holding = found.holding
        self._fast = found.firmware >= registers.FAST_SYNC_READ_FIRMWARE
        self._counts.clear()
        self._attach(port, STARTED)
        if hold:
            _done(finish(self.hold_steps()))

    def hold_steps(self) -> Steps[Switched]:
        """See `Arm.hold_steps`."""
        holding = self._holding
        switched = yield from self._switching(lambda _: self._switch.hold())
        self._holding, self._rearm_cause = holding, STARTED
        if switched.failure is not None:
            self.disconnect()
        return switched

    def _attach(self, port: SerialPort, rearm_cause: str) -> None:
        self._port = port
        self._cycle.attach(port, self._fast)
        self._rearm_cause = rearm_cause
        self._alerts: dict[int, int] = {}
        self._health_seen = self._cycle.health.count
        self._attached_ns = self._now()
        self._asked_at_ns = self._stamp_ns = self._now()
        self._units.forget()
        self._reopen_at_ns = 0

    def disconnect(self) -> None:
        """See `Arm.disconnect`."""
        self._cycle.detach()
        if self._port is not None:
            self._port.close()
            self._port = None
        self._rearm_cause = "not connected"

    def request(self, goal: ArmVector | None, currents_ma: ArmVector | None = None) -> None:
        """See `Arm.request`."""
        if not self._cycle.attached and not self._reopen():
            return
        now = self._now()
        pause = now - self._asked_at_ns
        self._asked_at_ns = now
        goals = b""
        if goal is not None or currents_ma is not None:
            if pause > STALL_NS and not self._rearm_cause:
                self._counts["stalled"] += 1
                self._rearm_cause = f"{stood_still(pause)}; nothing was sent, so the servos' watchdog has tripped"
            goals = self._goals_packet(goal, currents_ma)
        try:
            if self._cycle.request(goals):
                self._stamp_ns = now
        except PortLostError:
            self._lose_port()

    def _goals_packet(self, goal: ArmVector | None, currents_ma: ArmVector | None) -> bytes:
        """The write of goals or currents; empty when they must not or could not be obeyed by every servo."""
        if self._rearm_cause or self._carrying != (goal is None):
            self._counts["goal_withheld"] += 1
            return b""
        numbers = self._units.ticks(goal) if goal is not None else self._units.currents(currents_ma)
        if numbers is None:
            self._counts["goal_refused"] += 1
            return b""
        if self._carrying:
            return self._currents.packet(numbers)
        self._told.note(numbers)
        return self._goals.packet(numbers)

    def collect(self, deadline_ns: int) -> ArmReading | None:
        """See `Arm.collect`."""
        try:
            state = self._cycle.collect(deadline_ns)
        except PortLostError:
            self._lose_port()
            return None
        if state is None:
            return None
        if self._cycle.health.count != self._health_seen:
            self._check_health()
        errors = state[ERROR::STRIDE]
        if self._alerts or len(errors) > len(JOINTS) or any(errors):
            self._note_alerts(errors, state[ID::STRIDE])
        alerts = {self._labels[servo_id]: bits for servo_id, bits in self._alerts.items()}
        reading = self._units.reading(state, self._stamp_ns, alerts)
        if reading is None:
            self._counts["implausible"] += 1
        return reading

    def _note_alerts(self, errors: Sequence[int], ids: Sequence[int]) -> None:
        for error, servo_id in zip(errors, ids, strict=True):
            if not error & ALERT:
                self._alerts.pop(servo_id, None)
                continue
            heard = self._cycle.health.heard.get(servo_id)
            bits = heard.hardware_error if heard else 0
            self._alerts[servo_id] = ALERT | bits
            if not bits:
                self._cycle.health.hurry(servo_id)

    def _check_health(self) -> None:
        """Notice servos that lost torque or watchdog behind our back (a power cut, a trip)."""
        self._health_seen = self._cycle.health.count
        if self._rearm_cause:
            return
        cause = self._switch.complaint(self._cycle.health.heard, self._attached_ns)
        if cause:
            self._counts["servo_reset"] += 1
            self._rearm_cause = cause

    def torque(self, on: bool, gripper: bool | None = None) -> ArmVector:
        """See `Arm.torque`."""
        return _done(finish(self.torque_steps(on, gripper)))

    def torque_steps(self, on: bool, gripper: bool | None = None, again: bool = False) -> Steps[Switched]:
        """See `Arm.torque_steps`."""
        grips = on if gripper is None else gripper
        switched = yield from self._switching(lambda silent: self._switch.switch(on, grips, silent, again))
        if switched.failure is None:
            self._carrying, self._holding = False, on or grips
            self._rearm_cause = "" if on else OFF
        return switched

    def carry(self, currents_ma: ArmVector) -> ArmVector:
        """See `Arm.carry`."""
        return _done(finish(self.carry_steps(currents_ma)))

    def carry_steps(self, currents_ma: ArmVector) -> Steps[Switched]:
        """See `Arm.carry_steps`."""
        goals = self._units.currents(currents_ma)
        if goals is None:
            return self._failed(HardwareError, f"the currents {currents_ma} are not finite; check its servos")
        currents = dict(zip(self._carried, goals, strict=True))
        switched = yield from self._switching(lambda _: self._switch.carry(currents), whole=True)
        if switched.failure is None:
            self._carrying, self._holding, self._rearm_cause = True, True, ""
        return switched

    def _switching(self, switch: Callable[[list[int]], Steps[Outcome]], whole: bool = False) -> Steps[Switched]:
        """A switch that is given the servos known to be silent. `whole`: it is not tried without one of them. Waiting
        for a silent arm would keep its servos' neighbours waiting; when they come back, the caller that gives them
        torque must have read first where they are now."""
        if self._port is None or not self._cycle.attached:
            return self._failed(
                HardwareError, f"{self._path} is not connected, so torque cannot be switched; replug it"
            )
        silent = list(self._cycle.silent(time.monotonic_ns()))
        if len(silent) == len(self._labels) or (silent and whole):
            self._rearm_cause = self._rearm_cause or "servos were silent"
            return self._failed(ArmSilentError, self._silence(silent))
        self._rearm_cause, self._holding = OFF, True  # until known better, should it fail half-way
        self._cycle.give_up()
        try:
            outcome = yield from switch(silent)
        except PortLostError:
            self._lose_port()
            return self._failed(HardwareError, f"{self._path} was lost while switching torque; replug it")
        self._attach(self._port, OFF)
        held = [outcome.ticks.get(servo_id) for servo_id in self._ids]
        goals = np.array([np.nan if tick is None else ticks_to_rad(tick) for tick in held])
        if outcome.silent or outcome.lost:
            silence = [self._silence(outcome.silent, outcome.certain)] if outcome.silent else []
            return self._failed(ArmSilentError, "; ".join([*silence, *outcome.troubles]), goals)
        return self._failed(HardwareError, "; ".join(outcome.troubles), goals) if outcome.troubles else Switched(goals)

    def _silence(self, silent: Sequence[int], certain: bool = True) -> str:
        if not certain:
            return f"{NOT_NAMED_YET}, so torque cannot be switched; then `aloha arm`"
        names = ", ".join(self._labels[servo_id] for servo_id in silent)
        who = "no servo answers" if len(silent) == len(self._labels) else f"silent: {names}"
        return f"{who}, so torque cannot be switched; check its power and cables, then `aloha arm`"

    def _failed(self, kind: type[HardwareError], why: str, goals: ArmVector | None = None) -> Switched:
        return Switched(np.full(len(JOINTS), np.nan) if goals is None else goals, kind(f"{self.name}: {why}"))

    def feed(self) -> None:
        """See `Arm.feed`."""
        if self._port is not None and self._cycle.attached:
            self._asked_at_ns = self._now()
            try:
                self._port.write(FEED)
            except PortLostError:
                self._lose_port()

    @property
    def turned(self) -> dict[str, int]:
        """See `Arm.turned`."""
        return {self._labels[servo_id]: turns for servo_id, turns in self._switch.turns.items() if turns}

    def reset_gripper_steps(self) -> Steps[Switched]:
        """See `Arm.reset_gripper_steps`."""
        before = self._rearm_cause, self._holding
        switched = yield from self._switching(lambda _: self._switch.reset_gripper())
        if switched.failure is None or NO_ERROR in str(switched.failure):
            self._rearm_cause, self._holding = before
        return switched

    def temperatures(self) -> dict[str, float]:
        """See `Arm.temperatures`."""
        health = self._cycle.health
        unknown = health.unknown(self._now())
        return {self._labels[i]: float(heard.temperature) for i, heard in health.heard.items() if i not in unknown}

    def unknown(self) -> dict[str, float]:
        """See `Arm.unknown`."""
        return {self._labels[servo_id]: age / 1e9 for servo_id, age in self._cycle.health.unknown(self._now()).items()}

    def silent(self, now_ns: int) -> dict[str, float]:
        """See `Arm.silent`."""
        return {self._labels[servo_id]: age / 1e9 for servo_id, age in self._cycle.silent(now_ns).items()}

    def unread(self, now_ns: int) -> Unread:
        """See `Arm.unread`."""
        return self._cycle.unread(now_ns)

    @property
    def rearm_cause(self) -> str:
        """See `Arm.rearm_cause`."""
        return self._rearm_cause

    @property
    def holding(self) -> bool:
        """See `Arm.holding`."""
        return self._holding

    @property
    def counts(self) -> dict[str, int]:
        """See `Arm.counts`."""
        return dict(self._counts)

    @property
    def connected(self) -> bool:
        """See `Arm.connected`."""
        return self._cycle.attached

    def _lose_port(self) -> None:
        self._counts["port_lost"] += 1
        self._cycle.detach()
        if self._port is not None:
            self._port.close()
        self._rearm_cause = self._unplugged
        self._reopen_at_ns = 0

    def _reopen(self) -> bool:
        """Try to open a lost port by its stable name, with the settings that `connect` requires; never raises, never
        waits."""
        now = time.monotonic_ns()
        if self._port is None or now < self._reopen_at_ns:
            return False
        self._reopen_at_ns = now + REOPEN_NS
        try:
            check_latency_timer(self._path)
            port = SerialPort(self._path, self._baud)
        except HardwareError as error:
            self._counts["reopen_failed"] += 1
            self._rearm_cause = str(error) if os.path.exists(self._path) else self._unplugged
            return False
        self._counts["reopened"] += 1
        self._switch.use(port)
        self._attach(port, f"{self._path} was unplugged and is back")
        return True


def _done(switched: Switched) -> ArmVector:
    """The goals that are held; raises what went wrong."""
    if switched.failure is not None:
        raise switched.failure
    return switched.goals
