"""One ALOHA arm on a chain of Dynamixel X servos: the `Arm` protocol over set-up, torque and the periodic cycle.

The parts: `serial_port` (bytes), `dynamixel_setup` (through the SDK), `dynamixel_torque`, `dynamixel_cycle` (the
periodic exchange) and `dynamixel_units`; here they meet, and what was lost or reset behind our back is noticed.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.packets import ALERT
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.base import ArmReading, ArmSilentError, ArmVector
from aloha_runtime.hardware.dynamixel_cycle import BusCycle
from aloha_runtime.hardware.dynamixel_frames import ERROR, ID, STRIDE, GoalWrite
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.hardware.dynamixel_setup import refuse_without_current, set_up
from aloha_runtime.hardware.dynamixel_torque import WATCHDOG_NS, TorqueSwitch
from aloha_runtime.hardware.dynamixel_units import ArmUnits
from aloha_runtime.hardware.serial_port import PortLostError, SerialPort, check_latency_timer
from aloha_runtime.robot import JOINTS, SERVOS, Role, Servo
from aloha_runtime.stillness import stood_still

REOPEN_NS = 100_000_000
"""Pause between attempts to open a lost port again (promise: back within 2 s)."""
STALL_NS = WATCHDOG_NS - registers.WATCHDOG_UNIT_MS * 1_000_000
"""After a longer pause between requests some servo's watchdog may have tripped (it counts in 20 ms)."""


class DynamixelArm:
    """`hardware.base.Arm` on a serial port. `now` gives the stamps (virtual in lock-step); the port runs on wall time.

    `servos`: masters in the order of `robot.JOINTS` with their shadows between, as in `robot.SERVOS`. `carried`: the
    joints that `carry` puts into current control. `homing_offsets`: servo id -> zero that the rig file records.
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
        homing_offsets: Mapping[int, int] | None = None,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.role = role
        self._path, self._baud = port, baud
        self._gripper_current_ma = gripper_current_ma
        self._servos = tuple(servos or SERVOS[role])
        self._homing_offsets = dict(homing_offsets or {})
        self._now = now
        masters = [servo for servo in self._servos if servo.shadow_of is None]
        shadows = [servo for servo in self._servos if servo.shadow_of is not None]
        self._ids = [servo.id for servo in masters]
        self._carried = [servo.id for servo in masters if servo.joint in carried]
        self._carrying = False
        self._goals = GoalWrite(self._ids)
        self._currents = GoalWrite(self._carried, registers.GOAL_CURRENT)
        self._labels = {servo.id: servo.joint for servo in masters} | {s.id: f"{s.joint}_shadow" for s in shadows}
        self._units = ArmUnits(role, masters, carried)
        self._counts: Counter[str] = Counter()
        self._cycle = BusCycle(self._ids, [servo.id for servo in shadows], self._counts)
        self._port: SerialPort | None = None
        self._fast = self._holding = False
        self._rearm_cause = "not connected"

    def connect(self) -> None:
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
            self._switch = TorqueSwitch(self.name, port, self.role, self._servos, self._gripper_current_ma)
            self._switch.hold_present()
        except PortLostError as error:
            port.close()
            raise HardwareError(f"{self.name}: {self._path} was lost during set-up ({error}); replug it") from error
        except BaseException:
            port.close()
            raise
        self._holding = found.holding
        self._fast = found.firmware >= registers.FAST_SYNC_READ_FIRMWARE
        self._counts.clear()
        self._attach(port, "torque has not been switched on since this program started")

    def _attach(self, port: SerialPort, rearm_cause: str) -> None:
        self._port = port
        self._cycle.attach(port, self._fast)
        self._rearm_cause = rearm_cause
        self._alerts: dict[int, int] = {}
        self._health_seen = self._cycle.health.count
        self._attached_ns = time.monotonic_ns()
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
        return (self._currents if self._carrying else self._goals).packet(numbers)

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

    def torque(self, on: bool, gripper: bool | None = None) -> None:
        """See `Arm.torque`."""
        obeying = not self._rearm_cause
        self._switch_torque(lambda: self._switch.switch(on, on if gripper is None else gripper, obeying))
        self._carrying, self._holding = False, on or bool(gripper)
        self._rearm_cause = "" if on else "torque is off"

    def carry(self, currents_ma: ArmVector) -> None:
        """See `Arm.carry`."""
        goals = self._units.currents(currents_ma)
        if goals is None:
            raise HardwareError(f"{self.name}: the currents {currents_ma} are not finite; check its servos")
        self._switch_torque(lambda: self._switch.carry(dict(zip(self._carried, goals, strict=True))))
        self._carrying, self._holding, self._rearm_cause = True, True, ""

    def _switch_torque(self, switch: Callable[[], None]) -> None:
        if self._port is None or not self._cycle.attached:
            raise HardwareError(f"{self.name}: {self._path} is not connected, so torque cannot be switched; replug it")
        self._refuse_silent()
        self._rearm_cause = "torque is off"
        self._holding = True  # until known better, should it fail half-way
        try:
            switch()
        except PortLostError:
            self._lose_port()
            raise HardwareError(f"{self.name}: {self._path} was lost while switching torque; replug it") from None
        self._attach(self._port, "torque is off")

    def _refuse_silent(self) -> None:
        """Raises ArmSilentError when servos are silent. Waiting for them would keep the other arm waiting past its
        watchdog; and when they come back, whoever gives them torque must have read first where they are now."""
        silent = self._cycle.silent(time.monotonic_ns())
        if silent:
            self._rearm_cause = self._rearm_cause or "servos were silent"
            names = ", ".join(self._labels[servo_id] for servo_id in silent)
            who = "no servo answers" if len(silent) == len(self._labels) else f"silent: {names}"
            raise ArmSilentError(
                f"{self.name}: {who}, so torque cannot be switched; check its power and cables, then `aloha arm`"
            )

    def reboot_gripper(self) -> None:
        """See `Arm.reboot_gripper`."""
        if self._port is None or not self._cycle.attached:
            raise HardwareError(f"{self.name}: {self._path} is not connected, so the gripper cannot reboot; replug it")
        ServoAccess(self.name, self._port, self._labels).reboot(self._ids[-1])
        self._attach(self._port, "the gripper was rebooted and has no torque")

    def temperatures(self) -> dict[str, float]:
        """See `Arm.temperatures`."""
        return {self._labels[servo_id]: float(h.temperature) for servo_id, h in self._cycle.health.heard.items()}

    def silent(self, now_ns: int) -> dict[str, float]:
        """See `Arm.silent`."""
        return {self._labels[servo_id]: age / 1e9 for servo_id, age in self._cycle.silent(now_ns).items()}

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
        self._rearm_cause = f"{self._path} was unplugged"
        self._reopen_at_ns = 0

    def _reopen(self) -> bool:
        """Try to open a lost port by its stable name; never raises, never waits."""
        now = time.monotonic_ns()
        if self._port is None or now < self._reopen_at_ns:
            return False
        self._reopen_at_ns = now + REOPEN_NS
        try:
            port = SerialPort(self._path, self._baud)
        except HardwareError:
            self._counts["reopen_failed"] += 1
            return False
        self._counts["reopened"] += 1
        self._switch.port = port
        self._attach(port, f"{self._path} was unplugged and is back")
        return True
