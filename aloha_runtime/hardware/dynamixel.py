"""One ALOHA arm on a chain of Dynamixel X servos: the `Arm` protocol over set-up, torque and the periodic cycle.

Radians, rad/s and mA here, ticks and raw units below. Drive_Mode already turns every joint the contract's way.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.packets import ALERT
from aloha_runtime.dynamixel.registers import MODEL_BY_NAME
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.base import ArmReading, ArmVector
from aloha_runtime.hardware.dynamixel_cycle import BusCycle
from aloha_runtime.hardware.dynamixel_frames import CURRENT, ERROR, ID, POSITION, STRIDE, VELOCITY
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.hardware.dynamixel_setup import set_up
from aloha_runtime.hardware.dynamixel_torque import WATCHDOG_NS, TorqueSwitch
from aloha_runtime.hardware.serial_port import PortLostError, SerialPort, check_latency_timer
from aloha_runtime.robot import CENTRE_TICK, JOINTS, MA_PER_UNIT, RAD_PER_TICK, RAD_S_PER_UNIT, SERVOS, Role, Servo

SPEED_LIMIT_RAD_S: Mapping[Role, tuple[float, float]] = {"follower": (6.3, 9.6), "leader": (12.6, 30.0)}
"""(joints, gripper): a reading that moved faster since the last one is not believed. Followers: twice the servos'
no-load speed at 12 V (3.1 and 4.8 rad/s). Leaders are moved by hand, their grippers by fingers."""
NOISE_RAD = 0.02
"""A reading may always differ by this much: backlash and 13 ticks of noise."""
REOPEN_NS = 100_000_000
"""Pause between attempts to open a lost port again (promise: back within 2 s)."""
STALL_NS = WATCHDOG_NS - registers.WATCHDOG_UNIT_MS * 1_000_000
"""After a longer pause between requests some servo's watchdog may have tripped (it counts in 20 ms)."""


class DynamixelArm:
    """`hardware.base.Arm` on a serial port. `now` gives the stamps (virtual in lock-step); the port runs on wall time.

    `servos`: masters in the order of `robot.JOINTS` with their shadows between, as in `robot.SERVOS`.
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
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.role = role
        self._path, self._baud = port, baud
        self._gripper_current_ma = gripper_current_ma
        self._servos = tuple(servos or SERVOS[role])
        self._now = now
        masters = [servo for servo in self._servos if servo.shadow_of is None]
        shadows = [servo for servo in self._servos if servo.shadow_of is not None]
        self._ids = [servo.id for servo in masters]
        self._labels = {servo.id: servo.joint for servo in masters} | {s.id: f"{s.joint}_shadow" for s in shadows}
        self._limits = [(servo.min_tick, servo.max_tick) for servo in masters]
        self._effort_units = [MA_PER_UNIT if MODEL_BY_NAME[s.model].has_current else 1.0 for s in masters]
        arm, gripper = SPEED_LIMIT_RAD_S[role]
        self._speed_limits = [gripper if joint == "gripper" else arm for joint in JOINTS]
        self._counts: Counter[str] = Counter()
        self._cycle = BusCycle(self._ids, [servo.id for servo in shadows], self._counts)
        self._port: SerialPort | None = None
        self._fast = self._holding = False
        self._rearm_cause = "not connected"

    def connect(self) -> None:
        """See `Arm.connect`."""
        if self._port is not None:
            return
        try:
            check_latency_timer(self._path)
            port = SerialPort(self._path, self._baud)
        except HardwareError as error:
            raise HardwareError(f"{self.name}: {error}") from None
        try:
            access = ServoAccess(self.name, port, self._labels)
            found = set_up(access, self.role, self._servos, self._gripper_current_ma)
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
        self._last: list[float] | None = None
        self._last_ns = 0
        self._reopen_at_ns = 0

    def disconnect(self) -> None:
        """See `Arm.disconnect`."""
        self._cycle.detach()
        if self._port is not None:
            self._port.close()
            self._port = None
        self._rearm_cause = "not connected"

    def request(self, goal: ArmVector | None) -> None:
        """See `Arm.request`."""
        if not self._cycle.attached and not self._reopen():
            return
        now = self._now()
        pause = now - self._asked_at_ns
        self._asked_at_ns = now
        ticks = None
        if goal is not None:
            if pause > STALL_NS and not self._rearm_cause:
                self._counts["stalled"] += 1
                self._rearm_cause = f"nothing was sent for {pause // 1_000_000} ms, so the servos' watchdog has tripped"
            ticks = self._goal_ticks(goal)
        try:
            if self._cycle.request(ticks):
                self._stamp_ns = now
        except PortLostError:
            self._lose_port()

    def _goal_ticks(self, goal: ArmVector) -> list[int] | None:
        """Goals in ticks, or None when they must not or could not be obeyed by every servo."""
        if self._rearm_cause:
            self._counts["goal_withheld"] += 1
            return None
        ticks = []
        for angle, (low, high) in zip(goal.tolist(), self._limits, strict=True):
            place = angle / RAD_PER_TICK + CENTRE_TICK
            if not low - 0.5 <= place <= high + 0.5:  # so is NaN
                self._counts["goal_refused"] += 1
                return None
            ticks.append(min(high, max(low, round(place))))
        return ticks

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
        mine = state[: STRIDE * len(JOINTS)]
        angles = [(tick - CENTRE_TICK) * RAD_PER_TICK for tick in mine[POSITION::STRIDE]]
        if not self._believable(angles, self._stamp_ns):
            self._counts["implausible"] += 1
            return None
        velocities = [raw * RAD_S_PER_UNIT for raw in mine[VELOCITY::STRIDE]]
        efforts = [raw * unit for raw, unit in zip(mine[CURRENT::STRIDE], self._effort_units, strict=True)]
        block = np.array((angles, velocities, efforts))  # one array, since making it is what costs
        errors_by_joint = {self._labels[servo_id]: bits for servo_id, bits in self._alerts.items()}
        return ArmReading(self._stamp_ns, block[0], block[1], block[2], errors_by_joint)

    def _believable(self, angles: list[float], stamp_ns: int) -> bool:
        """A CRC lets one damaged packet in 10^5 through: nothing moves faster than its servo or a hand can."""
        if self._last is not None:
            elapsed = (stamp_ns - self._last_ns) / 1e9
            for angle, last, speed in zip(angles, self._last, self._speed_limits, strict=True):
                if abs(angle - last) > speed * elapsed + NOISE_RAD:
                    return False
        self._last, self._last_ns = angles, stamp_ns
        return True

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
        if self._port is None or not self._cycle.attached:
            raise HardwareError(f"{self.name}: {self._path} is not connected, so torque cannot be switched; replug it")
        obeying = not self._rearm_cause
        self._rearm_cause = "torque is off"
        try:
            self._holding = True  # until known better, should it fail half-way
            self._switch.switch(on, on if gripper is None else gripper, obeying)
        except PortLostError:
            self._lose_port()
            raise HardwareError(f"{self.name}: {self._path} was lost while switching torque; replug it") from None
        self._holding = on or bool(gripper)
        self._attach(self._port, "" if on else "torque is off")

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
